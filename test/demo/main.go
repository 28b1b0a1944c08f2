// Command demo shows Countersign at work on this machine, without a cluster: a
// registry with images that are signed well and badly, the real binary over
// mTLS, and Pods judged by Gatekeeper's own engine with the library's policies.
// It is what `make run` runs. With ONCE=1 it ends by itself, with an error if a
// decision was wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	d := &demo{out: newScreen(os.Stdout), progress: os.Stderr, root: "..", once: os.Getenv("ONCE") != ""}
	err := d.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is one run.
type demo struct {
	out      *screen
	progress io.Writer
	// root of the repository.
	root string
	// once ends the run after the table.
	once bool
}

func (d *demo) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "countersign-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	c, err := d.start(ctx, dir)
	if err != nil {
		return err
	}
	defer c.stop()

	wrong := 0
	table := d.out.table(c.Host)
	for _, row := range rows(c) {
		result, err := c.judge(ctx, row)
		if err != nil {
			return fmt.Errorf("%s: %w", row.pod, err)
		}
		if !result.right {
			wrong++
		}
		table.add(row, result)
	}
	table.end(wrong)
	if !d.once {
		d.out.try(c)
		<-ctx.Done()
		d.out.line("")
	}
	if wrong > 0 {
		return fmt.Errorf("%d decisions are wrong", wrong)
	}
	return nil
}
