package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestVectors runs each file of testdata/vectors through the real Chain: the
// content is built in a registry, the policy is loaded, and each line of want
// is an image with its status and reason.
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*.txtar")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			sections := map[string]string{}
			for _, f := range archive.Files {
				sections[f.Name] = string(f.Data)
			}
			options, content := registryOptions(sections["content"])
			s := newScene(t, options, sections["policy.yaml"])
			s.run(t, content)
			want := strings.ReplaceAll(sections["want"], "$REGISTRY", s.registry.Host())
			for line := range strings.Lines(want) {
				image, word, ok := strings.Cut(strings.TrimSpace(line), " ")
				if !ok {
					t.Fatalf("a line of want is an image and its answer: %q", line)
				}
				a := s.app.verify(t.Context(), image, "", (*verifier.Chain).Verify)
				got := strings.Replace(a.word(), undecidedStatus, "undecided", 1)
				if got != word {
					t.Errorf("%s: got %s (%s), want %s", image, got, a.Message, word)
				}
			}
		})
	}
}
