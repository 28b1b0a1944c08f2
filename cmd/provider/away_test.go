package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// leave closes the registry, and waits until the program knows.
func (s *scene) leave(t *testing.T) {
	t.Helper()
	s.registry.Refuse()
	for end := time.Now().Add(time.Minute); s.verify(t, "cart:gone").word() != "UNDECIDED/REGISTRY_AWAY"; {
		if time.Now().After(end) {
			t.Fatal("the registry is never known to be away")
		}
	}
}

// TestAProofOutlivesItsRegistry: what was proved is admitted by digest while the
// registry refuses connections, after a restart too, and nothing else is.
func TestAProofOutlivesItsRegistry(t *testing.T) {
	for name, scheme := range schemes {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, scheme.policy)
			s.content = filepath.Join(t.TempDir(), "content")
			s.proofAge = 12 * time.Hour
			s.start(t)
			s.run(t, "image cart:1.4\nimage cart:1.3\n"+scheme.sign)
			signed, unsigned := "cart@"+s.images["cart:1.4"].Digest.String(), "cart@"+s.images["cart:1.3"].Digest.String()
			expect(t, s.verify(t, signed), "TRUSTED/TRUSTED")
			expect(t, s.verify(t, unsigned), "UNKNOWN/SIGNATURE_NOT_FOUND")
			if err := s.app.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, restarted := range []bool{false, true} {
				if restarted {
					s.start(t)
				}
				s.leave(t)
				begun := time.Now()
				a := s.verify(t, signed)
				took := time.Since(begun)
				expect(t, a, "TRUSTED/TRUSTED")
				if !strings.Contains(a.Message, "refused the connection, evidence as listed ") {
					t.Error(a.Message)
				}
				if took > time.Second {
					t.Errorf("restarted %t: it took %s", restarted, took)
				}
				if a := s.verify(t, unsigned); a.Success { // that nothing is attached holds for five seconds
					t.Error(a.word(), a.Message)
				}
				expect(t, s.verify(t, "cart:1.4"), "UNDECIDED/REGISTRY_AWAY")
				if err := s.registry.Listen(); err != nil {
					t.Fatal(err)
				}
				for s.verify(t, "cart:1.4").word() == "UNDECIDED/REGISTRY_AWAY" { // for half a second at most
				}
				s.registry.Reset()
			}
			// A change of policy ends it at once.
			s.leave(t)
			s.write(t, trusting("mallory"))
			s.start(t)
			s.leave(t)
			expect(t, s.verify(t, signed), "UNDECIDED/REGISTRY_AWAY")
		})
	}
}

// TestL41_TheFirstRequestAfterARecovery, half a second after the registry answers
// again, is admitted.
func TestL41_TheFirstRequestAfterARecovery(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trusting("wabbit"))
	s.run(t, "image cart:1.4\nsign cart:1.4 by=wabbit")
	s.leave(t)
	if err := s.registry.Listen(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // the promise is about this time
	expect(t, s.verify(t, "cart:1.4"), "TRUSTED/TRUSTED")
}

// TestL44_AListThatIsNotServedIsNoAbsence: with whenUndecided: allow, an image passes
// while its registry refuses connections, and not while the registry answers
// anything at all.
func TestL44_AListThatIsNotServedIsNoAbsence(t *testing.T) {
	allow := strings.Replace(trusting("wabbit"), "  owner:", "  whenUndecided: allow\n  owner:", 1)
	for name, fault := range map[string]registrytest.Fault{
		"the list answers 500":       registrytest.On("/referrers/", registrytest.Status(500)),
		"the list answers 503":       registrytest.On("/referrers/", registrytest.Status(503)),
		"the list is cut":            registrytest.On("/referrers/", registrytest.Reset()),
		"the list is throttled":      registrytest.On("/referrers/", registrytest.Throttle("")),
		"a manifest answers 500":     registrytest.On("/manifests/sha256", registrytest.Status(500)),
		"a blob answers 502":         registrytest.On("/blobs/", registrytest.Status(502)),
		"everything answers 500":     registrytest.Status(500),
		"everything is throttled":    registrytest.Throttle("1"),
		"everything wants a sign-in": registrytest.Status(401),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, allow)
			s.run(t, "image cart:1.4\nsign cart:1.4 by=mallory")
			s.registry.SetFault(fault)
			a := s.verify(t, "cart@"+s.images["cart:1.4"].Digest.String())
			if a.Success || a.Status == string(verifier.StatusExempt) {
				t.Errorf("%s: %s", a.word(), a.Message)
			}
		})
	}
	t.Run("it refuses connections", func(t *testing.T) {
		s := newScene(t, registrytest.Options{}, allow)
		s.run(t, "image cart:1.4")
		s.registry.Refuse()
		for end := time.Now().Add(time.Minute); s.verify(t, "cart:1.4").word() != "EXEMPT/EXEMPTED"; {
			if time.Now().After(end) {
				t.Fatal("it is never let through")
			}
		}
	})
}
