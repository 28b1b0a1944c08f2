package library

import (
	"maps"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// TestCases evaluates each file of trusted-images/cases.
func TestCases(t *testing.T) {
	s, cases := withTemplate(t)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			if diff := s.check(t.Context(), cases[name]); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

// TestDefaults holds the defaults of the schema, which the API server writes into
// a constraint, equal to what the rules take for missing parameters.
func TestDefaults(t *testing.T) {
	s, cases := withTemplate(t)
	defaults := map[string]any{}
	for name, property := range properties(t) {
		if value, ok := property.(map[string]any)["default"]; ok {
			defaults[name] = value
		}
	}
	if len(defaults) == 0 {
		t.Fatal("the schema has no defaults")
	}
	for name, c := range cases {
		if c.Parameters == nil {
			c.Parameters = defaults
			if diff := s.check(t.Context(), c); diff != "" {
				t.Errorf("%s: want - got +\n%s", name, diff)
			}
		}
	}
}

// properties are those of the template's schema.
func properties(t *testing.T) map[string]any {
	t.Helper()
	objects, err := kubeyaml.Read(file("trusted-images", "template.yaml"))
	must(t, err)
	found, ok, err := unstructured.NestedMap(objects[0].Object, "spec", "crd", "spec", "validation", "openAPIV3Schema", "properties")
	must(t, err)
	if !ok {
		t.Fatal("the template has no schema")
	}
	return found
}
