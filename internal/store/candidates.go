package store

import (
	"context"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// list is all that may be a candidate of a subject: referrers in the
// registry's order, then tags in the order of the suffixes. It is shared: not
// to be changed.
type list struct {
	entries []entry
	errs    []error // what concerns the whole list
	made    time.Time
}

func (l *list) cost() int64 {
	var bytes int
	for _, e := range l.entries {
		bytes += 250 + len(e.descriptor.MediaType) + len(e.descriptor.Digest) + len(e.descriptor.ArtifactType)
	}
	return int64(bytes)
}

// found is one candidate read, or why it could not be.
type found struct {
	candidate verifier.Candidate
	err       error
	skip      bool // of no wanted type after all
}

// Candidates implements verifier.Store. Manifests are fetched ahead of the
// consumer and given in the list's order; a consumer who stops, stops that.
func (v *View) Candidates(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) iter.Seq2[verifier.Candidate, error] {
	return func(yield func(verifier.Candidate, error) bool) {
		c := v.client(subject.Reference.Registry)
		key := c.key(append([]string{"list", subject.Reference.Repository, subject.Digest.String(), strings.Join(wanted.ArtifactTypes, ",")}, wanted.TagSuffixes...)...)
		for begun := time.Now(); ; {
			l, err := v.list(ctx, c, key, subject, wanted)
			if err != nil {
				yield(verifier.Candidate{}, gaveUp(c.host, err))
				return
			}
			none := true
			for f := range v.read(ctx, c, l, subject, wanted) {
				if f.skip {
					continue
				}
				none = false
				if !yield(f.candidate, f.err) {
					return
				}
			}
			if err := ctx.Err(); err != nil {
				yield(verifier.Candidate{}, gaveUp(c.host, context.Cause(ctx)))
				return
			}
			if none && l.made.Before(begun) && time.Since(l.made) > v.store.options.EmptyListTTL {
				// Something was listed and none of it was wanted: like an empty
				// list, that is believed for a few seconds only.
				v.store.lists.Delete(key)
				continue
			}
			for _, err := range l.errs {
				none = false
				if !yield(verifier.Candidate{}, err) {
					return
				}
			}
			if none {
				if err := c.exists(ctx, subject.Reference.Repository, subject.Digest); err != nil {
					yield(verifier.Candidate{}, gaveUp(c.host, err))
				}
			}
			return
		}
	}
}

// list gives the list, from memory or from the registry, asked once for all
// who want it now.
func (v *View) list(ctx context.Context, c *client, key string, subject verifier.Subject, wanted verifier.Wanted) (*list, error) {
	s := v.store
	if l, ok := s.lists.Get(key); ok {
		return l, nil
	}
	return s.listFlights.Do(ctx, key, s.options.Budget, func(ctx context.Context) (*list, error) {
		if l, ok := s.lists.Get(key); ok {
			return l, nil
		}
		l := c.list(ctx, subject, wanted)
		ttl := s.options.ListTTL
		if len(l.entries) == 0 || len(l.errs) > 0 {
			ttl = s.options.EmptyListTTL
		}
		for _, err := range l.errs {
			// That there is too much is a fact about the list; all else is a
			// failure to read it, and is not remembered.
			if verifier.AsError(err).Reason != verifier.ReasonLimitExceeded {
				return l, nil
			}
		}
		s.lists.Put(key, l, l.cost(), l.made.Add(ttl))
		return l, nil
	})
}

// list asks for referrers and tags at the same time.
func (c *client) list(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) *list {
	repository := subject.Reference.Repository
	var ways []func() listing
	if len(wanted.ArtifactTypes) > 0 {
		ways = append(ways, func() listing { return c.referrers(ctx, repository, subject.Digest, wanted) })
	}
	for _, suffix := range wanted.TagSuffixes {
		ways = append(ways, func() listing { return c.suffixed(ctx, repository, subject.Digest, suffix) })
	}
	l := &list{}
	for _, part := range together(ways) {
		l.entries = append(l.entries, part.entries...)
		if part.err != nil {
			l.errs = append(l.errs, part.err)
		}
	}
	l.made = time.Now()
	return l
}

// together runs all and gives their results in order. A panic reaches the
// caller, whose flight knows what to do with it.
func together(ways []func() listing) []listing {
	results := make([]listing, len(ways))
	panics := make([]any, len(ways))
	var wait sync.WaitGroup
	for i, way := range ways {
		wait.Go(func() {
			defer func() { panics[i] = recover() }()
			results[i] = way()
		})
	}
	wait.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p)
		}
	}
	return results
}

// read gives the list's candidates in its order. What is in memory is given at
// once; from the first that is not, manifests are fetched ahead.
func (v *View) read(ctx context.Context, c *client, l *list, subject verifier.Subject, wanted verifier.Wanted) iter.Seq[found] {
	return func(yield func(found) bool) {
		for i, e := range l.entries {
			m, ok := v.store.manifests.Get(manifestKey(e.descriptor))
			if !ok {
				ahead(ctx, l.entries[i:], func(ctx context.Context, e entry) found {
					return v.candidate(ctx, c, e, subject, wanted)
				}, yield)
				return
			}
			if !yield(judge(e, m, subject, wanted)) {
				return
			}
		}
	}
}

// ahead works on up to lookAhead entries at a time and yields in order. When
// it returns, nothing that it started is left.
func ahead(ctx context.Context, entries []entry, work func(context.Context, entry) found, yield func(found) bool) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	results := make([]chan found, len(entries))
	start := func(i int) {
		results[i] = make(chan found, 1)
		wait.Go(func() { results[i] <- work(ctx, entries[i]) })
	}
	for i := range min(lookAhead, len(entries)) {
		start(i)
	}
	for i := range entries {
		f := <-results[i]
		if ctx.Err() != nil || !yield(f) { // given up: what failed for that is no finding
			return
		}
		if next := i + lookAhead; next < len(entries) {
			start(next)
		}
	}
}

// candidate fetches and judges one entry.
func (v *View) candidate(ctx context.Context, c *client, e entry, subject verifier.Subject, wanted verifier.Wanted) found {
	d := e.descriptor
	unread := verifier.Candidate{Descriptor: d, Source: e.source}
	if !undetermined(d.ArtifactType) {
		unread.ArtifactType = d.ArtifactType
	}
	if !isManifest(d.MediaType) {
		return found{
			candidate: unread,
			err:       &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: "a candidate is not a manifest but of another media type"},
			skip:      e.source != verifier.SourceTagSuffix && !selects(wanted, d.ArtifactType),
		}
	}
	m, err := v.manifest(ctx, c, subject.Reference.Repository, d)
	if err != nil {
		return found{candidate: unread, err: gaveUp(c.host, err)}
	}
	return judge(e, m, subject, wanted)
}

// manifest fetches and decodes a manifest once for all who want it.
func (v *View) manifest(ctx context.Context, c *client, repository string, d ocispec.Descriptor) (*manifest, error) {
	if err := check(d, maxManifestBytes); err != nil {
		return nil, err
	}
	s, key := v.store, manifestKey(d)
	if m, ok := s.manifests.Get(key); ok {
		return m, nil
	}
	return s.manifestFlights.Do(ctx, c.key(repository, key, strconv.FormatInt(d.Size, 10)), s.options.Budget, func(ctx context.Context) (*manifest, error) {
		if m, ok := s.manifests.Get(key); ok {
			return m, nil
		}
		data, err := c.fetch(ctx, repository, d)
		if err != nil {
			return nil, err
		}
		m := decodeManifest(d.MediaType, data)
		s.manifests.Put(key, m, m.cost(), forever())
		return m, nil
	})
}

// manifestKey has the media type too, as what a list claims of a digest must
// not speak for another list that claims otherwise. The size is compared by judge.
func manifestKey(d ocispec.Descriptor) string {
	return d.Digest.String() + " " + d.MediaType
}

// judge says what a manifest is to this subject.
func judge(e entry, m *manifest, subject verifier.Subject, wanted verifier.Wanted) found {
	f := found{candidate: verifier.Candidate{
		Descriptor:   e.descriptor,
		Manifest:     m.content,
		ArtifactType: m.artifactType,
		Source:       e.source,
	}}
	attached := e.source != verifier.SourceTagSuffix
	mismatch := m.about(subject.Digest)
	switch {
	case m.size != e.descriptor.Size:
		f.err = wrongSize(e.descriptor, m.size)
	case attached && m.artifactType != "" && !selects(wanted, m.artifactType):
		f.skip = true
	case m.malformed != nil:
		f.err = m.malformed
	// A tag says by its name what it is about; a subject, if there is one, must
	// not say otherwise.
	case mismatch != nil && (attached || m.content.Subject != nil):
		f.err = mismatch
	}
	if f.err != nil {
		f.candidate.Manifest = ocispec.Manifest{}
	}
	return f
}
