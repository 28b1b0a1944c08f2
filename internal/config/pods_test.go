package config

import (
	"path/filepath"
	"testing"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// TestPodsAskThroughViewsOfTheirOwn: where a policy signs in with pods' pull secrets,
// what one pod may read is no other's, and the same pod asks through the same Chain.
func TestPodsAskThroughViewsOfTheirOwn(t *testing.T) {
	env := testEnvironment()
	env.Pods = auth.NewPods(nil)
	views := map[string]int{}
	env.View = func(o store.ViewOptions) (verifier.Store, error) {
		views[o.Registries[0].Credential.ID()]++
		if id := o.Registries[1].Credential.ID(); id != auth.NewStatic(auth.Credential{AccessToken: "x"}).ID() {
			t.Errorf("the other registry is asked as %s", id)
		}
		return &verifiertest.Store{}, nil
	}
	s := newBuilder(env).build(revision{
		documents: Parse(filepath.Join(goodDirectory(t), "p.yaml"), []byte(`apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: pods}
spec:
  images: ["a.example/**", "b.example/**"]
  registries: [{host: a.example, auth: {podPullSecrets: {}}}, {host: b.example, auth: {static: {token: {inline: x}}}}]
  require: {name: a, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: ['*']}}
`)), sources: newSources(nil), dark: func(*Document) bool { return true },
	})
	for _, p := range s.Problems() {
		t.Fatal(p)
	}
	ref, err := verifier.ParseReference("a.example/cart:1")
	if err != nil {
		t.Fatal(err)
	}
	chains := map[*verifier.Chain]string{}
	for name, request := range map[string]verifier.Request{
		"shop":             {Namespace: "shop", ServiceAccount: "till"},
		"another account":  {Namespace: "shop", ServiceAccount: "cart"},
		"a secret":         {Namespace: "shop", ServiceAccount: "till", PullSecrets: []string{"a"}},
		"two secrets":      {Namespace: "shop", ServiceAccount: "till", PullSecrets: []string{"a", "b"}},
		"their other turn": {Namespace: "shop", ServiceAccount: "till", PullSecrets: []string{"b", "a"}},
		"pay":              {Namespace: "pay", ServiceAccount: "till"},
		"nobody":           {},
	} {
		request.Image = ref
		chain, _ := s.For(request)
		if other, ok := chains[chain]; ok {
			t.Errorf("%s asks as %s does", name, other)
		}
		chains[chain] = name
		if again, _ := s.For(request); again != chain {
			t.Errorf("%s asks through two Chains", name)
		}
	}
	for id, n := range views {
		if n != 1 && id != env.Pods.Of(auth.Pod{}).ID() {
			t.Errorf("%s: %d views", id, n)
		}
	}
	if len(views) != len(chains) {
		t.Errorf("%d views for %d pods", len(views), len(chains))
	}
}
