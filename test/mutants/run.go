package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// testTimeout bounds one test: a mutant with which the test hangs is an error of
// the table, because it would make the table slow.
const testTimeout = 2 * time.Minute

// runner builds and runs tests. It changes nothing in the repository. Safe for
// concurrent use.
type runner struct {
	// root of the repository, absolute.
	root string
	// dir is a temporary folder, absolute.
	dir string
}

// group is the tests of one package, built, with the mutants that they are to kill.
type group struct {
	runner  *runner
	pkg     string
	mutants []mutant
	file    string // the binary
	tree    string // a replica to run it in
	// switches are the ids of the mutants that are in the binary.
	switches map[string]bool
}

func regexpQuote(name string) string { return regexp.QuoteMeta(name) }

// build builds the tests of a package once for all of the mutants that can share it.
func (r *runner) build(ctx context.Context, pkg string, mutants []mutant) (*group, error) {
	name := filepath.Join(r.dir, strings.ReplaceAll(pkg, "/", "-"))
	g := &group{runner: r, pkg: pkg, mutants: mutants, file: name + ".test", tree: name + ".tree"}
	if err := r.replica(g.tree, pkg, nil, ""); err != nil {
		return nil, err
	}
	files, switches, err := r.together(mutants)
	if err == nil {
		err = r.compile(ctx, pkg, g.file, files)
	}
	if err == nil {
		g.switches = switches
		return g, nil
	}
	return g, r.compile(ctx, pkg, g.file, nil) // one of them does not compile: each alone tells which
}

// close deletes what was built.
func (g *group) close() { _ = errors.Join(os.Remove(g.file), os.RemoveAll(g.tree)) }

// pass runs the tests that the mutants name without any mutant in force: a test that
// fails then proves nothing.
func (g *group) pass(ctx context.Context) error {
	var tests []string
	for _, m := range g.mutants {
		tests = append(tests, regexpQuote(m.top()))
	}
	out, err := g.run(ctx, g.tree, "^("+strings.Join(tests, "|")+")$", "")
	if err != nil {
		return fmt.Errorf("a test fails without any mutant: %w\n%s", err, tail(out))
	}
	return nil
}

// kill runs the mutant's test with the mutant in force. Nil says that the test failed,
// as it must.
func (g *group) kill(ctx context.Context, m mutant) error {
	out, err := g.with(ctx, m, m.pattern(), "-test.failfast")
	var exit *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exit) || out == nil:
		return err
	case err == nil && !bytes.Contains(out, []byte("=== RUN   "+m.top()+"\n")):
		return fmt.Errorf("no test %s in %s", m.test, m.pkg)
	case err == nil:
		return fmt.Errorf("survives: %s passes with it", m.test)
	case bytes.Contains(out, []byte("panic: test timed out")):
		return fmt.Errorf("%s does not end with it", m.test)
	case !failed(out, m.top()):
		return fmt.Errorf("%s did not fail itself: %w\n%s", m.test, err, tail(out))
	}
	return nil
}

// find lists the tests of the mutant's package that fail with it.
func (g *group) find(ctx context.Context, m mutant) ([]string, error) {
	out, err := g.with(ctx, m, ".")
	if out == nil {
		return nil, err
	}
	var names []string
	for _, found := range regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`).FindAllSubmatch(out, -1) {
		names = append(names, string(found[1]))
	}
	if names == nil && bytes.Contains(out, []byte("\npanic: ")) {
		names = append(names, "panic: "+tail(out))
	}
	return names, nil
}

// failed says whether the test failed, or panicked, by itself: not because its
// binary did not start.
func failed(out []byte, test string) bool {
	return bytes.Contains(out, []byte("--- FAIL: "+test+" ")) ||
		bytes.Contains(out, []byte("=== RUN   "+test+"\n")) && bytes.Contains(out, []byte("\npanic: "))
}

// with runs tests with a mutant in force: by its switch, or if it has none in a binary
// of its own, or in a tree with the one file changed that tests read. Without output
// nothing was run.
func (g *group) with(ctx context.Context, m mutant, pattern string, flags ...string) ([]byte, error) {
	r := g.runner
	changed, err := m.apply(r.root)
	if err != nil {
		return nil, fmt.Errorf("stale: %w", err)
	}
	if g.switches[m.id] {
		return g.run(ctx, g.tree, pattern, m.id, flags...)
	}
	dir, err := os.MkdirTemp(r.dir, "mutant-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if !m.isGo() {
		tree := filepath.Join(dir, "tree")
		if err := r.replica(tree, g.pkg, &m, changed); err != nil {
			return nil, err
		}
		return g.run(ctx, tree, pattern, "", flags...)
	}
	alone := &group{runner: r, pkg: g.pkg, file: filepath.Join(dir, "mutant.test")}
	if err := r.compile(ctx, g.pkg, alone.file, map[string]string{m.file: changed}); err != nil {
		return nil, err
	}
	return alone.run(ctx, g.tree, pattern, "", flags...)
}

// run runs tests of the binary in a tree, and gives what they write.
func (g *group) run(ctx context.Context, tree, pattern, inForce string, flags ...string) ([]byte, error) {
	args := append([]string{"-test.run=" + pattern, "-test.v", "-test.short", "-test.paniconexit0", "-test.timeout=" + testTimeout.String()}, flags...)
	cmd := exec.CommandContext(ctx, g.file, args...)
	cmd.Dir = filepath.Join(tree, g.pkg)
	cmd.Env = append(os.Environ(), "PWD="+cmd.Dir, variable+"="+inForce)
	out, err := cmd.CombinedOutput()
	return append([]byte{'\n'}, out...), err
}

// compile builds the tests of a package with some files of the repository changed.
func (r *runner) compile(ctx context.Context, pkg, file string, changed map[string]string) error {
	dir, err := os.MkdirTemp(r.dir, "files-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	replace := map[string]string{}
	for name, content := range changed {
		replacement := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(replacement, []byte(content), 0o600); err != nil {
			return err
		}
		replace[filepath.Join(r.root, name)] = replacement
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return err
	}
	module, within := r.root, pkg
	if rest, ok := strings.CutPrefix(pkg, "test/"); ok {
		module, within = filepath.Join(r.root, "test"), rest
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-o", file, "-overlay="+overlayFile, "./"+within)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("does not compile: %w\n%s", err, tail(out))
	}
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("%s has no tests", pkg)
	}
	return nil
}

// replica makes a tree that looks like the repository to a test that runs in the
// folder of its package, and is not harmed by what the test writes there: a copy of
// that folder, links to all else, and the mutant's file changed unless it is nil.
func (r *runner) replica(root, pkg string, m *mutant, changed string) error {
	if m == nil {
		return r.link(root, ".", pkg, pkg)
	}
	if err := r.link(root, ".", pkg, filepath.Dir(m.file)); err != nil {
		return err
	}
	file := filepath.Join(root, m.file)
	return errors.Join(os.Remove(file), os.WriteFile(file, []byte(changed), 0o600))
}

// link makes real folders on the way to pkg and to dir, whose parents a test reaches
// by "..", a copy of pkg, and links to all else.
func (r *runner) link(root, at, pkg, dir string) error {
	if at == pkg {
		return os.CopyFS(filepath.Join(root, at), os.DirFS(filepath.Join(r.root, at)))
	}
	if err := os.MkdirAll(filepath.Join(root, at), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(r.root, at))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(at, e.Name())
		if strings.HasPrefix(pkg+"/", name+"/") || strings.HasPrefix(dir+"/", name+"/") {
			err = r.link(root, name, pkg, dir)
		} else {
			err = os.Symlink(filepath.Join(r.root, name), filepath.Join(root, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tail is the end of what a program wrote, which says why it failed.
func tail(out []byte) string {
	const most = 2000
	out = bytes.TrimSpace(out)
	return string(out[max(0, len(out)-most):])
}
