package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/watch"
)

// previewOptions are the flags of preview.
type previewOptions struct {
	policy, kubeconfig, output string
	namespaces                 []string
	timeout                    time.Duration
	allowLoopback              bool
	contentCache               string
}

func previewCommand() *cobra.Command {
	var o previewOptions
	command := &cobra.Command{
		Use:   "preview --policy FILE",
		Short: "Say which running workloads a policy would refuse",
		Long: `Looks at all that runs in a cluster as if the policies of a file were the only
ones, and prints the images that they match and would not let run. Nothing is
changed. It needs to list pods, and nodes unless --namespaces says where to look.

Exit codes: 0 nothing would be refused, 1 something would, 2 something could not be
found out.`,
		Example: `  countersign preview --policy new.yaml
  countersign preview --policy new.yaml --namespaces shop,pay -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return o.run(command) },
	}
	flags := command.Flags()
	flags.StringVar(&o.policy, "policy", "", "a policy file or a directory of them")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server; as kubectl does when empty")
	flags.StringSliceVar(&o.namespaces, "namespaces", nil, "look at these only; empty: all")
	flags.DurationVar(&o.timeout, "timeout", 15*time.Minute, "give up after this long")
	flags.BoolVar(&o.allowLoopback, "allow-loopback", false, "let registries be on this machine, for development")
	flags.StringVar(&o.contentCache, "content-cache", "", "a directory that keeps signatures and what they are in, by digest, for the next time; empty: none")
	_ = command.MarkFlagRequired("policy")
	addOutput(command, &o.output)
	return command
}

// previewed is what a policy would do to what runs.
type previewed struct {
	// Matched are the images that the policies match, and of them these would not run.
	Matched   int         `json:"matched"`
	Refused   []watch.Row `json:"refused"`
	Undecided []watch.Row `json:"undecided"`
}

func (o *previewOptions) run(command *cobra.Command) error {
	ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
	defer cancel()
	app, err := newApp(ctx, appOptions{config: o.policy, allowLoopback: o.allowLoopback, contentCache: o.contentCache, contentCacheSize: 512, lists: o.timeout})
	if err != nil {
		return err
	}
	if err := app.vaults.once(ctx, app.policies); err != nil {
		return err
	}
	if problems := app.Snapshot().Problems(); len(problems) > 0 {
		for _, problem := range problems {
			_, _ = fmt.Fprintln(command.ErrOrStderr(), problem)
		}
		return errors.New("the policy is not as it should be")
	}
	reach, err := cluster.ConnectAsUser(o.kubeconfig)
	if err != nil {
		return err
	}
	progress := startProgress(command.ErrOrStderr(), "looking at what runs")
	found, err := o.look(ctx, app, reach)
	progress.stop()
	if err != nil {
		return err
	}
	if o.output == "json" {
		err = printJSON(command.OutOrStdout(), found)
	} else {
		err = found.print(command.OutOrStdout())
	}
	switch {
	case err != nil:
		return err
	case len(found.Undecided) > 0:
		return exitError(exitUndecided)
	case len(found.Refused) > 0:
		return exitError(exitRefused)
	}
	return nil
}

// look watches until all has been looked at once.
func (o *previewOptions) look(ctx context.Context, app *app, reach *cluster.Config) (previewed, error) {
	snapshot := app.Snapshot()
	w := watch.New(watch.Options{
		Select:   func(r verifier.Request) (*verifier.Chain, verifier.Verdict) { return snapshot.For(r) },
		Snapshot: func() any { return snapshot },
		Rate:     50,
	})
	source, err := watch.NewSource(reach, o.namespaces, w)
	if err != nil {
		return previewed{}, err
	}
	watching, done := context.WithCancel(ctx)
	group, running := errgroup.WithContext(watching)
	group.Go(func() error { return w.Run(running) })
	group.Go(func() error { return source.Run(running) })
	for w.Summary(nil).Checked == nil && ctx.Err() == nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	complete := w.Summary(nil).Checked != nil
	rows := w.Rows(watch.Filter{})
	done()
	if err := group.Wait(); err != nil {
		return previewed{}, err
	}
	if !complete {
		return previewed{}, fmt.Errorf("not all was looked at within %v: give it more --timeout, or --namespaces", o.timeout)
	}
	p := previewed{Refused: []watch.Row{}, Undecided: []watch.Row{}}
	for _, row := range rows {
		row.Evidence = nil
		switch {
		case row.Reason == verifier.ReasonPolicyNotFound: // another policy's
		case row.Status == watch.StatusError:
			p.Undecided = append(p.Undecided, row)
			p.Matched++
		case row.Status == watch.Status(verifier.StatusTrusted), row.Status == watch.Status(verifier.StatusExempt):
			p.Matched++
		default:
			p.Refused = append(p.Refused, row)
			p.Matched++
		}
	}
	return p, nil
}

// print writes for people.
func (p previewed) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, row := range append(p.Refused, p.Undecided...) {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", row.Status, row.Namespace, strings.Join(row.Workloads(), ","), row.Message)
	}
	_, _ = fmt.Fprintf(table, "of %d images that run and that it matches, %d would be refused and %d could not be looked at\n", p.Matched, len(p.Refused), len(p.Undecided))
	return table.Flush()
}
