package verifier

import (
	"strings"
)

// conclude turns what was seen into the answer, once, for all policies.
func (c *Chain) conclude(subject Subject, seen *observations) decision {
	root := Node{Rule: "all", Outcome: OutcomeTrusted}
	decisive := 0 // the policy that the answer is about
	for i, policy := range c.policies {
		node := c.judgePolicy(policy, subject, seen)
		if node.Outcome < root.Outcome {
			root.Outcome, root.Err, decisive = node.Outcome, node.Err, i
		}
		root.Children = append(root.Children, node)
	}
	if len(c.policies) == 0 {
		return decision{undecided: c.undecided(subject, emptyRule(), root)}
	}
	policy := c.policies[decisive]
	if root.Outcome == OutcomeUndecided {
		return decision{undecided: c.undecidedBy(policy, subject, root.Err, root)}
	}
	v := Verdict{subject: subject, policy: c.names, tree: root}
	switch root.Outcome {
	case OutcomeTrusted:
		v.status, v.reason = StatusTrusted, ReasonTrusted
		v.message = line(subject.Reference.String(), subject.Digest, "trusted, signed by "+signers(root), "", "", Policy{})
	case OutcomeExempt:
		v.status = StatusExempt
		v.reason, v.audited, v.message = exempt(policy, subject, root)
	default:
		v.status, v.reason, v.remedy = deniedStatus(root), root.Err.Reason, root.Err.Remedy
		v.message = line(subject.Reference.String(), subject.Digest, root.Err.Message, wants(policy), root.Err.Remedy, policy)
	}
	return decision{verdict: v, away: away(root)}
}

// away is why a policy that nevertheless admits the image could not be decided,
// or nil.
func away(root Node) *Error {
	for _, policy := range root.Children {
		for _, tree := range policy.Children {
			if tree.Outcome == OutcomeUndecided {
				return tree.Err
			}
		}
	}
	return nil
}

// judgePolicy decides one policy's tree, and lets pass what its author allowed
// to pass while the registry is away.
func (c *Chain) judgePolicy(policy Policy, subject Subject, seen *observations) Node {
	tree := decide(policy.Require, seen)
	node := Node{Rule: "policy", Name: policy.Name, Outcome: tree.Outcome, Err: tree.Err, Children: []Node{tree}}
	switch {
	case policy.AuditOnly && tree.Outcome < OutcomeExempt:
		node.Outcome = OutcomeExempt
	case policy.AllowAway && tree.Outcome == OutcomeUndecided && onlyAway(tree) && c.store.Away(subject.Reference.Registry) != nil:
		node.Outcome = OutcomeExempt
	}
	return node
}

// onlyAway reports whether nothing but the registry's absence keeps the tree from
// being decided.
func onlyAway(n Node) bool {
	if n.Outcome == OutcomeUndecided && n.Err.Reason != ReasonRegistryAway {
		return false
	}
	for _, child := range n.Children {
		if !onlyAway(child) {
			return false
		}
	}
	for _, report := range n.Reports {
		if report.Outcome() == OutcomeUndecided && report.Finding.Err.Reason != ReasonRegistryAway {
			return false
		}
	}
	return true
}

// exempt words the answer for an image that is admitted without being trusted.
// Audited is what would have been the reason, where the answer is AUDIT_ONLY.
func exempt(policy Policy, subject Subject, root Node) (reason, audited Reason, message string) {
	image := subject.Reference.String()
	switch {
	case root.Err != nil && policy.AuditOnly:
		return ReasonAuditOnly, root.Err.Reason, line(image, subject.Digest, "only audited: "+root.Err.Message, wants(policy), root.Err.Remedy, policy)
	case root.Err != nil: // allowed while unreachable
		return ReasonExempted, "", line(image, subject.Digest,
			"not verified: "+root.Err.Message+"; policy "+policy.Name+" admits it meanwhile", "", "", Policy{})
	}
	cause := "only audited"
	if failed := Logged(root); len(failed) > 0 {
		audited, cause = failed[0].Reason, cause+": "+failed[0].Message
	}
	return ReasonAuditOnly, audited, line(image, subject.Digest, cause, "", "", policy)
}

// Logged lists the failed validations that a verification level let through.
func Logged(n Node) []*Error {
	var failed []*Error
	for _, report := range n.AllReports() {
		if report.Outcome() == OutcomeExempt {
			failed = append(failed, report.Finding.Claims.Logged...)
		}
	}
	return failed
}

// deniedStatus tells "nothing is there" from "what is there is not trusted".
func deniedStatus(root Node) Status {
	switch {
	case root.Err.Reason == ReasonEndOfLife || root.Err.Reason == ReasonLedgerUnsupported:
		return StatusUnsupported
	case len(root.AllReports()) == 0:
		return StatusUnknown
	default:
		return StatusUntrusted
	}
}

// signers names who made the evidence that was enough.
func signers(root Node) string {
	var list []string
	seen := map[string]bool{}
	for _, report := range root.AllReports() {
		signer := report.Finding.Claims.Signer
		if report.Outcome() == OutcomeTrusted && !seen[signer.ID] && !seen[signer.Name] {
			seen[signer.ID], seen[signer.Name] = true, true
			list = append(list, signer.Name)
		}
	}
	return strings.Join(list, "; ")
}

func wants(policy Policy) string {
	if policy.Require == nil {
		return ""
	}
	return "policy " + policy.Name + " wants " + policy.Require.describe()
}

func (c *Chain) undecided(subject Subject, cause *Error, tree Node) *Undecided {
	var policy Policy
	if len(c.policies) > 0 {
		policy = c.policies[0]
	}
	return c.undecidedBy(policy, subject, cause, tree)
}

func (c *Chain) undecidedBy(policy Policy, subject Subject, cause *Error, tree Node) *Undecided {
	return &Undecided{
		err: cause, subject: subject, policy: c.names, tree: tree,
		message: line(subject.Reference.String(), subject.Digest, cause.Message, "", cause.Remedy, policy),
	}
}
