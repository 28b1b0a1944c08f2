package config_test

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// want is a question and its answer: "[namespace]image" and what decision says.
type want struct{ key, answer string }

func ask(t *testing.T, s *config.Snapshot, wants []want) {
	t.Helper()
	for _, w := range wants {
		namespace, image := "", w.key
		if rest, namespaced := strings.CutPrefix(w.key, "["); namespaced {
			namespace, image, _ = strings.Cut(rest, "]")
		}
		if got := decision(t, s, namespace, image); got != w.answer {
			t.Errorf("%s: %q, want %q", w.key, got, w.answer)
		}
	}
}

func TestMostSpecificWins(t *testing.T) {
	s := sound(t, cluster("everything", `"**/**"`)+
		cluster("hosts", `"*.example.com/**"`)+
		cluster("host", `"shop.example.com/**"`)+
		cluster("segment", `"shop.example.com/*"`)+
		cluster("part", `"shop.example.com/web-*"`)+
		cluster("literal", `"shop.example.com/web-cart"`)+
		cluster("first-literal", `"shop.example.com/team/*/app"`)+
		cluster("later-literal", `"shop.example.com/*/payment/app"`)+
		cluster("many-then-literal", `"shop.example.com/**/app"`)+
		cluster("deep-hosts", `"**.example.test/**"`)+
		cluster("port", `"shop.example.com:5000/**"`)+
		cluster("any-on-port", `"**:7000/**"`))
	ask(t, s, []want{
		{"elsewhere.test/a", "everything"},
		{"elsewhere.test:5000/a", "everything"},
		{"[any][::1]:5000/a", "everything"},
		{"elsewhere.test:7000/a", "any-on-port"},
		{"nginx", "everything"},
		{"other.example.com/a/b/c", "hosts"},
		{"a.b.example.com/a", "everything"}, // * stays within a label
		{"other.example.com:5000/a", "everything"},
		{"shop.example.com/a/b", "host"},
		{"shop.example.com/a", "segment"},
		{"shop.example.com/web-shop", "part"},
		{"shop.example.com/web-cart", "literal"},
		{"shop.example.com/web-cart:1.0", "literal"},
		{"shop.example.com/web-cart/more", "host"},
		{"shop.example.com/team/payment/app", "first-literal"},
		{"shop.example.com/team/payment/application", "host"}, // a literal segment is the whole of one
		{"shop.example.com/other/payment/app", "later-literal"},
		{"shop.example.com/other/things/app", "many-then-literal"},
		{"shop.example.com/x/y/z/app", "many-then-literal"},
		{"shop.example.com/app", "segment"}, // ** is one segment at least
		{"example.test/a", "everything"},
		{"a.example.test/a", "deep-hosts"},
		{"a.b.example.test/a", "deep-hosts"},
		{"shop.example.com:5000/web-cart", "port"},
		{"shop.example.com:443/web-cart", "literal"},
	})
}

func TestTiesMustAllHold(t *testing.T) {
	s := sound(t, cluster("b", `"shop.example.com/web-*"`)+
		cluster("a", `"shop.example.com/*-cart"`)+
		cluster("c", `"shop.example.com/**"`))
	ask(t, s, []want{
		{"shop.example.com/web-cart", "a, b"},
		{"shop.example.com/web-shop", "b"},
		{"shop.example.com/old-cart", "a"},
		{"shop.example.com/x", "c"},
	})
}

func TestNamespacesOfAClusterTrustPolicy(t *testing.T) {
	s := sound(t, cluster("all", `"shop.example.com/**"`)+
		cluster("prod", `"shop.example.com/**"`, "namespaces: [prod, prod-*]")+
		cluster("payment", `"shop.example.com/**"`, "namespaces: ['*-payment']")+
		cluster("cart", `"shop.example.com/cart"`, "namespaces: [prod]")+
		cluster("only-prod", `"prod.example.com/**"`, "namespaces: [prod]")+
		cluster("any-namespace", `"any.example.com/**"`, "namespaces: ['*']"))
	ask(t, s, []want{
		{"[dev]shop.example.com/a", "all"},
		{"[prod]shop.example.com/a", "prod"},
		{"[production]shop.example.com/a", "all"},
		{"[prod-payment]shop.example.com/a", "payment, prod"},
		{"[prod]shop.example.com/cart", "cart"},
		{"[dev]shop.example.com/cart", "all"},
		{"[dev]prod.example.com/a", "REFUSED POLICY_NOT_FOUND"},
		{"[prod]prod.example.com/a", "only-prod"},

		// Without a namespace, all that could apply.
		{"shop.example.com/a", "all, payment, prod"},
		{"shop.example.com/cart", "cart, all, payment, prod"},
		{"prod.example.com/a", "REFUSED POLICY_NOT_FOUND"}, // what another namespace would answer
		{"any.example.com/a", "any-namespace"},
	})
}

func TestTrustPolicyAddsAndReplaces(t *testing.T) {
	s := sound(t, cluster("strict", `"shop.example.com/**"`)+
		cluster("lent", `"lent.example.com/**"`, "delegate: true")+
		cluster("tie-a", `"tie.example.com/a-*"`, "delegate: true")+
		cluster("tie-b", `"tie.example.com/*-b"`)+
		tenant("team-a", "ours", `"shop.example.com/ours/**", "lent.example.com/ours/**", "tie.example.com/**", "alone.example.com/**"`)+
		tenant("team-a", "cart", `"shop.example.com/ours/cart"`)+
		tenant("team-b", "theirs", `"**/**"`, skip("we know better")))
	ask(t, s, []want{
		{"[team-a]shop.example.com/x", "strict"},
		{"[team-a]shop.example.com/ours/x", "strict, team-a/ours"},
		{"[team-a]shop.example.com/ours/cart", "strict, team-a/cart"},
		{"[team-a]lent.example.com/ours/x", "team-a/ours"},
		{"[team-a]lent.example.com/x", "lent"},
		{"[team-a]tie.example.com/a-b", "tie-a, tie-b, team-a/ours"}, // one of them does not delegate
		{"[team-a]tie.example.com/a-c", "team-a/ours"},
		{"[team-a]alone.example.com/x", "REFUSED POLICY_NOT_FOUND"},
		{"[team-b]shop.example.com/x", "strict"}, // a skip adds nothing
		{"[team-b]lent.example.com/x", "EXEMPT SKIPPED team-b/theirs"},
		{"[team-b]alone.example.com/x", "REFUSED POLICY_NOT_FOUND"},
		{"[team-c]lent.example.com/x", "lent"},
		// Without a namespace, cluster policies only.
		{"shop.example.com/ours/x", "strict"},
		{"lent.example.com/ours/x", "lent"},
	})
}

func TestSkipAddsNothingBesideOthers(t *testing.T) {
	s := sound(t, cluster("skip", `"shop.example.com/web-*"`, skip("they are ours"))+
		cluster("skip-too", `"shop.example.com/*-tool"`, skip("tools"))+
		cluster("check", `"shop.example.com/*-cart"`)+
		cluster("in-prod", `"shop.example.com/web-*"`, "namespaces: [prod]")+
		tenant("team-a", "ours", `"shop.example.com/**"`))
	ask(t, s, []want{
		{"[dev]shop.example.com/web-shop", "EXEMPT SKIPPED skip"},
		{"[dev]shop.example.com/web-tool", "EXEMPT SKIPPED skip, skip-too"},
		{"[dev]shop.example.com/web-cart", "check"},
		{"[prod]shop.example.com/web-shop", "in-prod"},
		{"shop.example.com/web-shop", "in-prod"},
		{"[team-a]shop.example.com/web-shop", "team-a/ours"},
	})
	_, verdict := s.For(verifier.Request{Namespace: "dev", Image: image(t, "shop.example.com/web-tool")})
	if !strings.Contains(verdict.Message(), "they are ours; tools") || !verdict.Success() {
		t.Errorf("%s", verdict.Message())
	}
}

func TestNotaryTrustPolicySkips(t *testing.T) {
	s := sound(t, cluster("a", `"shop.example.com/**"`, `require:
    name: notary
    notation:
      trustStores: {ca: [{name: acme, file: ca.crt}]}
      trustPolicyDoc:
        version: "1.0"
        trustPolicies:
          - {name: test, registryScopes: [shop.example.com/test], signatureVerification: {level: skip}}
          - name: default
            registryScopes: ["*"]
            signatureVerification: {level: strict, override: {revocation: skip}}
            trustStores: ["ca:acme"]
            trustedIdentities: ["*"]`))
	ask(t, s, []want{
		{"shop.example.com/test:1", "EXEMPT SKIPPED a"},
		{"shop.example.com/test/other", "a"},
		{"shop.example.com/other", "a"},
	})
}

func TestL20_EverySpellingOneDecision(t *testing.T) {
	s := sound(t, cluster("official", `"docker.io/library/nginx"`)+
		cluster("hub", `"docker.io/**"`)+
		cluster("shop", `"Shop.Example.com:443/**"`)+
		cluster("rest", `"**/**"`))
	ask(t, s, []want{
		{"nginx", "official"},
		{"nginx:1.25", "official"},
		{"docker.io/nginx", "official"},
		{"docker.io/library/nginx:latest", "official"},
		{"index.docker.io/nginx", "official"},
		{"index.docker.io/library/nginx:latest", "official"},
		{"docker.io:443/library/nginx", "official"},
		{"DOCKER.IO/library/nginx", "official"},
		{"team/app", "hub"},
		{"shop.example.com/cart", "shop"},
		{"SHOP.example.com/cart", "shop"},
		{"shop.example.com:443/cart", "shop"},
		{"shop.example.com:443/cart@sha256:" + strings.Repeat("0", 64), "shop"},
	})
	for _, text := range []string{"shop.example.com./cart", "https://shop.example.com/cart", "robot@shop.example.com/cart"} {
		if _, err := verifier.ParseReference(text); err == nil {
			t.Errorf("%s is a reference", text)
		}
	}
}

// Spellings that container runtimes do not agree about are refused before any
// policy is asked, or get the one decision.
func TestL20_AmbiguousSpellings(t *testing.T) {
	s := sound(t, cluster("official", `"docker.io/library/nginx"`)+cluster("rest", `"**/**"`))
	for _, text := range []string{"docker.io:443/nginx", "DOCKER.IO/nginx", "INDEX.docker.io/nginx", "index.docker.io:443/library/nginx"} {
		if _, err := verifier.ParseReference(text); err == nil {
			ask(t, s, []want{{text, "official"}})
		}
	}
}

func TestL25_TrustPolicyStaysInItsNamespace(t *testing.T) {
	s := snapshot(t, cluster("lent", `"shop.example.com/**"`, "delegate: true")+
		tenant("team-a", "ours", `"**/**"`)+
		tenant("team-b", "open", `"**/**"`, skip("we trust ourselves"))+
		tenant("team-c", "broken", `"**/**"`, "levl: strict")+
		tenant("team-d", "unreadable", `"???"`))
	ask(t, s, []want{
		{"[team-a]shop.example.com/x", "team-a/ours"},
		{"[team-b]shop.example.com/x", "EXEMPT SKIPPED team-b/open"},
		{"[team-c]shop.example.com/x", "team-c/broken: POLICY_INVALID"},
		{"[team-d]shop.example.com/x", "team-d/unreadable: POLICY_INVALID"},
		{"[team-d]elsewhere.example.com/x", "team-d/unreadable: POLICY_INVALID"},
		{"[team-a]elsewhere.example.com/x", "REFUSED POLICY_NOT_FOUND"},
		{"[team]shop.example.com/x", "lent"},
		{"[team-aa]shop.example.com/x", "lent"},
		{"[*]shop.example.com/x", "lent"},
		{"shop.example.com/x", "lent"},
	})
	if err := s.Ready(); err != nil {
		t.Errorf("a tenant's document makes the provider unready: %v", err)
	}
}

func TestNothingNamedIsRefused(t *testing.T) {
	chain, verdict := sound(t, cluster("all", `"**/**"`)).For(verifier.Request{})
	if chain != nil || verdict.Status() != verifier.StatusRefused {
		t.Errorf("%v, %v", chain, verdict.Status())
	}
	ask(t, load(t, directory(t, nil)).Snapshot(), []want{{"shop.example.com/a", "REFUSED POLICY_NOT_FOUND"}})
}
