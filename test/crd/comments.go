package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"strings"
)

// comments are the doc comments of types ("Rule") and fields ("Rule.all"), the
// latter by the name that documents have.
type comments map[string]string

func readComments(dir string) (comments, error) {
	set := token.NewFileSet()
	packages, err := parser.ParseDir(set, dir, func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }, parser.ParseComments) //nolint:staticcheck // SA1019: one package without build tags
	if err != nil {
		return nil, err
	}
	found := comments{}
	for _, p := range packages {
		for _, t := range doc.New(p, dir, doc.PreserveAST).Types {
			found[t.Name] = oneLine(t.Doc)
			for _, spec := range t.Decl.Specs {
				if s, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType); ok {
					found.fields(t.Name, s)
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no types in %s", dir)
	}
	return found, nil
}

func (c comments) fields(name string, s *ast.StructType) {
	for _, field := range s.Fields.List {
		if field.Tag == nil {
			continue
		}
		_, tag, _ := strings.Cut(field.Tag.Value, `json:"`)
		tag, _, _ = strings.Cut(tag, `"`)
		tag, _, _ = strings.Cut(tag, ",")
		if tag != "" {
			c[name+"."+tag] = oneLine(field.Doc.Text())
		}
	}
}

// of is a comment that there has to be: it is what kubectl explain says.
func (c comments) of(name string) string { return c[name] }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func lower(s string) string { return strings.ToLower(s) }
