package library

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// everyTemplate calls f with each ConstraintTemplate of the library and of Azure, whose
// kind has a constraint then. A template that is added is found here by itself.
func everyTemplate(t *testing.T, f func(t *testing.T, s *suite, kind string)) {
	t.Helper()
	s := newSuite(t, 0)
	must(t, s.engine.SetProvider("ratify-provider", s.provider.URL, providerTimeout, s.authority.PEM))
	found := 0
	for _, dir := range []string{libraryDir, "../../azure-policy/templates"} {
		must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" || strings.Contains(path, "/cases/") || strings.Contains(path, "/samples/") {
				return err
			}
			objects, err := kubeyaml.Read(path)
			if err != nil {
				return err
			}
			for _, o := range objects {
				if o.GetKind() != "ConstraintTemplate" {
					continue
				}
				found++
				must(t, s.engine.Apply(t.Context(), o))
				kind, _, err := unstructured.NestedString(o.Object, "spec", "crd", "spec", "names", "kind")
				must(t, err)
				spec := map[string]any{}
				if kind == "NotationIssuerValidation" {
					spec["parameters"] = map[string]any{"issuer": "CN=Example CA"}
				}
				constraint := &unstructured.Unstructured{Object: map[string]any{
					"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": kind, "metadata": map[string]any{"name": "every"},
					"spec": spec,
				}}
				must(t, s.engine.Apply(t.Context(), constraint))
				t.Run(kind, func(t *testing.T) { f(t, s, kind) })
				must(t, s.engine.Remove(t.Context(), constraint))
			}
			return nil
		}))
	}
	if found < 9 { // six of the library, three of Azure
		t.Errorf("%d templates", found)
	}
}

// uses are Pods of a trusted container that name one more image, by the list in which
// they name it.
func uses(image string) map[string]*unstructured.Unstructured {
	const trusted = "registry.example.com/trusted@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	pods := map[string]*unstructured.Unstructured{}
	for list, entry := range map[string]map[string]any{
		"initContainers": {"image": image}, "containers": {"image": image}, "ephemeralContainers": {"image": image}, "volumes": {"image": map[string]any{"reference": image}},
	} {
		entry["name"] = "more"
		spec := map[string]any{"containers": []any{map[string]any{"name": "trusted", "image": trusted}}}
		if list == "containers" {
			spec[list] = append(spec[list].([]any), entry)
		} else {
			spec[list] = []any{entry}
		}
		pods[list] = object(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "cart", "namespace": "shop"}, "spec": spec})
	}
	return pods
}

// says answers in the shapes of both contracts: yes for the trusted image, no for a key
// of the other; only for what is asked.
func says(image string) func(keys []string) fake.Answer {
	const trusted = "registry.example.com/trusted@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	yes := map[string]any{"status": "TRUSTED", "message": "trusted", "isSuccess": true, "traceID": "1", "verifierReports": []any{
		map[string]any{"type": "notation", "isSuccess": true, "extensions": map[string]any{"Issuer": "CN=Example CA"}},
	}}
	no := map[string]any{"status": "UNSUPPORTED", "message": image + ": refused here", "isSuccess": false, "traceID": "2"}
	return func(keys []string) fake.Answer {
		var answer fake.Answer
		for _, key := range keys {
			value := no
			if strings.HasSuffix(key, trusted) {
				value = yes
			}
			answer.Items = append(answer.Items, fake.Item{Key: key, Value: value})
		}
		return answer
	}
}

// TestL45_EveryTemplateLooksAtEveryImage: an image without a signature is denied in
// whichever list of a Pod it is, by each template there is.
func TestL45_EveryTemplateLooksAtEveryImage(t *testing.T) {
	const unsigned = "registry.example.com/unsigned:1"
	everyTemplate(t, func(t *testing.T, s *suite, kind string) {
		for list, pod := range uses(unsigned) {
			s.provider.Reply(says(unsigned))
			decision, err := s.engine.Admit(t.Context(), engine.Create("shop", pod))
			must(t, err)
			if decision.Allowed || !strings.Contains(decision.Text, unsigned) {
				t.Errorf("in %s: %+v", list, decision)
			}
			if strings.Contains(decision.Text, "trusted@") {
				t.Errorf("in %s: denied for the trusted image: %s", list, decision.Text)
			}
		}
	})
}

// TestL54_BracketsOfAPodAuthorAreNoKey: an image that begins with a bracket is denied in
// whichever list it is, and never reaches the provider.
func TestL54_BracketsOfAPodAuthorAreNoKey(t *testing.T) {
	everyTemplate(t, func(t *testing.T, s *suite, kind string) {
		for _, image := range []string{
			"[victim]registry.example.com/secret@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
			"[victim;sa=default;secrets=regcred]registry.example.com/secret:1", "[victim;sa=a:b]registry.example.com/secret:1", "[]registry.example.com/secret:1", "[victim", "[victim]registry.example.com/secret[fd00::2]:1",
		} {
			for list, pod := range uses(image) {
				s.provider.Reply(says(image))
				decision, err := s.engine.Admit(t.Context(), engine.Create("shop", pod))
				must(t, err)
				if decision.Allowed || !strings.Contains(decision.Text, "begins with a bracket that is no IPv6 host") {
					t.Errorf("%s in %s: %+v", image, list, decision)
				}
				for _, keys := range s.provider.Asked() {
					for _, key := range keys {
						if strings.HasSuffix(key, image) {
							t.Errorf("%s in %s: asked %s", image, list, key)
						}
					}
				}
			}
		}
	})
}
