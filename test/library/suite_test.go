// Package library tests the policies of ../../library on Gatekeeper's own
// engine, with a provider that says whatever a case wants it to say. What the
// real provider says is not its subject.
package library

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/pki"
)

const (
	libraryDir = "../../library"
	// providerTimeout is in seconds; nothing here takes one.
	providerTimeout = 5
)

// rapidChecks is how many examples a property is tried on: a few seconds' worth.
const rapidChecks = "400"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("rapid.checks", rapidChecks); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// suite is an engine with the providers that the library's samples name, all of
// them one fake.
type suite struct {
	engine    *engine.Engine
	provider  *fake.Provider
	authority *pki.Authority
}

// newSuite makes an engine with the given response cache. The engine of an
// earlier suite can no longer be used.
func newSuite(t *testing.T, ttl time.Duration) *suite {
	t.Helper()
	authority, err := pki.NewAuthority("gatekeeper-ca")
	must(t, err)
	provider, err := fake.NewProvider(authority)
	must(t, err)
	t.Cleanup(provider.Close)
	pair, err := authority.Issue(pki.GatekeeperName)
	must(t, err)
	certFile, keyFile, err := pair.Write(t.TempDir())
	must(t, err)
	gatekeeper, err := engine.New(t.Context(), engine.Config{ResponseCacheTTL: ttl, CertFile: certFile, KeyFile: keyFile})
	must(t, err)
	for _, name := range []string{"countersign", "countersign-mutation", "second"} {
		must(t, gatekeeper.SetProvider(name, provider.URL, providerTimeout, authority.PEM))
	}
	return &suite{engine: gatekeeper, provider: provider, authority: authority}
}

// apply applies a file of the library.
func (s *suite) apply(t *testing.T, path ...string) {
	t.Helper()
	must(t, s.engine.ApplyFile(t.Context(), file(path...)))
}

// applyTemplate applies the template of trusted-images, or a changed one.
func (s *suite) applyTemplate(ctx context.Context, source string) error {
	objects, err := kubeyaml.Parse([]byte(source))
	if err != nil {
		return err
	}
	return s.engine.Apply(ctx, objects...)
}

// applyBare applies the rules of the template as a kind of their own, without the
// schema.
func (s *suite) applyBare(ctx context.Context, source string) error {
	source = strings.NewReplacer(strings.ToLower(kind), strings.ToLower(bareKind), kind, bareKind).Replace(source)
	objects, err := kubeyaml.Parse([]byte(source))
	if err != nil {
		return err
	}
	schema := []string{"spec", "crd", "spec", "validation", "openAPIV3Schema"}
	anything := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	if err := unstructured.SetNestedMap(objects[0].Object, anything, schema...); err != nil {
		return err
	}
	return s.engine.Apply(ctx, objects...)
}

// file is a path in the library.
func file(path ...string) string { return filepath.Join(append([]string{libraryDir}, path...)...) }

// withTemplate is a suite with the template of trusted-images, with its schema
// and bare, and the cases by name.
func withTemplate(t *testing.T) (*suite, map[string]Case) {
	t.Helper()
	s := newSuite(t, 0)
	must(t, s.applyTemplate(t.Context(), read(t, "trusted-images", "template.yaml")))
	must(t, s.applyBare(t.Context(), read(t, "trusted-images", "template.yaml")))
	cases, err := readCases(file("trusted-images", "cases"))
	must(t, err)
	return s, cases
}

// read is the content of a file of the library.
func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(file(path...))
	must(t, err)
	return string(content)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
