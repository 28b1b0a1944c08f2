package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/verifier"
)

func resolveCommand() *cobra.Command {
	var options inspectOptions
	command := &cobra.Command{
		Use:     "resolve IMAGE…",
		Short:   "Pin images to their digests, verifying nothing",
		Example: "  countersign resolve --config policies shop.example.com/cart:1.4",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, images []string) error {
			return options.eachImage(command, images, func(ctx context.Context, app *app, image string) answer {
				return app.resolve(ctx, image, options.namespace)
			}, printResolved)
		},
	}
	options.add(command)
	return command
}

// resolvedStatus stands in the place of a status where nothing was verified.
const resolvedStatus = "RESOLVED"

// resolve pins the image with the registry options of the policy that applies.
func (a *app) resolve(ctx context.Context, image, namespace string) answer {
	start := time.Now()
	ref, err := verifier.ParseReference(image)
	if err != nil {
		return newAnswer(image, verifier.Refuse(image, verifier.AsError(err)), nil, time.Since(start))
	}
	chain, verdict := a.Snapshot().For(verifier.Request{Namespace: namespace, Image: ref})
	if chain == nil {
		return newAnswer(image, verdict, nil, time.Since(start))
	}
	subject, err := chain.Resolve(ctx, ref)
	if err != nil {
		return newAnswer(image, verifier.Verdict{}, err, time.Since(start))
	}
	return answer{
		Image: image, Status: resolvedStatus, Success: true, Digest: string(subject.Digest), Pinned: subject.Pinned(),
		Policy: chain.Policies(), Millis: float64(time.Since(start).Microseconds()) / 1000,
	}
}

func printResolved(t terminal, a answer) {
	if a.Status != resolvedStatus {
		printAnswer(t, a)
		return
	}
	t.printf("%s\n", a.Pinned)
}
