// Package library tests the policies of ../../library on Gatekeeper's own
// engine, with a provider that says whatever a case wants it to say. What the
// real provider says is not its subject.
package library

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
	"github.com/countersign-dev/countersign/test/pki"
)

const (
	libraryDir = "../../library"
	// providerTimeout is in seconds; nothing here takes one.
	providerTimeout = 5
)

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

// applyTemplate applies the template of trusted-images, and once more as a kind
// without a schema.
func (s *suite) applyTemplate(ctx context.Context, source string) error {
	bare := strings.NewReplacer(strings.ToLower(kind), strings.ToLower(bareKind), kind, bareKind).Replace(source)
	for _, source := range []string{source, bare} {
		objects, err := engine.ParseObjects([]byte(source))
		if err != nil {
			return err
		}
		for _, object := range objects {
			if source == bare {
				unstructured.RemoveNestedField(object.Object, "spec", "crd", "spec", "validation", "openAPIV3Schema", "properties")
				if err := unstructured.SetNestedField(object.Object, true, "spec", "crd", "spec", "validation", "openAPIV3Schema", "x-kubernetes-preserve-unknown-fields"); err != nil {
					return err
				}
			}
			if err := s.engine.Apply(ctx, object); err != nil {
				return err
			}
		}
	}
	return nil
}

// file is a path in the library.
func file(path ...string) string { return filepath.Join(append([]string{libraryDir}, path...)...) }

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
