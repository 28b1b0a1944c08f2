package config_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/internal/config"
)

// aged is an object of an age in seconds: less is older.
func aged(t testing.TB, text, uid string, born int, generation int64) *config.Document {
	t.Helper()
	return config.ParseObject(withAge(content(t, text), uid, born, generation))
}

func withAge(object map[string]any, uid string, born int, generation int64) map[string]any {
	metadata := object["metadata"].(map[string]any)
	metadata["uid"], metadata["generation"] = uid, generation
	metadata["creationTimestamp"] = time.Unix(int64(1e9+born), 0).UTC().Format(time.RFC3339)
	return object
}

// TestL51_TheOlderKeepsThePattern: a second object with the same pattern stops
// nothing, in whatever order the two were seen, and says whose the pattern is.
func TestL51_TheOlderKeepsThePattern(t *testing.T) {
	older := aged(t, cluster("production", `"reg.example/shop/**"`, skip("it is ours")), "b", 1, 1)
	for name, c := range map[string]struct {
		newer   *config.Document
		answers map[string]string
		problem string
		images  int
		state   config.State
	}{
		"the same": {
			newer:   aged(t, cluster("a", `"reg.example/shop/**"`, skip("mine")), "a", 2, 1),
			problem: "ClusterTrustPolicy a: spec.images[0]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern",
			state:   config.StateContested,
		},
		"in other words": {
			newer:   aged(t, cluster("a", `"REG.example:443/shop/**"`, skip("mine")), "a", 2, 1),
			problem: "ClusterTrustPolicy a: spec.images[0]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern",
			state:   config.StateContested,
		},
		"of the same second": {
			newer:   aged(t, cluster("a", `"reg.example/shop/**"`, skip("mine")), "c", 1, 1),
			problem: "ClusterTrustPolicy a: spec.images[0]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern",
			state:   config.StateContested,
		},
		"and another": {
			newer:   aged(t, cluster("a", `"other.example/**", "reg.example/shop/**"`, skip("mine")), "a", 2, 1),
			answers: map[string]string{"other.example/x": "EXEMPT SKIPPED a"},
			problem: "ClusterTrustPolicy a: spec.images[1]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern",
			images:  1, state: config.StateContested,
		},
		"and broken": {
			newer:   aged(t, cluster("a", `"other.example/**", "reg.example/shop/**"`, "mod: audit", skip("mine")), "a", 2, 1),
			answers: map[string]string{"other.example/x": "a: POLICY_INVALID"},
			problem: "ClusterTrustPolicy a: spec.mod: unknown field. Did you mean mode?",
			images:  1, state: config.StateBroken,
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "last-good")
			for _, order := range [][][]*config.Document{
				{{older, c.newer}}, {{c.newer, older}}, {{older}, {older, c.newer}}, {{c.newer}, {c.newer, older}}, {{c.newer}, {}, {older}, {older, c.newer}},
			} {
				o := objects(t, held{}, path)
				for _, documents := range order {
					o.Update(t.Context(), documents)
				}
				restarted, away := objects(t, held{}, path), objects(t, held{}, path)
				restarted.Update(t.Context(), order[len(order)-1])
				if err := away.Restore(t.Context()); err != nil {
					t.Fatal(err)
				}
				for when, s := range map[string]*config.Snapshot{"running": o.Snapshot(), "restarted": restarted.Snapshot(), "without API server": away.Snapshot()} {
					answers := map[string]string{"reg.example/shop/cart:1.4": "EXEMPT SKIPPED production"}
					for image, answer := range c.answers {
						answers[image] = answer
					}
					decisions(t, s, answers)
					status := s.Policies()
					if len(status) != 2 || status[1].State != config.StateReady || len(status[1].Problems) > 0 {
						t.Errorf("%s: the older one: %+v", when, status)
					}
					if status[0].State != c.state || status[0].Problems[0].String() != c.problem || len(status[0].Images) != c.images {
						t.Errorf("%s: the newer one: %+v", when, status[0])
					}
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestL51_TheOlderMayBeEditedLater: then it has the pattern, and the newer one goes
// on with what else it has.
func TestL51_TheOlderMayBeEditedLater(t *testing.T) {
	newer := aged(t, cluster("newer", `"a.example/**", "b.example/**"`, skip("x")), "n", 2, 1)
	o := objects(t, held{}, "")
	o.Update(t.Context(), []*config.Document{aged(t, cluster("older", `"c.example/**"`, skip("x")), "o", 1, 1), newer})
	s := o.Update(t.Context(), []*config.Document{aged(t, cluster("older", `"a.example/**"`, skip("x")), "o", 1, 2), newer})
	decisions(t, s, map[string]string{"a.example/x": "EXEMPT SKIPPED older", "b.example/x": "EXEMPT SKIPPED newer", "c.example/x": "REFUSED POLICY_NOT_FOUND"})
	// Deleted and created again, it is the younger of the two.
	s = o.Update(t.Context(), []*config.Document{aged(t, cluster("older", `"a.example/**"`, skip("x")), "p", 3, 1), newer})
	decisions(t, s, map[string]string{"a.example/x": "EXEMPT SKIPPED newer", "b.example/x": "EXEMPT SKIPPED newer"})
}

// TestL51_APatternThatCanBeReadInPart is no twin: the policy may be about less than
// the older one, and want more.
func TestL51_APatternThatCanBeReadInPart(t *testing.T) {
	s := objects(t, held{}, "").Update(t.Context(), []*config.Document{
		aged(t, cluster("wide", `"a.example/**", "b.example/**"`, skip("x")), "w", 1, 1),
		aged(t, cluster("strict", `"a.example/x**y"`), "s", 2, 1),
	})
	decisions(t, s, map[string]string{"a.example/xy": "strict: POLICY_INVALID", "b.example/x": "EXEMPT SKIPPED wide"})
}

// TestL51_OnlyTheAgeChanged: an object that was created again with the same words is
// another one, and younger.
func TestL51_OnlyTheAgeChanged(t *testing.T) {
	a, b := cluster("a", `"a.example/**"`, skip("x")), cluster("b", `"a.example/**"`, skip("x"))
	o := objects(t, held{}, "")
	decisions(t, o.Update(t.Context(), []*config.Document{aged(t, a, "1", 1, 1), aged(t, b, "2", 2, 1)}), map[string]string{"a.example/x": "EXEMPT SKIPPED a"})
	decisions(t, o.Update(t.Context(), []*config.Document{aged(t, a, "3", 3, 1), aged(t, b, "2", 2, 1)}), map[string]string{"a.example/x": "EXEMPT SKIPPED b"})
}

// TestL51_ATenantsTwin is settled within the namespace.
func TestL51_ATenantsTwin(t *testing.T) {
	s := objects(t, held{}, "").Update(t.Context(), []*config.Document{
		aged(t, cluster("lent", `"a.example/**"`, "delegate: true", skip("x")), "l", 0, 1),
		aged(t, tenant("team", "newer", `"a.example/**"`, skip("x")), "n", 2, 1),
		aged(t, tenant("team", "older", `"a.example/**"`, skip("x")), "o", 1, 1),
		aged(t, tenant("other", "alone", `"a.example/**"`, skip("x")), "p", 3, 1),
	})
	ask(t, s, []want{{"[team]a.example/x", "EXEMPT SKIPPED team/older"}, {"[other]a.example/x", "EXEMPT SKIPPED other/alone"}})
}

// TestL42_ALaterObjectOfTheNameHasNoLastGood: what another object of the name was
// trusted for is no version of this one.
func TestL42_ALaterObjectOfTheNameHasNoLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	broken := cluster("a", `"a.example/**"`, "mod: audit", skip("x"))
	good := []*config.Document{aged(t, cluster("a", `"a.example/**"`, skip("x")), "1", 1, 1)}
	o := objects(t, held{}, path)
	o.Update(t.Context(), good)
	for name, c := range map[string]struct{ document, answer string }{
		"the same object": {broken, "EXEMPT SKIPPED a"},
		"another object":  {broken, "a: POLICY_INVALID"},
		"the same, after versions that were not seen": {broken, "a: POLICY_INVALID"},
		"the same, with a version that was seen":      {broken, "EXEMPT SKIPPED a"},
	} {
		t.Run(name, func(t *testing.T) {
			document := aged(t, c.document, "1", 1, 2)
			switch name {
			case "another object":
				document = aged(t, c.document, "2", 1, 2)
			case "the same, after versions that were not seen":
				document = aged(t, c.document, "1", 1, 3)
			case "the same, with a version that was seen":
				seen := objects(t, held{}, path)
				seen.Update(t.Context(), []*config.Document{document})
				document = aged(t, c.document, "1", 1, 3)
			}
			if !strings.Contains(name, "version") { // a process that goes on sees them all
				running := objects(t, held{}, "")
				running.Update(t.Context(), good)
				decisions(t, running.Update(t.Context(), []*config.Document{document}), map[string]string{"a.example/x": c.answer})
			}
			restarted := objects(t, held{}, path)
			decisions(t, restarted.Update(t.Context(), []*config.Document{document}), map[string]string{"a.example/x": c.answer})
			objects(t, held{}, path).Update(t.Context(), good) // as it was
		})
	}
}

// thing is an object of the model: what it says now, and what it said when it was
// good last.
type thing struct {
	name       string
	uid        string
	born       int
	generation int64
	now        version
	good       *version
}

// version is one that an object may have.
type version struct {
	word       string
	patterns   []string
	broken     bool
	unreadable bool
}

// The patterns, most specific first, and images that they tell apart.
var (
	modelPatterns = []string{"h.example/x", "h.example/**", "k.example/**", "**/**"}
	modelImages   = map[string][]string{
		"h.example/x": {"h.example/x", "h.example/**", "**/**"}, "h.example/y": {"h.example/**", "**/**"},
		"k.example/z": {"k.example/**", "**/**"}, "other.example/z": {"**/**"},
	}
)

func (v version) document(name string) string {
	images := fmt.Sprintf(`"%s"`, strings.Join(v.patterns, `", "`))
	if v.unreadable {
		images = `"a..b/**"`
	}
	if v.broken {
		return cluster(name, images, "mod: audit", skip("x"))
	}
	return cluster(name, images, skip("x"))
}

// answers is what must be answered by brute force, where last says whether the last
// good versions are known.
func answers(things []*thing, last bool) map[string]string {
	things = slices.SortedFunc(slices.Values(things), func(a, b *thing) int {
		return cmp.Or(cmp.Compare(a.born, b.born), cmp.Compare(a.uid, b.uid))
	})
	list := map[string]string{}
	owners := map[string]string{}
	var boundless []string
	for _, one := range things {
		v, answer := one.now, "EXEMPT SKIPPED "+one.name
		switch {
		case v.broken && last && one.good != nil:
			v = *one.good
		case v.broken:
			answer = one.name + ": POLICY_INVALID"
			if v.unreadable {
				boundless = append(boundless, one.name)
				continue
			}
		}
		for _, p := range v.patterns {
			if owners[p] == "" {
				owners[p] = answer
			}
		}
	}
	for image, patterns := range modelImages {
		list[image] = "REFUSED POLICY_NOT_FOUND"
		for _, p := range slices.Backward(patterns) {
			if owners[p] != "" {
				list[image] = owners[p]
			}
		}
		if len(boundless) > 0 {
			list[image] = slices.Min(boundless) + ": POLICY_INVALID"
		}
	}
	return list
}

// TestL51_NothingDependsOnTheOrderOfEvents adds, edits, breaks, repairs and deletes
// objects in any order. A replica that saw it all, one that was restarted, one that
// starts without API server, one that has just begun and one that looks now and then
// answer what the objects say, and no image is another's than its owner's.
func TestL51_NothingDependsOnTheOrderOfEvents(t *testing.T) {
	env := environment(t)
	start := func(path string) *config.Objects {
		return config.NewObjects(config.ObjectsOptions{Environment: env, Reader: held{}, LastGood: path})
	}
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		path := filepath.Join(t.TempDir(), fmt.Sprint("last-good-", round))
		running, lazy := start(path), start("")
		var things []*thing
		clock := 0
		for range rapid.IntRange(1, 12).Draw(r, "events") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(r, "name")
			at := slices.IndexFunc(things, func(one *thing) bool { return one.name == name })
			v := version{word: rapid.SampledFrom([]string{"delete", "good", "good", "broken", "unreadable"}).Draw(r, "event")}
			v.broken, v.unreadable = v.word != "good", v.word == "unreadable"
			v.patterns = rapid.SliceOfNDistinct(rapid.SampledFrom(modelPatterns), 1, 3, func(p string) string { return p }).Draw(r, "patterns")
			switch {
			case v.word == "delete" && at >= 0:
				things = slices.Delete(things, at, at+1)
			case v.word == "delete":
			case at < 0:
				clock += rapid.IntRange(0, 1).Draw(r, "seconds")
				uid := fmt.Sprint(rapid.IntRange(0, 9).Draw(r, "uid"), "-", len(things), "-", clock, name)
				things = append(things, &thing{name: name, uid: uid, born: clock, generation: 1, now: v})
				at = len(things) - 1
			default:
				things[at].now, things[at].generation = v, things[at].generation+1
			}
			if v.word == "good" {
				things[at].good = &v
			}
			var documents []*config.Document
			for _, one := range rapid.Permutation(things).Draw(r, "order") {
				documents = append(documents, aged(t, one.now.document(one.name), one.uid, one.born, one.generation))
			}
			check := func(who string, s *config.Snapshot, want map[string]string) {
				for image, answer := range want {
					if got := decision(t, s, "", image); got != answer {
						r.Fatalf("%s: %s: %s, want %s", who, image, got, answer)
					}
				}
			}
			check("running", running.Update(t.Context(), documents), answers(things, true))
			check("begun", start("").Update(t.Context(), documents), answers(things, false))
			away := start(path)
			if err := away.Restore(t.Context()); err != nil {
				r.Fatal(err)
			}
			check("without API server", away.Snapshot(), answers(things, true))
			check("then with one", away.Update(t.Context(), documents), answers(things, true))
			if rapid.Bool().Draw(r, "restart") {
				running = start(path)
				check("restarted", running.Update(t.Context(), documents), answers(things, true))
			}
			sound := !slices.ContainsFunc(things, func(one *thing) bool { return one.now.broken })
			if rapid.Bool().Draw(r, "looks") {
				if s := lazy.Update(t.Context(), documents); sound {
					check("looking now and then", s, answers(things, true))
				}
			}
		}
	})
}
