package config

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func testEnvironment() Environment {
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: http.DefaultTransport})
	if err != nil {
		panic(err)
	}
	return Environment{
		View:       func(store.ViewOptions) (verifier.Store, error) { return &verifiertest.Store{}, nil },
		Memory:     verifier.NewMemory(1 << 20),
		Revocation: revocation,
		Azure:      auth.NewAzureExchanges(azure.NewCredentials(azure.Options{}), nil, nil),
		Clouds:     auth.NewClouds(auth.CloudOptions{}),
	}
}

// build makes the first Snapshot of documents in memory.
func build(documents ...*Document) *Snapshot {
	return newBuilder(testEnvironment()).build(revision{
		documents: documents, sources: newSources(nil), dark: func(*Document) bool { return true },
	})
}

// skipping is a document that exempts its images, so that the answer names all
// policies that had to hold.
func skipping(id ID, patterns []pattern, namespaces []string, delegate bool) *Document {
	doc := &Document{ID: id, File: "policies.yaml", namespaces: namespaces}
	doc.Spec.Namespaces, doc.Spec.Delegate = namespaces, delegate
	doc.Spec.Require.Skip = &api.Skip{Reason: "a test"}
	for _, p := range patterns {
		doc.Spec.Images = append(doc.Spec.Images, p.text)
	}
	doc.images = doc.Spec.Images
	doc.content = doc.hash()
	return doc
}

// drawDocuments draws policies, none of which claims the pattern of another.
func drawDocuments(t *rapid.T, ref verifier.Reference) []*Document {
	var documents []*Document
	claimed := map[territory]bool{}
	for i := range rapid.IntRange(1, 8).Draw(t, "policies") {
		id := ID{Kind: api.KindClusterTrustPolicy, Name: fmt.Sprint("p", i)}
		var namespaces []string
		if rapid.IntRange(0, 2).Draw(t, "tenant") == 0 {
			id.Kind, id.Namespace = api.KindTrustPolicy, rapid.SampledFrom([]string{"dev", "prod"}).Draw(t, "namespace")
		} else {
			namespaces = rapid.SampledFrom([][]string{nil, nil, {"prod"}, {"pro*"}, {"dev", "prod"}, {"*"}}).Draw(t, "namespaces")
		}
		var patterns []pattern
		for range rapid.IntRange(1, 3).Draw(t, "patterns") {
			p := rapid.OneOf(rapid.Custom(drawPattern), rapid.Custom(func(t *rapid.T) pattern { return drawMatch(t, ref) })).Draw(t, "pattern")
			key := territory{id.Kind + id.Namespace, fmt.Sprint(namespaces), p.text}
			if !claimed[key] {
				claimed[key] = true
				patterns = append(patterns, p)
			}
		}
		if len(patterns) > 0 {
			documents = append(documents, skipping(id, patterns, namespaces, rapid.Bool().Draw(t, "delegate")))
		}
	}
	return documents
}

// specificity compares two patterns that match one image as DESIGN.md has it,
// without ranks: literal host, then segment by segment from where a name
// begins.
func specificity(a, b pattern) int {
	literal := func(p pattern) int { return map[bool]int{true: 1}[p.host.literal != ""] }
	if c := cmp.Compare(literal(a), literal(b)); c != 0 {
		return c
	}
	if literal(a) == 0 {
		x, y := slices.Clone(a.host.labels.segments), slices.Clone(b.host.labels.segments)
		slices.Reverse(x)
		slices.Reverse(y)
		if c := compareSegments(x, y); c != 0 {
			return c
		}
		if a.host.anyPort != b.host.anyPort {
			return map[bool]int{true: -1, false: 1}[a.host.anyPort]
		}
	}
	return compareSegments(a.path.segments, b.path.segments)
}

func compareSegments(x, y []segment) int {
	weight := func(list []segment, i int) int {
		switch {
		case i >= len(list):
			return 0
		case list[i].text == "**":
			return 1
		case list[i].text == "*":
			return 2
		case strings.Contains(list[i].text, "*"):
			return 3
		default:
			return 4
		}
	}
	for i := range max(len(x), len(y)) {
		if c := cmp.Compare(weight(x, i), weight(y, i)); c != 0 {
			return c
		}
	}
	return 0
}

// best is the most specific of the matching patterns of the documents.
func best(documents []*Document, ref verifier.Reference) map[string]bool {
	n := newName(ref)
	names, top := map[string]bool{}, (*pattern)(nil)
	for _, doc := range documents {
		for _, text := range doc.Spec.Images {
			p, _ := parsePattern(text)
			if !p.matches(&n) {
				continue
			}
			c := 1
			if top != nil {
				c = specificity(p, *top)
			}
			if c > 0 {
				names, top = map[string]bool{}, &p
			}
			if c >= 0 {
				names[doc.displayName()] = true
			}
		}
	}
	return names
}

// model says by brute force which policies must hold.
func model(documents []*Document, namespace string, ref verifier.Reference) map[string]bool {
	var applying, tenants []*Document
	byName := map[string]*Document{}
	for _, doc := range documents {
		byName[doc.displayName()] = doc
		if doc.Kind == api.KindTrustPolicy {
			if doc.Namespace == namespace {
				tenants = append(tenants, doc)
			}
		} else if len(doc.namespaces) == 0 || slices.ContainsFunc(doc.namespaces, func(p string) bool { return globText(p, namespace) }) {
			applying = append(applying, doc)
		}
	}
	cluster := best(applying, ref)
	naming, delegates := map[string]bool{}, len(cluster) > 0
	for name := range cluster {
		if len(byName[name].namespaces) > 0 {
			naming[name] = true
		}
	}
	if len(naming) > 0 {
		cluster = naming
	}
	for name := range cluster {
		delegates = delegates && byName[name].Spec.Delegate
	}
	ours := best(tenants, ref)
	switch {
	case len(cluster) == 0:
		return nil
	case delegates && len(ours) > 0:
		return ours
	}
	for name := range ours {
		cluster[name] = true
	}
	return cluster
}

func answered(s *Snapshot, namespace string, ref verifier.Reference) map[string]bool {
	_, verdict := s.For(verifier.Request{Namespace: namespace, Image: ref})
	names := map[string]bool{}
	for _, name := range strings.Split(verdict.Policy(), ", ") {
		if name != "" {
			names[name] = true
		}
	}
	return names
}

func TestSelectionIsWhatTheDesignSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := drawImage(t)
		documents := drawDocuments(t, ref)
		s := build(documents...)
		if len(s.problems) > 0 {
			t.Fatal(s.problems)
		}
		plain := answered(s, "", ref)
		everywhere := true
		for _, namespace := range []string{"dev", "prod", "production", "other"} {
			want, got := model(documents, namespace, ref), answered(s, namespace, ref)
			if !sameSet(got, want) {
				t.Fatalf("[%s]%s: %v, want %v", namespace, ref.Name(), got, want)
			}
			// Without a namespace, all that apply in any must hold.
			cluster := model(slices.DeleteFunc(slices.Clone(documents), func(doc *Document) bool { return doc.Kind == api.KindTrustPolicy }), namespace, ref)
			everywhere = everywhere && len(cluster) > 0
			for name := range cluster {
				if len(plain) > 0 && !plain[name] {
					t.Fatalf("%s without namespace: %v lacks %s, which applies in %s", ref.Name(), plain, name, namespace)
				}
			}
		}
		if (len(plain) > 0) != everywhere {
			t.Fatalf("%s without namespace: %v, though each namespace has a policy: %v", ref.Name(), plain, everywhere)
		}
	})
}

func TestSelectionDoesNotDependOnTheOrderOfDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ref := drawImage(t)
		documents := drawDocuments(t, ref)
		request := verifier.Request{Namespace: rapid.SampledFrom([]string{"", "dev", "prod"}).Draw(t, "namespace"), Image: ref}
		_, first := build(documents...).For(request)
		rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed"))).Shuffle(len(documents), func(i, j int) {
			documents[i], documents[j] = documents[j], documents[i]
		})
		if _, second := build(documents...).For(request); first.Message() != second.Message() || first.Policy() != second.Policy() {
			t.Fatalf("%q, and in another order %q", first.Message(), second.Message())
		}
	})
}

func TestMostSpecificIsAStrictWeakOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawPattern(t), drawPattern(t), drawPattern(t)
		before := func(x, y pattern) bool { return x.rank > y.rank }
		tie := func(x, y pattern) bool { return !before(x, y) && !before(y, x) }
		switch {
		case before(a, a):
			t.Fatalf("%s goes before itself", a.text)
		case before(a, b) && before(b, a):
			t.Fatalf("%s and %s go before each other", a.text, b.text)
		case before(a, b) && before(b, c) && !before(a, c):
			t.Fatalf("%s, %s, %s: not transitive", a.text, b.text, c.text)
		case tie(a, b) && tie(b, c) && !tie(a, c):
			t.Fatalf("%s, %s, %s: ties are not transitive", a.text, b.text, c.text)
		case cmp.Compare(a.rank, b.rank) != specificity(a, b):
			t.Fatalf("%s, %s: the rank says %d, the design %d", a.text, b.text, cmp.Compare(a.rank, b.rank), specificity(a, b))
		}
	})
}

// A pattern that says more in one place and the same elsewhere wins.
func TestSayingMoreWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPattern(t)
		list := strings.Split(p.text, "/")
		i := rapid.IntRange(1, len(list)-1).Draw(t, "segment")
		if !strings.Contains(list[i], "*") {
			t.Skip("says all already")
		}
		list[i] = strings.ReplaceAll(list[i], "*", "a")
		more, e := parsePattern(strings.Join(list, "/"))
		if e != nil {
			t.Skip(e.what)
		}
		if more.rank <= p.rank {
			t.Fatalf("%s does not go before %s", more.text, p.text)
		}
	})
}

func sameSet(a, b map[string]bool) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !b[name] {
			return false
		}
	}
	return true
}
