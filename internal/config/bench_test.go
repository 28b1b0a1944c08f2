package config

import (
	"fmt"
	"testing"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// thousand are policies as a large company has them: all on one host.
func thousand() *Snapshot {
	var documents []*Document
	for i := range 1000 {
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
	s := thousand()
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

// TestSelectionIsFast: a selection among a thousand policies of one host is a
// thousandth of the time that a decision has, at three times what it may take.
func TestSelectionIsFast(t *testing.T) {
	s, ref := thousand(), verifier.Reference{Registry: "registry.example.com", Repository: "team-999/service/app-web"}
	const rounds = 1000
	began := time.Now()
	for range rounds {
		s.For(verifier.Request{Namespace: "team", Image: ref})
	}
	if each := time.Since(began) / rounds; each > 3*time.Millisecond {
		t.Errorf("%v each", each)
	}
}
