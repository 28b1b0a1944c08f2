package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// minimum is how many lines the table has at least.
const minimum = 120

// TestTheTableIsOfThisRepository: each fragment is in its file once, the replacement
// changes it, what is changed of Go is still Go, and each test is there. That tests
// fail is seen by running the program.
func TestTheTableIsOfThisRepository(t *testing.T) {
	table, err := readTable(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(table) < minimum {
		t.Errorf("%d mutants, fewer than %d", len(table), minimum)
	}
	packages := map[string]map[string]bool{}
	for _, m := range table {
		changed, err := m.apply(root)
		if err != nil {
			t.Errorf("%s, line %d: %v", m.id, m.line, err)
			continue
		}
		if m.isGo() {
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, changed, parser.SkipObjectResolution); err != nil {
				t.Errorf("%s, line %d: not Go: %v", m.id, m.line, err)
			}
		}
		if packages[m.pkg] == nil {
			packages[m.pkg] = testsOf(t, filepath.Join(root, m.pkg))
		}
		if !packages[m.pkg][m.top()] {
			t.Errorf("%s, line %d: %s has no %s", m.id, m.line, m.pkg, m.top())
		}
	}
}

// testsOf are the names of the tests and fuzz targets of a folder.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTablesThatAreWrong(t *testing.T) {
	const good = "one what it guards\n\tfile a.go\n\t- x\n\ttest a TestX\n"
	for name, text := range map[string]string{
		"two of one id":     good + "\n" + good,
		"no fragment":       strings.Replace(good, "\t- x\n", "", 1),
		"no test":           strings.Replace(good, "\ttest a TestX\n", "", 1),
		"no name of a test": strings.Replace(good, " TestX", "", 1),
		"no phrase":         strings.Replace(good, " what it guards", "", 1),
		"another word":      good + "\tpath a\n",
		"no mutant":         "\tfile a.go\n",
	} {
		if _, err := readTable(write(t, filepath.Join(t.TempDir(), "table"), text)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if table, err := readTable(write(t, filepath.Join(t.TempDir(), "table"), "# comment\n"+good)); err != nil || len(table) != 1 {
		t.Errorf("%v, %v", table, err)
	}
}

func TestAFragmentOccursOnce(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.go"), "func one() {\n\tif x {\n\t\ty()\n\t}\n}\n\nfunc two() {\n\ty()\n}\n")
	for name, c := range map[string]struct {
		m    mutant
		want string
	}{
		"in the file":         {mutant{before: "if x", after: "if !x"}, "func one() {\n\tif !x {\n\t\ty()\n\t}\n}\n\nfunc two() {\n\ty()\n}\n"},
		"in a function":       {mutant{within: "func two", before: "y()", after: ""}, "func one() {\n\tif x {\n\t\ty()\n\t}\n}\n\nfunc two() {\n\t\n}\n"},
		"in the first":        {mutant{within: "func one", before: "y()", after: "z()"}, "func one() {\n\tif x {\n\t\tz()\n\t}\n}\n\nfunc two() {\n\ty()\n}\n"},
		"twice":               {mutant{before: "y()", after: "z()"}, ""},
		"gone":                {mutant{before: "w()", after: "z()"}, ""},
		"in another function": {mutant{within: "func two", before: "if x", after: "if !x"}, ""},
		"two such functions":  {mutant{within: "func", before: "if x", after: "if !x"}, ""},
		"nothing changes":     {mutant{before: "if x", after: "if x"}, ""},
	} {
		c.m.file = "a.go"
		got, err := c.m.apply(dir)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestShares(t *testing.T) {
	table := []mutant{{id: "a-1"}, {id: "a-2"}, {id: "b-1"}, {id: "b-2"}, {id: "c"}}
	for _, c := range []struct{ share, only, want string }{
		{"", "", "a-1 a-2 b-1 b-2 c"}, {"1/2", "", "a-1 b-1 c"}, {"2/2", "", "a-2 b-2"}, {"5/5", "", "c"},
		{"", "c,a-1", "c a-1"}, {"", "b*", "b-1 b-2"}, {"1/2", "b*", "b-1"},
		{"0/2", "", "error"}, {"3/2", "", "error"}, {"x", "", "error"}, {"", "d", "error"},
	} {
		selected, err := choose(table, c.share, c.only)
		var ids []string
		for _, m := range selected {
			ids = append(ids, m.id)
		}
		if err != nil {
			ids = []string{"error"}
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("share %q, only %q: %s, want %s", c.share, c.only, got, c.want)
		}
	}
}

// TestAMutantIsKilledOrSurvives: the program on a module of its own.
func TestAMutantIsKilledOrSurvives(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example.com/product\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "sum", "sum.go"), "package sum\n\nconst unit = 1\n\nfunc Sum(a, b int) int {\n\tif a == 7777 {\n\t\treturn 0\n\t}\n\treturn a + b\n}\n")
	write(t, filepath.Join(dir, "sum", "data", "two.txt"), "2\n")
	write(t, filepath.Join(dir, "sum", "sum_test.go"), `package sum

import (
	"os"
	"testing"
)

func TestSum(t *testing.T) {
	if data, err := os.ReadFile("data/two.txt"); err != nil || string(data) != "2\n" {
		t.Fatal(err, string(data))
	}
	if got := Sum(1, 1); got != 2 || unit != 1 {
		t.Error(got)
	}
}

func TestNothing(t *testing.T) {}
`)
	var mutants []mutant
	var wants []string
	for _, c := range []struct {
		name string
		m    mutant
		want string // in the error; none where the mutant is killed
	}{
		{"killed", mutant{file: "sum/sum.go", before: "a + b", after: "a - b", test: "TestSum"}, ""},
		{"a panic", mutant{file: "sum/sum.go", before: "return a + b", after: "panic(a + b)", test: "TestSum"}, ""},
		{"in a file that is no Go", mutant{file: "sum/data/two.txt", before: "2", after: "3", test: "TestSum"}, ""},
		{"survives", mutant{file: "sum/sum.go", before: "7777", after: "8888", test: "TestSum"}, "survives"},
		{"another test", mutant{file: "sum/sum.go", before: "a + b", after: "a - b", test: "TestNothing"}, "survives"},
		{"no such test", mutant{file: "sum/sum.go", before: "a + b", after: "a - b", test: "TestSun"}, "no test"},
		{"no such subtest", mutant{file: "sum/sum.go", before: "a + b", after: "a - b", test: "TestNothing/sub"}, "survives"},
		{"not in a function", mutant{file: "sum/sum.go", before: "const unit = 1", after: "const unit = 2", test: "TestSum"}, ""},
		{"stale", mutant{file: "sum/sum.go", before: "a * b", after: "a + b", test: "TestSum"}, "stale"},
		{"does not compile", mutant{file: "sum/sum.go", before: "a + b", after: "a + c", test: "TestSum"}, "does not compile"},
	} {
		c.m.pkg, c.m.id = "sum", strings.ReplaceAll(c.name, " ", "-")
		mutants, wants = append(mutants, c.m), append(wants, c.want)
	}
	run := func(mutants []mutant, wants []string, switches int) {
		t.Helper()
		g, err := (&runner{root: dir, dir: t.TempDir()}).build(t.Context(), "sum", mutants)
		if err != nil || len(g.switches) != switches {
			t.Fatalf("%d mutants have switches, %v", len(g.switches), err)
		}
		if err := g.pass(t.Context()); err != nil {
			t.Error(err)
		}
		for i, m := range mutants {
			if err := g.kill(t.Context(), m); (err == nil) != (wants[i] == "") || err != nil && !strings.Contains(err.Error(), wants[i]) {
				t.Errorf("%s: %v", m.id, err)
			}
		}
	}
	run(mutants, wants, 0)                  // one does not compile: each has a binary of its own
	run(mutants[:len(mutants)-2], wants, 6) // two are not in a function of Go
}

func TestSwitches(t *testing.T) {
	content := `package p

const limit = 3

func one(a int) (n int) {
	if a > limit {
		return 1
	}
	return 2
}

func two() {
	one(2)
}

func three() {
again:
	if one(1) > 0 {
		goto again
	}
}
`
	changed, name, included, err := switched(content, []mutant{
		{id: "sign", before: "a > limit", after: "a < limit"}, {id: "call", before: "one(2)"}, {id: "result", before: "return 2", after: "return 3"},
		{id: "constant", before: "limit = 3", after: "limit = 4"}, {id: "label", before: "one(1)", after: "one(0)"}, {id: "gone", before: "four", after: "five"},
		{id: "signature", before: "a int", after: "a int8"},
	})
	if err != nil || name != "p" || strings.Join(included, " ") != "sign call result" {
		t.Fatal(included, err)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), "", changed, 0); err != nil {
		t.Errorf("%v:\n%s", err, changed)
	}
	if n := strings.Count(changed, "if countersignMutant == "); n != 3 {
		t.Errorf("%d switches:\n%s", n, changed)
	}
}
