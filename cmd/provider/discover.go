package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/verifier"
)

func discoverCommand() *cobra.Command {
	var options inspectOptions
	command := &cobra.Command{
		Use:   "discover IMAGE",
		Short: "Show what is attached to an image: signatures and all else, with type, size and signer",
		Long: `Shows every referrer of the image as a tree. A signer is shown as a claim until
a check of the policy that applies has proved it.

Exit codes: 0 shown, 1 no policy allows to look, 2 not all could be found out.`,
		Example: `  countersign discover --config policies shop.example.com/cart:1.4
  countersign discover --config policies -o json shop.example.com/cart:1.4`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error { return options.discover(command, args[0]) },
	}
	options.add(command)
	return command
}

// attached is what discover tells of an image.
type attached struct {
	Image      string              `json:"image"`
	Digest     digest.Digest       `json:"digest"`
	Candidates []attachedCandidate `json:"candidates"`
	// Problems concern the list as a whole.
	Problems []string `json:"problems,omitempty"`
}

type attachedCandidate struct {
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	ArtifactType string        `json:"artifactType"`
	Source       string        `json:"source"`
	Layers       []layer       `json:"layers,omitempty"`
	Problem      string        `json:"problem,omitempty"`
	Checks       []checkMade   `json:"checks,omitempty"`
	reports      []verifier.Report
}

type layer struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

func (o *inspectOptions) discover(command *cobra.Command, image string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	names, err := o.named([]string{image})
	if err != nil {
		return err
	}
	image = names[0]
	app, err := o.open(command)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
	defer cancel()
	t := newTerminal(command.OutOrStdout())
	ref, err := verifier.ParseReference(image)
	if err != nil {
		return err
	}
	chain, verdict := app.Snapshot().For(verifier.Request{Namespace: o.namespace, Image: ref})
	if chain == nil {
		printAnswer(t, newAnswer(image, verdict, nil, 0))
		return exitError(exitRefused)
	}
	progress := startProgress(command.ErrOrStderr(), "looking")
	found, err := look(ctx, chain, ref)
	progress.stop()
	if err != nil {
		printAnswer(t, newAnswer(image, verifier.Verdict{}, err, 0))
		return exitError(exitUndecided)
	}
	if o.output == "json" {
		if err := printJSON(command.OutOrStdout(), found); err != nil {
			return err
		}
	} else {
		t.printAttached(found)
	}
	if len(found.Problems) > 0 {
		return exitError(exitUndecided)
	}
	return nil
}

// look lists what is attached, and what the policy's checks make of it.
func look(ctx context.Context, chain *verifier.Chain, ref verifier.Reference) (attached, error) {
	subject, candidates, err := chain.Discover(ctx, ref)
	if err != nil {
		return attached{}, err
	}
	judged := map[digest.Digest][]verifier.Report{}
	verdict, err := chain.Examine(ctx, verifier.Request{Image: ref})
	for _, report := range newAnswer(ref.String(), verdict, err, 0).tree.AllReports() {
		judged[report.Candidate.Descriptor.Digest] = append(judged[report.Candidate.Descriptor.Digest], report)
	}
	found := attached{Image: ref.String(), Digest: subject.Digest, Candidates: []attachedCandidate{}}
	for candidate, err := range candidates {
		if err != nil && candidate.Descriptor.Digest == "" {
			found.Problems = append(found.Problems, verifier.AsError(err).Message)
			continue
		}
		c := attachedCandidate{
			Digest: candidate.Descriptor.Digest, Size: candidate.Descriptor.Size, ArtifactType: candidate.ArtifactType,
			Source: string(candidate.Source), reports: judged[candidate.Descriptor.Digest],
		}
		if err != nil {
			c.Problem = verifier.AsError(err).Message
		}
		for _, d := range candidate.Manifest.Layers {
			c.Layers = append(c.Layers, layer{d.MediaType, d.Digest, d.Size})
		}
		for _, report := range c.reports {
			c.Checks = append(c.Checks, newCheckMade(report))
		}
		found.Candidates = append(found.Candidates, c)
	}
	return found, nil
}

func (t terminal) printAttached(found attached) {
	t.printf("%s\n%s\n", t.paint(bold, printable(found.Image)), t.paint(faint, string(found.Digest)))
	var branches []branch
	for _, c := range found.Candidates {
		b := branch{text: fmt.Sprintf("%s  %s  %s", c.Digest, t.paint(bold, printable(c.ArtifactType)), size(c.Size))}
		if c.Problem != "" {
			b.notes = append(b.notes, t.paint(yellow, "cannot be used: ")+printable(c.Problem))
		}
		b.notes = append(b.notes, t.checkNotes(c.reports)...)
		for _, l := range c.Layers {
			b.branches = append(b.branches, branch{text: fmt.Sprintf("%s  %s", printable(l.MediaType), size(l.Size))})
		}
		branches = append(branches, b)
	}
	t.printTree(branches, "")
	if len(branches) == 0 {
		t.printf("nothing is attached\n")
	}
	for _, problem := range found.Problems {
		t.printf("%s %s\n", t.paint(yellow, "not all was found out:"), printable(problem))
	}
}

// checkNotes says who signed a candidate, and in a line each what the policy's
// checks make of it; explain says why.
func (t terminal) checkNotes(reports []verifier.Report) []string {
	var notes []string
	best := verifier.OutcomeDenied
	for _, report := range reports {
		if note := signerNote(report); note != "" && (len(notes) == 0 || report.Outcome() > best) {
			notes, best = []string{note}, report.Outcome()
		}
	}
	for _, report := range reports {
		note := "check " + printable(report.Check) + ": " + t.outcome(report.Outcome())
		if report.Finding.Err != nil {
			note += " " + t.paint(faint, string(report.Finding.Err.Reason))
		}
		notes = append(notes, note)
	}
	return notes
}

// size is a number of bytes as people read it.
func size(bytes int64) string {
	const kilo, mega = 1000, 1000 * 1000
	switch {
	case bytes >= mega:
		return fmt.Sprintf("%.1f MB", float64(bytes)/mega)
	case bytes >= kilo:
		return fmt.Sprintf("%.1f kB", float64(bytes)/kilo)
	default:
		return strconv.FormatInt(bytes, 10) + " B"
	}
}
