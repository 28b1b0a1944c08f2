package decisions

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// TestL19_PatternsAreAnchored: names that look like one that a policy admits. No
// other host than the registry's is spoken to, and the registry only about the
// path that the policy names.
func TestL19_PatternsAreAnchored(t *testing.T) {
	s := newScene(t, options{policy: `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: team}
spec:
  images: ["$REGISTRY/team/*"]
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require: {skip: {reason: everything of the team runs}}
`})
	host, port, _ := strings.Cut(s.Host, ":")
	s.wantAdmitted(t, s.Name("team/cart:1.4"))
	for _, image := range []string{
		"attacker.example/" + s.Name("team/cart:1.4"),
		"attacker.example/" + host + "/team/cart:1.4",
		host + ".attacker.example:" + port + "/team/cart:1.4",
		host + ":" + port + "0/team/cart:1.4",
		host + "/team/cart:1.4",
		"user@" + s.Name("team/cart:1.4"),
		"localhost:" + port + "/team/cart:1.4",
		s.Name("team/deeper/cart:1.4"),
		s.Name("team-evil/cart:1.4"),
		s.Name("evil/team/cart:1.4"),
		s.Name("team:1.4"),
		s.Name("team/../team/cart:1.4"),
		s.Name("team/cart:1.4#"),
		"team/cart:1.4",
	} {
		if decision := s.admit(t, image); decision.Allowed {
			t.Errorf("%s admitted", image)
		}
	}
	if requests := s.registry.Requests(); len(requests) > 0 {
		t.Errorf("the registry was asked: %v", requests)
	}
}

// TestL20_EverySpellingOfOneImage: what names one image gets one decision.
func TestL20_EverySpellingOfOneImage(t *testing.T) {
	s := newScene(t, options{policy: `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: hub}
spec:
  images: ["docker.io/library/nginx"]
  require: {skip: {reason: this one runs}}
---
apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    name: wabbit
    notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}
`})
	for _, image := range []string{
		"nginx", "nginx:latest", "library/nginx", "docker.io/nginx", "docker.io/library/nginx:latest",
		"index.docker.io/nginx", "index.docker.io/library/nginx:latest", "docker.io:443/library/nginx", "DOCKER.IO/library/nginx",
	} {
		s.wantAdmitted(t, image)
	}
	for _, image := range []string{"nginx2", "docker.io/nginx/nginx", "quay.io/library/nginx", "Nginx", "docker.io./library/nginx/x"} {
		if s.admit(t, image).Allowed {
			t.Errorf("%s admitted", image)
		}
	}

	ctx := t.Context()
	do(t, s.Push(ctx, "cart:latest"), s.Push(ctx, "bare:latest"), s.Sign(ctx, "cart:latest", "wabbit", notationtest.SignOptions{}))
	for _, end := range []string{"", ":latest", "@" + s.Digest("cart:latest").String(), ":latest@" + s.Digest("cart:latest").String(), ":other@" + s.Digest("cart:latest").String()} {
		s.wantAdmitted(t, s.Name("cart"+end))
	}
	for _, end := range []string{"", ":latest", "@" + s.Digest("bare:latest").String(), ":latest@" + s.Digest("bare:latest").String()} {
		if s.admit(t, s.Name("bare"+end)).Allowed {
			t.Errorf("bare%s admitted", end)
		}
	}
}

// TestL21_NothingMatchedIsNotAllowed: an image that no policy speaks of, a provider
// that has no policy at all, and one that is gone.
func TestL21_NothingMatchedIsNotAllowed(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	s.wantAdmitted(t, s.Name("cart:1.4"))
	s.wantDenied(t, "elsewhere.example.com/x:1", "no ClusterTrustPolicy matches")
	if decision := s.admit(t, s.Name("cart:1.4"), "elsewhere.example.com/x:1"); decision.Allowed || len(decision.Denials) != 1 {
		t.Errorf("want one denial of two images: %q", decision.Denials)
	}

	do(t, s.Policy("production.yaml", "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: other}\nspec:\n  images: [\"registry.example.com/**\"]\n  require: {skip: {reason: another registry}}\n"))
	eventually(t, "the policy is gone", func() bool { return !s.admit(t, s.Name("cart:1.4")).Allowed })
	s.wantDenied(t, s.Name("cart:1.4"), "no ClusterTrustPolicy matches")

	must(t, s.server.Stop())
	decision := s.admit(t, s.Name("cart:1.4"))
	if decision.Allowed || !strings.Contains(decision.Text, "provider countersign gave no verdict") || !strings.Contains(decision.Text, s.Name("cart:1.4")) {
		t.Errorf("with the provider gone: %q", decision.Text)
	}
}
