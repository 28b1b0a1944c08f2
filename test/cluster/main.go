package cluster

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
)

// Main runs a package's tests in one scene, in a folder of its own that goes with it.
// Starting a cluster takes longer than any of the tests, so that short runs have none.
func Main(m *testing.M, name string, start func(ctx context.Context, dir string) error, stop func()) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("the cluster is built and started in full runs only")
		return
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "countersign-"+name+"-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		defer stop()
		if err := start(context.Background(), dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}
