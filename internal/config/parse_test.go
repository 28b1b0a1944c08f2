package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// FuzzDocuments: whatever a file holds, reading it ends, each problem says
// something about a line of it, and nothing but a sound skip lets an image pass.
func FuzzDocuments(f *testing.F) {
	for _, glob := range []string{"testdata/bad/*.[yj]*", "testdata/good/*.[yj]*"} {
		paths, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	env := testEnvironment()
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 1 // as YAML counts them
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += strings.Count(string(data), end)
		}
		documents := Parse(filepath.Join(t.TempDir(), "fuzz.yaml"), data)
		for _, doc := range documents {
			for _, p := range doc.Problems {
				if p.Message == "" || p.Reason == "" || p.Line < 0 || p.Line > lines {
					t.Errorf("problem: %+v", p)
				}
			}
			if len(doc.Problems) == 0 && (doc.Name == "" || doc.content == "" || doc.unknown) {
				t.Errorf("sound, but incomplete: %+v", doc)
			}
		}
		s := newBuilder(env).build(revision{documents: documents, sources: newSources(nil), dark: func(*Document) bool { return true }})
		for _, ref := range []verifier.Reference{{Registry: "shop.example.com", Repository: "a/b"}, {Registry: "docker.io", Repository: "library/nginx"}} {
			for _, namespace := range []string{"", "team-a"} {
				_, verdict := s.For(verifier.Request{Namespace: namespace, Image: ref})
				if verdict.Success() && !slices.ContainsFunc(documents, func(doc *Document) bool {
					return len(doc.Problems) == 0 && (doc.Spec.Require.Skip != nil || strings.Contains(string(data), "skip"))
				}) {
					t.Errorf("[%s]%s passes: %s", namespace, ref.Name(), verdict.Message())
				}
			}
		}
	})
}

func TestDocumentsInOneFile(t *testing.T) {
	text := "# first\n---\n\n---\nkind: A\n---\n# only a comment\n--- # a comment\nkind: B\n...\n---\r\nkind: C\r\n--- {kind: D}\n---\nkind: |\n  ---\n   text\n---x: it is no separator\n---\n"
	var kinds []string
	for _, doc := range Parse("policies.yaml", []byte(text)) {
		kinds = append(kinds, doc.Kind)
	}
	// A line of the block of text ends the document that it stands in, says YAML.
	if diff := cmp.Diff([]string{"A", "B", "C", "D", "---\n text\n"}, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestLinesCountFromTheStartOfTheFile(t *testing.T) {
	text := strings.Repeat("---\n# nothing\n\n", 100) + "---\nkind: ClusterTrustPolicy\nfoo: [\n"
	documents := Parse("policies.yaml", []byte(text))
	if len(documents) != 1 || documents[0].Problems[0].Line != 303 {
		t.Errorf("%+v", documents[0].Problems)
	}
}

func TestLargeInputsEnd(t *testing.T) {
	head := "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: a}\nspec:\n"
	for name, text := range map[string]string{
		"too large":            head + strings.Repeat("#", MaxFileSize),
		"a million documents":  strings.Repeat("---\n", MaxFileSize/4),
		"many documents":       strings.Repeat("---\na\n", MaxDocuments+10),
		"deep lists":           head + "  images: " + strings.Repeat("[", 9000),
		"deep objects":         head + "  images: " + strings.Repeat("{a: ", 9000),
		"unknown fields":       head + strings.Repeat("  a: b\n", 5_000),
		"distinct fields":      head + func() string { return strings.Repeat("  "+strings.Repeat("a", 40)+": b\n", 5_000) }(),
		"long field":           head + "  " + strings.Repeat("a", 500_000) + ": b\n",
		"more than is counted": head + "  images: [" + strings.Repeat("x,", 25_000) + "]\n",
		"many patterns":        head + "  images: [" + strings.Repeat("a.example/x,", 2_500) + "]\n",
		"many broken patterns": head + "  images: [" + strings.Repeat("x,", 12_000) + "]\n",
		"alias tower":          "a: &a [x]\n" + tower(30),
	} {
		t.Run(name, func(t *testing.T) {
			documents := Parse("policies.yaml", []byte(text))
			build(documents...) // what does not end fails when the test's time is over
			if len(documents) > MaxDocuments+1 {
				t.Errorf("%d documents", len(documents))
			}
			problems := 0
			for _, doc := range documents {
				problems += len(doc.Problems)
			}
			if problems == 0 && name != "a million documents" || problems > maxProblems+MaxDocuments+10 {
				t.Errorf("%d problems", problems)
			}
		})
	}
}

// tower makes each alias hold the one before nine times.
func tower(height int) string {
	var b strings.Builder
	for i := 1; i < height; i++ {
		name, before := string(rune('a'+i%26))+strings.Repeat("x", i/26), string(rune('a'+(i-1)%26))+strings.Repeat("x", (i-1)/26)
		b.WriteString(name + ": &" + name + " [" + strings.Repeat("*"+before+", ", 9) + "]\n")
	}
	return b.String() + "kind: ClusterTrustPolicy\napiVersion: countersign.dev/v1beta1\nmetadata: {name: a}\nspec:\n  images: *c\n  require: *dx\n"
}
