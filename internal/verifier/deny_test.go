package verifier_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// TestAChainWithoutPoliciesTrustsNothing, whatever is attached.
func TestAChainWithoutPoliciesTrustsNothing(t *testing.T) {
	store := &verifiertest.Store{}
	store.Sign(store.Tag(image, digestA), "alice")
	chain := verifier.NewChain(nil, store, verifier.NewMemory(1<<20))
	if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "undecided/POLICY_INVALID" {
		t.Error(got)
	}
}

// TestARefusalIsNoOtherVerdict: whatever error is given, the verdict refuses, for a
// reason that a refusal can have.
func TestARefusalIsNoOtherVerdict(t *testing.T) {
	for given, want := range map[verifier.Reason]verifier.Reason{
		verifier.ReasonReferenceInvalid: verifier.ReasonReferenceInvalid,
		verifier.ReasonDigestRequired:   verifier.ReasonDigestRequired,
		verifier.ReasonPolicyNotFound:   verifier.ReasonPolicyNotFound,
		verifier.ReasonTrusted:          verifier.ReasonPolicyNotFound,
		verifier.ReasonSkipped:          verifier.ReasonPolicyNotFound,
		verifier.ReasonTimeout:          verifier.ReasonPolicyNotFound,
		"":                              verifier.ReasonPolicyNotFound,
	} {
		v := verifier.Refuse(image, &verifier.Error{Reason: given, Message: "no"})
		if v.Status() != verifier.StatusRefused || v.Reason() != want || v.Success() {
			t.Errorf("%q: %s", given, answer(v, nil))
		}
	}
}

// emptied is a store that lists nothing for any image, because it has none.
type emptied struct{ *verifiertest.Store }

func (emptied) Exists(context.Context, verifier.Subject) error {
	return &verifier.Error{Reason: verifier.ReasonImageNotFound, Message: "the registry has no such image"}
}

// TestAnImageThatIsNotThereIsNotUnsigned: a registry lists nothing for an image that
// it does not have. Whether it is signed nobody knows.
func TestAnImageThatIsNotThereIsNotUnsigned(t *testing.T) {
	chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("alice", "alice")}},
		emptied{&verifiertest.Store{}}, verifier.NewMemory(1<<20))
	if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, "shop.example.com/cart@"+digestA.String())})); got != "undecided/IMAGE_NOT_FOUND" {
		t.Error(got)
	}
}

// TestAfreshIsGivenNoRememberedFinding: who verifies what runs wants to see that a
// signature was deleted, or that its blob is another.
func TestAfreshIsGivenNoRememberedFinding(t *testing.T) {
	f := newFixture(verifiertest.Check("alice", "alice"))
	f.store.Sign(f.subject, "alice")
	if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
		t.Fatal(got)
	}
	before := f.store.Calls("fetch")
	if v, err := f.chain.Verify(verifier.Afresh(t.Context()), verifier.Request{Image: reference(t, image)}); answer(v, err) != "TRUSTED/TRUSTED" {
		t.Error(answer(v, err))
	}
	if f.store.Calls("fetch") == before {
		t.Error("the finding was remembered")
	}
	if _, err := f.verify(t); err != nil {
		t.Error(errors.Unwrap(err))
	}
	if n := f.store.Calls("fetch"); n != before+1 {
		t.Errorf("fetched %d times, so that a finding is not remembered at all", n)
	}
}

// renamed proves a signature of one key, under a name of the check's own.
type renamed struct {
	verifiertest.Verifier
	name string
}

func (r renamed) Verify(_ context.Context, e verifier.Evidence) []verifier.Finding {
	return []verifier.Finding{{
		Claims:     verifier.Claims{SubjectDigest: e.Subject.Digest, Kind: verifier.KindSignature, Parties: []string{"key:1"}, Signer: verifier.Signer{ID: "key:1", Name: r.name}},
		ValidUntil: time.Now().Add(time.Hour),
	}}
}

// TestL16_OneKeyUnderTwoNamesIsOneSigner.
func TestL16_OneKeyUnderTwoNamesIsOneSigner(t *testing.T) {
	check := func(name string) *verifier.Check {
		return &verifier.Check{Name: name, Kind: verifier.KindSignature, Verifier: renamed{name: name}, Fingerprint: name}
	}
	for count, want := range map[int]string{1: "TRUSTED/TRUSTED", 2: "UNTRUSTED/THRESHOLD_NOT_MET"} {
		f := newFixture(verifier.AtLeast{Count: count, Of: []*verifier.Check{check("ci"), check("release")}})
		f.store.Sign(f.subject, "alice")
		if got := answer(f.verify(t)); got != want {
			t.Errorf("%d: %s, want %s", count, got, want)
		}
	}
}
