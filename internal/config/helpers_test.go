package config_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// environment is a real one, whose registries and revocation servers are never
// asked.
func environment(t testing.TB) config.Environment {
	t.Helper()
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: unreachable{}})
	if err != nil {
		t.Fatal(err)
	}
	registries := store.New(store.Options{})
	return config.Environment{
		View:       func(o store.ViewOptions) (verifier.Store, error) { return registries.View(o) },
		Memory:     verifier.NewMemory(1 << 20),
		Revocation: revocation,
		Clouds:     auth.NewClouds(auth.CloudOptions{}),
	}
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("not reachable in this test")
}

// directory makes a directory of the files, with a CA's certificate in ca.crt.
func directory(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM()))
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, path string) *config.Source {
	t.Helper()
	source, err := config.Load(t.Context(), config.Options{Path: path, Environment: environment(t)})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

// snapshot loads documents, separated by ---, from one file.
func snapshot(t testing.TB, documents string) *config.Snapshot {
	t.Helper()
	return load(t, directory(t, map[string]string{"policies.yaml": documents})).Snapshot()
}

// sound is a snapshot without problems.
func sound(t testing.TB, documents string) *config.Snapshot {
	t.Helper()
	s := snapshot(t, documents)
	for _, p := range s.Problems() {
		t.Errorf("problem: %s", p)
	}
	return s
}

// cluster is a ClusterTrustPolicy with a check. More is put into spec, each
// line by itself.
func cluster(name, images string, more ...string) string {
	return policy("ClusterTrustPolicy", "name: "+name, images, more)
}

// tenant is a TrustPolicy.
func tenant(namespace, name, images string, more ...string) string {
	return policy("TrustPolicy", "name: "+name+", namespace: "+namespace, images, more)
}

func policy(kind, metadata, images string, more []string) string {
	text := "---\napiVersion: countersign.dev/v1beta1\nkind: " + kind + "\nmetadata: {" + metadata + "}\nspec:\n  images: [" + images + "]\n"
	require := "require: {name: signed, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: ['*']}}"
	for _, line := range more {
		if strings.HasPrefix(line, "require:") {
			require = line
		} else {
			text += "  " + line + "\n"
		}
	}
	return text + "  " + require + "\n"
}

func skip(reason string) string { return "require: {skip: {reason: " + reason + "}}" }

func image(t testing.TB, text string) verifier.Reference {
	t.Helper()
	ref, err := verifier.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// decision is how a snapshot answers: the policies of the Chain, or the status
// and reason of the verdict. A Chain of broken policies says why.
func decision(t testing.TB, s *config.Snapshot, namespace, text string) string {
	t.Helper()
	chain, verdict := s.For(verifier.Request{Namespace: namespace, Image: image(t, text)})
	if chain == nil {
		return strings.TrimSpace(string(verdict.Status()) + " " + string(verdict.Reason()) + " " + verdict.Policy())
	}
	ctx, cancel := canceled(t)
	defer cancel()
	if reason := undecided(chain.Verify(ctx, verifier.Request{Image: image(t, text)})); reason == verifier.ReasonPolicyInvalid || reason == verifier.ReasonKeysUnavailable {
		return chain.Policies() + ": " + string(reason)
	}
	return chain.Policies()
}
