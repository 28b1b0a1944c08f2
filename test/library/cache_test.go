package library

import (
	"testing"
	"time"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
)

// Gatekeeper remembers answers by provider and key for a while. These tests hold
// what that does to a user, with its default and with the shortest time.
const (
	defaultTTL = 3 * time.Minute
	shortTTL   = time.Second
	// patience is how long a condition may take to come true; the cache counts
	// whole seconds, so shortTTL may take two.
	patience = 10 * time.Second
)

// TestL38_VerdictIsKeptForTheTTL: a tag that moves to an unsigned image, and an
// image that is signed after it was refused, are seen when the answer is
// forgotten, not before.
func TestL38_VerdictIsKeptForTheTTL(t *testing.T) {
	const key = "[shop]registry.example.com/cart:1.4"
	for name, test := range map[string]struct {
		before, after string
	}{
		"tag moves":       {"TRUSTED", "UNKNOWN"},
		"image is signed": {"UNKNOWN", "TRUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCachingSuite(t, defaultTTL)
			s.say(map[string]string{key: test.before})
			s.wantAdmitted(t, "shop", test.before == "TRUSTED")
			s.say(map[string]string{key: test.after})
			s.wantAdmitted(t, "shop", test.before == "TRUSTED")
			if asked := s.provider.Asked(); len(asked) != 0 {
				t.Errorf("asked again within the TTL: %q", asked)
			}

			s = newCachingSuite(t, shortTTL)
			s.say(map[string]string{key: test.before})
			s.wantAdmitted(t, "shop", test.before == "TRUSTED")
			s.say(map[string]string{key: test.after})
			eventually(t, func() bool { return s.admits(t, "shop") == (test.after == "TRUSTED") })
		})
	}
}

// TestL38_NamespacesDoNotShareAnswers: two namespaces with different policies ask
// for one image, and each gets its own answer, also from the cache.
func TestL38_NamespacesDoNotShareAnswers(t *testing.T) {
	s := newCachingSuite(t, defaultTTL)
	s.say(map[string]string{
		"[shop]registry.example.com/cart:1.4": "TRUSTED",
		"[bank]registry.example.com/cart:1.4": "UNTRUSTED",
	})
	for range 2 {
		s.wantAdmitted(t, "shop", true)
		s.wantAdmitted(t, "bank", false)
	}
}

// TestL38_MissingItemIsAskedAgain: silence denies, is not remembered, and the
// rest of the answer is.
func TestL38_MissingItemIsAskedAgain(t *testing.T) {
	s := newCachingSuite(t, defaultTTL)
	pod := object(podOf("registry.example.com/cart:1.4", "registry.example.com/proxy:2"))
	s.say(map[string]string{"[shop]registry.example.com/cart:1.4": "TRUSTED"})
	if decision, err := s.engine.Admit(t.Context(), engine.Create("shop", pod)); err != nil || decision.Allowed {
		t.Fatalf("admitted with an item missing: %v, %v", decision, err)
	}
	s.say(map[string]string{"[shop]registry.example.com/proxy:2": "TRUSTED"})
	if decision, err := s.engine.Admit(t.Context(), engine.Create("shop", pod)); err != nil || !decision.Allowed {
		t.Fatalf("denied although the item came: %v, %v", decision, err)
	}
	if asked := s.provider.Asked(); len(asked) != 1 || len(asked[0]) != 1 {
		t.Errorf("asked again: %q, want the missing key alone", asked)
	}
}

// TestL38_TransientFailureIsGoneAtTheNextReview: what could not be decided is not
// remembered; neither is an answer that was none.
func TestL38_TransientFailureIsGoneAtTheNextReview(t *testing.T) {
	for name, failure := range map[string]fake.Answer{
		"undecided":        {SystemError: "REGISTRY_UNREACHABLE [shop]registry.example.com/cart:1.4: registry.example.com/cart:1.4: no answer"},
		"provider crashed": {Status: 500, Body: "panic"},
		"nothing":          {Body: "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCachingSuite(t, defaultTTL)
			s.provider.Say(failure)
			s.wantAdmitted(t, "shop", false)
			s.say(map[string]string{"[shop]registry.example.com/cart:1.4": "TRUSTED"})
			s.wantAdmitted(t, "shop", true)
		})
	}
}

// newCachingSuite has the samples' constraint on Pods.
func newCachingSuite(t *testing.T, ttl time.Duration) *suite {
	t.Helper()
	s := newSuite(t, ttl)
	s.apply(t, "trusted-images", "template.yaml")
	s.apply(t, "trusted-images", "samples", "pods.yaml")
	return s
}

// admits says whether a namespace may run registry.example.com/cart:1.4.
func (s *suite) admits(t *testing.T, namespace string) bool {
	t.Helper()
	pod := object(podOf("registry.example.com/cart:1.4"))
	decision, err := s.engine.Admit(t.Context(), engine.Create(namespace, pod))
	must(t, err)
	return decision.Allowed
}

func (s *suite) wantAdmitted(t *testing.T, namespace string, want bool) {
	t.Helper()
	if got := s.admits(t, namespace); got != want {
		t.Errorf("admitted in %s: %v, want %v", namespace, got, want)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within %v", patience)
		case <-tick.C:
		}
	}
}

// say makes the provider give each key that it is asked about its status, and
// keep silent about others.
func (s *suite) say(statuses map[string]string) {
	s.provider.Reply(func(keys []string) fake.Answer {
		var a fake.Answer
		for _, key := range keys {
			if status, ok := statuses[key]; ok {
				a.Items = append(a.Items, fake.Item{Key: key, Value: map[string]any{"status": status}})
			}
		}
		return a
	})
}

// podOf is a Pod with one container for each image.
func podOf(images ...string) map[string]any {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": string(rune('a' + i)), "image": image})
	}
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "cart"},
		"spec":     map[string]any{"containers": containers},
	}
}
