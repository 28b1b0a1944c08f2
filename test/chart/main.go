// Command chart makes what the chart has of other parts of the project: the
// library's template and mutators, and the page that explains its values, from
// their schema. It is what `make generate` runs.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:generate go run . ../../library ../../charts/countersign

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: chart LIBRARY CHART")
	}
	library, chart := args[0], args[1]
	if err := copyFile(filepath.Join(library, "trusted-images", "template.yaml"), filepath.Join(chart, "library", "trusted-images.yaml")); err != nil {
		return err
	}
	mutators, err := filepath.Glob(filepath.Join(library, "pin-digests", "*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range mutators {
		if err := copyFile(path, filepath.Join(chart, "library", "pin-digests", filepath.Base(path))); err != nil {
			return err
		}
	}
	page, err := readme(chart)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(chart, "README.md"), page, 0o644)
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o644)
}

// schema is what the page shows of a JSON schema.
type schema struct {
	Description string            `json:"description"`
	Type        string            `json:"type"`
	Enum        []string          `json:"enum"`
	Properties  map[string]schema `json:"properties"`
	// Additional is false where the properties are all that there are.
	Additional any `json:"additionalProperties"`
}

const head = `# The chart

<!-- Generated from values.schema.json and values.yaml by make generate. -->

` + "```sh" + `
helm install countersign charts/countersign --namespace countersign-system --create-namespace
` + "```" + `

Gatekeeper is there first, with external data enabled. How to install, upgrade and uninstall is in [docs/kubernetes.md](../../docs/kubernetes.md).

## Values

| value | default | is |
|---|---|---|
`

func readme(chart string) ([]byte, error) {
	var of schema
	content, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &of); err != nil {
		return nil, err
	}
	var values map[string]any
	if content, err = os.ReadFile(filepath.Join(chart, "values.yaml")); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(content, &values); err != nil {
		return nil, err
	}
	var page strings.Builder
	page.WriteString(head)
	if err := rows(&page, "", of, values); err != nil {
		return nil, err
	}
	return []byte(page.String()), nil
}

// rows writes a row for each leaf, and wants a default and a description of each.
func rows(page *strings.Builder, path string, of schema, values map[string]any) error {
	names := make([]string, 0, len(of.Properties))
	for name := range of.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for name := range values {
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s is not in the schema", path+name)
		}
	}
	for _, name := range names {
		child := of.Properties[name]
		value, there := values[name]
		switch {
		case name == "global" && path == "":
			continue
		case !there:
			return fmt.Errorf("%s has no default", path+name)
		case child.Description == "":
			return fmt.Errorf("%s has no description", path+name)
		case child.Additional == false && len(child.Properties) > 0:
			nested, _ := value.(map[string]any)
			if len(nested) == 0 {
				break
			}
			if err := rows(page, path+name+".", child, nested); err != nil {
				return err
			}
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		description := child.Description
		if len(child.Enum) > 0 {
			description += " One of " + strings.Join(quoted(child.Enum), ", ") + "."
		}
		fmt.Fprintf(page, "| `%s` | `%s` | %s |\n", path+name, text, description)
	}
	return nil
}

func quoted(words []string) []string {
	list := make([]string, len(words))
	for i, word := range words {
		list[i] = "`" + word + "`"
		if word == "" {
			list[i] = "nothing"
		}
	}
	return list
}
