package library

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// equivalents are changes to the template after which it still does the same,
// by the line they change, each with the reason. A line that needs an entry here
// is better removed.
var equivalents = map[string]string{}

// mutant is the template with one thing changed.
type mutant struct{ what, line, source string }

// TestEachLineOfTheTemplateIsNeeded removes and negates the template's lines one
// by one: the mutant does not compile, or some case fails.
func TestEachLineOfTheTemplateIsNeeded(t *testing.T) {
	s, cases := withTemplate(t)
	template := read(t, "trusted-images", "template.yaml")
	unused := maps.Clone(equivalents)
	for _, m := range mutants(template) {
		if s.killed(t.Context(), m, cases) {
			continue
		}
		if _, ok := equivalents[m.line]; ok {
			delete(unused, m.line)
			continue
		}
		t.Errorf("no case fails after: %s", m.what)
	}
	for line := range unused {
		t.Errorf("listed as equivalent, but a case fails without it: %s", line)
	}
}

// killed says whether the mutant does not compile, or fails some case.
func (s *suite) killed(ctx context.Context, m mutant, cases map[string]Case) bool {
	fails := func(schemaRefuses bool) bool {
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			if c := cases[name]; c.SchemaRefuses == schemaRefuses && s.check(ctx, c) != "" {
				return true
			}
		}
		return false
	}
	return s.applyTemplate(ctx, m.source) != nil || fails(false) ||
		s.applyBare(ctx, m.source) != nil || fails(true)
}

// mutants are the template without each line, with each condition negated, with
// each literal replaced, and without each rule. Comments count for nothing, and so do descriptions and
// defaults, which are the API server's: TestDefaults holds those.
func mutants(template string) []mutant {
	lines := strings.SplitAfter(template, "\n")
	var out []mutant
	add := func(what string, at int, replacement ...string) {
		line := strings.TrimSpace(lines[at])
		source := slices.Concat(lines[:at], replacement, lines[at+1:])
		what = fmt.Sprintf("%s line %d: %s", what, at+1, line)
		for _, now := range replacement {
			what += "\n\tnow " + strings.TrimSpace(now)
		}
		out = append(out, mutant{what, line, strings.Join(source, "")})
	}
	inSchema, inRules := false, false
	schemaIndent, textIndent := 0, -1 // textIndent: of the key whose folded text we are in
	for i, line := range lines {
		code := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " \t"))
		switch {
		case strings.HasPrefix(code, "properties:"):
			inSchema, schemaIndent = true, indent
			continue
		case strings.HasPrefix(code, "rego: |"):
			inRules = true
			continue
		case inSchema && indent <= schemaIndent:
			inSchema = false
		}
		if code == "" || strings.HasPrefix(code, "#") {
			continue
		}
		switch {
		case inSchema:
			if textIndent >= 0 && indent > textIndent {
				continue
			}
			textIndent = -1
			if strings.HasSuffix(code, ">-") {
				textIndent = indent
			}
			if !strings.HasPrefix(code, "description:") && !strings.HasPrefix(code, "default:") {
				add("without", i)
			}
		case inRules:
			add("without", i)
			if negated, ok := negate(line); ok {
				add("negated", i, negated)
			}
			for _, changed := range changeLiterals(line) {
				add("with another literal in", i, changed)
			}
			if end := ruleEnd(lines, i); end > i {
				add("without the rule at", i)
				out[len(out)-1].source = strings.Join(slices.Concat(lines[:i], lines[end+1:]), "")
			}
		}
	}
	return out
}

// negate turns a condition into its opposite. Rule heads, assignments and
// closing braces are no conditions.
func negate(line string) (string, bool) {
	code := strings.TrimSpace(line)
	if strings.HasPrefix(line, "        \t") && !strings.Contains(code, ":=") && !strings.HasSuffix(code, "{use |") && code != "}" {
		if positive, ok := strings.CutPrefix(code, "not "); ok {
			return strings.Replace(line, code, positive, 1), true
		}
		return strings.Replace(line, code, "not "+code, 1), true
	}
	return "", false
}

var (
	text    = regexp.MustCompile(`"[^"]*"`)
	pattern = regexp.MustCompile("`[^`]*`")
)

// changeLiterals gives a line with each of its texts replaced, and with the
// anchors of each of its patterns taken off.
func changeLiterals(line string) []string {
	var out []string
	for _, at := range text.FindAllStringIndex(line, -1) {
		out = append(out, line[:at[0]]+`"mutant"`+line[at[1]:])
	}
	for _, at := range pattern.FindAllStringIndex(line, -1) {
		body := line[at[0]+1 : at[1]-1]
		for _, weaker := range []string{strings.TrimPrefix(body, "^"), strings.TrimSuffix(body, "$")} {
			if weaker != body {
				out = append(out, line[:at[0]+1]+weaker+line[at[1]-1:])
			}
		}
	}
	return out
}

// ruleEnd is the line of the brace that closes the rule which opens at a line.
func ruleEnd(lines []string, at int) int {
	if strings.HasPrefix(lines[at], "        \t") || !strings.HasSuffix(strings.TrimSpace(lines[at]), "{") {
		return at
	}
	for i := at; i < len(lines); i++ {
		if lines[i] == "        }\n" {
			return i
		}
	}
	return at
}
