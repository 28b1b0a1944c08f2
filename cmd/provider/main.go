// Command countersign is the whole program: the provider that Gatekeeper asks
// (serve), and the same decisions on a terminal (verify, explain, discover,
// resolve). It wires and exits; what it decides is decided in
// internal/verifier.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // for an image that has no roots of its own
)

// version is set by the linker.
var version = "devel"

// The exit codes of every command.
const (
	exitTrusted   = 0 // or whatever else was asked for, done
	exitRefused   = 1
	exitUndecided = 2 // or used wrongly, or not possible
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitError ends the program with a code, its message having been shown.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return exitTrusted
	case errors.As(err, &exit):
		return int(exit)
	default:
		_, _ = fmt.Fprintln(stderr, "countersign:", err)
		return exitUndecided
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "countersign",
		Short: "Verify who signed the images of a Kubernetes cluster",
		Long: `Countersign answers Gatekeeper's question about every image of a pod: is it
trusted, by whom, and if not, why.

Exit codes: 0 trusted, 1 refused, 2 undecided or used wrongly.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	root.AddCommand(serveCommand(), watchCommand(), previewCommand(), exportCommand(), verifyCommand(), explainCommand(), discoverCommand(), resolveCommand(), askCommand(), authCommand(), convertCommand(), versionCommand())
	return root
}

// buildVersion is the linker's version, or what the module system knows.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "devel" && info.Main.Version != "" {
		return info.Main.Version
	}
	return version
}
