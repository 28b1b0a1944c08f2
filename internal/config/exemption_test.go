package config_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	digestOfCart  = "sha256:9f2c41d07b6a000000000000000000000000000000000000000000000000beef"
	digestOfOther = "sha256:9f2c41d07b6a000000000000000000000000000000000000000000000000bee0"
)

// exemption is an Exemption of what (images or digests) until a moment.
func exemption(name, what, namespaces string, until time.Time) string {
	return "---\napiVersion: countersign.dev/v1beta1\nkind: Exemption\nmetadata: {name: " + name + "}\nspec:\n  " + what +
		"\n  namespaces: [" + namespaces + "]\n  reason: its pipeline is broken\n  owner: shop@example.com\n  expiresAt: " + until.Format(time.RFC3339) + "\n"
}

// TestL25_AnExemptionStaysInItsNamespaces, and is about what it names.
func TestL25_AnExemptionStaysInItsNamespaces(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	s := sound(t, cluster("shop", `"shop.example.com/**"`)+
		exemption("by-name", `images: ["shop.example.com/legacy/*", "old.example.com/**"]`, `shop, "team-*"`, soon)+
		exemption("by-digest", `digests: ["`+digestOfCart+`"]`, "shop", soon)+
		exemption("all", `images: ["shop.example.com/everywhere"]`, `"*"`, soon))
	const byName, byDigest, all = "EXEMPT EXEMPTED Exemption by-name", "EXEMPT EXEMPTED Exemption by-digest", "EXEMPT EXEMPTED Exemption all"
	for key, want := range map[string]string{
		"[shop]shop.example.com/legacy/cart:1":          byName,
		"[team-a]shop.example.com/legacy/cart:1":        byName,
		"[pay]shop.example.com/legacy/cart:1":           "shop",
		"shop.example.com/legacy/cart:1":                "shop",
		"[shop]shop.example.com/legacy/cart/web:1":      "shop",
		"[shop]shop.example.com/cart:1":                 "shop",
		"[shop]old.example.com/cart:1":                  byName, // whatever policies there are
		"[pay]old.example.com/cart:1":                   "REFUSED POLICY_NOT_FOUND",
		"[shop]shop.example.com/cart@" + digestOfCart:   byDigest,
		"[shop]other.example.com/any@" + digestOfCart:   byDigest,
		"[pay]shop.example.com/cart@" + digestOfCart:    "shop",
		"shop.example.com/cart@" + digestOfCart:         "shop",
		"[shop]shop.example.com/cart@" + digestOfOther:  "shop",
		"shop.example.com/everywhere:1":                 all,
		"[pay]shop.example.com/everywhere:1":            all,
		"[pay]shop.example.com.evil.example/legacy/x:1": "REFUSED POLICY_NOT_FOUND",
	} {
		namespace, name := "", key
		if rest, ok := strings.CutPrefix(key, "["); ok {
			namespace, name, _ = strings.Cut(rest, "]")
		}
		if got := decision(t, s, namespace, name); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// TestL25_AnExemptionByDigestWaitsInItsNamespaces: an image that is named by its tag
// may turn out to have the exempt digest, in the Exemption's namespaces only.
func TestL25_AnExemptionByDigestWaitsInItsNamespaces(t *testing.T) {
	s := sound(t, cluster("shop", `"shop.example.com/**"`)+exemption("by-digest", `digests: ["`+digestOfCart+`"]`, "shop", time.Now().Add(time.Hour)))
	chain := func(namespace string) *verifier.Chain {
		found, verdict := s.For(verifier.Request{Namespace: namespace, Image: image(t, "shop.example.com/cart:1")})
		if found == nil {
			t.Fatalf("%q: %s", namespace, verdict.Message())
		}
		return found
	}
	if without := chain("pay"); chain("shop") == without || chain("other") != without || chain("") != without {
		t.Error("the Exemption waits for the digest in another namespace than its own, or does not wait in its own")
	}
}

// TestAnExemptionEnds at its moment, without being read anew.
func TestAnExemptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(4 * 24 * time.Hour).UTC().Truncate(time.Second)
		s := sound(t, cluster("shop", `"shop.example.com/**"`)+exemption("cart", `images: ["shop.example.com/cart"]`, "shop", until))
		status := func() config.PolicyStatus { return s.Policies()[1] }
		for _, step := range []struct {
			at       time.Duration
			phase    config.Phase
			reason   string
			reminder string
		}{
			{0, config.PhaseActive, "EXEMPTED", ""},
			{2 * 24 * time.Hour, config.PhaseEnding, "EXEMPTED", "Exemption cart ends at " + until.Format(time.RFC3339) + "; from then on its images are verified"},
			{2*24*time.Hour - time.Second, config.PhaseEnding, "EXEMPTED", "Exemption cart ends at " + until.Format(time.RFC3339) + "; from then on its images are verified"},
			{time.Second, config.PhaseEnded, "", "Exemption cart ended at " + until.Format(time.RFC3339) + " and exempts nothing any more"},
		} {
			time.Sleep(step.at) // synctest's clock
			if got := status().Phase(time.Now()); got != step.phase {
				t.Errorf("after %s: %s, want %s", step.at, got, step.phase)
			}
			chain, verdict := s.For(verifier.Request{Namespace: "shop", Image: image(t, "shop.example.com/cart:1")})
			if got := string(verdict.Reason()); got != step.reason || (chain == nil) != (step.reason != "") {
				t.Errorf("%s: %s, want %s", step.phase, got, step.reason)
			}
			if got := status().Reminder(time.Now()); got != step.reminder {
				t.Errorf("%s: %q, want %q", step.phase, got, step.reminder)
			}
		}
	})
}

// TestABrokenExemptionExemptsNothing, unless it was good before.
func TestABrokenExemptionExemptsNothing(t *testing.T) {
	text := cluster("shop", `"shop.example.com/**"`) + exemption("cart", `images: ["shop.example.com/cart"]`, "shop", time.Now().Add(time.Hour))
	s := snapshot(t, strings.Replace(text, "owner: shop@example.com", "", 1))
	if len(s.Problems()) != 1 || s.Ready() != nil {
		t.Errorf("%v, %v", s.Problems(), s.Ready())
	}
	if got := decision(t, s, "shop", "shop.example.com/cart:1"); got != "shop" {
		t.Error(got)
	}
}

// TestTheMessageOfAnExemption says which, until when, why and whom to ask.
func TestTheMessageOfAnExemption(t *testing.T) {
	until := time.Date(2126, 12, 31, 18, 0, 0, 0, time.UTC)
	s := sound(t, exemption("cart", `images: ["shop.example.com/cart"]`, "shop", until))
	_, verdict := s.For(verifier.Request{Namespace: "shop", Image: image(t, "shop.example.com/cart:1")})
	const want = "shop.example.com/cart:1: not verified until 2126-12-31 18:00 UTC, as Exemption cart says: its pipeline is broken. Ask shop@example.com"
	if verdict.Message() != want {
		t.Errorf("%s\n%s", verdict.Message(), want)
	}
}
