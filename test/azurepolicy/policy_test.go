package azurepolicy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/azurepolicy"
	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
	"github.com/countersign-dev/countersign/test/pki"
)

const directory = "../../azure-policy"

func definitions(t *testing.T) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(directory + "/*.json")
	must(t, err)
	found := map[string][]byte{}
	for _, path := range paths {
		if name := strings.TrimSuffix(filepath.Base(path), ".json"); name != "initiative" {
			found[name], err = os.ReadFile(path)
			must(t, err)
		}
	}
	if len(found) != 6 {
		t.Fatalf("%d definitions", len(found))
	}
	return found
}

// TestShape: what the schemas beside this cannot say of a definition.
func TestShape(t *testing.T) {
	for name, content := range definitions(t) {
		t.Run(name, func(t *testing.T) {
			var d azurepolicy.Definition
			strict := json.NewDecoder(bytes.NewReader(content))
			strict.DisallowUnknownFields()
			must(t, strict.Decode(&d))
			if body, err := json.Marshal(map[string]any{"properties": d}); err != nil || len(body) > 1<<20 {
				t.Errorf("the request has %d bytes, %v", len(body), err)
			}
			used := regexp.MustCompile(`\[parameters\('(\w+)'\)\]`).FindAllStringSubmatch(string(content), -1)
			names := map[string]bool{}
			for _, u := range used {
				names[u[1]] = true
			}
			for name := range d.Parameters {
				if !names[name] {
					t.Errorf("parameter %s is used nowhere", name)
				}
				delete(names, name)
			}
			if len(names) > 0 {
				t.Errorf("no parameters %v", slices.Collect(maps.Keys(names)))
			}
			info := d.PolicyRule.Then.Details.TemplateInfo
			template, err := base64.StdEncoding.DecodeString(info.Content)
			must(t, err)
			if strings.HasSuffix(name, "-url") {
				template, err = fetch(info.URL)
				must(t, err)
			} else if file, err := fetch("/" + name + ".yaml"); err != nil || !bytes.Equal(file, template) {
				t.Errorf("the template is not that of the file: %v", err)
			}
			if strings.Contains(string(template), "data.inventory") || strings.Contains(string(template), "requires-sync-data") {
				t.Error("the template wants what the add-on does not give")
			}
		})
	}
}

// TestTheCommandsOfTheWalkthroughs work on the files as they are.
func TestTheCommandsOfTheWalkthroughs(t *testing.T) {
	jq, err := exec.LookPath("jq")
	for name, content := range definitions(t) {
		var d map[string]any
		must(t, json.Unmarshal(content, &d))
		for _, part := range []string{"policyRule", "parameters"} {
			if _, there := d[part].(map[string]any); !there {
				t.Errorf("%s has no %s at its top", name, part)
			}
			if err != nil { // no jq here: its filters are that plain
				continue
			}
			out, err := exec.CommandContext(t.Context(), jq, "."+part, filepath.Join(directory, name+".json")).Output()
			if err != nil || !bytes.HasPrefix(out, []byte("{")) {
				t.Errorf("jq .%s: %v", part, err)
			}
		}
	}
}

// fetch reads a template where it would be published.
func fetch(url string) ([]byte, error) {
	return os.ReadFile(filepath.Join(directory, "templates", filepath.Base(url)))
}

// scene is an engine with the add-on beside it.
type scene struct {
	*engine.Engine
	provider *fake.Provider
	addon    *azurepolicy.Addon
}

func newScene(t *testing.T) *scene {
	t.Helper()
	authority, err := pki.NewAuthority("gatekeeper-ca")
	must(t, err)
	provider, err := fake.NewProvider(authority)
	must(t, err)
	t.Cleanup(provider.Close)
	pair, err := authority.Issue(pki.GatekeeperName)
	must(t, err)
	certFile, keyFile, err := pair.Write(t.TempDir())
	must(t, err)
	gatekeeper, err := engine.New(t.Context(), engine.Config{CertFile: certFile, KeyFile: keyFile})
	must(t, err)
	must(t, gatekeeper.SetProvider("countersign", provider.URL, 5, authority.PEM))
	return &scene{gatekeeper, provider, &azurepolicy.Addon{Apply: gatekeeper.Apply, Fetch: fetch}}
}

func pod(namespace string, images ...string) *unstructured.Unstructured {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprint("c", i), "image": image})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "cart", "namespace": namespace, "labels": map[string]any{"app": "cart"}},
		"spec": map[string]any{"containers": containers},
	}}
}

const digest = "@sha256:9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c"

// says is a verdict on one image.
func says(namespace, image, status, message string) fake.Answer {
	return fake.Answer{Items: []fake.Item{{Key: "[" + namespace + "]" + image, Value: map[string]any{"status": status, "message": message}}}}
}

// TestAssignments: each definition with its parameters, from an assignment to what
// Gatekeeper decides and what the portal would show.
func TestAssignments(t *testing.T) {
	const image = "myacr.azurecr.io/shop/cart:1.4"
	for name, c := range map[string]struct {
		definition string
		assignment azurepolicy.Assignment
		pod        *unstructured.Unstructured
		answer     fake.Answer
		denied     string // part of the words; empty: admitted
		audited    string // the same of an audit
		warned     string
	}{
		"denied":          {definition: "trusted-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", image+": no signature found"), denied: image + ": no signature found", audited: "no signature found"},
		"at a URL":        {definition: "trusted-images-url", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", image+": no signature found"), denied: "no signature found", audited: "no signature found"},
		"admitted":        {definition: "trusted-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "TRUSTED", "")},
		"audited":         {definition: "trusted-images", pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", image+": no signature found"), audited: "no signature found"},
		"warned":          {definition: "trusted-images", assignment: azurepolicy.Assignment{Parameters: map[string]any{"warn": true}}, pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", image+": no signature found"), audited: "no signature found", warned: "no signature found"},
		"not enforced":    {definition: "trusted-images", assignment: azurepolicy.Assignment{DoNotEnforce: true, Parameters: map[string]any{"effect": "Deny"}}, pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", image+": no signature found"), audited: "no signature found"},
		"provider down":   {definition: "trusted-images", assignment: deny(nil), pod: pod("shop", image), answer: fake.Answer{SystemError: "REGISTRY_UNREACHABLE [shop]" + image + ": the registry did not answer"}, denied: "undecided", audited: "undecided"},
		"system":          {definition: "trusted-images", assignment: deny(map[string]any{"excludedNamespaces": []any{}}), pod: pod("kube-system", image)},
		"excluded":        {definition: "trusted-images", assignment: deny(map[string]any{"excludedNamespaces": []any{"shop"}}), pod: pod("shop", image)},
		"included":        {definition: "trusted-images", assignment: deny(map[string]any{"namespaces": []any{"bank"}}), pod: pod("shop", image)},
		"another label":   {definition: "trusted-images", assignment: deny(map[string]any{"labelSelector": map[string]any{"matchLabels": map[string]any{"app": "other"}}}), pod: pod("shop", image)},
		"this label":      {definition: "trusted-images", assignment: deny(map[string]any{"labelSelector": map[string]any{"matchLabels": map[string]any{"app": "cart"}}}), pod: pod("shop", image), answer: says("shop", image, "UNKNOWN", "no"), denied: "no", audited: "no"},
		"excluded image":  {definition: "trusted-images", assignment: deny(map[string]any{"excludedImages": []any{"myacr.azurecr.io/**"}}), pod: pod("shop", image)},
		"end of life":     {definition: "trusted-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "UNSUPPORTED", "end of life"), denied: "end of life", audited: "end of life"},
		"supported":       {definition: "trusted-images", assignment: deny(map[string]any{"allowedStatuses": []any{"TRUSTED", "UNSUPPORTED"}}), pod: pod("shop", image), answer: says("shop", image, "UNSUPPORTED", "")},
		"digest wanted":   {definition: "trusted-images", assignment: deny(map[string]any{"requireDigest": true}), pod: pod("shop", image), answer: says("shop", image, "TRUSTED", ""), denied: "named by its tag alone", audited: "named by its tag alone"},
		"by tag":          {definition: "images-by-digest", assignment: deny(nil), pod: pod("shop", image), denied: "named by its tag alone", audited: "named by its tag alone"},
		"by digest":       {definition: "images-by-digest", assignment: deny(nil), pod: pod("shop", image+digest)},
		"by tag, exempt":  {definition: "images-by-digest-url", assignment: deny(map[string]any{"excludedImages": []any{"myacr.azurecr.io/shop/*"}}), pod: pod("shop", image)},
		"old":             {definition: "no-end-of-life-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "UNSUPPORTED", image+": end of life on 2026-01-02"), denied: "end of life on 2026-01-02", audited: "end of life"},
		"not old":         {definition: "no-end-of-life-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "UNTRUSTED", "a stranger's")},
		"nobody knows":    {definition: "no-end-of-life-images-url", assignment: deny(nil), pod: pod("shop", image), answer: fake.Answer{}, denied: "gave no verdict", audited: "gave no verdict"},
		"strange verdict": {definition: "no-end-of-life-images", assignment: deny(nil), pod: pod("shop", image), answer: says("shop", image, "FINE", ""), denied: "refused by provider", audited: "refused by provider"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			c.assignment.ID = "/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/" + name
			constraint, err := s.addon.Assign(t.Context(), definitions(t)[c.definition], c.assignment)
			must(t, err)
			if n := constraint.GetName(); len(n) > 63 || !strings.HasPrefix(n, "azurepolicy-countersign") {
				t.Errorf("the constraint is called %s", n)
			}
			s.provider.Say(c.answer)
			decision, err := s.Admit(t.Context(), engine.Create(c.pod.GetNamespace(), c.pod))
			must(t, err)
			if decision.Allowed != (c.denied == "") || !strings.Contains(decision.Text, c.denied) {
				t.Errorf("%+v", decision)
			}
			if warned := strings.Join(decision.Warnings, " "); (warned != "") != (c.warned != "") || !strings.Contains(warned, c.warned) {
				t.Errorf("warned of %q", warned)
			}
			audit, err := s.Audit(t.Context(), c.pod)
			must(t, err)
			said := strings.Join(audit.Denials, " ")
			if (said != "") != (c.audited != "") || !strings.Contains(said, c.audited) {
				t.Errorf("audited: %+v", audit)
			}
		})
	}
}

func deny(parameters map[string]any) azurepolicy.Assignment {
	given := map[string]any{"effect": "Deny"}
	maps.Copy(given, parameters)
	return azurepolicy.Assignment{Parameters: given}
}

// TestWhatTheAddOnRefuses.
func TestWhatTheAddOnRefuses(t *testing.T) {
	s := newScene(t)
	all := definitions(t)
	if constraint, err := s.addon.Assign(t.Context(), all["trusted-images"], azurepolicy.Assignment{Parameters: map[string]any{"effect": "Disabled"}}); err != nil || constraint != nil {
		t.Errorf("%v, %v", constraint, err)
	}
	_, err := s.addon.Assign(t.Context(), all["trusted-images"], azurepolicy.Assignment{})
	must(t, err)
	for name, c := range map[string]struct {
		definition string
		parameters map[string]any
		reason     string
	}{
		"another source":    {"trusted-images-url", nil, azurepolicy.ReasonConflict},
		"another effect":    {"trusted-images", map[string]any{"effect": "deny"}, azurepolicy.ReasonInvalid},
		"another type":      {"trusted-images", map[string]any{"requireDigest": "true"}, azurepolicy.ReasonInvalid},
		"another parameter": {"trusted-images", map[string]any{"excludeImages": []any{}}, azurepolicy.ReasonInvalid},
		"a bad status":      {"trusted-images", map[string]any{"allowedStatuses": []any{"UNTRUSTED"}}, azurepolicy.ReasonInvalid},
		"a bad pattern":     {"trusted-images", map[string]any{"excludedImages": []any{"**"}}, azurepolicy.ReasonInvalid},
	} {
		_, err := s.addon.Assign(t.Context(), all[c.definition], azurepolicy.Assignment{Parameters: c.parameters})
		var refused *azurepolicy.InstallError
		if !errors.As(err, &refused) || refused.Reason != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheInitiative names each definition, and gives each of its parameters.
func TestTheInitiative(t *testing.T) {
	content, err := os.ReadFile(directory + "/initiative.json")
	must(t, err)
	var i azurepolicy.Initiative
	must(t, json.Unmarshal(content, &i))
	if len(i.PolicyDefinitions) != 3 || len(i.Parameters) > 400 {
		t.Errorf("%d definitions, %d parameters", len(i.PolicyDefinitions), len(i.Parameters))
	}
	for _, member := range i.PolicyDefinitions {
		_, name, ok := strings.Cut(member.PolicyDefinitionID, "/providers/Microsoft.Authorization/policyDefinitions/countersign-")
		var d azurepolicy.Definition
		must(t, json.Unmarshal(definitions(t)[name], &d))
		if !ok || !slices.Equal(slices.Sorted(maps.Keys(d.Parameters)), slices.Sorted(maps.Keys(member.Parameters))) {
			t.Errorf("%s: %v", member.PolicyDefinitionID, member.Parameters)
		}
		for name, value := range member.Parameters {
			found := regexp.MustCompile(`^\[parameters\('(\w+)'\)\]$`).FindStringSubmatch(fmt.Sprint(value["value"]))
			if p, there := i.Parameters[found[1]]; !there || p.Type != d.Parameters[name].Type {
				t.Errorf("%s: %s is %v", member.ReferenceID, name, value)
			}
		}
	}
}

// TestTheExamplesNameWhatThereIs: the files, definitions and parameters of the Bicep
// and the Terraform example.
func TestTheExamplesNameWhatThereIs(t *testing.T) {
	var initiative azurepolicy.Initiative
	content, err := os.ReadFile(directory + "/initiative.json")
	must(t, err)
	must(t, json.Unmarshal(content, &initiative))
	for path, patterns := range map[string][]string{
		"bicep/main.bicep":  {`loadJsonContent\('\.\./([\w-]+\.json)'\)`, `name: 'countersign-([\w-]+)'`, `(\w+): \{ value:`},
		"terraform/main.tf": {`\$\{path\.module\}/\.\./([\w-]+\.json)`, `name +?= "countersign-([\w-]+)"`, `(\w+) += \{ value =`},
	} {
		text, err := os.ReadFile(filepath.Join(directory, path))
		must(t, err)
		for i, pattern := range patterns {
			found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
			if len(found) == 0 {
				t.Errorf("%s has no %s", path, pattern)
			}
			for _, f := range found {
				known := false
				switch i {
				case 0:
					_, err := os.Stat(filepath.Join(directory, f[1]))
					known = err == nil
				case 1:
					_, known = definitions(t)[f[1]]
				default:
					_, ofAll := initiative.Parameters[f[1]]
					known = ofAll || strings.Contains(string(definitions(t)["trusted-images"]), `"`+f[1]+`": {`)
				}
				if !known {
					t.Errorf("%s: there is no %s", path, f[1])
				}
			}
		}
	}
	// Bicep puts the definitions' ids in by their places.
	for i, name := range []string{"trustedImages", "imagesByDigest", "noEndOfLifeImages"} {
		if initiative.PolicyDefinitions[i].ReferenceID != name {
			t.Errorf("%d is %s", i, initiative.PolicyDefinitions[i].ReferenceID)
		}
	}
}

// TestTheDefinitionsAreWhatTheLibraryMakes: make generate has run.
func TestTheDefinitionsAreWhatTheLibraryMakes(t *testing.T) {
	templates := map[string]azurepolicy.Template{}
	for _, folder := range []string{"trusted-images", "images-by-digest", "no-end-of-life"} {
		text, err := os.ReadFile(filepath.Join("../../library", folder, "template.yaml"))
		must(t, err)
		kind := regexp.MustCompile(`(?m)^        kind: (\w+)$`).FindStringSubmatch(string(text))[1]
		templates[folder] = azurepolicy.Template{Kind: kind, Text: string(text)}
	}
	for _, d := range azurepolicy.Derived() {
		text, err := d.From(templates["trusted-images"].Text)
		if err != nil || text != templates[d.Folder()].Text {
			t.Errorf("library/%s is stale, %v", d.Folder(), err)
		}
	}
	files, err := azurepolicy.Files(templates)
	must(t, err)
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(directory, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale, %v", name, err)
		}
	}
	changed := templates["trusted-images"]
	changed.Text = strings.Replace(changed.Text, "TRUSTED", "FINE", 1)
	if azurepolicy.ForAzure(changed).Kind == azurepolicy.ForAzure(templates["trusted-images"]).Kind {
		t.Error("another content has the same name")
	}
}

// TestRecords: the portal's limits.
func TestRecords(t *testing.T) {
	var violations []any
	for i := range 600 {
		violations = append(violations, map[string]any{"namespace": "shop", "kind": "Pod", "name": fmt.Sprint("p", i), "message": strings.Repeat("ü", 200)})
	}
	records := azurepolicy.Records(&unstructured.Unstructured{Object: map[string]any{"kind": "X", "status": map[string]any{"violations": violations}}})
	if len(records) != 500 || len(records[0].Message) != 256 || records[0].Component != "shop/Pod/p0" {
		t.Errorf("%d records, %+v", len(records), records[0])
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
