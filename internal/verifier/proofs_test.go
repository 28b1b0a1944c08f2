package verifier_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// outage is a chain over a registry that can go away, with records that outlive it.
type outage struct {
	fixture
	away    bool
	records *records
	rule    verifier.Rule
	ref     verifier.Reference
}

func newOutage(t *testing.T, rule verifier.Rule, findings time.Duration) *outage {
	t.Helper()
	o := &outage{records: &records{kept: map[string][]byte{}}, rule: rule}
	for _, check := range checksOf(rule) {
		check.Verifier = verifiertest.Verifier{Signers: []string{"alice"}, Lifetime: findings}
	}
	o.store = &verifiertest.Store{Lifetime: time.Minute}
	o.subject = o.store.Tag(image, digestA)
	o.ref = reference(t, "shop.example.com/cart@"+digestA.String())
	o.store.Sign(o.subject, "alice")
	o.store.IsAway = func(host string) *verifier.Error {
		if !o.away {
			return nil
		}
		return absent(host)
	}
	o.store.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
		if o.away && ref.Digest == "" {
			return absent("")
		}
		return nil
	}
	o.store.BeforeCandidates = func(context.Context, verifier.Subject) error {
		if o.away {
			return absent("")
		}
		return nil
	}
	o.restart()
	return o
}

func checksOf(rule verifier.Rule) []*verifier.Check {
	switch r := rule.(type) {
	case *verifier.Check:
		return []*verifier.Check{r}
	case verifier.Every:
		return []*verifier.Check{r.Check}
	}
	return nil
}

// restart loses all that is in memory.
func (o *outage) restart() {
	memory := verifier.NewMemory(1 << 20)
	memory.KeepProofs(12*time.Hour, o.records)
	o.chain = verifier.NewChain([]verifier.Policy{{Name: "p", Require: o.rule}}, o.store, memory)
}

func (o *outage) ask(t *testing.T) (string, verifier.Verdict) {
	t.Helper()
	v, err := o.chain.Verify(t.Context(), verifier.Request{Image: o.ref})
	return answer(v, err), v
}

// records is verifier.Records in memory.
type records struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (r *records) Record(_ context.Context, key string) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	data, ok := r.kept[key]
	return data, ok && len(data) > 0
}

func (r *records) PutRecord(key string, data []byte, _ time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[key] = data
}

func TestAProofIsNotListedAgainWhileItsFindingsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, verifiertest.Check("alice", "alice"), time.Hour)
		for range 4 {
			if got, v := o.ask(t); got != "TRUSTED/TRUSTED" || time.Until(v.ValidUntil()) <= 0 {
				t.Fatal(got, v.ValidUntil())
			}
			time.Sleep(10 * time.Minute)
		}
		if n := o.store.Calls("candidates"); n != 1 {
			t.Errorf("the list was read %d times in 40 minutes", n)
		}
		time.Sleep(15 * time.Minute) // the last fifth of the findings' life
		if got, _ := o.ask(t); got != "TRUSTED/TRUSTED" {
			t.Error(got)
		}
		synctest.Wait()
		if n := o.store.Calls("candidates"); n != 2 {
			t.Errorf("the list was read %d times, want once more, ahead of the findings' end", n)
		}
		if _, err := o.chain.Verify(verifier.Afresh(t.Context()), verifier.Request{Image: o.ref}); err != nil || o.store.Calls("candidates") != 3 {
			t.Errorf("watch does not read the list: %d reads, %v", o.store.Calls("candidates"), err)
		}
	})
}

func TestWhileTheRegistryIsAwayAProofIsVerifiedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		rule    verifier.Rule
		after   time.Duration
		restart bool
		change  func(*outage)
		want    string
		says    string
	}{
		"findings hold":             {rule: verifiertest.Check("alice", "alice"), after: time.Minute, want: "TRUSTED/TRUSTED", says: "refused the connection, evidence as listed 2000-01-01 00:00 UTC"},
		"findings have ended":       {rule: verifiertest.Check("alice", "alice"), after: 11 * time.Hour, want: "TRUSTED/TRUSTED", says: "evidence as listed 2000-01-01 00:00 UTC"},
		"after a restart":           {rule: verifiertest.Check("alice", "alice"), after: 11 * time.Hour, restart: true, want: "TRUSTED/TRUSTED", says: "evidence as listed 2000-01-01 00:00 UTC"},
		"past the bound":            {rule: verifiertest.Check("alice", "alice"), after: 13 * time.Hour, want: "undecided/REGISTRY_AWAY"},
		"past the bound, restarted": {rule: verifiertest.Check("alice", "alice"), after: 13 * time.Hour, restart: true, want: "undecided/REGISTRY_AWAY"},
		"every signature counts":    {rule: verifier.Every{Check: verifiertest.Check("alice", "alice")}, after: time.Hour, want: "undecided/REGISTRY_AWAY"},
		"trust was withdrawn": {rule: verifiertest.Check("alice", "alice"), after: time.Minute, want: "undecided/REGISTRY_AWAY", change: func(o *outage) {
			o.rule = verifiertest.Check("alice", "bob")
			o.restart()
		}},
		"revoked, or its revocation unknown": {rule: verifiertest.Check("alice", "alice"), after: 2 * time.Hour, want: "undecided/REGISTRY_AWAY", change: func(o *outage) {
			o.rule.(*verifier.Check).Verifier = revoking{}
		}},
		"by tag": {rule: verifiertest.Check("alice", "alice"), after: time.Minute, want: "undecided/REGISTRY_AWAY", change: func(o *outage) {
			o.ref = o.subject.Reference
		}},
		"another image": {rule: verifiertest.Check("alice", "alice"), after: time.Minute, want: "undecided/REGISTRY_AWAY", change: func(o *outage) {
			o.ref.Digest = digestB
		}},
		"another repository": {rule: verifiertest.Check("alice", "alice"), after: time.Minute, want: "undecided/REGISTRY_AWAY", change: func(o *outage) {
			o.ref.Repository = "other"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(t, c.rule, time.Hour)
				if got, _ := o.ask(t); got != "TRUSTED/TRUSTED" {
					t.Fatal("before:", got)
				}
				time.Sleep(c.after)
				if o.away = true; c.restart {
					o.restart()
				}
				if c.change != nil {
					c.change(o)
				}
				got, v := o.ask(t)
				if got != c.want || !strings.Contains(v.Message(), c.says) {
					t.Errorf("%s: %s", got, v.Message())
				}
				if v.Success() && time.Until(v.ValidUntil()) > 10*time.Second {
					t.Errorf("the answer that the registry is away is repeated until %s", v.ValidUntil())
				}
				o.away = false
				if got, v := o.ask(t); c.change == nil && (got != "TRUSTED/TRUSTED" || strings.Contains(v.Message(), "listed")) {
					t.Errorf("when the registry is back: %s: %s", got, v.Message())
				}
			})
		})
	}
}

// revoking is a verifier whose authority has withdrawn the certificate.
type revoking struct{ verifiertest.Verifier }

func (revoking) Verify(context.Context, verifier.Evidence) []verifier.Finding {
	return []verifier.Finding{{Err: &verifier.Error{Reason: verifier.ReasonCertificateRevoked, Message: "revoked"}, ValidUntil: time.Now().Add(time.Minute)}}
}

func TestADeletedSignatureIsForgottenWhenTheListIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, verifiertest.Check("alice", "alice"), time.Hour)
		if got, _ := o.ask(t); got != "TRUSTED/TRUSTED" {
			t.Fatal(got)
		}
		time.Sleep(61 * time.Minute) // the findings have ended
		o.store.Forget(o.subject)
		if got, _ := o.ask(t); got != "UNKNOWN/SIGNATURE_NOT_FOUND" {
			t.Error(got)
		}
		o.away = true
		o.restart()
		if got, _ := o.ask(t); got != "undecided/REGISTRY_AWAY" {
			t.Error("what was forgotten admits:", got)
		}
	})
}
