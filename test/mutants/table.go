package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// mutant is one change to one line of the repository, with the test that fails
// because of it. Paths are relative to the repository's root.
type mutant struct {
	// line of the table, for errors.
	line int
	// id is unique in the table: -only selects by it.
	id string
	// guards says what the line guards.
	guards string
	// file that is changed.
	file string
	// within is part of the line that opens the function or rule that holds the
	// fragment. It occurs once in the file. Empty: the fragment occurs once in the
	// whole file.
	within string
	// before is the fragment and after its replacement, which may be empty.
	before, after string
	// pkg is the folder of the test's package.
	pkg string
	// test is the name of the test, with the names of its subtests after slashes.
	test string
}

// readTable reads the table: a paragraph for each mutant, of an unindented line
// with its id and what it guards, and indented lines "file", "in", "-", "+" and
// "test". Lines that begin with # are comments.
func readTable(file string) ([]mutant, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var table []mutant
	seen := map[string]bool{}
	for i, line := range strings.Split(string(content), "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		value = strings.TrimSpace(value)
		if key == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if line[0] != '\t' {
			if seen[key] {
				return nil, fmt.Errorf("%s:%d: a second mutant %s", file, i+1, key)
			}
			seen[key] = true
			table = append(table, mutant{line: i + 1, id: key, guards: value})
			continue
		}
		if len(table) == 0 {
			return nil, fmt.Errorf("%s:%d: before the first mutant", file, i+1)
		}
		if err := table[len(table)-1].set(key, value); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
	}
	for _, m := range table {
		if m.guards == "" || m.file == "" || m.before == "" || m.test == "" {
			return nil, fmt.Errorf("%s:%d: %s has no phrase, file, fragment or test", file, m.line, m.id)
		}
	}
	return table, nil
}

func (m *mutant) set(key, value string) error {
	switch key {
	case "file":
		m.file = value
	case "in":
		m.within = value
	case "-":
		m.before = value
	case "+":
		m.after = value
	case "test":
		pkg, test, ok := strings.Cut(value, " ")
		if !ok {
			return errors.New("write the package's folder and the test's name")
		}
		m.pkg, m.test = pkg, strings.TrimSpace(test)
	default:
		return fmt.Errorf("unknown word %q: write file, in, -, + or test", key)
	}
	return nil
}

// apply returns the file's content with the fragment replaced. A fragment that
// does not occur exactly once is an error: the table is stale then.
func (m *mutant) apply(root string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return "", err
	}
	content := string(raw)
	at, err := m.find(content)
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.file, err)
	}
	return content[:at] + m.after + content[at+len(m.before):], nil
}

// find is where the fragment is.
func (m *mutant) find(content string) (int, error) {
	start, end := 0, len(content)
	if m.within != "" {
		var err error
		if start, end, err = scope(content, m.within); err != nil {
			return 0, err
		}
	}
	if n := strings.Count(content[start:end], m.before); n != 1 {
		return 0, fmt.Errorf("%q occurs %d times, not once", m.before, n)
	}
	if m.before == m.after {
		return 0, errors.New("the replacement changes nothing")
	}
	return start + strings.Index(content[start:end], m.before), nil
}

// scope finds the function or rule whose opening line holds the text: it ends
// with the first later line that is a closing bracket at the same indentation.
func scope(content, opening string) (start, end int, err error) {
	if n := strings.Count(content, opening); n != 1 {
		return 0, 0, fmt.Errorf("%q occurs %d times, not once", opening, n)
	}
	before, _, _ := strings.Cut(content, opening)
	start = strings.LastIndex(before, "\n") + 1
	indent := content[start : start+len(content[start:])-len(strings.TrimLeft(content[start:], " \t"))]
	for at := start; at < len(content); {
		length := strings.Index(content[at:], "\n") + 1
		if length == 0 {
			break
		}
		line := content[at : at+length]
		at += length
		if line == indent+"}\n" || line == indent+")\n" {
			return start, at, nil
		}
	}
	return 0, 0, fmt.Errorf("%q opens nothing that ends", opening)
}

// isGo says whether the compiler reads the file. What it does not read, tests
// open by a relative path.
func (m *mutant) isGo() bool { return path.Ext(m.file) == ".go" }

// pattern is the argument of -test.run that selects exactly the test.
func (m *mutant) pattern() string {
	parts := strings.Split(m.test, "/")
	for i := range parts {
		parts[i] = "^" + regexpQuote(parts[i]) + "$"
	}
	return strings.Join(parts, "/")
}

// top is the name of the test function.
func (m *mutant) top() string {
	name, _, _ := strings.Cut(m.test, "/")
	return name
}
