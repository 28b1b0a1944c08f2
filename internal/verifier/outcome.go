package verifier

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Outcome is what a rule came to. The order is the algebra: all is the least
// of its parts, any is the greatest. Zero denies.
type Outcome int

// From worst to best.
const (
	OutcomeDenied Outcome = iota
	OutcomeUndecided
	OutcomeExempt // holds, but only because a verification level merely logged a failure
	OutcomeTrusted
)

// String gives the word that people read.
func (o Outcome) String() string {
	switch o {
	case OutcomeTrusted:
		return "trusted"
	case OutcomeExempt:
		return "exempt"
	case OutcomeUndecided:
		return "undecided"
	default:
		return "denied"
	}
}

// Report is what one check made of one candidate.
type Report struct {
	Check, Scheme string
	// Candidate without its manifest: a report outlives the decision.
	Candidate Candidate
	Finding   Finding
	// renewAt is when the finding is made again; zero: it is not to be kept.
	renewAt time.Time
}

// Outcome judges the finding as it stands.
func (r Report) Outcome() Outcome {
	switch {
	case r.Finding.Err != nil && r.Finding.Err.Reason.Undecided():
		return OutcomeUndecided
	case r.Finding.Err != nil:
		return OutcomeDenied
	case len(r.Finding.Claims.Logged) > 0:
		return OutcomeExempt
	default:
		return OutcomeTrusted
	}
}

// Node is a rule with what it came to: the tree that explain prints.
type Node struct {
	// Rule is the document's word: "all", "any", "atLeast", "every", "policy",
	// or the scheme of a check.
	Rule string
	// Name of the check or policy; for atLeast the count.
	Name    string
	Outcome Outcome
	// Err is the reason of the leaf that decided; nil when the rule holds.
	Err      *Error
	Children []Node
	// Reports of a check, in candidate order.
	Reports []Report
}

// decide is pure: the same rule over the same observations gives the same tree.
func decide(rule Rule, seen *observations) Node {
	switch r := rule.(type) {
	case *Check:
		return decideCheck(r, seen)
	case All:
		return combine("all", r, seen, func(a, b Outcome) bool { return a < b })
	case Any:
		return combine("any", r, seen, func(a, b Outcome) bool { return a > b })
	case AtLeast:
		return decideAtLeast(r, seen)
	case Every:
		return decideEvery(r, seen)
	case Present:
		return decidePresent(r, seen)
	default:
		return Node{Rule: "none", Outcome: OutcomeUndecided, Err: emptyRule()}
	}
}

// combine gives the node the outcome that wins over all others, and the error
// of the winning child that came closest to yes.
func combine(word string, rules []Rule, seen *observations, wins func(a, b Outcome) bool) Node {
	node := Node{Rule: word}
	for _, rule := range rules {
		node.Children = append(node.Children, decide(rule, seen))
	}
	if len(node.Children) == 0 {
		node.Outcome, node.Err = OutcomeUndecided, emptyRule()
		return node
	}
	node.Outcome, node.Err = node.Children[0].Outcome, node.Children[0].Err
	for _, child := range node.Children[1:] {
		if wins(child.Outcome, node.Outcome) {
			node.Outcome, node.Err = child.Outcome, child.Err
		} else if child.Outcome == node.Outcome {
			node.Err = closest(node.Err, child.Err)
		}
	}
	return node
}

func emptyRule() *Error {
	return &Error{
		Reason:  ReasonPolicyInvalid,
		Message: "the policy requires nothing",
		Remedy:  "Write a check under require",
	}
}

// closest picks the error of the two that was met nearer to a yes; the first on a tie.
func closest(a, b *Error) *Error {
	if a == nil || b != nil && b.Reason.closeness() > a.Reason.closeness() {
		return b
	}
	return a
}

func decideCheck(c *Check, seen *observations) Node {
	node := Node{Rule: c.Scheme, Name: c.Name, Reports: seen.reports[c]}
	for _, report := range node.Reports {
		switch outcome := report.Outcome(); {
		case outcome > node.Outcome:
			node.Outcome, node.Err = outcome, report.Finding.Err
		case outcome == node.Outcome:
			node.Err = closest(node.Err, report.Finding.Err)
		}
	}
	if node.Outcome == OutcomeDenied {
		if missing := seen.missing(c); missing != nil {
			node.Outcome, node.Err = OutcomeUndecided, missing
		}
	}
	if node.Outcome >= OutcomeExempt {
		node.Err = nil
	} else if node.Err == nil {
		node.Err = nothingFound(c)
	}
	return node
}

func nothingFound(c *Check) *Error {
	if c.Kind == KindAttestation {
		return &Error{Reason: ReasonAttestationNotFound, Message: "no attestation found", Remedy: "Attest this digest"}
	}
	return &Error{Reason: ReasonSignatureNotFound, Message: "no signature found", Remedy: "Sign this digest"}
}

// decideEvery needs a candidate, and every signature of every candidate to pass.
func decideEvery(r Every, seen *observations) Node {
	node := Node{Rule: "every"}
	if r.Check == nil {
		node.Outcome, node.Err = OutcomeUndecided, emptyRule()
		return node
	}
	leaf := decideCheck(r.Check, seen)
	node.Children = []Node{leaf}
	node.Outcome, node.Err = leaf.Outcome, leaf.Err
	for _, report := range leaf.Reports {
		if o := report.Outcome(); o < node.Outcome {
			node.Outcome, node.Err = o, report.Finding.Err
		}
	}
	if missing := seen.missing(r.Check); missing != nil && node.Outcome > OutcomeUndecided {
		node.Outcome, node.Err = OutcomeUndecided, missing
	}
	return node
}

// decidePresent is all, over what is required and what is there, and denies where
// there is nothing at all. Where nobody knows whether there is something, it is
// undecided.
func decidePresent(r Present, seen *observations) Node {
	node := combine("present", slices.Concat(r.Required, r.Optional), seen, func(a, b Outcome) bool { return a < b })
	var counts []Node
	for i, child := range node.Children {
		if i < len(r.Required) || child.Outcome != OutcomeDenied || len(child.AllReports()) > 0 {
			counts = append(counts, child)
		}
	}
	if len(counts) == 0 {
		return node
	}
	node.Outcome, node.Err = counts[0].Outcome, counts[0].Err
	for _, child := range counts[1:] {
		switch {
		case child.Outcome < node.Outcome:
			node.Outcome, node.Err = child.Outcome, child.Err
		case child.Outcome == node.Outcome:
			node.Err = closest(node.Err, child.Err)
		}
	}
	return node
}

// decideAtLeast counts the parties whom a check fully trusts, see signersOf; a signer
// whom a level merely logged counts for nothing.
func decideAtLeast(r AtLeast, seen *observations) Node {
	node := Node{Rule: "atLeast", Name: fmt.Sprint(r.Count)}
	// open is why a candidate that might still prove a signer, or several, has
	// not been judged.
	var open, missing, nearest *Error
	var reports [][]Report
	for _, check := range r.Of {
		child := decideCheck(check, seen)
		node.Children = append(node.Children, child)
		reports = append(reports, child.Reports)
		nearest = closest(nearest, child.Err)
		if missing == nil {
			missing = seen.missing(check)
		}
		for _, report := range child.Reports {
			if report.Outcome() == OutcomeUndecided && open == nil {
				open = report.Finding.Err
			}
		}
	}
	signatures := signaturesOf(reports, wholeIn(r.Of, seen))
	signers := signersOf(signatures)
	switch {
	case r.Count < 1:
		node.Outcome, node.Err = OutcomeUndecided, emptyRule()
	case len(signers) >= r.Count:
		node.Outcome = OutcomeTrusted
	case missing != nil:
		node.Outcome, node.Err = OutcomeUndecided, missing
	case open != nil:
		node.Outcome, node.Err = OutcomeUndecided, open
	case len(signers) == 0 && nearest != nil:
		node.Err = nearest
	default:
		var names []string
		for _, signer := range signers {
			names = append(names, signer.Name)
		}
		node.Err = &Error{
			Reason:  ReasonThresholdNotMet,
			Message: fmt.Sprintf("%d of %d signers found: %s", len(signers), r.Count, strings.Join(names, "; ")),
			Remedy:  "Have another signer sign this digest, one whom another identity, key or trust store of the policy stands for",
		}
	}
	return node
}
