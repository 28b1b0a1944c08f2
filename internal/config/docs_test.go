package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "policy.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// table reads the table after a mark: each row's cells, without code marks.
func table(t *testing.T, page, mark string) [][]string {
	t.Helper()
	_, rest, found := strings.Cut(page, "<!-- "+mark+" -->\n")
	if !found {
		t.Fatalf("no %s in the page", mark)
	}
	rest, _, _ = strings.Cut(rest, "\n\n")
	var rows [][]string
	for i, line := range strings.Split(strings.TrimSpace(rest), "\n") {
		if i < 2 { // head and rule
			continue
		}
		var cells []string
		for _, cell := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	return rows
}

func bare(cell string) string { return strings.ReplaceAll(cell, "`", "") }

// vaultsOfThePage hold whatever the page names.
type vaultsOfThePage struct{ root []byte }

func (v vaultsOfThePage) Read(r trust.Reference) (trust.Material, error) {
	if r.Kind == trust.Key {
		return trust.Material{PEM: []byte(newKey())}, nil
	}
	return trust.Material{PEM: v.root}, nil
}

// TestThePageShowsSoundDocuments: each example is one, or a field of one.
func TestThePageShowsSoundDocuments(t *testing.T) {
	const head = "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: example}\nspec:\n"
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page(t), -1)
	if len(blocks) < 7 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		text := block[1]
		if !strings.HasPrefix(text, "apiVersion") {
			indented := "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
			text = head + indented + "  require: {skip: {reason: an example}}\n"
			if !strings.Contains(indented, "images:") {
				text += "  images: ['**/**']\n"
			}
		}
		dir := t.TempDir()
		root := notationtest.NewRoot(notationtest.CertificateOptions{}).PEM()
		for _, named := range regexp.MustCompile(`file: ([\w./-]+)`).FindAllStringSubmatch(text, -1) {
			content := root
			if strings.HasSuffix(named[1], ".pub") {
				content = []byte(newKey())
			}
			if err := os.WriteFile(filepath.Join(dir, named[1]), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "client-secret"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "google.json"), []byte(googleKey(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, "/var/run/secrets/docker/", "")
		s := newBuilder(testEnvironment()).build(revision{
			documents: Parse(filepath.Join(dir, "p.yaml"), []byte(text)), sources: newSources(objectsOfThePage{root}).with(vaultsOfThePage{root}), dark: func(*Document) bool { return true },
		})
		for _, p := range s.Problems() {
			t.Errorf("%s\n%s", p, text)
		}
	}
}

// objectsOfThePage are the Secrets and ConfigMaps of its examples.
type objectsOfThePage struct{ certificate []byte }

func (objectsOfThePage) Namespace() string { return "countersign" }

func (o objectsOfThePage) ReadObject(Object) (map[string][]byte, error) {
	return map[string][]byte{"ca.crt": o.certificate, "password": []byte("hunter2"), ".dockerconfigjson": []byte("{}")}, nil
}

// TestThePagesSelectionIsTrue asks what the page's table answers.
func TestThePagesSelectionIsTrue(t *testing.T) {
	var text strings.Builder
	for _, row := range table(t, page(t), "selection") {
		kind, metadata, more := "ClusterTrustPolicy", "name: "+bare(row[0]), "  "+bare(row[2])+"\n"
		if namespace, name, tenant := strings.Cut(bare(row[0]), "/"); tenant {
			kind, metadata, more = "TrustPolicy", "name: "+name+", namespace: "+namespace, ""
		}
		require := "require: {name: signed, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: ['*']}}"
		if strings.HasPrefix(bare(row[2]), "skip") {
			require, more = "require: {"+bare(row[2])+"}", ""
		}
		images := `"` + strings.ReplaceAll(bare(row[1]), ", ", `", "`) + `"`
		text.WriteString("---\napiVersion: countersign.dev/v1beta1\nkind: " + kind + "\nmetadata: {" + metadata + "}\nspec:\n  images: [" + images + "]\n" + more + "  " + require + "\n")
	}
	s := build(Parse(filepath.Join(goodDirectory(t), "p.yaml"), []byte(text.String()))...)
	for _, p := range s.Problems() {
		t.Fatalf("%s\n%s", p, text.String())
	}
	rows := table(t, page(t), "decisions")
	if len(rows) < 15 {
		t.Errorf("%d rows", len(rows))
	}
	for _, row := range rows {
		ref, err := verifier.ParseReference(bare(row[0]))
		if err != nil {
			t.Fatal(err)
		}
		namespace := bare(row[1])
		if namespace == "none" {
			namespace = ""
		}
		chain, verdict := s.For(verifier.Request{Namespace: namespace, Image: ref})
		got := "exempt: " + verdict.Policy()
		if chain != nil {
			got = chain.Policies()
		}
		if got != bare(row[2]) {
			t.Errorf("[%s]%s: %s, the page says %s", namespace, ref.Name(), got, row[2])
		}
	}
}

// TestThePageExplainsEachMessage holds the page's list of messages to those
// that bad documents get. What no bad document of testdata provokes is listed
// here.
func TestThePageExplainsEachMessage(t *testing.T) {
	elsewhere := map[string]bool{ // provoked by other tests, or not by a file that fits into testdata
		"there are more problems": true, "the secret is empty": true, "… parts are more than the … that are allowed": true,
		"… checks are more than the … that are allowed": true, "… may not be read": true, "reading it crashed: …": true, "… holds no files": true,
		"… is not in the file any more, and the file has an error": true, "… bytes are more than the … that are read": true,
	}
	var classes []*regexp.Regexp
	var names []string
	for _, row := range table(t, page(t), "messages") {
		name := strings.Trim(row[0], "`")
		names = append(names, name)
		classes = append(classes, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(name), "…", ".*")+"$"))
	}
	used := map[string]bool{}
	paths, err := filepath.Glob(filepath.Join("testdata", "bad", "*.[yj]*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range build(Parse(path, data)...).Problems() {
			explained := false
			for i, class := range classes {
				if class.MatchString(p.Message) {
					explained, used[names[i]] = true, true
				}
			}
			if !explained {
				t.Errorf("the page does not explain %q", p.Message)
			}
		}
	}
	for _, name := range names {
		if !used[name] && !elsewhere[name] {
			t.Errorf("no bad document is told %q", name)
		}
	}
}
