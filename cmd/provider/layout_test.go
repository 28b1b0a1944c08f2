package main

import (
	"slices"
	"testing"
)

// TestReferencesToALayout: one layout a command, or none.
func TestReferencesToALayout(t *testing.T) {
	for name, c := range map[string]struct {
		flag   string
		images []string
		layout string
		names  []string // nil: refused
	}{
		"registries":         {"", []string{"a", "b:1"}, "", []string{"a", "b:1"}},
		"a layout":           {"", []string{"oci:dir/x:shop.example.com:5000/cart:1.4"}, "dir/x", []string{"shop.example.com:5000/cart:1.4"}},
		"two images of it":   {"", []string{"oci:dir:a:1", "oci:dir:b@sha256:00"}, "dir", []string{"a:1", "b@sha256:00"}},
		"the flag as well":   {"dir", []string{"oci:dir:a"}, "dir", []string{"a"}},
		"the flag alone":     {"dir", []string{"a", "b"}, "dir", []string{"a", "b"}},
		"another flag":       {"other", []string{"oci:dir:a"}, "", nil},
		"two layouts":        {"", []string{"oci:dir:a", "oci:other:b"}, "", nil},
		"then a registry":    {"", []string{"oci:dir:a", "b"}, "", nil},
		"first a registry":   {"", []string{"a", "oci:dir:b"}, "", nil},
		"no name":            {"", []string{"oci:dir"}, "", nil},
		"an empty name":      {"", []string{"oci:dir:"}, "", nil},
		"no directory":       {"", []string{"oci::a"}, "", nil},
		"the flag and mixed": {"dir", []string{"a", "oci:dir:b"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			o := inspectOptions{layout: c.flag}
			names, err := o.named(c.images)
			if (err != nil) != (c.names == nil) || c.names != nil && (!slices.Equal(names, c.names) || o.layout != c.layout) {
				t.Errorf("%v, %q, %v", names, o.layout, err)
			}
		})
	}
}
