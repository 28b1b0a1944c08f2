// Command mutants breaks lines of the product that matter, one at a time, and
// wants the test that the table names for it to fail. A mutant whose test passes
// survives: the line could be lost unseen. It is an error too if a mutant does not
// compile, or if its fragment is no longer in the file.
//
// The repository stays as it is: Go files are replaced by an overlay of the
// compiler, others in a copy of the tree, where the tests run. The tests of a package are built once, with
// all of its mutants behind switches.
//
//	go run ./mutants                 the whole table
//	go run ./mutants -share 2/6      each sixth of it, from the second on
//	go run ./mutants -only ID,ID     some
//	go run ./mutants -list
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// tableFile is relative to this package.
const tableFile = "mutants.txt"

type options struct {
	root, table, share, only string
	list, find, trusting     bool
	parallel                 int
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", "..", "the repository")
	flag.StringVar(&o.table, "table", filepath.Join("mutants", tableFile), "the table")
	flag.StringVar(&o.share, "share", "", "k/n: each n-th mutant, from the k-th on")
	flag.StringVar(&o.only, "only", "", "ids of mutants, with commas; a * at the end stands for the rest of an id")
	flag.BoolVar(&o.list, "list", false, "list the mutants and run none")
	flag.BoolVar(&o.find, "find", false, "run all tests of each mutant's package and list those that fail: for a new line of the table")
	flag.BoolVar(&o.trusting, "trust-tests", false, "do not run the tests without mutants first; for use after make test")
	flag.IntVar(&o.parallel, "parallel", runtime.NumCPU(), "number of packages at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if !ok {
		stop()
		os.Exit(1) //nolint:gocritic // exitAfterDefer: stop was called
	}
}

// run runs the mutants that the options select; it says whether each was killed.
func run(ctx context.Context, o options) (bool, error) {
	table, err := readTable(o.table)
	if err != nil {
		return false, err
	}
	selected, err := choose(table, o.share, o.only)
	if err != nil {
		return false, err
	}
	if o.list {
		for _, m := range selected {
			_, _ = fmt.Printf("%-32s %s: %s\n", m.id, m.file, m.guards)
		}
		return true, nil
	}
	root, err := filepath.Abs(o.root)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "countersign-mutants-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r := &runner{root: root, dir: dir}
	s := &screen{start: time.Now(), terminal: isTerminal(os.Stdout), total: len(selected)}
	packages := byPackage(selected)
	each(packages, o.parallel, func(mutants []mutant) { work(ctx, r, mutants, o, s) })
	if o.find {
		return true, ctx.Err()
	}
	s.close()
	return s.failed == 0, ctx.Err()
}

// work runs the mutants of one package.
func work(ctx context.Context, r *runner, mutants []mutant, o options, s *screen) {
	pkg := mutants[0].pkg
	g, err := r.build(ctx, pkg, mutants)
	if err != nil {
		s.broken(pkg, err)
		return
	}
	defer g.close()
	if o.find {
		for _, m := range mutants {
			names, err := g.find(ctx, m)
			s.say("%s: %s %v", m.id, strings.Join(names, " "), err)
		}
		return
	}
	if !o.trusting {
		if err := g.pass(ctx); err != nil {
			s.broken(pkg, err)
			return
		}
	}
	for _, m := range mutants {
		if ctx.Err() != nil {
			return
		}
		start := time.Now()
		err := g.kill(ctx, m)
		s.show(m, time.Since(start), err)
	}
}

// byPackage groups the mutants by the package of their test, the largest group first.
func byPackage(selected []mutant) [][]mutant {
	groups := map[string][]mutant{}
	for _, m := range selected {
		groups[m.pkg] = append(groups[m.pkg], m)
	}
	var list [][]mutant
	for _, pkg := range slices.Sorted(maps.Keys(groups)) {
		list = append(list, groups[pkg])
	}
	slices.SortStableFunc(list, func(a, b []mutant) int { return cmp.Compare(len(b), len(a)) })
	return list
}

// each calls the function with every item, some at a time, in order.
func each[T any](items []T, parallel int, do func(T)) {
	places := make(chan struct{}, max(1, parallel))
	var wait sync.WaitGroup
	for _, item := range items {
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			do(item)
		})
	}
	wait.Wait()
}

// choose gives the mutants of a share, or those with the ids.
func choose(table []mutant, share, only string) ([]mutant, error) {
	selected := table
	if share != "" {
		var k, n int
		if _, err := fmt.Sscanf(share, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
			return nil, fmt.Errorf("-share %s: write k/n with 1 ≤ k ≤ n", share)
		}
		selected = nil
		for i := k - 1; i < len(table); i += n {
			selected = append(selected, table[i])
		}
	}
	if only == "" {
		return selected, nil
	}
	var named []mutant
	for _, id := range strings.Split(only, ",") {
		prefix, many := strings.CutSuffix(id, "*")
		before := len(named)
		for _, m := range selected {
			if m.id == id || many && strings.HasPrefix(m.id, prefix) {
				named = append(named, m)
			}
		}
		if len(named) == before {
			return nil, fmt.Errorf("-only %s: no such mutant", id)
		}
	}
	return named, nil
}
