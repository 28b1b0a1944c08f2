package watch

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxPlatforms is how many manifests of an image are looked into, those of an
	// index in an index included. Where there are more, nothing is known.
	maxPlatforms = 32
	// maxDepth is how deep an index in an index is looked into.
	maxDepth = 3
)

// verify looks at an image that runs. An index, a manifest in it and that one's config
// are one image where it is known which manifest runs: whoever signed one of them has
// signed what runs. Where the node names the index alone, each manifest that it may
// run has to be signed, because an index can have several for one platform.
func verify(ctx context.Context, c chain, r running) Outcome {
	if r.digest == "" { // nothing runs yet: what would
		return judge(ctx, c, r.named)
	}
	if r.isConfig {
		same, err := manifestsOf(ctx, c, r)
		found := best(ctx, c, r, same)
		if err != nil && !found.Status.success() {
			return failed(err, c.Policies())
		}
		return found
	}
	first := judge(ctx, c, r.at(r.digest))
	if first.Status.success() {
		return first
	}
	contents, err := contentsAt(ctx, c, r, r.digest)
	var others Outcome
	switch {
	case err != nil:
	case len(contents.Manifests) > 0:
		looked := 0
		others = every(ctx, c, r, contents.Manifests, maxDepth, &looked)
	default:
		var same []digest.Digest
		same, err = indexesOf(ctx, c, r)
		others = best(ctx, c, r, same)
	}
	if err != nil && !others.Status.success() && first.Status != StatusError {
		return failed(err, c.Policies()) // what is not known may be what is trusted
	}
	return better(first, others)
}

func judge(ctx context.Context, c chain, ref verifier.Reference) Outcome {
	verdict, err := c.Verify(ctx, verifier.Request{Image: ref})
	if err != nil {
		return failed(err, c.Policies())
	}
	return settled(verdict)
}

// best judges one after the other until one is trusted: they are all the same image.
func best(ctx context.Context, c chain, r running, digests []digest.Digest) Outcome {
	var found Outcome
	for _, d := range digests {
		if found = better(found, judge(ctx, c, r.at(d))); found.Status.success() {
			break
		}
	}
	return found
}

// every judges each manifest of an index that the node may run, and gives the worst
// outcome: which one it runs is not known. Without such a manifest there is no outcome.
func every(ctx context.Context, c chain, r running, manifests []ocispec.Descriptor, depth int, looked *int) Outcome {
	var found Outcome
	for _, m := range possible(manifests, r.platform) {
		if *looked++; *looked > maxPlatforms {
			return worst(found, failed(tooMany(r), c.Policies()))
		}
		one := judge(ctx, c, r.at(m.Digest))
		if !one.Status.success() && isIndex(m) {
			one = better(one, within(ctx, c, r, m.Digest, depth-1, looked))
		}
		if found = worst(found, one); found.Status.definite() {
			break // nothing makes that a yes
		}
	}
	return found
}

// within is every for an index in an index.
func within(ctx context.Context, c chain, r running, index digest.Digest, depth int, looked *int) Outcome {
	if depth == 0 {
		return failed(tooMany(r), c.Policies())
	}
	contents, err := contentsAt(ctx, c, r, index)
	if err != nil {
		return failed(err, c.Policies())
	}
	return every(ctx, c, r, contents.Manifests, depth, looked)
}

// better is the outcome that counts of two for the same image: a yes before what is
// not known before a no, and of two noes the one that says more.
func better(a, b Outcome) Outcome {
	if b.Status != "" && (a.Status == "" || b.Status.weight() < a.Status.weight()) {
		return b
	}
	return a
}

// worst is the outcome that counts of two images of which either may run.
func worst(a, b Outcome) Outcome {
	if b.Status != "" && (a.Status == "" || b.Status.rank() > a.Status.rank()) {
		return b
	}
	return a
}

// rank orders what counts for images of which any may run: a no before what is not
// known before a yes.
func (s Status) rank() int {
	switch {
	case s.success() && s != Status(verifier.StatusExempt):
		return 1
	case s.success():
		return 2
	case s == StatusError || s == StatusPending:
		return 3
	default:
		return 4 + s.weight()
	}
}

// definite reports whether it is a no.
func (s Status) definite() bool { return s != "" && s.rank() > 3 }

// isIndex reports whether a descriptor may be an index's. What does not say is looked into.
func isIndex(m ocispec.Descriptor) bool {
	return m.MediaType == "" || m.MediaType == ocispec.MediaTypeImageIndex || m.MediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// contentsAt gives what an image is made of, which is either manifests or a config: a
// node that reads a document with both may run the other half.
func contentsAt(ctx context.Context, c chain, r running, d digest.Digest) (verifier.Contents, error) {
	contents, err := c.Contents(ctx, r.at(d))
	if err == nil && len(contents.Manifests) > 0 && contents.Config.Digest != "" {
		return verifier.Contents{}, &verifier.Error{
			Reason:  verifier.ReasonFormatUnsupported,
			Message: fmt.Sprintf("%s (%.19s…) is an index and a manifest at once, and nodes differ in what they run of it", r.named, d),
			Remedy:  "Build the image again, as one of the two",
		}
	}
	return contents, err
}

func tooMany(r running) error {
	return &verifier.Error{
		Reason:  verifier.ReasonLimitExceeded,
		Message: fmt.Sprintf("%s: the index has more manifests than are looked into (%d, %d deep)", r.named, maxPlatforms, maxDepth),
		Remedy:  "Sign the index, or name the platform's manifest by its digest",
	}
}

// possible are an index's manifests that a node of a platform may run: those of its
// system and architecture in every variant and version, those that do not say, and
// where no plain one is among them those of older architectures that it can run too.
// Where the platform is not known, it may be any.
func possible(manifests []ocispec.Descriptor, platform string) []ocispec.Descriptor {
	system, architecture, known := strings.Cut(platform, "/")
	var list, older []ocispec.Descriptor
	plain := false
	for _, m := range manifests {
		var p ocispec.Platform
		if m.Platform != nil {
			p = *m.Platform
		}
		os, arch := strings.ToLower(p.OS), architectureOf(p.Architecture)
		switch {
		case os == "unknown" && arch == "unknown": // an attestation, which no node runs
		case !known, (os == "" || os == system) && (arch == "" || arch == architecture):
			list = append(list, m)
			plain = plain || os != "" && arch != "" && p.Variant == "" && p.OSVersion == "" && len(p.OSFeatures) == 0
		case (os == "" || os == system) && (architecture == "amd64" && arch == "386" || architecture == "arm64" && arch == "arm"):
			older = append(older, m)
		}
	}
	if plain {
		return list
	}
	return append(list, older...)
}

// architectureOf reads an architecture's name as container runtimes do.
func architectureOf(name string) string {
	switch name = strings.ToLower(name); name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "i386":
		return "386"
	case "armhf", "armel":
		return "arm"
	}
	return name
}

// indexesOf are the indexes that the spec's reference names and that have the manifest
// which runs.
func indexesOf(ctx context.Context, c chain, r running) ([]digest.Digest, error) {
	named, err := c.Resolve(ctx, r.named)
	if err != nil || named.Digest == r.digest {
		return nil, err
	}
	known, err := knownBy(ctx, c, r, named.Digest)
	return slices.DeleteFunc(known, func(d digest.Digest) bool { return d == r.digest }), err // what it is itself has been judged
}

// manifestsOf finds the image that has the config which runs: what the spec's
// reference names, or a manifest of it. An error beside digests says that there may be more.
func manifestsOf(ctx context.Context, c chain, r running) ([]digest.Digest, error) {
	named, err := c.Resolve(ctx, r.named)
	if err != nil {
		return nil, err
	}
	known, err := knownBy(ctx, c, r, named.Digest)
	if err != nil || len(known) > 0 {
		return known, err
	}
	return nil, &verifier.Error{
		Reason:  verifier.ReasonImageNotFound,
		Message: fmt.Sprintf("%s: the node runs the config %.19s…, and the reference names another image now", r.named, r.digest),
		Remedy:  "Restart the pod, or name the image by its digest",
	}
}

// knownBy are the digests of manifests, indexes first, by which what runs is known
// where a reference names this digest; none where it names another image. An error
// beside digests says that there may be more.
func knownBy(ctx context.Context, c chain, r running, named digest.Digest) ([]digest.Digest, error) {
	looked := 0
	return r.known(ctx, c, named, maxDepth, &looked)
}

func (r running) known(ctx context.Context, c chain, at digest.Digest, depth int, looked *int) ([]digest.Digest, error) {
	if at == r.digest {
		return []digest.Digest{at}, nil
	}
	contents, err := contentsAt(ctx, c, r, at)
	if err != nil {
		return nil, err
	}
	if contents.Config.Digest == r.digest {
		return []digest.Digest{at}, nil
	}
	if slices.ContainsFunc(contents.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == r.digest }) {
		return []digest.Digest{at, r.digest}, nil
	}
	var found []digest.Digest
	var missed error
	for _, m := range possible(contents.Manifests, r.platform) {
		if !r.isConfig && !isIndex(m) {
			continue
		}
		if *looked++; *looked > maxPlatforms || depth == 1 {
			missed = tooMany(r)
			break
		}
		below, err := r.known(ctx, c, m.Digest, depth-1, looked)
		if err != nil {
			missed = err
		}
		found = append(found, below...)
	}
	if len(found) > 0 {
		found = append([]digest.Digest{at}, found...)
	}
	return found, missed
}
