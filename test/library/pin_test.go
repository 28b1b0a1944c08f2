package library

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
)

// pinCase is one file of library/pin-digests/cases.
type pinCase struct {
	Operation admissionv1.Operation `json:"operation"` // CREATE when empty
	Object    map[string]any        `json:"object"`
	Answer    fake.Answer           `json:"answer"`
	Asked     []string              `json:"asked"`  // the keys of the one request, sorted
	Result    map[string]any        `json:"result"` // the object as it was without it
}

// TestPinDigests mutates the object of each file of pin-digests/cases by all
// Assigns of the policy.
func TestPinDigests(t *testing.T) {
	s := newSuite(t, 0)
	for _, name := range pinFiles(t) {
		s.apply(t, "pin-digests", name)
	}
	paths, err := filepath.Glob(file("pin-digests", "cases", "*.yaml"))
	must(t, err)
	if len(paths) == 0 {
		t.Fatal("no cases")
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(path)
			must(t, err)
			var c pinCase
			must(t, yaml.UnmarshalStrict(content, &c))
			if !bytes.HasPrefix(content, []byte("# ")) || strings.HasPrefix(name, "mutated-") != (c.Result != nil) {
				t.Fatal("want a comment first, and a result in mutated-* alone")
			}
			if c.Operation == admissionv1.Update && !engine.MatchesOperations {
				t.Skip("this Gatekeeper pins on every operation")
			}
			if c.Result == nil {
				c.Result = object(c.Object).DeepCopy().Object
			}
			s.provider.Say(c.Answer)
			in := object(c.Object)
			request := engine.Create(in.GetNamespace(), in)
			if c.Operation == admissionv1.Update {
				request = engine.Update(in.GetNamespace(), in, in)
			}
			got, _, err := s.engine.Mutate(t.Context(), request)
			must(t, err)
			if diff := cmp.Diff(c.Result, got.Object); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
			var asked [][]string
			for _, keys := range s.provider.Asked() {
				asked = append(asked, slices.Sorted(slices.Values(keys)))
			}
			var want [][]string
			if len(c.Asked) > 0 {
				want = [][]string{c.Asked}
			}
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("asked: want - got +\n%s", diff)
			}
		})
	}
}

// TestPinNeverRefuses: with no provider at all, a Pod comes through as it is.
func TestPinNeverRefuses(t *testing.T) {
	s := newSuite(t, 0)
	for _, name := range pinFiles(t) {
		s.apply(t, "pin-digests", name)
	}
	s.engine.RemoveProvider("countersign-mutation")
	pod := object(podOf("registry.example.com/cart:1.4"))
	got, _, err := s.engine.Mutate(t.Context(), engine.Create("shop", pod))
	must(t, err)
	if diff := cmp.Diff(pod.Object, got.Object); diff != "" {
		t.Errorf("want - got +\n%s", diff)
	}
}

// pinFiles are the names of the policy's Assigns.
func pinFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(file("pin-digests", "*.yaml"))
	must(t, err)
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	if want := []string{"containers.yaml", "ephemeral-containers.yaml", "image-volumes.yaml", "init-containers.yaml"}; !slices.Equal(names, want) {
		t.Fatalf("the policy has %q, want %q", names, want)
	}
	return names
}
