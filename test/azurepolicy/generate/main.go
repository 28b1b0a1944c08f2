// Command generate writes the templates that are made of others, and the
// definitions for Azure Policy. It is what `make generate` runs.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/countersign-dev/countersign/test/azurepolicy"
)

//go:generate go run . ../../../library ../../../azure-policy

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: generate LIBRARY DIRECTORY")
	}
	library, into := args[0], args[1]
	source, err := os.ReadFile(filepath.Join(library, "trusted-images", "template.yaml"))
	if err != nil {
		return err
	}
	templates := map[string]azurepolicy.Template{"trusted-images": template(string(source))}
	for _, d := range azurepolicy.Derived() {
		text, err := d.From(string(source))
		if err != nil {
			return err
		}
		templates[d.Folder()] = template(text)
		if err := write(filepath.Join(library, d.Folder(), "template.yaml"), []byte(text)); err != nil {
			return err
		}
	}
	if err := splice(library, string(source)); err != nil {
		return err
	}
	files, err := azurepolicy.Files(templates)
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := write(filepath.Join(into, name), content); err != nil {
			return err
		}
	}
	return nil
}

// splice writes the shared part into Ratify's templates.
func splice(library, source string) error {
	paths, err := filepath.Glob(filepath.Join(library, "ratify", "*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text, err := azurepolicy.Splice(source, string(content))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := write(path, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func template(text string) azurepolicy.Template {
	kind := regexp.MustCompile(`(?m)^        kind: (\w+)$`).FindStringSubmatch(text)
	return azurepolicy.Template{Kind: kind[1], Text: text}
}

func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}
