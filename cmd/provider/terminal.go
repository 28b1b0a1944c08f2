package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// terminal writes for people: in colour where a person is looking, plain
// where the output goes into a pipe or NO_COLOR is set.
type terminal struct {
	out    io.Writer
	colour bool
}

func newTerminal(out io.Writer) terminal {
	file, isFile := out.(*os.File)
	return terminal{
		out:    out,
		colour: isFile && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

const (
	bold   = "1"
	faint  = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
)

// paint colours the text where colours are wanted.
func (t terminal) paint(style, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (t terminal) printf(format string, args ...any) {
	// A reader that went away is no reason to fail: the exit code tells the rest.
	_, _ = fmt.Fprintf(t.out, format, args...)
}

// outcome is the word for an outcome, in its colour and with its mark.
func (t terminal) outcome(o verifier.Outcome) string {
	switch o {
	case verifier.OutcomeTrusted:
		return t.mark(green, "✓", o.String())
	case verifier.OutcomeExempt:
		return t.mark(yellow, "!", o.String())
	case verifier.OutcomeUndecided:
		return t.mark(yellow, "?", o.String())
	default:
		return t.mark(red, "✗", o.String())
	}
}

// mark puts a sign before a word where there are colours: it helps to find the
// word on a screen, and hinders in a pipe.
func (t terminal) mark(style, sign, word string) string {
	if !t.colour {
		return word
	}
	return t.paint(style, sign+" "+word)
}

// status is the word for an answer's status.
func (t terminal) status(a answer) string {
	switch {
	case a.Success && a.Status == string(verifier.StatusTrusted):
		return t.mark(green, "✓", a.Status)
	case a.Success:
		return t.mark(yellow, "!", a.Status)
	case a.Status == undecidedStatus:
		return t.mark(yellow, "?", a.Status)
	default:
		return t.mark(red, "✗", a.Status)
	}
}

func addOutput(command *cobra.Command, output *string) {
	command.Flags().StringVarP(output, "output", "o", "text", "how to print: text, for people, or json")
	// Cobra fails only for a flag that does not exist.
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// printJSON writes for programs.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

func checkOutput(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("--output is %q: use text or json", output)
	}
	return nil
}
