package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Layout is an OCI image layout (image-spec, "image-layout") in the place of all
// registries: images and what is attached to them as oras, skopeo and cosign save
// export them, for a look at them where no registry can be reached. What an image is
// called in it, its tag or its whole name, is taken from whoever made it; its
// content is hashed. Safe for concurrent use.
type Layout struct {
	root *os.Root
	dir  *Directory // to read with, and nothing else
}

var _ verifier.Store = (*Layout)(nil)

// OpenLayout opens the directory.
func OpenLayout(name string) (*Layout, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("OCI layout: %w", err)
	}
	l := &Layout{root: root, dir: &Directory{root: root}}
	if _, err := l.index(); err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("OCI layout %s: %w", name, err)
	}
	return l, nil
}

// cosignKinds are what cosign save calls what it saves beside an image, by the
// suffix of the tag that it was at.
var cosignKinds = map[string]string{".sig": "dev.cosignproject.cosign/sigs", ".att": "dev.cosignproject.cosign/atts"}

// index reads what the layout holds.
func (l *Layout) index() ([]ocispec.Descriptor, error) {
	data, err := l.dir.read("index.json", 0, maxBlobBytes)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, errors.New("index.json is not an index")
	}
	if len(index.Manifests) > maxReferrers {
		return nil, fmt.Errorf("index.json has more than %d entries", maxReferrers)
	}
	return index.Manifests, nil
}

// names reports whether an entry is called so: by the tag alone, or by the name
// with it.
func names(d ocispec.Descriptor, repository verifier.Reference, tag string) bool {
	if tag == "" { // which is what an entry without a name would be called
		return false
	}
	whole := repository.Name() + ":" + tag
	called := d.Annotations[ocispec.AnnotationRefName]
	return called == tag || called == whole || d.Annotations["io.containerd.image.name"] == whole
}

func unreadable(err error) error {
	return &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "the OCI layout cannot be read", Remedy: "Export it again", Err: err}
}

// Resolve implements verifier.Store.
func (l *Layout) Resolve(_ context.Context, ref verifier.Reference) (verifier.Subject, error) {
	if ref.Digest != "" {
		return verifier.Subject{Reference: ref, Digest: ref.Digest}, nil
	}
	entries, err := l.index()
	if err != nil {
		return verifier.Subject{}, unreadable(err)
	}
	var found digest.Digest
	for _, d := range entries {
		if !names(d, ref, ref.Tag) {
			continue
		}
		if found != "" && found != d.Digest {
			return verifier.Subject{}, &verifier.Error{
				Reason: verifier.ReasonRegistryInvalid, Message: "the OCI layout has several images of that tag", Remedy: "Name the image by its digest",
			}
		}
		found = d.Digest
	}
	if found.Validate() != nil {
		return verifier.Subject{}, noSuchImage()
	}
	return verifier.Subject{Reference: ref, Digest: found}, nil
}

func noSuchImage() error {
	return &verifier.Error{
		Reason: verifier.ReasonImageNotFound, Message: "the OCI layout has no such image", Remedy: "Look at index.json for what it is called there, or name it by its digest",
	}
}

// ID implements verifier.Store: what a layout holds is read in one way.
func (l *Layout) ID() string { return "" }

// Away implements verifier.Store: a layout is here.
func (l *Layout) Away(string) *verifier.Error { return nil }

// Candidate implements verifier.Store.
func (l *Layout) Candidate(ctx context.Context, subject verifier.Subject, known verifier.Candidate) (verifier.Candidate, error) {
	e := entry{descriptor: known.Descriptor, source: known.Source, suffix: known.TagSuffix}
	f := l.candidate(ctx, e, subject, verifier.Wanted{ArtifactTypes: []string{verifier.AnyArtifactType}})
	return f.candidate, f.err
}

// Exists implements verifier.Store.
func (l *Layout) Exists(_ context.Context, subject verifier.Subject) error {
	if _, err := l.root.Stat(blobPath(subject.Digest)); err != nil {
		return noSuchImage()
	}
	return nil
}

// Fetch implements verifier.Store.
func (l *Layout) Fetch(_ context.Context, _ verifier.Subject, d ocispec.Descriptor) ([]byte, error) {
	if err := check(d, limitOf(d)); err != nil {
		return nil, err
	}
	data, err := l.dir.read(blobPath(d.Digest), 0, maxBlobBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &verifier.Error{
			Reason: verifier.ReasonRegistryInvalid, Message: fmt.Sprintf("the OCI layout lists %.19s… and does not have it", d.Digest),
			Remedy: "Export the image again, with what is attached to it", Err: err,
		}
	case err != nil:
		return nil, unreadable(err)
	case int64(len(data)) != d.Size:
		return nil, wrongSize(d, int64(len(data)))
	case d.Digest.Algorithm().FromBytes(data) != d.Digest:
		return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: fmt.Sprintf("the OCI layout has other bytes than %.19s… names", d.Digest)}
	}
	return data, nil
}

// Contents implements verifier.Store.
func (l *Layout) Contents(_ context.Context, subject verifier.Subject) (verifier.Contents, error) {
	if err := check(ocispec.Descriptor{Digest: subject.Digest}, maxManifestBytes); err != nil {
		return verifier.Contents{}, err
	}
	data, err := l.dir.read(blobPath(subject.Digest), 0, maxBlobBytes)
	if err != nil || subject.Digest.Algorithm().FromBytes(data) != subject.Digest {
		return verifier.Contents{}, unreadable(err)
	}
	return decodeContents(data)
}

// Candidates implements verifier.Store: what has the subject, what the tag of the
// referrers tag schema lists, and what is at tags made of its digest.
func (l *Layout) Candidates(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) verifier.Listing {
	return verifier.Listing{All: func(yield func(verifier.Candidate, error) bool) {
		if wanted.Leftovers {
			return // they were among the others
		}
		for e, err := range l.attached(ctx, subject, wanted) {
			if err != nil {
				yield(verifier.Candidate{}, err)
				return
			}
			f := l.candidate(ctx, e, subject, wanted)
			if !f.skip && !yield(f.candidate, f.err) {
				return
			}
		}
	}}
}

// candidate reads and judges one entry.
func (l *Layout) candidate(ctx context.Context, e entry, subject verifier.Subject, wanted verifier.Wanted) found {
	err := checkCandidate(e)
	var data []byte
	if err == nil {
		data, err = l.Fetch(ctx, subject, e.descriptor)
	}
	if err != nil {
		return found{candidate: verifier.Candidate{Descriptor: e.descriptor, Source: e.source, TagSuffix: e.suffix}, err: err}
	}
	return judge(e, decodeManifest(e.descriptor.MediaType, data), subject, wanted)
}

func (l *Layout) attached(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		entries, err := l.index()
		if err != nil {
			yield(entry{}, unreadable(err))
			return
		}
		for _, d := range entries {
			if len(wanted.ArtifactTypes) > 0 && !l.referrers(ctx, d, subject, wanted, yield) {
				return
			}
		}
		base := subject.Digest.Algorithm().String() + "-" + subject.Digest.Encoded()
		for _, suffix := range wanted.TagSuffixes {
			for _, d := range entries {
				if !names(d, subject.Reference, base+suffix) && (d.Annotations["kind"] == "" || d.Annotations["kind"] != cosignKinds[suffix]) {
					continue
				}
				d.Annotations = nil // nobody has checked them
				if !yield(entry{d, verifier.SourceTagSuffix, suffix}, nil) {
					return
				}
			}
		}
	}
}

// referrers yields what an entry of the index is to the subject, and reports
// whether to go on.
func (l *Layout) referrers(ctx context.Context, d ocispec.Descriptor, subject verifier.Subject, wanted verifier.Wanted, yield func(entry, error) bool) bool {
	switch {
	case isManifest(d.MediaType):
		data, err := l.Fetch(ctx, subject, d)
		if err != nil || decodeManifest(d.MediaType, data).about(subject.Digest) != nil {
			return true // another image's, or nobody's
		}
		d.Annotations, d.ArtifactType = nil, ""
		return yield(entry{d, verifier.SourceReferrersAPI, ""}, nil)
	case isIndex(d.MediaType) && names(d, subject.Reference, referrersTag(subject.Digest)):
		data, err := l.Fetch(ctx, subject, d)
		if err != nil {
			return yield(entry{}, err)
		}
		collected := collector{wanted: wanted, source: verifier.SourceReferrersTag}
		if err := collected.page(data, false); err != nil {
			return yield(entry{}, unreadable(err))
		}
		for _, e := range collected.entries {
			if !yield(e, nil) {
				return false
			}
		}
	}
	return true
}
