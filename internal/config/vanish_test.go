package config_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
)

// strays are characters that the API server takes in any text and that YAML does
// not, or that readers of text understand in several ways.
func strays() []string {
	var list []string
	for r := rune(0); r < 0x20; r++ {
		list = append(list, string(r))
	}
	for r := rune(0x7f); r <= 0xa0; r++ {
		list = append(list, string(r))
	}
	list = append(list, "\u00ad", "\u200b", "\u2028", "\u2029", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U0001f600", "\U0010ffff", "\xff",
		`"`, "'", "\\", ": ", " #", "\n---\n", "&a", "*a", "!!binary", "{", "}", "%", "@", "`", "<<")
	// What a client's decoder makes of half a surrogate pair.
	var lone string
	if err := json.Unmarshal([]byte(`"\ud800"`), &lone); err != nil {
		panic(err)
	}
	return append(list, lone)
}

// textLeaves lists paths of all texts that a type's documents may have, of each type
// the first. A list is its first element, and a map its key "key".
func textLeaves(t reflect.Type, path []string, seen map[reflect.Type]bool) [][]string {
	switch t.Kind() {
	case reflect.Pointer:
		return textLeaves(t.Elem(), path, seen)
	case reflect.Slice:
		return textLeaves(t.Elem(), append(slices.Clip(path), "[]"), seen)
	case reflect.Map:
		return [][]string{append(slices.Clip(path), "key")}
	case reflect.String:
		return [][]string{path}
	case reflect.Struct:
		if seen[t] {
			return nil
		}
		seen[t] = true
		var list [][]string
		for i := range t.NumField() {
			f := t.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if options == "inline" {
				list = append(list, textLeaves(f.Type, path, seen)...)
			} else {
				list = append(list, textLeaves(f.Type, append(slices.Clip(path), name), seen)...)
			}
		}
		return list
	default:
		return nil
	}
}

// put sets what is at the path, and makes what is missing on the way.
func put(at any, path []string, change func(old any) any) any {
	if len(path) == 0 {
		return change(at)
	}
	if path[0] == "[]" {
		list, _ := at.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = put(list[0], path[1:], change)
		return list
	}
	object, _ := at.(map[string]any)
	if object == nil {
		object = map[string]any{}
	}
	object[path[0]] = put(object[path[0]], path[1:], change)
	return object
}

// TestL42_NoTextMakesAPolicyVanish puts each stray character into each text of
// the schema, and other types in its place: the document is called what it was
// called, and no broader policy decides about its images.
func TestL42_NoTextMakesAPolicyVanish(t *testing.T) {
	for kind, c := range map[string]struct {
		of       reflect.Type
		document func(name, images string) string
	}{
		api.KindClusterTrustPolicy: {reflect.TypeFor[api.ClusterTrustPolicy](), func(name, images string) string { return cluster(name, images, skip("strict")) }},
		api.KindTrustPolicy:        {reflect.TypeFor[api.TrustPolicy](), func(name, images string) string { return tenant("a", name, images, skip("strict")) }},
	} {
		t.Run(kind, func(t *testing.T) {
			changes := changesOf()
			if testing.Short() { // each of the rarer ones, and some of the control characters
				kept := changes[:0]
				for i, change := range changes {
					if i > 60 || i%8 == 0 {
						kept = append(kept, change)
					}
				}
				changes = kept
			}
			wide := object(t, cluster("wide", `"**/**"`, "delegate: true", skip("wide")))
			var good []*config.Document
			var written [][]byte
			for i := range changes {
				object := content(t, c.document(fmt.Sprint("strict-", i), fmt.Sprintf("%q", strictImage(i))))
				data, err := json.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				good, written = append(good, config.ParseObject(ofGeneration(object, 6))), append(written, data)
			}
			env := environment(t)
			edited := config.NewObjects(config.ObjectsOptions{Environment: env, Reader: held{}})
			edited.Update(t.Context(), append(good, wide))
			leaves := textLeaves(c.of, nil, map[reflect.Type]bool{})
			if len(leaves) < 60 {
				t.Fatalf("%d texts", len(leaves))
			}
			for _, path := range leaves {
				if slices.Equal(path, []string{"apiVersion"}) || slices.Equal(path, []string{"kind"}) || len(path) == 2 && path[0] == "metadata" && (path[1] == "name" || path[1] == "namespace") {
					continue // the API server's own
				}
				var changed []*config.Document
				for i, change := range changes {
					var object map[string]any
					if err := json.Unmarshal(written[i], &object); err != nil {
						t.Fatal(err)
					}
					changed = append(changed, config.ParseObject(ofGeneration(put(object, path, change).(map[string]any), 7)))
				}
				first := config.NewObjects(config.ObjectsOptions{Environment: env, Reader: held{}}).Update(t.Context(), append(changed, wide))
				names := map[string]int64{}
				for _, status := range first.Policies() {
					names[status.Name] = status.Generation
				}
				later := edited.Update(t.Context(), append(changed, wide))
				for i := range changes {
					name := fmt.Sprint("strict-", i)
					if names[name] != 7 {
						t.Errorf("%v, change %d: the document is called otherwise", path, i)
					}
					image := strings.TrimSuffix(strictImage(i), "**") + "x"
					if got := decision(t, first, "a", image); got == "EXEMPT SKIPPED wide" || strings.HasPrefix(got, "REFUSED") {
						t.Errorf("%v, change %d: %s", path, i, got)
					}
					if got := decision(t, later, "a", image); !strings.HasPrefix(got, "EXEMPT SKIPPED ") || !strings.HasSuffix(got, name) {
						t.Errorf("%v, change %d of a good version: %s", path, i, got)
					}
				}
			}
		})
	}
}

func strictImage(i int) string { return fmt.Sprintf("strict-%d.example.com/**", i) }

// changesOf are a text with each stray character, and what is no text.
func changesOf() []func(old any) any {
	var list []func(any) any
	for _, stray := range strays() {
		list = append(list, func(old any) any {
			text, _ := old.(string)
			at := strings.LastIndexByte(text, '/') + 1
			return text[:at] + stray + text[at:]
		})
	}
	for _, value := range []any{nil, 5.0, true, map[string]any{}, map[string]any{"a": nil}, []any{}, []any{nil}, strings.Repeat("x", 4<<10)} {
		list = append(list, func(any) any { return value })
	}
	return list
}

func ofGeneration(object map[string]any, generation int64) map[string]any {
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		return object
	}
	metadata["generation"] = generation
	return object
}

// TestL42_WhatTheAPIServerTakes beside texts: large objects, and what it writes
// itself.
func TestL42_WhatTheAPIServerTakes(t *testing.T) {
	large := strings.Repeat("a", 1<<20+1)
	many := make([]any, 25_000)
	for name, c := range map[string]struct {
		path    []string
		value   any
		problem string // the beginning of the one that is reported; empty: none
	}{
		"a large annotation":     {[]string{"metadata", "annotations", "note"}, large, ""},
		"annotations of no text": {[]string{"metadata", "annotations"}, 5.0, ""},
		"managedFields":          {[]string{"metadata", "managedFields", "[]", "fieldsV1"}, map[string]any{"f:spec": many}, ""},
		"a status":               {[]string{"status", "conditions"}, many, ""},
		"a large text":           {[]string{"spec", "owner"}, large, "spec.owner"},
		"many values":            {[]string{"spec", "aaa"}, many, "spec.aaa"},
		"many images":            {[]string{"spec", "images"}, many, "spec.images[0]"},
		"another field":          {[]string{"data"}, large, "data"},
		"a spec of no object":    {[]string{"spec"}, "text", "spec"},
		"no spec":                {[]string{"spec"}, nil, "spec"},
		"DEL in the owner":       {[]string{"spec", "owner"}, "ops\x7f", "spec.owner"},
		"cp1252 in the owner":    {[]string{"spec", "owner"}, "the ops\u0092 team", "spec.owner"},
		"a line in the owner":    {[]string{"spec", "owner"}, "ops\u2028team", "spec.owner"},
	} {
		t.Run(name, func(t *testing.T) {
			documents := func(change bool) []*config.Document {
				strict, generation := content(t, cluster("strict", `"a.example/**"`, skip("strict"))), int64(1)
				if change {
					strict, generation = put(strict, c.path, func(any) any { return c.value }).(map[string]any), 2
				}
				return []*config.Document{config.ParseObject(ofGeneration(strict, generation)), object(t, cluster("wide", `"**/**"`, skip("wide")))}
			}
			path := filepath.Join(t.TempDir(), "last-good")
			never := objects(t, held{}, "").Update(t.Context(), documents(true))
			if got := decision(t, never, "", "a.example/x"); got != "EXEMPT SKIPPED strict" && (c.problem == "" || got != "strict: POLICY_INVALID") {
				t.Errorf("never good: %s", got)
			}
			o := objects(t, held{}, path)
			o.Update(t.Context(), documents(false))
			edited := o.Update(t.Context(), documents(true))
			restarted := objects(t, held{}, path).Update(t.Context(), documents(true))
			away := objects(t, held{}, path)
			if err := away.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			for when, s := range map[string]*config.Snapshot{"edited": edited, "restarted": restarted, "without API server": away.Snapshot()} {
				if got := decision(t, s, "", "a.example/x"); got != "EXEMPT SKIPPED strict" {
					t.Errorf("%s: %s", when, got)
				}
				status := s.Policies()[0]
				if want := map[bool]config.State{true: config.StateReady, false: config.StateLastGood}[c.problem == ""]; status.State != want || status.Generation != 2 || status.Boundless {
					t.Errorf("%s: %+v", when, status)
				}
				if found := len(status.Problems) > 0; found != (c.problem != "") || found && !strings.HasPrefix(status.Problems[0].Path, c.problem) && status.Problems[0].Path != "" {
					t.Errorf("%s: %v", when, status.Problems)
				}
			}
		})
	}
}

// TestL42_AnExemptionKeepsItsName: a stray character ends no Exemption that was
// good, and exempts nothing that was not.
func TestL42_AnExemptionKeepsItsName(t *testing.T) {
	const exemption = `{apiVersion: countersign.dev/v1beta1, kind: Exemption, metadata: {name: hotfix}, spec: {images: ["a.example/**"], namespaces: ["*"], reason: a test, owner: me, expiresAt: "2126-12-31T18:00:00Z"}}`
	strict := object(t, cluster("strict", `"**/**"`, skip("strict")))
	for _, stray := range strays() {
		o := objects(t, held{}, "")
		odd := content(t, exemption)
		put(odd, []string{"spec", "images", "[]"}, func(any) any { return "a.example/" + stray + "**" })
		changed := config.ParseObject(odd)
		if got := decision(t, o.Update(t.Context(), []*config.Document{strict, changed}), "", "a.example/x"); got != "EXEMPT SKIPPED strict" {
			t.Errorf("%q: %s", stray, got)
		}
		o.Update(t.Context(), []*config.Document{strict, object(t, exemption)})
		s := o.Update(t.Context(), []*config.Document{strict, changed})
		if len(s.Policies()) != 2 || s.Policies()[1].Name != "hotfix" {
			t.Errorf("%q: %+v", stray, s.Policies())
		}
		if len(s.Problems()) > 0 && decision(t, s, "", "a.example/x") != "EXEMPT EXEMPTED Exemption hotfix" {
			t.Errorf("%q: %s, %v", stray, decision(t, s, "", "a.example/x"), s.Problems())
		}
	}
}
