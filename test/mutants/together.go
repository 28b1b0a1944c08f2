package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// variable names the environment variable that says which mutant is in force, and
	// the variable of each package that holds it.
	variable, variableInGo = "COUNTERSIGN_MUTANT", "countersignMutant"
	// switchFile is put beside the changed files.
	switchFile = "zz_countersign_mutant.go"
)

// together gives the changed Go files, by their path in the repository, in which all
// of the mutants are that can be behind a switch, and the ids of those: a function
// begins with the body that each mutant makes of it, if that one is in force. So the
// tests of a package are built once and not for each mutant.
func (r *runner) together(mutants []mutant) (files map[string]string, ids map[string]bool, err error) {
	files, ids = map[string]string{}, map[string]bool{}
	byFile := map[string][]mutant{}
	for _, m := range mutants {
		if m.isGo() {
			byFile[m.file] = append(byFile[m.file], m)
		}
	}
	for file, list := range byFile {
		raw, err := os.ReadFile(filepath.Join(r.root, file))
		if err != nil {
			return nil, nil, err
		}
		changed, name, included, err := switched(string(raw), list)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(included) == 0 {
			continue
		}
		files[file] = changed
		files[path.Join(path.Dir(file), switchFile)] = fmt.Sprintf("package %s\n\nimport \"os\"\n\nvar %s = os.Getenv(%q)\n", name, variableInGo, variable)
		for _, id := range included {
			ids[id] = true
		}
	}
	return files, ids, nil
}

// insertion is a mutant's body, to be put in at an offset.
type insertion struct {
	at   int
	text string
}

// switched puts mutants of one file behind switches. Those whose fragment is not in the
// body of a function, or is no longer there, are not among the included.
func switched(content string, mutants []mutant) (changed, name string, included []string, err error) {
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, "", content, parser.SkipObjectResolution)
	if err != nil {
		return "", "", nil, err
	}
	var insertions []insertion
	for _, m := range mutants {
		at, err := m.find(content)
		if err != nil {
			continue // which kill reports
		}
		for _, declaration := range parsed.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok || f.Body == nil || labelled(f) {
				continue
			}
			begin, end := files.Position(f.Body.Lbrace).Offset+1, files.Position(f.Body.Rbrace).Offset
			if at < begin || at+len(m.before) > end {
				continue
			}
			body := content[begin:at] + m.after + content[at+len(m.before):end]
			if f.Type.Results == nil {
				body += "\nreturn\n"
			}
			insertions = append(insertions, insertion{begin, fmt.Sprintf("\nif %s == %q {%s\n}\n", variableInGo, m.id, body)})
			included = append(included, m.id)
		}
	}
	slices.SortStableFunc(insertions, func(a, b insertion) int { return cmp.Compare(a.at, b.at) })
	var out strings.Builder
	last := 0
	for _, i := range insertions {
		out.WriteString(content[last:i.at] + i.text)
		last = i.at
	}
	out.WriteString(content[last:])
	return out.String(), parsed.Name.Name, included, nil
}

// labelled says whether a function has labels, of which there may not be two.
func labelled(f *ast.FuncDecl) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		_, label := n.(*ast.LabeledStmt)
		found = found || label
		return !found
	})
	return found
}
