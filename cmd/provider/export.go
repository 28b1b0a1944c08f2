package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/watch"
)

// maxScript bounds what is taken from a server: a line an image.
const maxScript = 64 << 20

func exportCommand() *cobra.Command {
	command := &cobra.Command{Use: "export", Short: "Write what countersign watch knows"}
	command.AddCommand(exportUnsignedCommand())
	return command
}

func exportUnsignedCommand() *cobra.Command {
	var at, tokenFile, format string
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "unsigned",
		Short: "Write the script that signs what runs and has no signature",
		Long: `Asks countersign watch for the images that run and have no signature, and prints a
shell script that signs them by their digests: those that you may see, and nothing
that is untrusted, unsupported, refused or undecided anywhere among it. Run as it is,
the script says what it would do; APPLY=yes has it done.

The token is read from --token-file, or from COUNTERSIGN_TOKEN.`,
		Example: `  COUNTERSIGN_TOKEN=$(kubectl create token viewer) countersign export unsigned --format cosign > sign.sh`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), timeout)
			defer cancel()
			token := os.Getenv("COUNTERSIGN_TOKEN")
			if tokenFile != "" {
				data, err := os.ReadFile(tokenFile) //nolint:gosec // G304: whoever calls names it
				if err != nil {
					return err
				}
				token = string(data)
			}
			return exportUnsigned(ctx, at, strings.TrimSpace(token), format, command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&at, "url", "http://127.0.0.1:8080", "where countersign watch is, as kubectl port-forward has it")
	flags.StringVar(&tokenFile, "token-file", "", "a file with a token of the cluster; COUNTERSIGN_TOKEN when empty")
	flags.StringVar(&format, "format", watch.FormatNotation, "who signs: notation or cosign")
	flags.DurationVar(&timeout, "timeout", 30*time.Second, "give up after this long")
	return command
}

func exportUnsigned(ctx context.Context, at, token, format string, out io.Writer) error {
	if token == "" {
		return errors.New("there is no token: set COUNTERSIGN_TOKEN, or name a --token-file")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(at, "/")+"/bulk_sign?format="+url.QueryEscape(format), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxScript))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answered %d: %.300s", at, resp.StatusCode, body)
	}
	_, err = out.Write(body)
	return err
}
