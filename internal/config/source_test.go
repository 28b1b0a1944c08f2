package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// edited is a Source whose files a test changes.
type edited struct {
	*config.Source
	t   *testing.T
	dir string
}

func edit(t *testing.T, files map[string]string) *edited {
	t.Helper()
	dir := directory(t, files)
	return &edited{load(t, dir), t, dir}
}

// put writes the files, removes those without text, and reloads.
func (e *edited) put(files map[string]string) {
	e.t.Helper()
	for name, text := range files {
		path := filepath.Join(e.dir, name)
		if text != "" {
			write(e.t, path, text)
		} else if err := os.Remove(path); err != nil {
			e.t.Fatal(err)
		}
	}
	e.Reload(e.t.Context())
}

func (e *edited) ask(wants ...want) {
	e.t.Helper()
	ask(e.t, e.Snapshot(), wants)
}

// states lists documents with how they fare.
func (e *edited) states(want ...string) {
	e.t.Helper()
	var got []string
	for _, p := range e.Snapshot().Policies() {
		got = append(got, p.Name+": "+string(p.State))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		e.t.Error(diff)
	}
}

func (e *edited) chain(text string) *verifier.Chain {
	e.t.Helper()
	chain, _ := e.Snapshot().For(verifier.Request{Image: image(e.t, text)})
	if chain == nil {
		e.t.Fatalf("no chain for %s", text)
	}
	return chain
}

const (
	brokenSpec = "---\napiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: %}\nspec:\n  images: [\"$\"]\n  requires: {}\n"
	notYAML    = "---\nkind: ClusterTrustPolicy\nmetadata: [\n"
)

func brokenPolicy(name, images string) string {
	return strings.NewReplacer("%", name, "$", images).Replace(brokenSpec)
}

func TestBrokenDocumentKeepsItsLastGoodVersion(t *testing.T) {
	e := edit(t, map[string]string{
		"a.yaml": cluster("a", `"a.example/**"`),
		"b.yaml": cluster("b", `"b.example/**"`),
		"z.yaml": cluster("weak", `"**/**"`, skip("all else")),
	})
	before := e.chain("a.example/x")
	e.put(map[string]string{"a.yaml": brokenPolicy("a", "c.example/**"), "b.yaml": cluster("b", `"b.example/b/**"`)})
	e.states("a: last good", "b: ready", "weak: ready")
	e.ask(want{"a.example/x", "a"}, want{"c.example/x", "EXEMPT SKIPPED weak"}, want{"b.example/b/x", "b"}, want{"b.example/x", "EXEMPT SKIPPED weak"})
	if e.chain("a.example/x") != before {
		t.Error("another chain for the same policy")
	}
	if p := e.Snapshot().Problems(); len(p) != 1 || filepath.Base(p[0].File) != "a.yaml" {
		t.Errorf("%v", p)
	}
	// Its certificates are those that there are now.
	e.put(map[string]string{"ca.crt": string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM())})
	renewed := e.chain("a.example/x")
	if renewed == before {
		t.Error("the same chain although its certificates changed")
	}
	e.put(map[string]string{"ca.crt": "no certificate"})
	e.states("a: last good", "b: last good", "weak: ready")
	if e.chain("a.example/x") != renewed {
		t.Error("another chain though its certificates cannot be read")
	}
	e.put(map[string]string{"a.yaml": cluster("a", `"c.example/**"`), "ca.crt": string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM())})
	e.states("a: ready", "b: ready", "weak: ready")
	e.ask(want{"a.example/x", "EXEMPT SKIPPED weak"}, want{"c.example/x", "a"})
}

func TestDocumentBrokenFromTheStartOwnsItsImages(t *testing.T) {
	documents := cluster("weak", `"**/**"`, skip("all else")) +
		brokenPolicy("broken", "a.example/**") +
		strings.Replace(brokenPolicy("in-prod", "b.example/**"), "  requires", "  namespaces: [prod]\n  requires", 1) +
		strings.Replace(brokenPolicy("somewhere", "c.example/**"), "  requires", "  namespaces: [PROD]\n  requires", 1) +
		cluster("q", `"c.example/**"`, "namespaces: [prod]") +
		cluster("typo", `"nginx", "d.example/app**"`) +
		strings.Replace(brokenPolicy("misspelled", "e.example/**"), "kind: ClusterTrustPolicy", "kind: ClusterTrustPolice", 1)
	for name, e := range map[string]*edited{
		"at start-up": edit(t, map[string]string{"policies.yaml": documents}),
		"at a reload": func() *edited {
			e := edit(t, nil)
			e.put(map[string]string{"policies.yaml": documents})
			return e
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			ask(t, e.Snapshot(), []want{
				{"a.example/x", "broken: POLICY_INVALID"},
				{"[dev]a.example/x", "broken: POLICY_INVALID"},
				{"[prod]b.example/x", "in-prod: POLICY_INVALID"},
				{"[dev]b.example/x", "EXEMPT SKIPPED weak"},
				{"[dev]c.example/x", "somewhere: POLICY_INVALID"},
				{"[prod]c.example/x", "somewhere, q: POLICY_INVALID"}, // it may have named prod as well
				{"nginx", "typo: POLICY_INVALID"},
				{"d.example/application", "typo: POLICY_INVALID"},
				{"e.example/x", "policies.yaml: POLICY_INVALID"},
				{"f.example/x", "EXEMPT SKIPPED weak"},
			})
			if err := e.Snapshot().Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBrokenPolicyInATie(t *testing.T) {
	e := edit(t, map[string]string{"p.yaml": cluster("skip", `"a.example/x-*"`, skip("ours")) + brokenPolicy("broken", "a.example/*-y") +
		cluster("lent", `"b.example/**"`, "delegate: true") + tenant("team", "ours", `"b.example/**"`, "level: strict")})
	e.ask(
		want{"a.example/x-z", "EXEMPT SKIPPED skip"},
		want{"a.example/x-y", "broken: POLICY_INVALID"},
		want{"[team]b.example/x", "team/ours: POLICY_INVALID"},
		want{"[other]b.example/x", "lent"},
	)
}

func TestFileThatCannotBeReadAtStartUp(t *testing.T) {
	for name, text := range map[string]string{
		"not YAML":       notYAML,
		"not a policy":   "just some text",
		"no images":      "kind: ClusterTrustPolicy\nmetadata: {name: x}\nspec: {image: [a.example/**]}\n",
		"another kind":   "kind: ConfigMap\n",
		"not UTF-8":      "kind: \xff\n",
		"one of several": cluster("b", `"b.example/**"`) + notYAML,
		"no such host":   strings.ReplaceAll(brokenPolicy("x", "???"), "requires", "require"),
	} {
		t.Run(name, func(t *testing.T) {
			e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`), "bad.yaml": text})
			for range 2 { // looking again changes nothing
				if got := decision(t, e.Snapshot(), "any", "a.example/x"); !strings.HasSuffix(got, ": POLICY_INVALID") {
					t.Errorf("%s", got)
				}
				if got := decision(t, e.Snapshot(), "", "c.example/x"); !strings.HasSuffix(got, ": POLICY_INVALID") {
					t.Errorf("%s", got)
				}
				if e.Snapshot().Ready() == nil {
					t.Error("ready")
				}
				write(t, filepath.Join(e.dir, "c.yaml"), cluster("c", `"c.example/**"`))
				e.Reload(t.Context())
			}
			e.put(map[string]string{"bad.yaml": cluster("b", `"b.example/**"`)})
			e.ask(want{"a.example/x", "a"}, want{"b.example/x", "b"}, want{"c.example/x", "c"})
			if err := e.Snapshot().Ready(); err != nil {
				t.Error(err)
			}
		})
	}
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`), "bad.yaml": notYAML})
	e.put(map[string]string{"bad.yaml": ""})
	e.ask(want{"a.example/x", "a"})
}

func TestFileThatCannotBeReadAtAReload(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + cluster("a2", `"a2.example/**"`), "b.yaml": cluster("b", `"b.example/**"`)})
	for _, text := range []string{notYAML, "\xff", "kind: [", "x"} {
		e.put(map[string]string{"a.yaml": text, "b.yaml": cluster("b", `"b.example/b/**"`), "new.yaml": notYAML})
		e.ask(want{"a.example/x", "a"}, want{"a2.example/x", "a2"}, want{"b.example/b/x", "b"}, want{"b.example/x", "REFUSED POLICY_NOT_FOUND"})
		if err := e.Snapshot().Ready(); err != nil || len(e.Snapshot().Problems()) < 3 {
			t.Errorf("%v, %v", err, e.Snapshot().Problems())
		}
		e.put(map[string]string{"b.yaml": cluster("b", `"b.example/**"`)})
		e.ask(want{"a.example/x", "a"}, want{"b.example/x", "b"})
	}
	// A document without a name, in a file that was whole, is one of those that were there.
	e.put(map[string]string{"a.yaml": cluster("a2", `"a2.example/**"`) + strings.Replace(cluster("a", `"a.example/**"`, "owner: nobody"), "name: a", "nome: a", 1)})
	e.ask(want{"a.example/x", "a"}, want{"a2.example/x", "a2"})
	// All that it held is known, so that nothing of it can make every image undecided.
	e.put(map[string]string{"a.yaml": cluster("a2", `"a2.example/**"`) + brokenPolicy("x", "???")})
	e.ask(want{"a.example/x", "a"}, want{"a2.example/x", "a2"})
	// One of its documents is told apart, and changes; the others stay.
	e.put(map[string]string{"a.yaml": notYAML + cluster("a2", `"a3.example/**"`)})
	e.ask(want{"a.example/x", "a"}, want{"a3.example/x", "a2"}, want{"a2.example/x", "REFUSED POLICY_NOT_FOUND"})
	// One moves to another file, which is sound.
	e.put(map[string]string{"b.yaml": cluster("a", `"a4.example/**"`)})
	e.ask(want{"a4.example/x", "a"}, want{"a3.example/x", "a2"}, want{"a.example/x", "REFUSED POLICY_NOT_FOUND"})
	e.put(map[string]string{"a.yaml": ""})
	e.ask(want{"a4.example/x", "a"}, want{"a3.example/x", "REFUSED POLICY_NOT_FOUND"})
}

func TestFileThatVanishesBehindItsName(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`)})
	if err := errors.Join(os.Remove(filepath.Join(e.dir, "a.yaml")), os.Symlink("nowhere", filepath.Join(e.dir, "a.yaml"))); err != nil {
		t.Fatal(err)
	}
	e.Reload(t.Context())
	e.ask(want{"a.example/x", "a"})
	if err := os.RemoveAll(e.dir); err != nil {
		t.Fatal(err)
	}
	e.Reload(t.Context())
	e.ask(want{"a.example/x", "a"})
	if p := e.Snapshot().Problems(); len(p) == 0 || !strings.Contains(p[0].Message, "cannot be read") {
		t.Errorf("%v", p)
	}
}

func TestFileWithAnErrorRemovesNothing(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + cluster("b", `"b.example/**"`) + cluster("c", `"c.example/**"`)})
	e.put(map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + brokenPolicy("b", "b.example/**")})
	e.ask(want{"c.example/x", "c"}, want{"b.example/x", "b"})
	e.states("a: ready", "b: last good", "c: last good") // c is not in the file any more
	e.put(map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + cluster("b", `"b.example/**"`) + cluster("c", `"c.example/**"`)})
	e.states("a: ready", "b: ready", "c: ready")
	e.put(map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + brokenPolicy("b", "b.example/**")})
	e.put(map[string]string{"a.yaml": cluster("a", `"a.example/**"`)})
	e.ask(want{"a.example/x", "a"}, want{"c.example/x", "REFUSED POLICY_NOT_FOUND"}, want{"b.example/x", "REFUSED POLICY_NOT_FOUND"})
}

// TestHalfWrittenFile: while a file is being written, an image is judged as
// before, or as after, or not at all; never by a weaker policy in between.
func TestHalfWrittenFile(t *testing.T) {
	weak := cluster("weak", `"**/**"`, skip("all else"))
	old := cluster("a", `"a.example/**"`) + cluster("b", `"b.example/**"`) + cluster("c", `"c.example/**"`)
	next := cluster("a", `"a.example/**"`, "owner: platform@example.com", "delegate: true") + cluster("c", `"c.example/**", "b.example/**"`)
	images := []string{"a.example/x", "b.example/x", "c.example/x"}
	allowed := func(t *testing.T, s *config.Snapshot, end int, also ...string) {
		for i, text := range images {
			got := decision(t, s, "", text)
			own := string("abc"[i])
			if got != own && got != "c" && !strings.HasSuffix(got, ": POLICY_INVALID") && !slices.Contains(also, got) {
				t.Errorf("%d bytes written: %s is judged by %q", end, text, got)
			}
		}
	}
	t.Run("over an old one", func(t *testing.T) {
		e := edit(t, map[string]string{"a.yaml": old, "weak.yaml": weak})
		second := strings.LastIndex(next, "---")
		for end := 0; end < len(next); end += 1 + len(next)/200 {
			if end < len("---\nkind") || end > second-2 && end <= second+len("---\n") {
				continue // as if the rest had been deleted: see docs/policy.md
			}
			e.put(map[string]string{"a.yaml": next[:end]})
			allowed(t, e.Snapshot(), end)
		}
		e.put(map[string]string{"a.yaml": next})
		e.ask(want{"a.example/x", "a"}, want{"b.example/x", "c"}, want{"c.example/x", "c"})
	})
	t.Run("a new one", func(t *testing.T) {
		e := edit(t, map[string]string{"weak.yaml": weak})
		for end := 1; end < len(next); end += 1 + len(next)/200 {
			e.put(map[string]string{"a.yaml": next[:end]})
			allowed(t, e.Snapshot(), end, "EXEMPT SKIPPED weak") // as before
		}
	})
}

func TestDeletedDocumentIsGone(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`), "b.yaml": brokenPolicy("b", "b.example/**")})
	e.put(map[string]string{"a.yaml": "", "b.yaml": ""})
	e.ask(want{"a.example/x", "REFUSED POLICY_NOT_FOUND"}, want{"b.example/x", "REFUSED POLICY_NOT_FOUND"})
	e.put(map[string]string{"a.yaml": brokenPolicy("a", "a.example/**")})
	e.ask(want{"a.example/x", "a: POLICY_INVALID"}) // the good version is forgotten
}

// TestIdenticalPatternsAreTheLaterNames: in files the first name has the pattern,
// whichever was there first, and the other decides what else it is about.
func TestIdenticalPatternsAreTheLaterNames(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**", "aa.example/**"`), "b.yaml": cluster("b", `"b.example/**"`)})
	e.put(map[string]string{"b.yaml": cluster("b", `"b.example/**", "a.example/**"`)})
	e.states("a: ready", "b: contested")
	e.ask(want{"a.example/x", "a"}, want{"b.example/x", "b"})
	e.put(map[string]string{"c.yaml": cluster("c", `"c.example/**", "a.example/**"`)})
	e.states("a: ready", "b: contested", "c: contested")
	e.ask(want{"c.example/x", "c"}, want{"a.example/x", "a"}, want{"aa.example/x", "a"})
	// One that is broken claims no more than it would if it were not.
	e.put(map[string]string{"c.yaml": cluster("c", `"c.example/**", "a.example/**"`, "mod: audit"), "d.yaml": cluster("d", `"c.example/**", "d.example/**"`, "mod: audit")})
	e.ask(want{"c.example/x", "c"}, want{"d.example/x", "d: POLICY_INVALID"}, want{"a.example/x", "a"})
	e.put(map[string]string{"d.yaml": ""})
	// Patterns may change hands.
	e.put(map[string]string{"c.yaml": "", "a.yaml": cluster("a", `"b.example/**"`), "b.yaml": cluster("b", `"a.example/**"`)})
	e.states("a: ready", "b: ready")
	e.ask(want{"a.example/x", "b"}, want{"b.example/x", "a"})
	// And be different policies' in different namespaces.
	e.put(map[string]string{"c.yaml": cluster("c", `"a.example/**"`, "namespaces: [prod]") + tenant("prod", "c", `"a.example/**"`)})
	e.states("a: ready", "b: ready", "c: ready", "c: ready")
}

func TestSameNameInTwoFiles(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`)})
	e.put(map[string]string{"b.yaml": cluster("a", `"b.example/**"`, skip("a trick"))})
	e.states("a: last good")
	e.ask(want{"a.example/x", "a"}, want{"b.example/x", "REFUSED POLICY_NOT_FOUND"})
	fresh := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`), "b.yaml": cluster("a", `"b.example/**"`, skip("a trick"))})
	fresh.ask(want{"a.example/x", "a: POLICY_INVALID"}, want{"b.example/x", "a: POLICY_INVALID"})
}

func TestChainsSurviveWhatDoesNotConcernThem(t *testing.T) {
	e := edit(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`) + cluster("b", `"b.example/**"`)})
	a, b := e.chain("a.example/x"), e.chain("b.example/x")
	if e.Reload(t.Context()) {
		t.Error("a new Snapshot though nothing changed")
	}
	e.put(map[string]string{"a.yaml": "# a comment\n" + cluster("b", `"b.example/**"`, "owner: b@example.com") + cluster("a", `"a.example/**"`), "c.yaml": cluster("c", `"c.example/**"`)})
	if e.chain("a.example/x") != a {
		t.Error("another chain although its policy did not change")
	}
	if e.chain("b.example/x") == b {
		t.Error("the same chain although its policy changed")
	}
	if p := e.Snapshot().Policies(); p[0].Line != 11 || p[1].Line != 3 {
		t.Errorf("lines of the old file: %+v", p)
	}
	a = e.chain("a.example/x")
	write(t, filepath.Join(e.dir, "ca.crt"), string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM()))
	e.Reload(t.Context())
	if e.chain("a.example/x") == a {
		t.Error("the same chain although its certificates changed")
	}
}

func TestLoadWantsAPathThatIsThere(t *testing.T) {
	if _, err := config.Load(t.Context(), config.Options{Path: filepath.Join(t.TempDir(), "nowhere"), Environment: environment(t)}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
