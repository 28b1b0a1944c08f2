package verifier

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source says by which way of the OCI and Sigstore conventions a candidate was found.
type Source string

// The ways in which evidence is attached to an image.
const (
	SourceReferrersAPI Source = "referrers API"   // distribution-spec, "Listing Referrers"
	SourceReferrersTag Source = "referrers tag"   // distribution-spec, "Referrers Tag Schema"
	SourceTagSuffix    Source = "tag with suffix" // Cosign's sha256-….sig
)

// Candidate is a manifest that claims to say something about the subject. Its
// manifest was read once and matches its descriptor; what it says is hostile
// until a Verifier proved it.
type Candidate struct {
	Descriptor ocispec.Descriptor
	Manifest   ocispec.Manifest
	// ArtifactType is the effective one: the manifest's artifactType, or its
	// config's media type (image-spec, "Guidelines for Artifact Usage").
	ArtifactType string
	Source       Source
	// TagSuffix led to it, when Source is SourceTagSuffix.
	TagSuffix string
	// Repository in which it was found, when that is not the subject's own.
	Repository Reference
}

// named is the candidate without what its manifest says: what a report keeps of it.
func (c Candidate) named() Candidate {
	c.Manifest = ocispec.Manifest{}
	return c
}

// AnyArtifactType asks for all referrers, where it is the only one wanted.
const AnyArtifactType = "*"

// Wanted says what a Verifier wants to be shown.
type Wanted struct {
	// ArtifactTypes of referrers; none: no referrers.
	ArtifactTypes []string
	// TagSuffixes of tags made from the subject's digest, ".sig" for sha256-….sig.
	TagSuffixes []string
	// Repository in which all of it is kept, its registry and path; the subject's
	// own when zero.
	Repository Reference
	// Leftovers asks for the referrers that clients left under the tag of the
	// referrers tag schema before the registry was given the referrers API, and
	// not for those that it lists. The Chain sets it, no Verifier does.
	Leftovers bool
}

// Listing is what is attached to a subject, as it is read.
type Listing struct {
	// All streams it, from all wanted ways as one stream in a stable order. A pair
	// with an error and a descriptor is one candidate that could not be read or is
	// not about the subject; the stream goes on. A pair with an error and a zero
	// Candidate concerns the whole list.
	All iter.Seq2[Candidate, error]
	// Until tells, after All has ended or was stopped, how long the list is taken
	// to be the registry's, without asking again; zero: nobody can say. Nil says the
	// same.
	Until func() time.Time
}

func (l Listing) until() time.Time {
	if l.Until == nil {
		return time.Time{}
	}
	return l.Until()
}

// Evidence is a candidate handed to a scheme with the means to read its blobs.
type Evidence struct {
	Subject   Subject
	Candidate Candidate
	// Fetch reads a blob that the candidate's manifest names. The bytes match
	// the descriptor, and all of a decision's fetches share one byte budget.
	Fetch func(context.Context, ocispec.Descriptor) ([]byte, error)
}

// Kind is what evidence is. An attestation never counts as a signature, nor
// the other way round; the zero Kind counts as nothing.
type Kind string

// The kinds of evidence.
const (
	KindSignature   Kind = "signature"
	KindAttestation Kind = "attestation"
)

// Signer is who made a signature, as far as verification proved it.
type Signer struct {
	// ID is equal for two signatures that name one holder: a key's hash, or what of a
	// certificate names its holder whoever issued it. It may take two signers for one. A
	// re-issued certificate keeps its ID. Who writes himself several names is told by
	// Key and Claims.Parties.
	ID string
	// Key is the hash of the SubjectPublicKeyInfo of the key that signed, in every
	// scheme: one key is one signer. Where it is empty the ID stands for it.
	Key string
	// Name is for people: the certificate's subject, or the key's name.
	Name string
	// Issuer is the subject of the certificate's issuer, for reports; empty for
	// a bare key.
	Issuer string
}

// Party is an entry of a policy whose signatures a threshold counts once.
type Party struct {
	// ID is the same wherever the entry is written, see Claims.Parties.
	ID string
	// Signers is equal for two entries that the same signers meet.
	Signers string
}

// Claims is the proven part of evidence. Only a Verifier fills it, after the
// cryptography held.
type Claims struct {
	SubjectDigest digest.Digest
	Kind          Kind
	Signer        Signer
	// Parties are all entries of the policy that the signer meets, each by an ID that
	// is the same wherever the entry is written: a trusted identity with its trust
	// stores, a trust store where the identity is "*", a public key, an object of a
	// vault whatever its version. Thresholds count them; without any a signature counts
	// for nothing there. They may be set beside an error too, once the signer is known.
	Parties []string
	// SignedAt is the signing time, authentic where a timestamp proved it, else
	// what the signer claims; zero where there is none.
	SignedAt time.Time
	// Ends is the first end that is written in it: a signature's expiry, or that of a
	// certificate whose time counts.
	Ends End
	// Logged are the validations that failed and that the verification level
	// only logs. Evidence with any is never TRUSTED, only EXEMPT/AUDIT_ONLY.
	Logged []*Error
}

// Finding is what a scheme proved about one signer, or why not. The zero
// Finding proves nothing.
type Finding struct {
	Claims Claims
	// Err says why not; its reason tells a "no" from undecided. When it is set,
	// Claims may still name the signer that was found, for the report alone.
	Err *Error
	// ValidUntil is when the finding must be made anew: the earliest end of
	// anything it rests on. A finding without one is not remembered.
	ValidUntil time.Time
}

// A Verifier judges one kind of evidence. It is safe for concurrent use, holds
// its trust material from its construction on, and starts no goroutine that
// outlives Verify but for shared work with a budget of its own.
type Verifier interface {
	// Wants names the candidates to look for. No I/O; always the same answer.
	Wants() Wanted
	// Handles reports whether the candidate is of this scheme. No I/O.
	Handles(Candidate) bool
	// Verify gives one Finding for each signer. None means nothing proved.
	Verify(context.Context, Evidence) []Finding
}

// Store is a view of the registries for one policy's options and one
// credential. Every byte matches its descriptor, every list is bounded, and
// every error wraps an *Error. Safe for concurrent use.
type Store interface {
	// ID is the same for two views that read registries in the same way: with the
	// same options, the same reach and the same credentials. It tells nothing about
	// them.
	ID() string
	// Resolve pins the reference. A digest needs no request.
	Resolve(context.Context, Reference) (Subject, error)
	// Candidates lists what is attached to the subject. Wanted.Repository is the
	// Chain's to heed: Candidates and Fetch look where the Subject's Reference says.
	Candidates(context.Context, Subject, Wanted) Listing
	// Exists is nil when the registry has the subject, and ReasonImageNotFound
	// when it has not.
	Exists(context.Context, Subject) error
	// Fetch reads the whole blob or manifest.
	Fetch(context.Context, Subject, ocispec.Descriptor) ([]byte, error)
	// Candidate reads the manifest of a candidate that was listed for the subject
	// before, by its descriptor.
	Candidate(context.Context, Subject, Candidate) (Candidate, error)
	// Contents reads what the subject is made of, one level down.
	Contents(context.Context, Subject) (Contents, error)
	// Away gives the error that every request to the registry gets at this moment,
	// with ReasonRegistryAway, while this view is known to reach no server there:
	// at its mirror, where it has one. Nil where that is not known. It needs no I/O
	// and does not wait. A credential's or another view's trouble is never in it.
	Away(registry string) *Error
}

// Contents is what an image is made of: the manifests of an index (image-spec, "OCI
// Image Index"), or the config of a manifest.
type Contents struct {
	Manifests []ocispec.Descriptor
	Config    ocispec.Descriptor
}
