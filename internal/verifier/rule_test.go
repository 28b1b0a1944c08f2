package verifier_test

import (
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func TestARuleTreeIsDecidedByWhatWasProved(t *testing.T) {
	alice, bob := verifiertest.Check("alice", "alice"), verifiertest.Check("bob", "bob")
	anyone := verifiertest.Check("anyone")
	sign := func(signers ...string) func(fixture) {
		return func(f fixture) {
			for _, signer := range signers {
				f.store.Sign(f.subject, signer)
			}
		}
	}
	attach := func(s verifiertest.Statement) func(fixture) {
		return func(f fixture) { f.store.Attach(f.subject, s) }
	}
	broken := func(f fixture) {
		candidate, err := unreadable("broken")
		f.store.List(f.subject, candidate, err)
	}
	listError := func(f fixture) {
		f.store.List(f.subject, verifier.Candidate{}, &verifier.Error{Reason: verifier.ReasonRegistryThrottled, Message: "429"})
	}
	for _, test := range []struct {
		name    string
		require verifier.Rule
		given   []func(fixture)
		want    string
	}{
		{"no candidate", alice, nil, "UNKNOWN/SIGNATURE_NOT_FOUND"},
		{"no rule at all", nil, []func(fixture){sign("alice")}, "undecided/POLICY_INVALID"},
		{"an empty any", verifier.Any{}, []func(fixture){sign("alice")}, "undecided/POLICY_INVALID"},
		{"an empty all", verifier.All{}, []func(fixture){sign("alice")}, "undecided/POLICY_INVALID"},
		{"the right signer", alice, []func(fixture){sign("alice")}, "TRUSTED/TRUSTED"},
		{"a stranger", alice, []func(fixture){sign("mallory")}, "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
		{"L05c: good, then bad", alice, []func(fixture){sign("alice", "mallory")}, "TRUSTED/TRUSTED"},
		{"L05c: bad, then good", alice, []func(fixture){sign("mallory", "alice")}, "TRUSTED/TRUSTED"},
		{"L05b: another image's signature", alice,
			[]func(fixture){attach(verifiertest.Statement{Subject: digestB, Kind: verifier.KindSignature, Signer: "alice"})}, "UNTRUSTED/SUBJECT_MISMATCH"},
		{"a signature without a subject", alice,
			[]func(fixture){attach(verifiertest.Statement{Kind: verifier.KindSignature, Signer: "alice"})}, "UNTRUSTED/SUBJECT_MISMATCH"},
		{"an attestation where a signature is wanted", alice,
			[]func(fixture){attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindAttestation, Signer: "alice"})}, "UNTRUSTED/FORMAT_UNSUPPORTED"},
		{"evidence of no kind", alice,
			[]func(fixture){attach(verifiertest.Statement{Subject: digestA, Signer: "alice"})}, "UNTRUSTED/FORMAT_UNSUPPORTED"},
		{"a level that only logs", alice,
			[]func(fixture){attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Logged: "expired"})}, "EXEMPT/AUDIT_ONLY"},
		{"logged, and a good one behind it", alice,
			[]func(fixture){attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Logged: "expired"}), sign("alice")}, "TRUSTED/TRUSTED"},
		{"one candidate unreadable, none good", alice, []func(fixture){broken, sign("mallory")}, "undecided/REGISTRY_UNREACHABLE"},
		{"one candidate unreadable, one good", alice, []func(fixture){broken, sign("alice")}, "TRUSTED/TRUSTED"},
		{"the list cut short, none good", alice, []func(fixture){sign("mallory"), listError}, "undecided/REGISTRY_THROTTLED"},
		{"the list cut short, one good", alice, []func(fixture){sign("alice"), listError}, "TRUSTED/TRUSTED"},
		{"L11: a verifier that panics", alice,
			[]func(fixture){attach(verifiertest.Statement{Panic: true})}, "undecided/INTERNAL"},
		{"a reason that no table knows", alice,
			[]func(fixture){attach(verifiertest.Statement{Reason: "NEW", Signer: "alice"})}, "undecided/NEW"},

		{"any: one of two", verifier.Any{alice, bob}, []func(fixture){sign("bob")}, "TRUSTED/TRUSTED"},
		{"any: undecided beats no", verifier.Any{alice, bob}, []func(fixture){sign("mallory"), broken}, "undecided/REGISTRY_UNREACHABLE"},
		{"all: one of two", verifier.All{alice, bob}, []func(fixture){sign("bob")}, "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
		{"all: both", verifier.All{alice, bob}, []func(fixture){sign("bob", "alice")}, "TRUSTED/TRUSTED"},
		{"nested", verifier.All{anyone, verifier.Any{alice, bob}}, []func(fixture){sign("bob")}, "TRUSTED/TRUSTED"},
		{"the leaf closest to yes gives the reason", verifier.Any{alice, bob},
			[]func(fixture){attach(verifiertest.Statement{Reason: verifier.ReasonCertificateRevoked, Signer: "bob"}), sign("mallory")}, "UNTRUSTED/CERTIFICATE_REVOKED"},

		{"L16: alice twice is one signer", verifier.AtLeast{Count: 2, Of: []*verifier.Check{alice, bob}},
			[]func(fixture){sign("alice"), attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Salt: 1})}, "UNTRUSTED/THRESHOLD_NOT_MET"},
		{"L16: one signer in two checks", verifier.AtLeast{Count: 2, Of: []*verifier.Check{alice, anyone}},
			[]func(fixture){sign("alice")}, "UNTRUSTED/THRESHOLD_NOT_MET"},
		{"atLeast: two signers", verifier.AtLeast{Count: 2, Of: []*verifier.Check{alice, bob}}, []func(fixture){sign("alice", "bob")}, "TRUSTED/TRUSTED"},
		{"atLeast: two signers of one check", verifier.AtLeast{Count: 2, Of: []*verifier.Check{anyone}}, []func(fixture){sign("alice", "bob")}, "TRUSTED/TRUSTED"},
		{"atLeast: the second might be behind what is unreadable", verifier.AtLeast{Count: 2, Of: []*verifier.Check{alice, bob}},
			[]func(fixture){sign("alice"), broken}, "undecided/REGISTRY_UNREACHABLE"},
		{"atLeast: one manifest may hold many signers", verifier.AtLeast{Count: 3, Of: []*verifier.Check{alice, bob, anyone}},
			[]func(fixture){sign("alice"), broken}, "undecided/REGISTRY_UNREACHABLE"},
		{"atLeast: logged counts for nothing", verifier.AtLeast{Count: 1, Of: []*verifier.Check{alice}},
			[]func(fixture){attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Logged: "x"})}, "UNTRUSTED/THRESHOLD_NOT_MET"},
		{"atLeast: the list cut short", verifier.AtLeast{Count: 2, Of: []*verifier.Check{alice, bob}},
			[]func(fixture){sign("alice"), listError}, "undecided/REGISTRY_THROTTLED"},
		{"atLeast: none wanted", verifier.AtLeast{Of: []*verifier.Check{alice}}, []func(fixture){sign("alice")}, "undecided/POLICY_INVALID"},

		{"every: all good", verifier.Every{Check: alice}, []func(fixture){sign("alice"),
			attach(verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Salt: 1})}, "TRUSTED/TRUSTED"},
		{"every: one bad, last", verifier.Every{Check: alice}, []func(fixture){sign("alice", "mallory")}, "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
		{"every: none there", verifier.Every{Check: alice}, nil, "UNKNOWN/SIGNATURE_NOT_FOUND"},
		{"every: one unreadable", verifier.Every{Check: alice}, []func(fixture){sign("alice"), broken}, "undecided/REGISTRY_UNREACHABLE"},
		{"every: list cut short", verifier.Every{Check: alice}, []func(fixture){sign("alice"), listError}, "undecided/REGISTRY_THROTTLED"},
		{"every without a check", verifier.Every{}, []func(fixture){sign("alice")}, "undecided/POLICY_INVALID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(test.require)
			for _, do := range test.given {
				do(f)
			}
			cold := answer(f.verify(t))
			if cold != test.want {
				t.Errorf("got %s, want %s", cold, test.want)
			}
			if warm := answer(f.verify(t)); warm != cold {
				t.Errorf("cold %s, warm %s", cold, warm)
			}
		})
	}
}
