package ratify_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
)

var update = flag.Bool("update", false, "write the golden files")

// TestTranslate: what each of testdata's files becomes, and what is said of it.
func TestTranslate(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			got := translated(t, path)
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			carried := strings.Contains(got, "kind: ClusterTrustPolicy")
			if name := filepath.Base(path); strings.HasPrefix(name, "not-carried") && carried {
				t.Error("something weaker is said")
			}
		})
	}
}

func translated(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := ratify.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	policies, notes := ratify.Translate(objects, "gatekeeper-system")
	var got strings.Builder
	for _, note := range notes {
		got.WriteString("# " + note.String() + "\n")
	}
	for _, policy := range policies {
		if policy.Broken != nil {
			got.WriteString("# broken: " + policy.Broken.String() + "\n")
			continue
		}
		document, notes := policy.Document()
		for _, note := range notes {
			got.WriteString("# " + note + "\n")
		}
		text, err := ratify.YAML(document)
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("---\n" + string(text))
		for _, d := range config.Parse("converted.yaml", text) {
			for _, p := range d.Problems {
				t.Errorf("not a sound document: %s", p)
			}
		}
	}
	return got.String()
}

func TestObjectsOfOthersArePassedOver(t *testing.T) {
	objects, err := ratify.Parse([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\n# nothing\n---\n[]\n"))
	if err != nil || len(objects) > 0 {
		t.Errorf("%v, %v", objects, err)
	}
	for _, text := range []string{
		"apiVersion: config.ratify.deislabs.io/v1beta1\nkind: Gadget\nmetadata: {name: g}",
		"apiVersion: config.ratify.deislabs.io/v2\nkind: Store\nmetadata: {name: g}",
		"apiVersion: config.ratify.deislabs.io/v1beta1\nkind: Store\nmetadata: {}",
		"apiVersion: config.ratify.deislabs.io/v1beta1\nkind: NamespacedStore\nmetadata: {name: g}",
		"a: [",
	} {
		if objects, err := ratify.Parse([]byte(text)); err == nil {
			t.Errorf("%s is %v", text, objects)
		}
	}
}
