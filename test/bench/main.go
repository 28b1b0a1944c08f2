// Command bench measures the real binary as Gatekeeper meets it: over mTLS,
// against a registry on loopback, beside an echo provider in the same run. It
// is what `make bench` runs. Every answer is checked, and a wrong one ends the
// run. It judges no figure but those that do not depend on the machine, as the
// number of requests; docs/performance.md has the figures.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	asJSON := flag.Bool("json", false, "print JSON")
	short := flag.Bool("short", false, "measure less, to see that it works; for CI")
	churn := flag.Duration("churn", 0, "how long the churn is, in the place of the run's own; nothing else is measured then")
	only := flag.String("only", "", `measure one step and nothing else, by its name in the progress: "a registry in trouble"`)
	echoDir := flag.String("echo", "", "be the echo provider with the files of this directory; the program starts itself so")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *asJSON, *short, *only, *churn, *echoDir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // exitAfterDefer: stop was called
	}
}

func run(ctx context.Context, asJSON, short bool, only string, churn time.Duration, echoDir string) error {
	if echoDir != "" {
		return serveEcho(ctx, echoDir, os.Stdin, os.Stdout)
	}
	b := &bench{root: "..", sizes: full, progress: os.Stderr, only: only}
	if short {
		b.sizes = shortened
	}
	if churn > 0 {
		b.sizes.churn, b.only = churn, "churn"
	}
	err := b.run(ctx)
	if asJSON {
		return firstOf(err, b.report.json(os.Stdout))
	}
	b.report.print(os.Stdout)
	return err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sizes say how much is measured.
type sizes struct {
	name string
	// images of each format; of them one is asked to warm up. slow of them are
	// asked one at a time where the registry takes its time.
	images, slow int
	// many images for memory, and the first faults of them for errors.
	many, faults int
	// stampedes of how many clients each.
	stampedes, herd int
	// pairs of windows, the provider's and the echo's in turns.
	pairs  int
	window time.Duration
	// tags and candidates are how long after an image was first asked for its
	// tag, and what is attached to it, have to be looked up again.
	tags, candidates time.Duration
	// pods come within rollout.
	pods    int
	rollout time.Duration
	// windows is how many images are verified while the registry says Retry-After.
	windows int
	// outage is how long a registry is away.
	outage time.Duration
	// turns is how many pairs of runs, alone and beside a troublesome neighbour.
	turns int
	// churn is how long questions come that were never asked before.
	churn time.Duration
}

// Two hundred images: as many as Ratify's figures were measured with.
var (
	full      = sizes{"full", 201, 101, 10000, 10000, 3, 1000, 4, 600 * time.Millisecond, 11 * time.Second, 62 * time.Second, 10000, 50 * time.Second, 1000, 5 * time.Second, 5, 90 * time.Second}
	shortened = sizes{"short", 51, 11, 300, 150, 3, 100, 1, 250 * time.Millisecond, 0, 0, 500, 5 * time.Second, 50, 2 * time.Second, 1, 2 * time.Second}
)

// latencies of the registry: what a cache next door adds to a request, and
// what a registry in the same region does.
var latencies = []time.Duration{0, 20 * time.Millisecond}

// bench is one run.
type bench struct {
	// root of the repository.
	root     string
	sizes    sizes
	progress io.Writer
	// only leaves out all steps but the one of that name; empty: none.
	only string

	machine *machine
	stage   *stage
	report  report
	// one is how long one cold image by digest took, by format and latency.
	one map[string]time.Duration
	// aged is the provider whose memories are left to expire since primed.
	aged   *target
	primed time.Time
}

func (b *bench) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "countersign-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"images and their signatures", func(ctx context.Context) (err error) {
			b.stage, err = newStage(ctx, b.root, dir, b.sizes, b.progress)
			return err
		}},
		{"formats", b.known},
		{"known images", b.prepare},
		{"cold, with tokens", b.tokens},
		{"tags expire", b.tagsExpire},
		{"cold", b.cold},
		{"cold, in batches", b.batches},
		{"warm", b.warm},
		{"candidates expire", b.candidatesExpire},
		{"stampede", b.stampede},
		{"memory", b.memory},
		{"churn", b.churn},
		{"registry errors", b.faults},
		{"a registry in trouble", b.trouble},
		{"rollout", b.rollout},
		{"a slow registry", b.slowRegistry},
		{"neighbours", b.neighbours},
	}
	b.machine = newMachine()
	b.report.begin(b.sizes.name, b.machine)
	defer func() {
		if b.aged != nil {
			b.aged.stop()
		}
		b.report.end(b.machine)
		if b.stage != nil {
			b.stage.close()
		}
	}()
	for i, step := range steps {
		if b.only != "" && i > 0 && step.what != b.only {
			continue
		}
		started := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		if i == 0 {
			b.machine.pin() // images are signed on all cores
		}
		_, _ = fmt.Fprintf(b.progress, "%6.1f s  %s\n", time.Since(started).Seconds(), step.what)
	}
	return b.report.broken()
}
