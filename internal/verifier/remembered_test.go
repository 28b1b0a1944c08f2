package verifier_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// verified is what a chain of one policy says of the image.
func verified(t *testing.T, ctx context.Context, store verifier.Store, memory *verifier.Memory, require verifier.Rule) string { //nolint:revive // context-as-argument: t goes first
	t.Helper()
	chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: require}}, store, memory)
	return answer(chain.Verify(ctx, verifier.Request{Image: reference(t, image)}))
}

// TestARuleThatCountsAllReadsAllEachTime: what another policy's proof left in memory is
// not all that is attached.
func TestARuleThatCountsAllReadsAllEachTime(t *testing.T) {
	check := verifiertest.Check("alice", "alice")
	for name, rule := range map[string]verifier.Rule{
		"every": verifier.Every{Check: check}, "every, in all": verifier.All{check, verifier.Every{Check: check}},
		"every, in any": verifier.Any{verifier.Every{Check: check}}, "present": verifier.All{verifier.Present{Required: []verifier.Rule{verifier.Every{Check: check}}}},
	} {
		store, memory := &verifiertest.Store{Lifetime: time.Minute}, verifier.NewMemory(1<<20)
		subject := store.Tag(image, digestA)
		store.Sign(subject, "alice")
		if got := verified(t, t.Context(), store, memory, check); got != "TRUSTED/TRUSTED" {
			t.Fatal(got)
		}
		store.Sign(subject, "mallory")
		if got := verified(t, t.Context(), store, memory, check); got != "TRUSTED/TRUSTED" {
			t.Errorf("%s: where one is enough: %s", name, got)
		}
		if got := verified(t, t.Context(), store, memory, rule); got != "UNTRUSTED/IDENTITY_NOT_TRUSTED" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestAProofIsItsViews: another view's registry may hold another image's evidence under
// the same name, or none.
func TestAProofIsItsViews(t *testing.T) {
	memory, check := verifier.NewMemory(1<<20), verifiertest.Check("alice", "alice")
	one, other := &verifiertest.Store{Lifetime: time.Minute}, &verifiertest.Store{Lifetime: time.Minute}
	one.Sign(one.Tag(image, digestA), "alice")
	other.Tag(image, digestA)
	for range 2 {
		if got := verified(t, t.Context(), one, memory, check); got != "TRUSTED/TRUSTED" {
			t.Error(got)
		}
		if got := verified(t, t.Context(), other, memory, check); got != "UNKNOWN/SIGNATURE_NOT_FOUND" {
			t.Error("through the other view:", got)
		}
	}
}

// kept is a store that still has the content of what its registry lists no more.
type kept struct {
	*verifiertest.Store
	content map[digest.Digest]verifier.Candidate
}

func (k kept) Candidate(_ context.Context, _ verifier.Subject, known verifier.Candidate) (verifier.Candidate, error) {
	return k.content[known.Descriptor.Digest], nil
}

// TestWhatWasDeletedAdmitsNothingFromMemory, though its content is still on disk and its
// findings hold: watch has seen that it is gone, or an admission has.
func TestWhatWasDeletedAdmitsNothingFromMemory(t *testing.T) {
	for name, after := range map[string]time.Duration{"its findings hold": time.Minute, "they have ended": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				away := false
				store := kept{&verifiertest.Store{Lifetime: time.Minute}, map[digest.Digest]verifier.Candidate{}}
				store.IsAway = func(string) *verifier.Error {
					if away {
						return absent("")
					}
					return nil
				}
				store.BeforeCandidates = func(context.Context, verifier.Subject) error {
					if away {
						return absent("")
					}
					return nil
				}
				memory, check := verifier.NewMemory(1<<20), verifiertest.Check("alice", "alice")
				subject := store.Tag(image, digestA)
				signature := store.Sign(subject, "alice")
				store.content[signature.Descriptor.Digest] = signature
				if got := verified(t, t.Context(), store, memory, check); got != "TRUSTED/TRUSTED" {
					t.Fatal(got)
				}
				store.Forget(subject)
				time.Sleep(after)
				if got := verified(t, verifier.Afresh(t.Context()), store, memory, check); got != "UNKNOWN/SIGNATURE_NOT_FOUND" {
					t.Error("watch:", got)
				}
				if got := verified(t, t.Context(), store, memory, check); got != "UNKNOWN/SIGNATURE_NOT_FOUND" {
					t.Error("admission:", got)
				}
				away = true
				if got := verified(t, t.Context(), store, memory, check); got != "undecided/REGISTRY_AWAY" {
					t.Error("while the registry is away:", got)
				}
			})
		})
	}
}

// keptElsewhere is a verifier whose evidence is in a repository of its own.
type keptElsewhere struct {
	verifiertest.Verifier
	repository verifier.Reference
}

func (k keptElsewhere) Wants() verifier.Wanted {
	w := k.Verifier.Wants()
	w.Repository = k.repository
	return w
}

// TestEvidenceIsJudgedByTheCheckWhoseRepositoryItIsIn: who may write to the image's own
// repository adds nothing to a check that wants its evidence elsewhere.
func TestEvidenceIsJudgedByTheCheckWhoseRepositoryItIsIn(t *testing.T) {
	elsewhere := verifier.Reference{Registry: "signatures.example.com", Repository: "cart"}
	here := verifiertest.Check("bob", "bob")
	there := verifiertest.Check("alice", "alice")
	there.Verifier = keptElsewhere{verifiertest.Verifier{Signers: []string{"alice"}}, elsewhere}
	for _, c := range []struct {
		name  string
		where verifier.Reference
		want  string
	}{
		{"in its own repository", elsewhere, "TRUSTED/TRUSTED"}, {"beside the image", verifier.Reference{}, "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
	} {
		away := false
		store, memory := &verifiertest.Store{Lifetime: time.Minute}, verifier.NewMemory(1<<20)
		store.IsAway = func(string) *verifier.Error {
			if away {
				return absent("")
			}
			return nil
		}
		subject := store.Tag(image, digestA)
		store.Sign(subject, "bob")
		at := subject
		if c.where != (verifier.Reference{}) {
			at = verifier.Subject{Reference: c.where, Digest: digestA}
		}
		store.Sign(at, "alice")
		for range 2 { // the second time from memory
			if got := verified(t, t.Context(), store, memory, there); c.where != (verifier.Reference{}) && got != c.want || c.where == (verifier.Reference{}) && got == "TRUSTED/TRUSTED" {
				t.Errorf("%s: %s", c.name, got)
			}
			if got := verified(t, t.Context(), store, memory, verifier.All{here, there}); (got == "TRUSTED/TRUSTED") != (c.want == "TRUSTED/TRUSTED") {
				t.Errorf("%s, beside a check of the image's own: %s", c.name, got)
			}
		}
		// What another policy's proof left in memory is in the image's repository.
		if got := verified(t, t.Context(), store, memory, verifiertest.Check("ours", "alice", "bob")); got != "TRUSTED/TRUSTED" {
			t.Errorf("%s, by a check of the image's own: %s", c.name, got)
		}
		away = true
		if got := verified(t, t.Context(), store, memory, there); c.where == (verifier.Reference{}) && got == "TRUSTED/TRUSTED" {
			t.Errorf("%s, while the registry is away: %s", c.name, got)
		}
	}
}
