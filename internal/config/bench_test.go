package config

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// many are policies as a large company has them: all on one host.
func many(n int) *Snapshot {
	var documents []*Document
	for i := range n {
		p, e := parsePattern(fmt.Sprintf("registry.example.com/team-%03d/*/app-*", i))
		if e != nil {
			panic(e.what)
		}
		documents = append(documents, skipping(ID{Kind: api.KindClusterTrustPolicy, Name: fmt.Sprint("p", i)}, []pattern{p}, nil, false))
	}
	rest, _ := parsePattern("**/**")
	return build(append(documents, skipping(ID{Kind: api.KindClusterTrustPolicy, Name: "rest"}, []pattern{rest}, nil, false))...)
}

func BenchmarkForAThousandPolicies(b *testing.B) {
	s := many(1000)
	for name, ref := range map[string]verifier.Reference{
		"same host":  {Registry: "registry.example.com", Repository: "team-999/service/app-web"},
		"no host":    {Registry: "elsewhere.example.com", Repository: "a/b"},
		"same, none": {Registry: "registry.example.com", Repository: "team/b"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.For(verifier.Request{Namespace: "team", Image: ref})
			}
		})
	}
}

// TestSelectionIsFast: among a thousand policies of one registry a policy is
// found about as soon as among two.
func TestSelectionIsFast(t *testing.T) {
	quickest := func(s *Snapshot, repository string) time.Duration {
		best := time.Hour // the least of many is what the machine's other work did not add to
		request := verifier.Request{Namespace: "team", Image: verifier.Reference{Registry: "registry.example.com", Repository: repository}}
		for range 50 {
			began := time.Now()
			for range 50 {
				s.For(request)
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	few, thousand := quickest(many(1), "team-000/service/app-web"), quickest(many(1000), "team-999/service/app-web")
	if thousand > 10*few {
		t.Errorf("%v among a thousand, %v among two", thousand/50, few/50)
	}
}

// BenchmarkReload is what a change among a thousand files costs, and what
// looking costs where nothing changed.
func BenchmarkReload(b *testing.B) {
	dir := filepath.Join(goodDirectory(b), "policies")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		text := fmt.Sprintf("apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: p%d}\nspec:\n  images: [registry.example.com/team-%d/**]\n  require: {name: a, notation: {level: strict, trustStores: {ca: [{file: ../ca.crt}]}, trustedIdentities: ['*']}}\n", i, i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("p%d.yaml", i)), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Load(b.Context(), Options{Path: dir, Environment: testEnvironment()})
	if err != nil || len(s.Snapshot().Problems()) > 0 {
		b.Fatal(err, s.Snapshot().Problems())
	}
	b.Run("nothing changed", func(b *testing.B) {
		for b.Loop() {
			s.Reload(b.Context())
		}
	})
	b.Run("one changed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			text := fmt.Sprintf("apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: extra}\nspec:\n  images: [registry.example.com/extra-%d/**]\n  require: {skip: {reason: a test}}\n", i)
			if err := os.WriteFile(filepath.Join(dir, "extra.yaml"), []byte(text), 0o600); err != nil {
				b.Fatal(err)
			}
			if !s.Reload(b.Context()) {
				b.Fatal("not seen")
			}
		}
	})
}

// BenchmarkUpdate is what looking at a thousand objects costs where nothing changed.
func BenchmarkUpdate(b *testing.B) {
	var documents []*Document
	for i := range 1000 {
		documents = append(documents, ParseObject(map[string]any{
			"apiVersion": api.APIVersion, "kind": api.KindClusterTrustPolicy, "metadata": map[string]any{"name": fmt.Sprint("p", i)},
			"spec": map[string]any{"images": []any{fmt.Sprintf("registry.example.com/team-%d/**", i)}, "require": map[string]any{"skip": map[string]any{"reason": "a test"}}},
		}))
	}
	o := NewObjects(ObjectsOptions{Environment: testEnvironment(), LastGood: filepath.Join(b.TempDir(), "last-good")})
	if problems := o.Update(b.Context(), documents).Problems(); len(problems) > 0 {
		b.Fatal(problems)
	}
	for b.Loop() {
		o.Update(b.Context(), documents)
	}
}
