package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// parallelImages is how many images the command line verifies at once.
const parallelImages = 8

func verifyCommand() *cobra.Command {
	var options inspectOptions
	command := &cobra.Command{
		Use:   "verify IMAGE…",
		Short: "Verify images under the policies, as the provider would",
		Example: `  countersign verify --config policies shop.example.com/cart:1.4
  countersign verify --config policies --namespace shop -o json shop.example.com/cart:1.4 shop.example.com/pay:2`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, images []string) error {
			return options.eachImage(command, images, func(ctx context.Context, app *app, image string) answer {
				return app.verify(ctx, image, options.namespace, (*verifier.Chain).Verify)
			}, printAnswer)
		},
	}
	options.add(command)
	return command
}

// verify makes one decision as the door does: parse, select, ask the chain.
func (a *app) verify(ctx context.Context, image, namespace string, ask func(*verifier.Chain, context.Context, verifier.Request) (verifier.Verdict, error)) answer {
	start := time.Now()
	ref, err := verifier.ParseReference(image)
	if err != nil {
		return newAnswer(image, verifier.Refuse(image, verifier.AsError(err)), nil, time.Since(start))
	}
	request := verifier.Request{Namespace: namespace, Image: ref}
	chain, verdict := a.Snapshot().For(request)
	if chain != nil {
		verdict, err = ask(chain, ctx, request)
	}
	return newAnswer(image, verdict, err, time.Since(start))
}

// eachImage verifies the images, several at once, and prints them in their order.
func (o *inspectOptions) eachImage(command *cobra.Command, images []string,
	work func(context.Context, *app, string) answer, show func(terminal, answer),
) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	images, err := o.named(images)
	if err != nil {
		return err
	}
	app, err := o.open(command)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
	defer cancel()
	progress := startProgress(command.ErrOrStderr(), "verifying")
	answers := make([]answer, len(images))
	var group errgroup.Group
	group.SetLimit(parallelImages)
	for i, image := range images {
		group.Go(func() error {
			answers[i] = work(ctx, app, image)
			return nil
		})
	}
	_ = group.Wait() // its functions give no error
	progress.stop()
	if o.output == "json" {
		if err := printJSON(command.OutOrStdout(), answers); err != nil {
			return err
		}
		return exit(answers)
	}
	t := newTerminal(command.OutOrStdout())
	for _, a := range answers {
		show(t, a)
	}
	return exit(answers)
}

// printAnswer is the decision in one line, and what is worth saying below it.
func printAnswer(t terminal, a answer) {
	t.printf("%s  %s\n", t.status(a), t.paint(bold, printable(a.Image)))
	t.printf("    %s %s\n", t.paint(faint, a.Reason), printable(a.Message))
}
