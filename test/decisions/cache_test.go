package decisions

import (
	"net/http"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

const (
	// defaultTTL is Gatekeeper's; shortTTL the shortest there is. What is kept for
	// the default is kept for these tests.
	defaultTTL = 3 * time.Minute
	shortTTL   = time.Second
)

// TestL38_TagMovesWithinTheTTL: Gatekeeper goes on admitting the tag for as long
// as it keeps the answer; then it is refused.
func TestL38_TagMovesWithinTheTTL(t *testing.T) {
	s := newScene(t, options{ttl: defaultTTL})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Push(ctx, "cart:unsigned"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	s.wantAdmitted(t, s.Name("cart:1.4"))
	do(t, s.Move(ctx, "cart:1.4", "cart:unsigned"))
	asked := len(s.registry.Requests())
	s.wantAdmitted(t, s.Name("cart:1.4"))
	if now := len(s.registry.Requests()); now != asked {
		t.Errorf("%d requests within the TTL", now-asked)
	}
	s.wantDenied(t, s.Name("cart@"+s.Digest("cart:unsigned").String()), "no signature found")

	s.newEngine(t, options{ttl: shortTTL})
	eventually(t, "the moved tag is refused", func() bool { return !s.admit(t, s.Name("cart:1.4")).Allowed })
}

// TestL38_ImageIsSignedWithinTheTTL: a refusal is kept like an admission; the
// signature is seen after it.
func TestL38_ImageIsSignedWithinTheTTL(t *testing.T) {
	s := newScene(t, options{ttl: defaultTTL})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"))
	s.wantDenied(t, s.Name("cart:1.4"), "no signature found")
	do(t, s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	s.wantDenied(t, s.Name("cart:1.4"), "no signature found")

	s.newEngine(t, options{ttl: shortTTL})
	eventually(t, "the signed image is admitted", func() bool { return s.admit(t, s.Name("cart:1.4")).Allowed })
}

// TestL38_NamespacesWithDifferentPolicies ask for one image, and neither gets the
// other's answer from any cache.
func TestL38_NamespacesWithDifferentPolicies(t *testing.T) {
	s := newScene(t, options{ttl: defaultTTL, policy: production + `---
apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: bank}
spec:
  images: ["$REGISTRY/**"]
  namespaces: [bank]
  owner: bank@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    name: treasury
    notation: {level: strict, trustStores: {ca: [{file: ../treasury.crt}]}, trustedIdentities: ["*"]}
`})
	ctx := t.Context()
	_, err := s.Signer("treasury")
	must(t, err)
	must(t, s.Policy("touch.yaml", "# makes the provider look for treasury.crt again\n"))
	do(t,
		s.Push(ctx, "wabbit:1"), s.Sign(ctx, "wabbit:1", "wabbit", notationtest.SignOptions{}),
		s.Push(ctx, "treasury:1"), s.Sign(ctx, "treasury:1", "treasury", notationtest.SignOptions{}),
	)
	eventually(t, "bank's policy is loaded", func() bool { return s.admitIn(t, "bank", s.Name("treasury:1")).Allowed })
	for range 2 {
		for _, c := range []struct {
			namespace, image string
			want             bool
		}{{"shop", "wabbit:1", true}, {"bank", "wabbit:1", false}, {"shop", "treasury:1", false}, {"bank", "treasury:1", true}} {
			if decision := s.admitIn(t, c.namespace, s.Name(c.image)); decision.Allowed != c.want {
				t.Errorf("%s in %s: admitted %v, want %v: %s", c.image, c.namespace, decision.Allowed, c.want, decision.Text)
			}
		}
	}
}

// TestL38_OneItemMissing: what could not be decided is asked again at once, and
// alone; the rest of the Pod is remembered.
func TestL38_OneItemMissing(t *testing.T) {
	s := newScene(t, options{ttl: defaultTTL})
	ctx := t.Context()
	for _, image := range []string{"cart:1", "slow:1"} {
		do(t, s.Push(ctx, image), s.Sign(ctx, image, "wabbit", notationtest.SignOptions{}))
	}
	s.registry.SetFault(registrytest.On("/slow/", registrytest.Status(http.StatusServiceUnavailable)))
	decision := s.admit(t, s.Name("cart:1"), s.Name("slow:1"))
	if decision.Allowed || len(decision.Denials) != 1 {
		t.Errorf("want one denial: %q", decision.Denials)
	}
	wantMessage(t, decision, s.Name("slow:1"), "undecided", "REGISTRY_UNREACHABLE")

	s.registry.SetFault(registrytest.On("/cart/", registrytest.Status(http.StatusServiceUnavailable)))
	eventually(t, "the registry is believed to be up again", func() bool { return s.admit(t, s.Name("cart:1"), s.Name("slow:1")).Allowed })
}

// TestL38_TransientFailureIsGoneAtTheNextReview: a registry that fails is a
// refusal, which is not kept.
func TestL38_TransientFailureIsGoneAtTheNextReview(t *testing.T) {
	s := newScene(t, options{ttl: defaultTTL})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	s.registry.SetFault(registrytest.Status(http.StatusServiceUnavailable))
	s.wantDenied(t, s.Name("cart:1.4"), "undecided")
	s.registry.SetFault(nil)
	eventually(t, "the registry is back", func() bool { return s.admit(t, s.Name("cart:1.4")).Allowed })
}
