package verifier_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// places is a store in which evidence is in several places, some of which hang.
type places struct {
	*verifiertest.Store
	// at gives what a place holds: "referrers", "tag .sig" or "leftovers".
	at map[string][]verifier.Candidate
	// hangs are places whose lists never end, after what they hold.
	hangs map[string]bool
	read  func(place string)
}

func (p places) Candidates(ctx context.Context, _ verifier.Subject, wanted verifier.Wanted) verifier.Listing {
	place := "referrers"
	switch {
	case len(wanted.TagSuffixes) > 0:
		place = "tag " + wanted.TagSuffixes[0]
	case wanted.Leftovers:
		place = "leftovers"
	}
	return verifier.Listing{Until: func() time.Time { return time.Now().Add(time.Minute) }, All: func(yield func(verifier.Candidate, error) bool) {
		if p.read != nil {
			p.read(place)
		}
		for _, candidate := range p.at[place] {
			if !yield(candidate, nil) {
				return
			}
		}
		if p.hangs[place] {
			<-ctx.Done()
			yield(verifier.Candidate{}, ctx.Err())
		}
	}}
}

// everywhere wants evidence in each kind of place.
type everywhere struct{ verifiertest.Verifier }

func (everywhere) Wants() verifier.Wanted {
	return verifier.Wanted{ArtifactTypes: []string{verifiertest.FakeArtifactType}, TagSuffixes: []string{".sig"}}
}

func signatureBy(s *verifiertest.Store, signer string, salt int) verifier.Candidate {
	return s.Attach(verifier.Subject{}, verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: signer, Salt: salt})
}

// TestAProofIsJudgedWhileAnotherPlaceIsStillRead: a list, a manifest or a blob that
// never comes holds back no proof that is there.
func TestAProofIsJudgedWhileAnotherPlaceIsStillRead(t *testing.T) {
	type scene struct {
		proofAt, hangAt string
		// blob: beside the proof is a signature whose blob is never sent.
		blob   bool
		within time.Duration
	}
	for name, c := range map[string]scene{
		"the referrers API hangs, Cosign's tag has it":     {proofAt: "tag .sig", hangAt: "referrers", within: 100 * time.Millisecond},
		"Cosign's tag hangs, the referrers API has it":     {proofAt: "referrers", hangAt: "tag .sig", within: 100 * time.Millisecond},
		"the referrers API hangs, the fallback tag has it": {proofAt: "leftovers", hangAt: "referrers", within: 700 * time.Millisecond},
		"the next manifest hangs":                          {proofAt: "referrers", hangAt: "referrers", within: 100 * time.Millisecond},
		"a blob beside it hangs":                           {proofAt: "referrers", blob: true, within: 100 * time.Millisecond},
		"a blob before it hangs, at another place":         {proofAt: "tag .sig", hangAt: "referrers", blob: true, within: 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := places{Store: &verifiertest.Store{}, at: map[string][]verifier.Candidate{}, hangs: map[string]bool{c.hangAt: true}}
				subject := s.Tag(image, digestA)
				var stuck digest.Digest
				if c.blob {
					bad, at := signatureBy(s.Store, "mallory", 1), c.proofAt
					if c.hangAt != "" {
						at = c.hangAt
					}
					stuck = bad.Manifest.Layers[0].Digest
					s.at[at] = append(s.at[at], bad)
				}
				s.at[c.proofAt] = append(s.at[c.proofAt], signatureBy(s.Store, "alice", 0))
				s.BeforeFetch = func(ctx context.Context, d ocispec.Descriptor) error {
					if d.Digest == stuck {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				check := verifiertest.Check("alice", "alice")
				check.Verifier = everywhere{verifiertest.Verifier{Signers: []string{"alice"}}}
				chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: check}}, s, verifier.NewMemory(1<<20))
				begun := time.Now()
				got := answer(chain.Verify(t.Context(), verifier.Request{Image: subject.Reference}))
				if took := time.Since(begun); got != "TRUSTED/TRUSTED" || took > c.within {
					t.Errorf("%s after %s", got, took)
				}
				synctest.Wait() // what is not needed any more ends: else the bubble does not
			})
		})
	}
}

func TestL41_AListThatHangsIsUndecidedWhereNothingWasProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := places{Store: &verifiertest.Store{}, hangs: map[string]bool{"referrers": true}}
		s.at = map[string][]verifier.Candidate{"tag .sig": {signatureBy(s.Store, "mallory", 0)}}
		check := verifiertest.Check("alice", "alice")
		check.Verifier = everywhere{verifiertest.Verifier{Signers: []string{"alice"}}}
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: check}}, s, verifier.NewMemory(1<<20))
		if got := answer(chain.Verify(t.Context(), verifier.Request{Image: s.Tag(image, digestA).Reference})); got != "undecided/TIMEOUT" {
			t.Error(got)
		}
	})
}

// TestReportsAreInTheOrderOfTheirPlaces, in whatever order those were read.
func TestReportsAreInTheOrderOfTheirPlaces(t *testing.T) {
	s := places{Store: &verifiertest.Store{}}
	s.at = map[string][]verifier.Candidate{
		"referrers": {signatureBy(s.Store, "a", 0), signatureBy(s.Store, "b", 0)}, "tag .sig": {signatureBy(s.Store, "c", 0), signatureBy(s.Store, "d", 0)},
	}
	subject := s.Tag(image, digestA)
	check := verifiertest.Check("alice", "alice")
	check.Verifier, check.Fingerprint = everywhere{verifiertest.Verifier{Signers: []string{"alice"}}}, ""
	for range 20 {
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: check}}, s, verifier.NewMemory(1<<20))
		v, err := chain.Verify(t.Context(), verifier.Request{Image: subject.Reference})
		if got := answer(v, err); got != "UNTRUSTED/IDENTITY_NOT_TRUSTED" {
			t.Fatal(got)
		}
		order := ""
		for _, report := range v.Tree().AllReports() {
			order += report.Finding.Claims.Signer.Name
		}
		if order != "abcd" {
			t.Fatal(order)
		}
	}
}
