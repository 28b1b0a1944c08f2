// Package azurepolicy makes custom definitions for Azure Policy of the library's
// templates, and is an emulator of the add-on that puts definitions into a
// cluster. It knows nothing of signatures.
package azurepolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Template is a ConstraintTemplate as its file has it.
type Template struct {
	Kind string
	Text string
}

// Derivation is a template that is made of parts of another.
type Derivation struct {
	folder, kind, title, description string
	// parameters of the schema that stay, and blocks of the rules, by how they begin.
	parameters, blocks []string
	// edits are changes of single lines.
	edits map[string]string
}

// Derived lists the templates that are made of trusted-images: what they share is
// written and tested once.
func Derived() []Derivation {
	images := []string{
		"# The images that need", "# Where the object names", "deleted {", "# A Pod's update passes",
		"pod_specs[spec] {\n\tspec := input.review.object.spec\n", "pod_specs[spec] {\n\tspec := input.review.object.spec.template",
		"pod_specs[spec] {\n\tspec := input.review.object.spec.jobTemplate", "pod_specs[spec] {\n\tspec := input.review.object.template",
		"uses_in(spec)", "text(object, field)", "else = \"\"", "bracketed(image)", "# The host is equal", "halves(name)", "# The repository that", "# A first segment", "else = concat(\"/\"",
	}
	return []Derivation{
		{
			folder: "images-by-digest", kind: "CountersignImagesByDigestV1", title: "Images by digest",
			description: "Admits a Pod, or an object with a pod template, only if it names every image by its digest. Nobody is asked.",
			parameters:  []string{"exemptImages"},
			blocks:      append([]string{"package ", "# 5.", "# 6.", "# 7."}, images...),
			edits: map[string]string{
				"\tinput.parameters.requireDigest\n":                      "",
				"# 6. Where the constraint wants digests, a tag alone.\n": "# 6. A tag alone.\n",
			},
		},
		{
			folder: "no-end-of-life", kind: "CountersignNoEndOfLifeV1", title: "No images past their end of life",
			description: "Admits a Pod, or an object with a pod template, only if no image in it is past its end of life. Whether images are trusted is not its subject: use trusted-images beside it.",
			parameters:  []string{"provider", "exemptImages", "podPullSecrets"},
			blocks: append([]string{
				"package ", "provider :=", "# Whatever the parameter says", "# 1.", "# 2.", "# 3.", "# 4.", "# 5.", "# 7.", "# One request", "key(image)", "else = image",
				"# What the kubelet", "pulls = ", "default account", "account = ", "default secrets", "secrets = ", "# No other text",
				"# A rule of its own", "failed {", "answered[key] {\n\t[key, _] := answer.responses", "answered[key] {\n\t[key, _] := answer.errors",
			}, append(images, "# \"REASON", "else = sprintf(\"provider %s gave", "refusal(key, value)", "else = sprintf(\"%s: refused")...),
			edits: map[string]string{
				"# Whatever the parameter says, no other status lets an image run.\n":                      "# Every verdict but UNSUPPORTED: silence is none.\n",
				"allowed := {\"TRUSTED\", \"EXEMPT\", \"UNSUPPORTED\"} & {status | status := statuses[_]}": "allowed := {\"TRUSTED\", \"EXEMPT\", \"UNTRUSTED\", \"UNKNOWN\", \"REFUSED\"}",
			},
		},
	}
}

// Folder of the library in which the template is.
func (d Derivation) Folder() string { return d.folder }

// From makes the template of the source, whose every part it names must be there.
func (d Derivation) From(source string) (string, error) {
	head, rego, found := strings.Cut(source, "      rego: |\n")
	_, schema, hasSchema := strings.Cut(head, "          properties:\n")
	if !found || !hasSchema {
		return "", fmt.Errorf("the source is no template that is known")
	}
	properties, err := d.keep(blocksOf(schema, "            ", func(line string) bool { return !strings.HasPrefix(line, " ") }), d.parameters, ":")
	if err != nil {
		return "", err
	}
	kept, err := d.keep(strings.Split(strings.TrimSuffix(unindent(rego, "        "), "\n"), "\n\n"), d.blocks, "")
	if err != nil {
		return "", err
	}
	rules := strings.Join(kept, "\n\n") + "\n"
	for from, to := range d.edits {
		if !strings.Contains(rules, from) {
			return "", fmt.Errorf("%s: the source has no %q", d.folder, from)
		}
		rules = strings.Replace(rules, from, to, 1)
	}
	rules = strings.Replace(rules, "package countersigntrustedimagesv1", "package "+strings.ToLower(d.kind), 1)
	var b strings.Builder
	fmt.Fprintf(&b, "# Generated from trusted-images/template.yaml by make generate; what is shared is tested there.\n")
	fmt.Fprintf(&b, "apiVersion: templates.gatekeeper.sh/v1\nkind: ConstraintTemplate\nmetadata:\n  name: %s\n  annotations:\n    metadata.gatekeeper.sh/title: %s\n    description: >-\n      %s\n",
		strings.ToLower(d.kind), d.title, d.description)
	fmt.Fprintf(&b, "spec:\n  crd:\n    spec:\n      names:\n        kind: %s\n      validation:\n        openAPIV3Schema:\n          type: object\n          properties:\n", d.kind)
	for _, p := range properties {
		b.WriteString(indent(p, "            "))
	}
	b.WriteString("  targets:\n    - target: admission.k8s.gatekeeper.sh\n      rego: |\n")
	b.WriteString(indent(rules, "        "))
	return b.String(), nil
}

// The lines around the part of a template that the generator writes.
const (
	sharedBegins = "        # Generated from trusted-images/template.yaml by make generate: where a Pod names an image.\n"
	sharedEnds   = "        # The generated part ends.\n"
)

// Splice writes into a template, between the lines that mark the place, the rules of
// the source by which it sees every image of a Pod. The rest of the template, which
// has `uses` and leaves out what is bracketed(image), stays.
func Splice(source, template string) (string, error) {
	_, rego, isTemplate := strings.Cut(source, "      rego: |\n")
	before, rest, begins := strings.Cut(template, sharedBegins)
	_, after, ends := strings.Cut(rest, sharedEnds)
	if !isTemplate || !begins || !ends {
		return "", fmt.Errorf("the template has no place for the shared part, or the source is none")
	}
	blocks := strings.Split(strings.TrimSuffix(unindent(rego, "        "), "\n"), "\n\n")
	kept, err := Derivation{folder: "the shared part"}.keep(blocks, []string{"# 5.", "# 7.", "bracketed(image)", "uses_in(spec)", "text(object, field)", "else = \"\""}, "")
	if err != nil {
		return "", err
	}
	for i, block := range kept {
		if number, text, ok := strings.Cut(block, ". "); ok && strings.HasPrefix(number, "# ") && len(number) == len("# 5") {
			kept[i] = "# " + text
		}
	}
	return before + sharedBegins + indent(strings.Join(kept, "\n\n")+"\n", "        ") + sharedEnds + after, nil
}

// keep picks the blocks that begin as wanted, in the source's order.
func (d Derivation) keep(blocks, wanted []string, end string) ([]string, error) {
	var kept []string
	found := map[string]bool{}
	for _, block := range blocks {
		for _, w := range wanted {
			if strings.HasPrefix(block+"\n", w+end) {
				kept = append(kept, block)
				found[w] = true
				break
			}
		}
	}
	for _, w := range wanted {
		if !found[w] {
			return nil, fmt.Errorf("%s: the source has nothing that begins %q", d.folder, w)
		}
	}
	return kept, nil
}

// blocksOf splits indented text where a line begins a block.
func blocksOf(text, indentation string, begins func(string) bool) []string {
	var blocks []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, indentation) {
			break
		}
		line = strings.TrimPrefix(line, indentation)
		if begins(line) {
			blocks = append(blocks, "")
		}
		blocks[len(blocks)-1] += line
	}
	return blocks
}

func unindent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimPrefix(line, by))
	}
	return b.String()
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String()
}

// ForAzure is the template under a name that says its content. The add-on takes no
// second template of a name from another place, and does not replace one, so that
// each content has a name of its own.
func ForAzure(t Template) Template {
	sum := sha256.Sum256([]byte(t.Text))
	kind := strings.TrimSuffix(t.Kind, "V1") + "AzureV1x" + hex.EncodeToString(sum[:])[:8]
	lines := strings.Split(t.Text, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "#") })
	text := strings.Join(lines, "\n")
	text = strings.ReplaceAll(text, t.Kind, kind)
	text = strings.ReplaceAll(text, strings.ToLower(t.Kind), strings.ToLower(kind))
	return Template{kind, text}
}
