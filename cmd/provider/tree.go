package main

import (
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// branch is a line of a tree with what hangs below it.
type branch struct {
	text string
	// notes stand under the text, before the branches.
	notes    []string
	branches []branch
}

// printTree draws the branches below a line that is already there.
func (t terminal) printTree(branches []branch, indent string) {
	for i, b := range branches {
		fork, below := "├─ ", "│  "
		if i == len(branches)-1 {
			fork, below = "└─ ", "   "
		}
		t.printf("%s%s\n", t.paint(faint, indent+fork), b.text)
		stem := "   "
		if len(b.branches) > 0 {
			stem = "│  "
		}
		for _, note := range b.notes {
			t.printf("%s%s\n", t.paint(faint, indent+below+stem), note)
		}
		t.printTree(b.branches, indent+below)
	}
}

// ruleBranch is a rule with what it came to, and its candidates.
func (t terminal) ruleBranch(n verifier.Node) branch {
	name := n.Rule
	switch {
	case n.Rule == "policy":
		name = "policy " + n.Name
	case n.Rule == "atLeast":
		name = "at least " + n.Name + " signers"
	case len(n.Children) == 0 && n.Name != "":
		name = n.Name + " (" + n.Rule + ")"
	}
	b := branch{text: t.paint(bold, name) + "  " + t.outcome(n.Outcome)}
	if len(n.Children) == 0 && n.Err != nil && len(n.Reports) == 0 {
		b.notes = t.errorNotes(n.Err)
	}
	for _, child := range n.Children {
		b.branches = append(b.branches, t.ruleBranch(child))
	}
	for _, report := range n.Reports {
		b.branches = append(b.branches, t.reportBranch(report))
	}
	return b
}

// reportBranch is what a check made of one candidate.
func (t terminal) reportBranch(r verifier.Report) branch {
	b := branch{text: string(r.Candidate.Descriptor.Digest) + "  " + t.outcome(r.Outcome())}
	if said := signerNote(r); said != "" {
		b.notes = append(b.notes, said)
	}
	if r.Finding.Err != nil {
		b.notes = append(b.notes, t.errorNotes(r.Finding.Err)...)
	}
	for _, logged := range r.Finding.Claims.Logged {
		b.notes = append(b.notes, t.errorNotes(logged)...)
	}
	return b
}

// signerNote says who signed, or who claims to have.
func signerNote(r verifier.Report) string {
	claims := r.Finding.Claims
	if claims.Signer.Name == "" {
		return ""
	}
	said := "claims to be signed by "
	if r.Outcome() >= verifier.OutcomeExempt {
		said = "signed by "
	}
	said += claims.Signer.Name
	if !claims.SignedAt.IsZero() {
		said += " at " + claims.SignedAt.UTC().Format("2006-01-02 15:04:05 UTC")
	}
	return printable(said)
}

// errorNotes is an error in three lines: what, why, what to do.
func (t terminal) errorNotes(e *verifier.Error) []string {
	notes := []string{t.paint(yellow, string(e.Reason)) + ": " + printable(e.Message)}
	if e.Err != nil {
		notes = append(notes, t.paint(faint, printable(e.Err.Error())))
	}
	if e.Remedy != "" {
		notes = append(notes, "→ "+printable(e.Remedy))
	}
	return notes
}

// printable keeps a registry's or a certificate's text from writing to the
// terminal what we did not mean.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
