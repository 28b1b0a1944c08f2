package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

const image = "shop.example.com/cart:1.4"

var (
	digestA = digest.FromString("A")
	digestB = digest.FromString("B")
)

// fixture is a chain over a fake store with one tagged image.
type fixture struct {
	store   *verifiertest.Store
	subject verifier.Subject
	chain   *verifier.Chain
}

func newFixture(require verifier.Rule) fixture {
	store := &verifiertest.Store{}
	return fixture{
		store:   store,
		subject: store.Tag(image, digestA),
		chain: verifier.NewChain([]verifier.Policy{{Name: "production", Owner: "platform@example.com", Require: require}},
			store, verifier.NewMemory(1<<20)),
	}
}

func (f fixture) verify(t *testing.T) (verifier.Verdict, error) {
	t.Helper()
	return f.chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})
}

func reference(t *testing.T, s string) verifier.Reference {
	t.Helper()
	ref, err := verifier.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// answer is a verdict or undecided in one comparable word.
func answer(v verifier.Verdict, err error) string {
	var undecided *verifier.Undecided
	if errors.As(err, &undecided) {
		return "undecided/" + string(undecided.Reason())
	}
	return string(v.Status()) + "/" + string(v.Reason())
}

func unreadable(s string) (verifier.Candidate, error) {
	return verifier.Candidate{Descriptor: ocispec.Descriptor{Digest: digest.FromString(s)}},
		&verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "connection refused"}
}

func TestZeroValuesDeny(t *testing.T) {
	var v verifier.Verdict
	if v.Success() {
		t.Error("the zero Verdict admits")
	}
	if o := (verifier.Node{}).Outcome; o != verifier.OutcomeDenied {
		t.Error("the zero Node holds:", o)
	}
	f := newFixture(&verifier.Check{Name: "empty", Kind: verifier.KindSignature, Verifier: zeroFindings{}, Fingerprint: "z"})
	f.store.Sign(f.subject, "alice")
	if v, err := f.verify(t); v.Success() {
		t.Error("zero findings are trusted:", answer(v, err))
	}
}

// zeroFindings claims nothing, and no error either.
type zeroFindings struct{ verifiertest.Verifier }

func (zeroFindings) Verify(context.Context, verifier.Evidence) []verifier.Finding {
	return []verifier.Finding{{}}
}

func TestNoFindingsAreNoProof(t *testing.T) {
	f := newFixture(&verifier.Check{Name: "silent", Kind: verifier.KindSignature, Verifier: silent{}, Fingerprint: "s"})
	f.store.Sign(f.subject, "alice")
	if got := answer(f.verify(t)); got != "UNTRUSTED/FORMAT_UNSUPPORTED" {
		t.Error(got)
	}
}

// silent has nothing to say about any evidence.
type silent struct{ verifiertest.Verifier }

func (silent) Verify(context.Context, verifier.Evidence) []verifier.Finding { return nil }

func TestASignatureWithoutASignerIsNoProof(t *testing.T) {
	f := newFixture(&verifier.Check{Name: "nobody", Kind: verifier.KindSignature, Verifier: nobody{}, Fingerprint: "n"})
	f.store.Sign(f.subject, "alice")
	if got := answer(f.verify(t)); got != "undecided/INTERNAL" {
		t.Error(got)
	}
}

// nobody proves all but who signed.
type nobody struct{ verifiertest.Verifier }

func (nobody) Verify(_ context.Context, e verifier.Evidence) []verifier.Finding {
	return []verifier.Finding{{
		Claims:     verifier.Claims{SubjectDigest: e.Subject.Digest, Kind: verifier.KindSignature},
		ValidUntil: time.Now().Add(time.Hour),
	}}
}

func TestEverySeesWhatLiesBehindTheFirstWave(t *testing.T) {
	f := newFixture(verifier.Every{Check: verifiertest.Check("alice", "alice")})
	for i := range 20 {
		f.store.Attach(f.subject, verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice", Salt: i})
	}
	f.store.Sign(f.subject, "mallory")
	if got := answer(f.verify(t)); got != "UNTRUSTED/IDENTITY_NOT_TRUSTED" {
		t.Error(got)
	}
}

func TestTheBytesOfADecisionAreBounded(t *testing.T) {
	f := newFixture(verifiertest.Check("alice", "alice"))
	for i, size := range []int64{20 << 20, 20 << 20, -1, 1 << 62} {
		candidate := f.store.Attach(f.subject, verifiertest.Statement{Reason: verifier.ReasonSignatureInvalid, Salt: i})
		candidate.Manifest.Layers[0].Size = size
	}
	if got := answer(f.verify(t)); got != "undecided/LIMIT_EXCEEDED" {
		t.Error(got)
	}
	if reads := f.store.Calls("fetch"); reads != 1 {
		t.Errorf("%d blobs were read, only the first fits", reads)
	}
}

func TestL08_AGoodSignatureBehindJunkIsFoundOrTheCapIsNamed(t *testing.T) {
	alice := verifiertest.Check("alice", "alice")
	for _, junk := range []int{0, 1, 7, 8, 60, 63, 64, 200} {
		f := newFixture(alice)
		for i := range junk {
			f.store.Attach(f.subject, verifiertest.Statement{Reason: verifier.ReasonSignatureInvalid, Salt: i})
		}
		f.store.Sign(f.subject, "alice")
		got := answer(f.verify(t))
		want := "TRUSTED/TRUSTED"
		if junk >= 64 {
			want = "undecided/LIMIT_EXCEEDED"
		}
		if got != want {
			t.Errorf("%d junk signatures: got %s, want %s", junk, got, want)
		}
		if reads := f.store.Calls("fetch"); reads > 64 {
			t.Errorf("%d junk signatures: %d blobs were read", junk, reads)
		}
	}
}

func TestProofEndsTheSearch(t *testing.T) {
	f := newFixture(verifiertest.Check("alice", "alice"))
	f.store.Sign(f.subject, "alice")
	for i := range 50 {
		f.store.Attach(f.subject, verifiertest.Statement{Reason: verifier.ReasonSignatureInvalid, Salt: i})
	}
	if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
		t.Fatal(got)
	}
	if reads := f.store.Calls("fetch"); reads > 8 {
		t.Errorf("%d blobs read where the first wave of 8 had the proof", reads)
	}
}

func TestAFindingIsRememberedForItsLifetimeAndUndecidedNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := verifiertest.Check("alice", "alice")
		check.Verifier = verifiertest.Verifier{Signers: []string{"alice"}, Lifetime: time.Minute}
		f := newFixture(check)
		down := true
		f.store.BeforeFetch = func(context.Context, ocispec.Descriptor) error {
			if down {
				return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "down"}
			}
			return nil
		}
		f.store.Sign(f.subject, "alice")
		if got := answer(f.verify(t)); got != "undecided/REGISTRY_UNREACHABLE" {
			t.Error(got)
		}
		down = false
		for range 3 {
			if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
				t.Error("L41, after the recovery:", got)
			}
		}
		if reads := f.store.Calls("fetch"); reads != 2 {
			t.Errorf("%d reads, want one that failed and one that served three decisions", reads)
		}
		time.Sleep(time.Minute)
		if _, err := f.verify(t); err != nil || f.store.Calls("fetch") != 3 {
			t.Errorf("after its lifetime the finding was made anew %d times, want once more", f.store.Calls("fetch")-2)
		}
	})
}

func TestUndecidedFindingsAndThoseOfNoFingerprintAreMadeAnew(t *testing.T) {
	for name, test := range map[string]struct {
		fingerprint string
		statement   verifiertest.Statement
	}{
		"undecided":      {"f", verifiertest.Statement{Reason: verifier.ReasonRevocationUnavailable, Signer: "alice"}},
		"no fingerprint": {"", verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice"}},
	} {
		check := verifiertest.Check("alice", "alice")
		check.Fingerprint = test.fingerprint
		f := newFixture(check)
		f.store.Attach(f.subject, test.statement)
		_, _ = f.verify(t)
		_, _ = f.verify(t)
		if reads := f.store.Calls("fetch"); reads != 2 {
			t.Errorf("%s: %d reads for two decisions", name, reads)
		}
	}
}

func TestL05b_ARememberedFindingServesItsOwnSubjectAndRepositoryOnly(t *testing.T) {
	f := newFixture(verifiertest.Check("alice", "alice"))
	statement := verifiertest.Statement{Subject: digestA, Kind: verifier.KindSignature, Signer: "alice"}
	f.store.Attach(f.subject, statement)
	f.store.Attach(f.store.Tag("shop.example.com/cart:other", digestB), statement)
	f.store.Attach(f.store.Tag("shop.example.com/copy:1.4", digestA), statement)
	for i, test := range []struct{ image, want string }{
		{image, "TRUSTED/TRUSTED"}, {"shop.example.com/cart:other", "UNTRUSTED/SUBJECT_MISMATCH"}, {"shop.example.com/copy:1.4", "TRUSTED/TRUSTED"},
	} {
		if got := answer(f.chain.Verify(t.Context(), verifier.Request{Image: reference(t, test.image)})); got != test.want {
			t.Errorf("%s: got %s, want %s", test.image, got, test.want)
		}
		if reads := f.store.Calls("fetch"); reads != i+1 {
			t.Errorf("%s: %d reads; another image's finding served", test.image, reads)
		}
	}
}

func TestL05_AnotherFingerprintIsAnotherFinding(t *testing.T) {
	store, memory := &verifiertest.Store{}, verifier.NewMemory(1<<20)
	store.Sign(store.Tag(image, digestA), "alice")
	before := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("c", "alice")}}, store, memory)
	after := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("c", "bob")}}, store, memory)
	if got := answer(before.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
	if got := answer(after.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "UNTRUSTED/IDENTITY_NOT_TRUSTED" {
		t.Error("after the key was withdrawn:", got)
	}
}

func TestL41_AnImpatientCallerPoisonsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(verifiertest.Check("alice", "alice"))
		f.store.Sign(f.subject, "alice")
		f.store.BeforeFetch = func(ctx context.Context, _ ocispec.Descriptor) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		impatient, leave := context.WithCancel(t.Context())
		left := make(chan string)
		go func() { left <- answer(f.chain.Verify(impatient, verifier.Request{Image: reference(t, image)})) }()
		synctest.Wait()
		leave()
		if got := <-left; got != "undecided/TIMEOUT" {
			t.Error("the impatient caller:", got)
		}
		if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
			t.Error("the patient caller:", got)
		}
		if n := f.store.Calls("fetch"); n != 1 {
			t.Errorf("the work was done %d times", n)
		}
	})
}

func TestASlowHostCostsLittleAndIsFoundInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(verifiertest.Check("alice", "alice"))
		f.store.Sign(f.subject, "alice")
		f.store.BeforeCandidates = func(ctx context.Context, _ verifier.Subject) error {
			select {
			case <-time.After(4 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ask := func() (string, time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 1800*time.Millisecond)
			defer cancel()
			start := time.Now()
			got := answer(f.chain.Verify(ctx, verifier.Request{Image: reference(t, image)}))
			return got, time.Since(start)
		}
		if got, took := ask(); got != "undecided/TIMEOUT" || took != 1800*time.Millisecond {
			t.Error("first:", got, took)
		}
		if got, took := ask(); got != "undecided/TIMEOUT" || took != 300*time.Millisecond {
			t.Error("while the host is known to be slow:", got, took)
		}
		time.Sleep(1800 * time.Millisecond)
		if got, took := ask(); got != "TRUSTED/TRUSTED" || took > 300*time.Millisecond {
			t.Error("when the work behind was done:", got, took)
		}
	})
}

// absent is a registry that a store cannot connect to.
func absent(string) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonRegistryAway, Message: "the registry shop.example.com refused the connection"}
}

func TestL44_WhenUndecidedAllowIsForARegistryThatIsAwayOnly(t *testing.T) {
	for name, c := range map[string]struct {
		reason verifier.Reason
		away   func(string) *verifier.Error
		want   string
	}{
		"away":                        {verifier.ReasonRegistryAway, absent, "EXEMPT/EXEMPTED"},
		"away a moment ago":           {verifier.ReasonRegistryAway, nil, "undecided/REGISTRY_AWAY"},
		"one request failed":          {verifier.ReasonRegistryUnreachable, nil, "undecided/REGISTRY_UNREACHABLE"},
		"one failed, now it is away":  {verifier.ReasonRegistryUnreachable, absent, "undecided/REGISTRY_UNREACHABLE"},
		"throttled":                   {verifier.ReasonRegistryThrottled, absent, "undecided/REGISTRY_THROTTLED"},
		"our own limit":               {verifier.ReasonLimitExceeded, absent, "undecided/LIMIT_EXCEEDED"},
		"no credential":               {verifier.ReasonRegistryUnauthorized, absent, "undecided/REGISTRY_UNAUTHORIZED"},
		"slow":                        {verifier.ReasonTimeout, absent, "undecided/TIMEOUT"},
		"no such image":               {verifier.ReasonImageNotFound, absent, "undecided/IMAGE_NOT_FOUND"},
		"a store that wants a denial": {verifier.ReasonSignatureNotFound, absent, "undecided/REGISTRY_INVALID"},
	} {
		store := &verifiertest.Store{IsAway: c.away, BeforeResolve: func(context.Context, verifier.Reference) error {
			return &verifier.Error{Reason: c.reason, Message: "m"}
		}}
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", AllowAway: true, Require: verifiertest.Check("a")}}, store, verifier.NewMemory(1<<20))
		if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// TestL44_ACandidateThatCannotBeJudgedIsNotAnAbsentRegistry, whatever keeps the
// candidate beside it from being read.
func TestL44_ACandidateThatCannotBeJudgedIsNotAnAbsentRegistry(t *testing.T) {
	for reason, want := range map[verifier.Reason]string{
		verifier.ReasonRegistryAway:          "EXEMPT/EXEMPTED",
		verifier.ReasonRevocationUnavailable: "undecided/REGISTRY_AWAY",
		verifier.ReasonRegistryUnreachable:   "undecided/REGISTRY_AWAY",
	} {
		store := &verifiertest.Store{IsAway: absent}
		subject := store.Tag(image, digestA)
		store.Attach(subject, verifiertest.Statement{Reason: verifier.ReasonRegistryAway, Salt: 1})
		store.Attach(subject, verifiertest.Statement{Reason: reason, Salt: 2})
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", AllowAway: true, Require: verifiertest.Check("a")}}, store, verifier.NewMemory(1<<20))
		if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != want {
			t.Errorf("%s: got %s, want %s", reason, got, want)
		}
	}
}

// TestL44_AnotherViewsTroubleIsNotThisOnes: a tenant whose options lead to a dead
// mirror makes nobody else wait less, and gives nobody else a reason.
func TestL44_AnotherViewsTroubleIsNotThisOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := verifier.NewMemory(1 << 20)
		slow := func(ctx context.Context, _ verifier.Subject) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		policies := []verifier.Policy{{Name: "p", Require: verifiertest.Check("a", "alice")}}
		mirror := &verifiertest.Store{BeforeCandidates: func(context.Context, verifier.Subject) error {
			return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the mirror answered 503"}
		}}
		mirror.Tag(image, digestA)
		tenant := verifier.NewChain(policies, mirror, memory)
		if got := answer(tenant.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "undecided/REGISTRY_UNREACHABLE" {
			t.Error("the tenant:", got)
		}
		own := &verifiertest.Store{BeforeCandidates: slow}
		own.Sign(own.Tag(image, digestA), "alice")
		victim := verifier.NewChain(policies, own, memory)
		if got := answer(victim.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "TRUSTED/TRUSTED" {
			t.Error("another policy, of the same image:", got)
		}
	})
}

// TestL50_AnImageThatIsSlowMakesNoOtherImageSlow of the same registry.
func TestL50_AnImageThatIsSlowMakesNoOtherImageSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(verifiertest.Check("alice", "alice"))
		heavy := f.store.Tag("shop.example.com/heavy:1", digestB)
		f.store.Sign(f.subject, "alice")
		f.store.BeforeCandidates = func(ctx context.Context, s verifier.Subject) error {
			patience := time.Second
			if s.Digest == heavy.Digest {
				patience = time.Hour
			}
			select {
			case <-time.After(patience):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1800*time.Millisecond)
		defer cancel()
		if got := answer(f.chain.Verify(ctx, verifier.Request{Image: heavy.Reference})); got != "undecided/TIMEOUT" {
			t.Error(got)
		}
		if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
			t.Error("an image that takes a second:", got)
		}
		time.Sleep(10 * time.Second) // the heavy image's budget ends
	})
}

func TestAllPoliciesMustHoldAndTheRefusingOneIsNamed(t *testing.T) {
	store := &verifiertest.Store{}
	store.Sign(store.Tag(image, digestA), "alice")
	chain := verifier.NewChain([]verifier.Policy{
		{Name: "cluster", Require: verifiertest.Check("a", "alice")},
		{Name: "shop/tenant", Owner: "shop@example.com", Require: verifiertest.Check("bob", "bob")},
	}, store, verifier.NewMemory(1<<20))
	v, err := chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})
	if got := answer(v, err); got != "UNTRUSTED/IDENTITY_NOT_TRUSTED" {
		t.Error(got)
	}
	if v.Policy() != "cluster, shop/tenant" || !strings.Contains(v.Message(), "policy shop/tenant wants bob") {
		t.Errorf("policy %q, message %q", v.Policy(), v.Message())
	}
}

func TestABrokenPolicyIsUndecided(t *testing.T) {
	cause := &verifier.Error{Reason: verifier.ReasonPolicyInvalid, Message: "policy p has an unknown field"}
	chain := verifier.NewBrokenChain([]verifier.Policy{{Name: "p"}}, cause)
	if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); got != "undecided/POLICY_INVALID" {
		t.Error(got)
	}
	if _, err := chain.Resolve(t.Context(), reference(t, image)); err == nil {
		t.Error("a broken policy resolves")
	}
}

func TestL36_APanicInTheStoreIsOneImagesTrouble(t *testing.T) {
	f := newFixture(verifiertest.Check("alice", "alice"))
	f.store.Sign(f.subject, "alice")
	f.store.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
		if ref.Tag == "bad" {
			panic("boom")
		}
		return nil
	}
	if got := answer(f.chain.Verify(t.Context(), verifier.Request{Image: reference(t, "shop.example.com/cart:bad")})); got != "undecided/INTERNAL" {
		t.Error(got)
	}
	if got := answer(f.verify(t)); got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
}

func TestAThousandCallersOfManyImages(t *testing.T) {
	store := &verifiertest.Store{}
	chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("alice", "alice")}}, store, verifier.NewMemory(1<<20))
	for i := range 10 {
		subject := store.Tag(fmt.Sprintf("shop.example.com/cart:%d", i), digest.FromString(fmt.Sprint(i)))
		if i%2 == 0 {
			store.Sign(subject, "alice")
		} else {
			store.Sign(subject, "mallory")
		}
	}
	answers := make(chan string)
	for i := range 1000 {
		go func() {
			got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, fmt.Sprintf("shop.example.com/cart:%d", i%10))}))
			if want := []string{"TRUSTED/TRUSTED", "UNTRUSTED/IDENTITY_NOT_TRUSTED"}[i%2]; got != want {
				answers <- fmt.Sprintf("%d: got %s, want %s", i, got, want)
				return
			}
			answers <- ""
		}()
	}
	for range 1000 {
		if a := <-answers; a != "" {
			t.Error(a)
		}
	}
}

// TestAnAuditingPolicyAdmitsAndSaysWhatWouldHaveBeen, and only it does.
func TestAnAuditingPolicyAdmitsAndSaysWhatWouldHaveBeen(t *testing.T) {
	unreachable := &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry cannot be reached"}
	for name, c := range map[string]struct {
		signer        string
		resolve       error
		enforcing     string // whom another policy wants, or nobody
		want, audited string
	}{
		"trusted":                       {signer: "alice", want: "TRUSTED/TRUSTED"},
		"a stranger's":                  {signer: "mallory", want: "EXEMPT/AUDIT_ONLY", audited: "IDENTITY_NOT_TRUSTED"},
		"unsigned":                      {want: "EXEMPT/AUDIT_ONLY", audited: "SIGNATURE_NOT_FOUND"},
		"undecided":                     {resolve: unreachable, want: "EXEMPT/AUDIT_ONLY", audited: "REGISTRY_UNREACHABLE"},
		"another policy holds":          {signer: "bob", enforcing: "bob", want: "EXEMPT/AUDIT_ONLY", audited: "IDENTITY_NOT_TRUSTED"},
		"another policy does not":       {signer: "alice", enforcing: "bob", want: "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
		"another policy is undecided":   {resolve: unreachable, enforcing: "bob", want: "undecided/REGISTRY_UNREACHABLE"},
		"neither holds, another counts": {signer: "mallory", enforcing: "bob", want: "UNTRUSTED/IDENTITY_NOT_TRUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			store := &verifiertest.Store{}
			if subject := store.Tag(image, digestA); c.signer != "" {
				store.Sign(subject, c.signer)
			}
			store.BeforeResolve = func(context.Context, verifier.Reference) error { return c.resolve }
			policies := []verifier.Policy{{Name: "audit", AuditOnly: true, Require: verifiertest.Check("a", "alice")}}
			if c.enforcing != "" {
				policies = append(policies, verifier.Policy{Name: "enforce", Require: verifiertest.Check("b", c.enforcing)})
			}
			v, err := verifier.NewChain(policies, store, verifier.NewMemory(1<<20)).Verify(t.Context(), verifier.Request{Image: reference(t, image)})
			if got := answer(v, err); got != c.want || string(v.Audited()) != c.audited {
				t.Errorf("%s, audited %q: %s", got, v.Audited(), v.Message())
			}
			if c.audited != "" && !strings.Contains(v.Message(), ": only audited: ") {
				t.Error(v.Message())
			}
		})
	}
}

// TestAnAbsentRegistryIsKnownWhoeverAdmits: a policy that admits meanwhile makes
// nobody wait again.
func TestAnAbsentRegistryIsKnownWhoeverAdmits(t *testing.T) {
	for name, policy := range map[string]verifier.Policy{
		"mode: audit": {AuditOnly: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			policy.Name, policy.Require = "p", verifiertest.Check("a", "alice")
			store := &verifiertest.Store{BeforeResolve: func(ctx context.Context, _ verifier.Reference) error {
				time.Sleep(time.Second)
				return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "away"}
			}}
			chain := verifier.NewChain([]verifier.Policy{policy}, store, verifier.NewMemory(1<<20))
			for i, want := range []time.Duration{time.Second, 300 * time.Millisecond} {
				start := time.Now()
				if got := answer(chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})); !strings.HasPrefix(got, "EXEMPT/") {
					t.Errorf("%s: %s", name, got)
				}
				if took := time.Since(start); took != want {
					t.Errorf("%s: attempt %d took %s", name, i+1, took)
				}
			}
			time.Sleep(time.Second) // what nobody waits for ends too
			synctest.Wait()
		})
	}
}

// TestAnExemptionByDigestWaitsForTheDigest of an image that is asked for by tag.
func TestAnExemptionByDigestWaitsForTheDigest(t *testing.T) {
	for name, c := range map[string]struct {
		digest digest.Digest
		until  time.Duration
		want   string
	}{
		"the digest":     {digestA, time.Hour, "EXEMPT/EXEMPTED"},
		"another digest": {digestB, time.Hour, "UNKNOWN/SIGNATURE_NOT_FOUND"},
		"ended":          {digestA, -time.Second, "UNKNOWN/SIGNATURE_NOT_FOUND"},
	} {
		store := &verifiertest.Store{}
		store.Tag(image, digestA)
		exemption := verifier.Exemption{Name: "hotfix", Reason: "a test", Digests: []digest.Digest{c.digest}, Until: time.Now().Add(c.until)}
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("a", "alice")}}, store, verifier.NewMemory(1<<20), exemption)
		v, err := chain.Verify(t.Context(), verifier.Request{Image: reference(t, image)})
		if got := answer(v, err); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
		if v.Success() && (v.Digest() != digestA || v.Policy() != "Exemption hotfix") {
			t.Errorf("%s: %s of %s", name, v.Digest(), v.Policy())
		}
	}
}
