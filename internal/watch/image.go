package watch

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// running is an image as a node runs it.
type running struct {
	// named is the reference of the pod's spec, by whose name policies go.
	named verifier.Reference
	// digest is of an index or a manifest, or with isConfig of a config; empty where
	// the node does not say.
	digest   digest.Digest
	isConfig bool
	// platform of the node as os/architecture; empty where nobody knows.
	platform string
}

// runningOf reads what the spec names and the forms that imageID has: a repository
// with a digest, which Docker's shim called pullable, or the bare digest of the
// config. The error is a *verifier.Error.
func runningOf(image, imageID, platform string) (running, error) {
	named, err := verifier.ParseReference(image)
	if err != nil {
		return running{}, err
	}
	r := running{named: named, platform: platform}
	id := imageID
	for _, scheme := range []string{"docker-pullable://", "docker://", "containerd://", "cri-o://"} {
		id = strings.TrimPrefix(id, scheme)
	}
	if id == "" {
		return r, nil
	}
	text, pullable := afterLast(id, "@")
	d, err := digest.Parse(text)
	if err != nil && !pullable && len(id) == 64 { // a config of CRI-O's, without the algorithm
		d, err = digest.Parse("sha256:" + id)
	}
	if err != nil {
		return running{}, &verifier.Error{
			Reason: verifier.ReasonReferenceInvalid, Message: "the node says that it runs " + clip(imageID, 80) + ", which is no digest",
			Remedy: "Look at the container's imageID in the pod's status", Err: err,
		}
	}
	r.digest, r.isConfig = d, !pullable
	return r, nil
}

// clip bounds what a node says.
func clip(s string, to int) string {
	if len(s) > to {
		return strings.ToValidUTF8(s[:to], "") + "…"
	}
	return s
}

// afterLast is what is behind the last separator; all of it where there is none.
func afterLast(s, separator string) (after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[i+len(separator):], true
	}
	return s, false
}

// at is the image by a digest.
func (r running) at(d digest.Digest) verifier.Reference {
	ref := r.named
	ref.Tag, ref.Digest = "", d
	return ref
}
