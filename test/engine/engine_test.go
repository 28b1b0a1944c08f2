package engine_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/pki"
)

// TestReplacedEngineDecidesNothing: an older Engine would ask through the newer
// one's driver, so it says so instead.
func TestReplacedEngineDecidesNothing(t *testing.T) {
	pod := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "pod"},
	}}
	older := newEngine(t)
	if decision, err := older.Admit(t.Context(), engine.Create("shop", pod)); err != nil || !decision.Allowed {
		t.Fatalf("without constraints: %+v, %v", decision, err)
	}
	newer := newEngine(t)
	if _, err := older.Admit(t.Context(), engine.Create("shop", pod)); err == nil {
		t.Error("the older engine decides")
	}
	if _, err := older.Audit(t.Context(), pod); err == nil {
		t.Error("the older engine audits")
	}
	if _, _, err := older.Mutate(t.Context(), engine.Create("shop", pod)); err == nil {
		t.Error("the older engine mutates")
	}
	if _, err := newer.Admit(t.Context(), engine.Create("shop", pod)); err != nil {
		t.Error(err)
	}
}

func newEngine(t *testing.T) *engine.Engine {
	t.Helper()
	authority, err := pki.NewAuthority("gatekeeper-ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.GatekeeperName)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := pair.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(t.Context(), engine.Config{CertFile: certFile, KeyFile: keyFile})
	if err != nil {
		t.Fatal(err)
	}
	return e
}
