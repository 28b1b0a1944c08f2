package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/verifier"
)

func explainCommand() *cobra.Command {
	var options inspectOptions
	command := &cobra.Command{
		Use:   "explain IMAGE",
		Short: "Show which policy applies, which rule, and what was found, branch by branch",
		Example: `  countersign explain --config policies shop.example.com/cart:1.4
  countersign explain --config policies --namespace shop shop.example.com/cart@sha256:…`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, images []string) error {
			return options.eachImage(command, images, func(ctx context.Context, app *app, image string) answer {
				return app.verify(ctx, image, options.namespace, (*verifier.Chain).Examine)
			}, printExplanation)
		},
	}
	options.add(command)
	return command
}

func printExplanation(t terminal, a answer) {
	field := func(name, value string) {
		if value != "" {
			t.printf("%s%s%s\n", t.paint(faint, name), strings.Repeat(" ", 10-len(name)), value)
		}
	}
	field("image", printable(a.Image))
	field("digest", a.Digest)
	field("policy", printable(a.Policy))
	field("answer", t.status(a)+" "+a.Reason)
	field("message", printable(a.Message))
	field("remedy", printable(a.Remedy))
	if len(a.tree.Children) == 0 {
		return
	}
	t.printf("\n")
	for _, policy := range a.tree.Children {
		root := t.ruleBranch(policy)
		t.printf("%s\n", root.text)
		for _, note := range root.notes {
			t.printf("   %s\n", note)
		}
		t.printTree(root.branches, "")
	}
}
