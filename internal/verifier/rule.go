package verifier

import (
	"slices"
	"strconv"
	"strings"
)

// Rule is a node of a policy's require tree: All, Any, AtLeast, Every, Present or
// a *Check. An empty tree and a nil Rule are undecided, which denies.
type Rule interface {
	// describe names the checks as a sentence has them: "wabbit or ci".
	describe() string
}

// Check is a leaf: one verifier with its trust material, under the name that
// people read in denials. Immutable.
type Check struct {
	Name string
	// Scheme is the verifier's name in configuration: "notation", "cosign".
	Scheme string
	// Kind is what the evidence must be.
	Kind     Kind
	Verifier Verifier
	// Fingerprint changes whenever the check could judge differently: with its
	// options and with every byte of its trust material. Findings are kept by it.
	Fingerprint string
}

// All holds when each of its rules holds.
type All []Rule

// Any holds when one of its rules holds.
type Any []Rule

// AtLeast holds when Count distinct parties of the checks can be matched to as many
// distinct signers, see Claims.Parties: a party counts once whatever it signs with, and
// a key once whatever it meets. It takes checks, not trees: a party is an entry of one.
type AtLeast struct {
	Count int
	Of    []*Check
}

// Every holds when there is a candidate of the check's scheme and each signature in
// each of them passes.
type Every struct{ Check *Check }

// Present holds when all that is required holds, and each optional part for which
// something is there; there must be something for one of them. It is how Ratify
// decides.
type Present struct{ Required, Optional []Rule }

func (p Present) describe() string {
	if len(p.Optional) == 0 {
		return join(p.Required, "and")
	}
	optional := join(p.Optional, "and") + ", each where it is there"
	if len(p.Required) == 0 {
		return optional
	}
	return join(p.Required, "and") + "; " + optional
}

func (c *Check) describe() string { return c.Name }
func (a All) describe() string    { return join(a, "and") }
func (a Any) describe() string    { return join(a, "or") }
func (e Every) describe() string  { return "every signature by " + e.Check.Name }

func (a AtLeast) describe() string {
	names := make([]string, len(a.Of))
	for i, check := range a.Of {
		names[i] = check.Name
	}
	return strconv.Itoa(a.Count) + " of " + strings.Join(names, ", ")
}

// join says "a, b or c", and puts what is itself composed into brackets.
func join(rules []Rule, word string) string {
	parts := make([]string, len(rules))
	for i, rule := range rules {
		parts[i] = rule.describe()
		if _, leaf := rule.(*Check); !leaf && len(rules) > 1 {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	last := len(parts) - 1
	if last < 1 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:last], ", ") + " " + word + " " + parts[last]
}

// checks lists the leaves in the order of the document, each once.
func checks(rule Rule) []*Check {
	var list []*Check
	seen := map[*Check]bool{}
	var walk func(Rule)
	add := func(c *Check) {
		if c != nil && !seen[c] {
			seen[c] = true
			list = append(list, c)
		}
	}
	walk = func(rule Rule) {
		switch r := rule.(type) {
		case *Check:
			add(r)
		case All:
			for _, child := range r {
				walk(child)
			}
		case Any:
			for _, child := range r {
				walk(child)
			}
		case Present:
			for _, child := range slices.Concat(r.Required, r.Optional) {
				walk(child)
			}
		case AtLeast:
			for _, c := range r.Of {
				add(c)
			}
		case Every:
			add(r.Check)
		}
	}
	walk(rule)
	return list
}

// exhaustive reports whether the rule must see every candidate, so that proof
// for one part does not end the search.
func exhaustive(rule Rule) bool {
	switch r := rule.(type) {
	case Every, Present:
		return true
	case All:
		for _, child := range r {
			if exhaustive(child) {
				return true
			}
		}
	case Any:
		for _, child := range r {
			if exhaustive(child) {
				return true
			}
		}
	}
	return false
}

// Policy is a compiled trust policy: what must hold, and whom to ask.
type Policy struct {
	// Name as in the document; a namespaced policy is "namespace/name".
	Name string
	// Owner and HelpURL are shown in denials.
	Owner, HelpURL string
	Require        Rule
	// AuditOnly answers EXEMPT where the policy does not hold or cannot be
	// decided (mode: audit).
	AuditOnly bool
	// AllowAway answers EXEMPT while the registry cannot be connected to
	// (whenUndecided: allow, REGISTRY_AWAY). No other undecided passes.
	AllowAway bool
}
