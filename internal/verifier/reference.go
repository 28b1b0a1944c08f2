package verifier

import (
	// Digest algorithms that an image may be named by; go-digest accepts an
	// algorithm only when its hash is linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// MaxReferenceLength bounds an image reference, in bytes, before it is parsed:
// 255 for the name, 128 for the tag, and room for host and digest.
const MaxReferenceLength = 1024

// Reference names an image as the OCI distribution specification does, in one
// canonical spelling. Past the door no image is a string. The zero Reference
// names nothing and is never resolved.
type Reference struct {
	// Registry is the host in lower case, with its port unless that is 443.
	Registry string
	// Repository is the path on that host.
	Repository string
	// Tag is kept for people and for mutation when a Digest is there too.
	Tag string
	// Digest, when set, is what the reference means.
	Digest digest.Digest
}

// ParseReference reads an image reference as container runtimes do: Docker
// Hub's short names are completed, a missing tag means "latest". Every
// spelling of one image gives one Reference. The error is an *Error with
// ReasonReferenceInvalid.
func ParseReference(s string) (Reference, error) {
	if len(s) > MaxReferenceLength {
		return Reference{}, invalidReference("the image reference is longer than 1024 bytes", nil)
	}
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return Reference{}, invalidReference("not an image reference", err)
	}
	ref := Reference{
		Registry:   strings.TrimSuffix(strings.ToLower(reference.Domain(named)), ":443"),
		Repository: reference.Path(named),
	}
	// ParseDockerRef drops the tag where a digest is there; people know the
	// image by its tag, so it is read from the full form.
	full, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, invalidReference("not an image reference", err)
	}
	if tagged, ok := full.(reference.Tagged); ok {
		ref.Tag = tagged.Tag()
	} else if tagged, ok := named.(reference.Tagged); ok {
		ref.Tag = tagged.Tag()
	}
	if digested, ok := named.(reference.Digested); ok {
		if err := digested.Digest().Validate(); err != nil {
			return Reference{}, invalidReference("not a digest that can be checked", err)
		}
		ref.Digest = digested.Digest()
	}
	// "A/b" is host A, and "a/b" is Docker Hub's: a spelling whose canonical
	// form would mean another image is refused.
	again, err := reference.ParseNormalizedNamed(ref.String())
	if err != nil || reference.Domain(again) != ref.Registry || reference.Path(again) != ref.Repository {
		return Reference{}, invalidReference("the host of this image is ambiguous", err)
	}
	return ref, nil
}

func invalidReference(message string, cause error) *Error {
	return &Error{
		Reason:  ReasonReferenceInvalid,
		Message: message,
		Remedy:  "Write it as registry/repository:tag or registry/repository@sha256:…",
		Err:     cause,
	}
}

// Name is the repository with its host: what patterns are matched against.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String is the canonical spelling, with tag and digest where they are there.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Request is what one key asks: an image, and all else that the answer depends
// on, because Gatekeeper caches answers by key alone.
type Request struct {
	// Namespace is empty for a plain key: cluster policies only.
	Namespace      string
	ServiceAccount string
	PullSecrets    []string
	Image          Reference
}

// Subject is the image being judged, pinned to a digest.
type Subject struct {
	Reference Reference
	Digest    digest.Digest
	// Until is how long the Reference's tag is taken to name the Digest, without
	// asking again; zero where it was named by digest, or where nobody can say.
	Until time.Time
}

// Pinned is the subject as repository:tag@digest, the tag kept for people.
func (s Subject) Pinned() string {
	pinned := s.Reference
	pinned.Digest = s.Digest
	return pinned.String()
}
