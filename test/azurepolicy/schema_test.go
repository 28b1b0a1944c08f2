//go:build !gatekeeper320

package azurepolicy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema compiles one of the schemas beside this test.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	compiled, err := jsonschema.NewCompiler().Compile(name)
	must(t, err)
	return compiled
}

func instance(t *testing.T, content []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	must(t, err)
	return v
}

// TestTheSchemas hold for all that we publish.
func TestTheSchemas(t *testing.T) {
	definition := schema(t, "definition.schema.json")
	for name, content := range definitions(t) {
		if err := definition.Validate(instance(t, content)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	content, err := os.ReadFile(directory + "/initiative.json")
	must(t, err)
	if err := schema(t, "initiative.schema.json").Validate(instance(t, content)); err != nil {
		t.Error(err)
	}
}

// TestWhatAzureRefuses is refused by the schema: each is our definition with one
// thing changed.
func TestWhatAzureRefuses(t *testing.T) {
	definition := schema(t, "definition.schema.json")
	for name, c := range map[string]struct {
		path string // to what is set, by dots
		to   string // JSON; empty: taken away
	}{
		"a name that is too long":                       {"displayName", `"` + strings.Repeat("x", 129) + `"`},
		"a description that is too long":                {"description", `"` + strings.Repeat("x", 513) + `"`},
		"another mode":                                  {"mode", `"All"`},
		"no mode":                                       {"mode", ""},
		"a value of metadata that is too long":          {"metadata.more", `"` + strings.Repeat("x", 1025) + `"`},
		"a field that Azure does not know":              {"policyRule.then.details.scope", `"Namespaced"`},
		"any API group":                                 {"policyRule.then.details.apiGroups", `["*"]`},
		"any kind":                                      {"policyRule.then.details.kinds", `["*"]`},
		"no kinds":                                      {"policyRule.then.details.kinds", ""},
		"no excluded namespaces":                        {"policyRule.then.details.excludedNamespaces", ""},
		"the deprecated template":                       {"policyRule.then.details.constraintTemplate", `"https://example.com/t.yaml"`},
		"a template both ways":                          {"policyRule.then.details.templateInfo.url", `"https://example.com/t.yaml"`},
		"a template by plain HTTP":                      {"policyRule.then.details.templateInfo", `{"sourceType":"PublicURL","url":"http://example.com/t.yaml"}`},
		"a template by a URL with a token":              {"policyRule.then.details.templateInfo", `{"sourceType":"PublicURL","url":"https://example.com/t.yaml?sig=x"}`},
		"another effect":                                {"policyRule.then.effect", `"deny"`},
		"an effect that it cannot be switched off with": {"parameters.effect.allowedValues", `["Audit","Deny"]`},
		"a parameter without default":                   {"parameters.provider.defaultValue", ""},
		"a parameter without help":                      {"parameters.provider.metadata.description", ""},
		"a default of another type":                     {"parameters.provider.defaultValue", `[]`},
		"a schema of what is no object":                 {"parameters.provider.schema", `{}`},
		"another resource":                              {"policyRule.if.in", `["Microsoft.Compute/virtualMachines"]`},
	} {
		t.Run(name, func(t *testing.T) {
			document := object(t, instance(t, definitions(t)["trusted-images"]))
			at, parts := document, strings.Split(c.path, ".")
			for _, part := range parts[:len(parts)-1] {
				at = object(t, at[part])
			}
			last := parts[len(parts)-1]
			if c.to == "" {
				delete(at, last)
			} else {
				at[last] = instance(t, []byte(c.to))
			}
			if definition.Validate(document) == nil {
				content, _ := json.Marshal(at[last])
				t.Errorf("taken: %.100s", content)
			}
		})
	}
}

// TestTwentyParameters are Azure's limit.
func TestTwentyParameters(t *testing.T) {
	definition := schema(t, "definition.schema.json")
	document := object(t, instance(t, definitions(t)["trusted-images"]))
	parameters := object(t, document["parameters"])
	for len(parameters) < 20 {
		parameters[fmt.Sprintf("more%d", len(parameters))] = parameters["provider"]
	}
	must(t, definition.Validate(document))
	parameters["oneMore"] = parameters["provider"]
	if definition.Validate(document) == nil {
		t.Error("21 were taken")
	}
}

func object(t *testing.T, v any) map[string]any {
	t.Helper()
	o, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%v is no object", v)
	}
	return o
}
