package library

import (
	"maps"
	"slices"
	"testing"
)

// TestCases evaluates each file of trusted-images/cases.
func TestCases(t *testing.T) {
	s := newSuite(t, 0)
	must(t, s.applyTemplate(t.Context(), read(t, "trusted-images", "template.yaml")))
	cases, err := readCases(file("trusted-images", "cases"))
	must(t, err)
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			diff, err := s.check(t.Context(), cases[name])
			must(t, err)
			if diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}
