package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// ratifyObjects are those of a file of internal/ratify/testdata, changed.
func ratifyObjects(t testing.TB, file string, change ...string) []ratify.Object {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "ratify", "testdata", file+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(change...).Replace(string(content))
	if len(change) > 0 && text == string(content) {
		t.Fatal("nothing to change")
	}
	objects, err := ratify.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func decisions(t *testing.T, s *config.Snapshot, want map[string]string) {
	t.Helper()
	for key, want := range want {
		namespace, name := "", key
		if rest, ok := strings.CutPrefix(key, "["); ok {
			namespace, name, _ = strings.Cut(rest, "]")
		}
		if got := decision(t, s, namespace, name); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

// TestRatifysObjectsDecideWhatNoPolicyDoes: a ClusterTrustPolicy that matches goes
// before them, and a namespace's own objects before the cluster's.
func TestRatifysObjectsDecideWhatNoPolicyDoes(t *testing.T) {
	o := objects(t, held{}, "")
	s := o.Update(t.Context(), []*config.Document{object(t, cluster("ours", `"ours.example/**"`, skip("a test")))}, ratifyObjects(t, "namespaces")...)
	for _, p := range s.Problems() {
		t.Error(p)
	}
	decisions(t, s, map[string]string{
		"ours.example/x":          "EXEMPT SKIPPED ours",
		"[team-a]ours.example/x":  "EXEMPT SKIPPED ours",
		"other.example/x":         "ratify",
		"[team-b]other.example/x": "ratify",
		"[team-a]other.example/x": "team-a/ratify",
		"[team-a]docker.io/nginx": "team-a/ratify",
	})
	for _, status := range s.Ratify() {
		if status.Error != "" {
			t.Errorf("%s: %s", status, status.Error)
		}
	}
	decisions(t, o.Update(t.Context(), nil), map[string]string{"other.example/x": "REFUSED POLICY_NOT_FOUND"})
}

// TestRatifysScopesAreTheirOwnPolicies, and an image outside all of them is refused.
func TestRatifysScopesAreTheirOwnPolicies(t *testing.T) {
	s := objects(t, held{}, "").Update(t.Context(), nil, ratifyObjects(t, "scopes")...)
	decisions(t, s, map[string]string{
		"acr1.azurecr.io/x":           "ratify-1",
		"acr2.azurecr.io/cart":        "ratify-2",
		"acr2.azurecr.io/team-a":      "ratify-3",
		"acr2.azurecr.io/team/a/b":    "ratify-4",
		"acr2.azurecr.io/other":       "REFUSED POLICY_NOT_FOUND",
		"acr1.azurecr.io.evil.test/x": "REFUSED POLICY_NOT_FOUND",
	})
}

// TestWrongObjectsOfRatify: their images are undecided, unless they were right
// before; those of other namespaces are as they were.
func TestWrongObjectsOfRatify(t *testing.T) {
	wrong := ratifyObjects(t, "namespaces", "team-a/own", "team-a/none")
	o := objects(t, held{}, "")
	s := o.Update(t.Context(), nil, wrong...)
	decisions(t, s, map[string]string{"[team-a]other.example/x": "team-a/ratify: POLICY_INVALID", "[team-b]other.example/x": "ratify"})
	said := ""
	for _, status := range s.Ratify() {
		if status.Error != "" {
			said += status.String() + ": " + status.Error
		}
	}
	if said != "Verifier team-a/verifier-team: KeyManagementProvider team-a/none does not exist" {
		t.Error(said)
	}
	o.Update(t.Context(), nil, ratifyObjects(t, "namespaces")...)
	s = o.Update(t.Context(), nil, wrong...)
	decisions(t, s, map[string]string{"[team-a]other.example/x": "team-a/ratify"})
	if len(s.Problems()) != 1 {
		t.Error(s.Problems())
	}
}

// TestL25_RatifysTenantsReadNoFiles of the provider.
func TestL25_RatifysTenantsReadNoFiles(t *testing.T) {
	s := objects(t, held{}, "").Update(t.Context(), nil, ratifyObjects(t, "namespaces",
		"verificationCertStores: {ca: {certs: [team-a/own]}}", "verificationCerts: [/var/run/secrets/kubernetes.io/serviceaccount/token]")...)
	decisions(t, s, map[string]string{"[team-a]other.example/x": "team-a/ratify: POLICY_INVALID"})
	if p := s.Problems()[0].String(); !strings.Contains(p, "reads no files of the provider") {
		t.Error(p)
	}
}

// TestARestartWithRatifysObjects serves what they demanded.
func TestARestartWithRatifysObjects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	objects(t, held{}, path).Update(t.Context(), nil, ratifyObjects(t, "namespaces")...)
	after := objects(t, held{}, path)
	if err := after.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	decisions(t, after.Snapshot(), map[string]string{"[team-a]other.example/x": "team-a/ratify", "other.example/x": "ratify"})
}

// TestL42_ARestartKeepsWhatRatifysObjectsDemandedLast, where they are wrong now; also
// after a second restart, and not once they are gone.
func TestL42_ARestartKeepsWhatRatifysObjectsDemandedLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last-good")
	wrong := ratifyObjects(t, "namespaces", "team-a/own", "team-a/none")
	before := objects(t, held{}, path)
	before.Update(t.Context(), nil, ratifyObjects(t, "namespaces")...)
	before.Update(t.Context(), nil, wrong...)
	want := map[string]string{"[team-a]other.example/x": "team-a/ratify", "other.example/x": "ratify"}
	for range 2 {
		restarted, away := objects(t, held{}, path), objects(t, held{}, path)
		if err := away.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		decisions(t, away.Snapshot(), want)
		decisions(t, restarted.Update(t.Context(), nil, wrong...), want)
		if len(restarted.Snapshot().Problems()) != 1 {
			t.Error(restarted.Snapshot().Problems())
		}
	}
	objects(t, held{}, path).Update(t.Context(), nil)
	decisions(t, objects(t, held{}, path).Update(t.Context(), nil, wrong...), map[string]string{"[team-a]other.example/x": "team-a/ratify: POLICY_INVALID"})
}

// TestNothingIsMadeAnewWhereNothingChanged: the same Snapshot, however often it is
// looked at.
func TestNothingIsMadeAnewWhereNothingChanged(t *testing.T) {
	o := objects(t, held{}, "")
	documents := []*config.Document{object(t, cluster("ours", `"ours.example/**"`, skip("a test")))}
	first := o.Update(t.Context(), documents, ratifyObjects(t, "namespaces")...)
	for range 20 {
		if o.Update(t.Context(), documents, ratifyObjects(t, "namespaces")...) != first {
			t.Fatal("another Snapshot")
		}
	}
}

// TestAChangeOfRatifysStoreCounts: how registries are asked is no part of the document
// that Ratify's objects make, and a change of it makes another policy none the less.
func TestAChangeOfRatifysStoreCounts(t *testing.T) {
	with := func(useHTTP string) []ratify.Object {
		list, err := ratify.Parse([]byte("apiVersion: config.ratify.deislabs.io/v1beta1\nkind: Store\nmetadata: {name: store-oras}\nspec: {name: oras, parameters: {useHttp: " + useHTTP + "}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		return append(ratifyObjects(t, "namespaces"), list...)
	}
	o := objects(t, held{}, "")
	request := verifier.Request{Image: image(t, "other.example/x")}
	before, _ := o.Update(t.Context(), nil, with("false")...).For(request)
	same, _ := o.Update(t.Context(), nil, with("false")...).For(request)
	after, _ := o.Update(t.Context(), nil, with("true")...).For(request)
	if before == nil || same != before || after == nil || after == before {
		t.Errorf("%p, %p, %p", before, same, after)
	}
}
