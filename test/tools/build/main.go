// Command build builds the programs that tests run, before the tests do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/countersign-dev/countersign/test/tools"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, tool := range tools.All() {
		path, err := tools.Build(ctx, tool, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			stop()
			os.Exit(1) //nolint:gocritic // exitAfterDefer: stop was called
		}
		fmt.Println(path)
	}
}
