package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Problem is one thing that is wrong with a document, and what to do.
type Problem struct {
	File string
	Line int // 0 where the file as a whole is meant
	// Policy is the document's kind and name, as far as they could be read.
	Policy string
	// Path of the field: "spec.require.any[0].notation.level". Empty where the
	// document as a whole is meant.
	Path    string
	Message string
	Remedy  string
	// Reason is POLICY_INVALID, or KEYS_UNAVAILABLE where something that the
	// document refers to cannot be read and may be there again later.
	Reason verifier.Reason
	// Withdrawn is set where trust was taken back: then no earlier version of the
	// document counts either.
	Withdrawn bool
	// Pending is set while nobody knows yet, and somebody is asking.
	Pending bool
}

// String is file:line: path: message. Remedy.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			b.WriteString(":" + strconv.Itoa(p.Line))
		}
		b.WriteString(": ")
	} else if p.Policy != "" {
		b.WriteString(p.Policy + ": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Remedy != "" {
		b.WriteString(". " + p.Remedy)
	}
	return b.String()
}

// sortProblems puts problems in the order of the documents.
func sortProblems(list []Problem) {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(
			strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			strings.Compare(a.Policy, b.Policy), strings.Compare(a.Path, b.Path), strings.Compare(a.Message, b.Message),
		)
	})
}

// quote shows text that a document holds, cut to what a line can carry.
func quote(s string) string { return strconv.Quote(clip(s, 80)) }

func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// list puts words in a row as a sentence has them: "a, b or c".
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}

// element names an element of a list.
func element(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
