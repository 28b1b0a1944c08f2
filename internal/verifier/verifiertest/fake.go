// Package verifiertest holds the contract that every scheme passes, and fakes
// of the heart's interfaces for the tests of its users. It makes no signature:
// each scheme brings its own.
package verifiertest

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// FakeArtifactType is what Store.Sign attaches and Verifier handles.
const FakeArtifactType = "application/vnd.example.fake.signature"

// Store is a verifier.Store in memory. The zero Store is empty; its hooks may
// be set before use. Safe for concurrent use.
type Store struct {
	// BeforeResolve, BeforeCandidates and BeforeFetch run first where they are
	// set; an error is the answer.
	BeforeResolve    func(context.Context, verifier.Reference) error
	BeforeCandidates func(context.Context, verifier.Subject) error
	BeforeFetch      func(context.Context, ocispec.Descriptor) error
	// IsAway answers Away where it is set. It is called concurrently.
	IsAway func(registry string) *verifier.Error
	// Lifetime is how long tags and lists are said to hold; 0: nobody can say.
	Lifetime time.Duration

	mu         sync.Mutex // guards all below
	tags       map[string]digest.Digest
	candidates map[string][]listed
	blobs      map[digest.Digest][]byte
	contents   map[digest.Digest]verifier.Contents
	calls      map[string]int
}

type listed struct {
	candidate verifier.Candidate
	err       error
}

// Tag makes the image resolve to the digest.
func (s *Store) Tag(image string, d digest.Digest) verifier.Subject {
	ref, err := verifier.ParseReference(image)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags == nil {
		s.tags = map[string]digest.Digest{}
	}
	s.tags[ref.String()] = d
	return verifier.Subject{Reference: ref, Digest: d}
}

// Statement is what Verifier reads in a fake signature: a Finding in JSON.
type Statement struct {
	Subject digest.Digest
	Kind    verifier.Kind
	Signer  string
	// Reason and Message, when set, are the finding's error.
	Reason  verifier.Reason
	Message string
	// Logged is a validation that only audits.
	Logged string
	// Panic makes Verify panic.
	Panic bool
	// Salt makes two statements of one signer differ.
	Salt int
}

// Sign attaches a fake signature by the signer to the subject.
func (s *Store) Sign(subject verifier.Subject, signer string) verifier.Candidate {
	return s.Attach(subject, Statement{Subject: subject.Digest, Kind: verifier.KindSignature, Signer: signer})
}

// Attach attaches any fake statement to the subject.
func (s *Store) Attach(subject verifier.Subject, statement Statement) verifier.Candidate {
	body, err := json.Marshal(statement)
	if err != nil {
		panic(err)
	}
	layer := ocispec.Descriptor{MediaType: "application/json", Digest: digest.FromBytes(body), Size: int64(len(body))}
	candidate := verifier.Candidate{
		Descriptor:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(string(layer.Digest)), Size: 1},
		Manifest:     ocispec.Manifest{Layers: []ocispec.Descriptor{layer}},
		ArtifactType: FakeArtifactType,
		Source:       verifier.SourceReferrersAPI,
	}
	s.mu.Lock()
	if s.blobs == nil {
		s.blobs = map[digest.Digest][]byte{}
	}
	s.blobs[layer.Digest] = body
	s.mu.Unlock()
	s.List(subject, candidate, nil)
	return candidate
}

// List appends a pair to what Candidates yields for the subject.
func (s *Store) List(subject verifier.Subject, candidate verifier.Candidate, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.candidates == nil {
		s.candidates = map[string][]listed{}
	}
	key := subject.Reference.Name() + "@" + subject.Digest.String()
	s.candidates[key] = append(s.candidates[key], listed{candidate, err})
}

// Forget takes away all that is attached to the subject.
func (s *Store) Forget(subject verifier.Subject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.candidates, subject.Reference.Name()+"@"+subject.Digest.String())
}

// Calls tells how often "resolve", "candidates" or "fetch" was called.
func (s *Store) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

func (s *Store) count(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls == nil {
		s.calls = map[string]int{}
	}
	s.calls[method]++
}

// ID implements verifier.Store.
func (s *Store) ID() string { return fmt.Sprintf("%p", s) }

// Resolve implements verifier.Store.
func (s *Store) Resolve(ctx context.Context, ref verifier.Reference) (verifier.Subject, error) {
	s.count("resolve")
	if s.BeforeResolve != nil {
		if err := s.BeforeResolve(ctx, ref); err != nil {
			return verifier.Subject{}, err
		}
	}
	if ref.Digest != "" {
		return verifier.Subject{Reference: ref, Digest: ref.Digest}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.tags[ref.String()]
	if !ok {
		return verifier.Subject{}, &verifier.Error{
			Reason: verifier.ReasonImageNotFound, Message: "the registry has no such image", Remedy: "Check the name and the tag",
		}
	}
	return verifier.Subject{Reference: ref, Digest: d, Until: s.until()}, nil
}

// Candidates implements verifier.Store.
func (s *Store) Candidates(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) verifier.Listing {
	return verifier.Listing{All: s.all(ctx, subject, wanted), Until: func() time.Time { return s.until() }}
}

// until is how long what the store says is so.
func (s *Store) until() time.Time {
	if s.Lifetime == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.Lifetime)
}

func (s *Store) all(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) iter.Seq2[verifier.Candidate, error] {
	return func(yield func(verifier.Candidate, error) bool) {
		if wanted.Leftovers {
			return
		}
		s.count("candidates")
		if s.BeforeCandidates != nil {
			if err := s.BeforeCandidates(ctx, subject); err != nil {
				yield(verifier.Candidate{}, err)
				return
			}
		}
		s.mu.Lock()
		pairs := slices.Clone(s.candidates[subject.Reference.Name()+"@"+subject.Digest.String()])
		s.mu.Unlock()
		for _, p := range pairs {
			if p.err == nil && !slices.Contains(wanted.ArtifactTypes, p.candidate.ArtifactType) && !slices.Contains(wanted.ArtifactTypes, verifier.AnyArtifactType) {
				continue
			}
			if !yield(p.candidate, p.err) {
				return
			}
		}
	}
}

// Candidate implements verifier.Store.
func (s *Store) Candidate(_ context.Context, subject verifier.Subject, known verifier.Candidate) (verifier.Candidate, error) {
	s.count("candidate")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.candidates[subject.Reference.Name()+"@"+subject.Digest.String()] {
		if p.candidate.Descriptor.Digest == known.Descriptor.Digest {
			return p.candidate, p.err
		}
	}
	return known, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such manifest"}
}

// Exists implements verifier.Store: every image does.
func (s *Store) Exists(context.Context, verifier.Subject) error {
	s.count("exists")
	return nil
}

// Make says what an image is made of.
func (s *Store) Make(d digest.Digest, contents verifier.Contents) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contents == nil {
		s.contents = map[digest.Digest]verifier.Contents{}
	}
	s.contents[d] = contents
}

// Contents implements verifier.Store: what Make said, or else a manifest.
func (s *Store) Contents(_ context.Context, subject verifier.Subject) (verifier.Contents, error) {
	s.count("contents")
	s.mu.Lock()
	defer s.mu.Unlock()
	if contents, ok := s.contents[subject.Digest]; ok {
		return contents, nil
	}
	return verifier.Contents{Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: subject.Digest}}, nil
}

// Fetch implements verifier.Store.
func (s *Store) Fetch(ctx context.Context, _ verifier.Subject, d ocispec.Descriptor) ([]byte, error) {
	s.count("fetch")
	if s.BeforeFetch != nil {
		if err := s.BeforeFetch(ctx, d); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	body, ok := s.blobs[d.Digest]
	if !ok {
		return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such blob", Err: fmt.Errorf("fetch %s", d.Digest)}
	}
	return body, nil
}

// Away implements verifier.Store: what IsAway gives, or else nil.
func (s *Store) Away(registry string) *verifier.Error {
	if s.IsAway == nil {
		return nil
	}
	return s.IsAway(registry)
}

// Verifier reads fake statements and trusts the signers that it lists; none
// listed means all. It checks the signer only: that a proof is about the
// subject, and of the right kind, is the Chain's business to hold.
type Verifier struct {
	Signers []string
	// Lifetime of its findings; an hour when zero.
	Lifetime time.Duration
}

// Wants implements verifier.Verifier.
func (v Verifier) Wants() verifier.Wanted {
	return verifier.Wanted{ArtifactTypes: []string{FakeArtifactType}}
}

// Handles implements verifier.Verifier.
func (v Verifier) Handles(c verifier.Candidate) bool { return c.ArtifactType == FakeArtifactType }

// Verify implements verifier.Verifier.
func (v Verifier) Verify(ctx context.Context, e verifier.Evidence) []verifier.Finding {
	body, err := e.Fetch(ctx, e.Candidate.Manifest.Layers[0])
	if err != nil {
		return []verifier.Finding{{Err: verifier.AsError(err)}}
	}
	lifetime := v.Lifetime
	if lifetime == 0 {
		lifetime = time.Hour
	}
	finding := verifier.Finding{ValidUntil: time.Now().Add(lifetime)}
	var s Statement
	if err := json.Unmarshal(body, &s); err != nil {
		finding.Err = &verifier.Error{Reason: verifier.ReasonSignatureInvalid, Message: "the signature is garbage", Err: err}
		return []verifier.Finding{finding}
	}
	if s.Panic {
		panic("a fake signature told the verifier to panic")
	}
	finding.Claims = verifier.Claims{
		SubjectDigest: s.Subject, Kind: s.Kind, Signer: verifier.Signer{ID: "fake:" + s.Signer, Name: s.Signer},
		Parties: []string{"fake:" + s.Signer},
	}
	switch {
	case s.Reason != "":
		finding.Err = &verifier.Error{Reason: s.Reason, Message: s.Message}
	case len(v.Signers) > 0 && !slices.Contains(v.Signers, s.Signer):
		finding.Err = &verifier.Error{
			Reason: verifier.ReasonIdentityNotTrusted, Message: "signed by " + s.Signer + ", who is not trusted", Remedy: "Have it signed by one who is",
		}
	case s.Logged != "":
		finding.Claims.Logged = []*verifier.Error{{Reason: verifier.ReasonSignatureExpired, Message: s.Logged}}
	}
	return []verifier.Finding{finding}
}

// Check makes a check of a fake Verifier that trusts the signers.
func Check(name string, signers ...string) *verifier.Check {
	return &verifier.Check{
		Name: name, Scheme: "fake", Kind: verifier.KindSignature,
		Verifier: Verifier{Signers: signers}, Fingerprint: fmt.Sprint("fake", name, signers),
	}
}
