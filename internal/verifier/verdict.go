package verifier

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Verdict is a decided answer. Its fields are not exported, so that only this
// package makes one: a Chain from findings, or Refuse and Exempt, which cannot
// say TRUSTED. The zero Verdict denies.
type Verdict struct {
	status  Status
	reason  Reason
	audited Reason
	message string
	remedy  string
	subject Subject
	policy  string
	tree    Node
	end     End // of an exemption
	// validUntil is when it must be made anew; zero: it is not to be kept.
	validUntil time.Time
}

// Refuse makes a REFUSED verdict, for an image that no policy or no parser
// accepts. The image is what the asker wrote.
func Refuse(image string, cause *Error) Verdict {
	if cause.Reason != ReasonReferenceInvalid && cause.Reason != ReasonDigestRequired {
		cause = &Error{Reason: ReasonPolicyNotFound, Message: cause.Message, Remedy: cause.Remedy, Err: cause.Err}
	}
	return Verdict{
		status: StatusRefused, reason: cause.Reason, remedy: cause.Remedy, validUntil: time.Now().Add(maxFindingAge),
		message: line(image, "", cause.Message, "", cause.Remedy, Policy{}),
	}
}

// Exempt makes an EXEMPT verdict: the named policy admits the image unverified,
// for the reason that its author gave. Only configuration calls it.
func Exempt(ref Reference, policy string, reason Reason, why string) Verdict {
	if reason != ReasonSkipped {
		reason = ReasonExempted
	}
	return Verdict{
		status: StatusExempt, reason: reason, policy: policy, subject: Subject{Reference: ref, Digest: ref.Digest},
		validUntil: time.Now().Add(maxFindingAge),
		message:    line(ref.String(), ref.Digest, "not verified, as policy "+policy+" says: "+why, "", "", Policy{}),
	}
}

// whileAway says of a TRUSTED verdict that the registry could not be reached, and when
// it listed the evidence.
func (v Verdict) whileAway(cause *Error, listed time.Time) Verdict {
	v.message = line(v.subject.Reference.String(), v.subject.Digest, "trusted, signed by "+signers(v.tree)+
		"; "+cause.Message+", evidence as listed "+listed.UTC().Format("2006-01-02 15:04 MST"), "", "", Policy{})
	v.validUntil = earlier(v.validUntil, time.Now().Add(awayAnswerAge))
	return v
}

// Status of the verdict; empty for the zero Verdict.
func (v Verdict) Status() Status { return v.status }

// Reason of the verdict.
func (v Verdict) Reason() Reason { return v.reason }

// Audited is what the reason would be if the policy, or the verification level
// of its check, did not only audit; empty unless Reason is AUDIT_ONLY.
func (v Verdict) Audited() Reason { return v.audited }

// Success reports whether the image may run: TRUSTED or EXEMPT.
func (v Verdict) Success() bool { return v.status == StatusTrusted || v.status == StatusExempt }

// Message is ready to print: image, digest, cause, remedy or owner, in at most
// 240 bytes of printable text.
func (v Verdict) Message() string { return v.message }

// Remedy is the one sentence that says what to do; empty where there is none.
func (v Verdict) Remedy() string { return v.remedy }

// Policy names the policies that decided, comma-separated; empty for none.
func (v Verdict) Policy() string { return v.policy }

// Subject is what was judged; its Digest is empty where nothing was resolved.
func (v Verdict) Subject() Subject { return v.subject }

// Digest of the subject; empty where nothing was resolved.
func (v Verdict) Digest() digest.Digest { return v.subject.Digest }

// Tree is the policy's rules with what each came to; the zero Node where no
// rule was tried.
func (v Verdict) Tree() Node { return v.tree }

// ValidUntil is how long the verdict would be the same if it were made again by the
// same Snapshot, as far as anybody knows who contributed to it: until the first of
// what a tag names, a list of evidence, a certificate, a revocation answer is asked
// for anew, or an exemption ends. What is asked for anew ahead of its end shows in
// the next verdict, and none that is kept hides it. At most an hour off; zero where
// it is not to be kept.
func (v Verdict) ValidUntil() time.Time { return v.validUntil }

// Undecided is the error of Chain.Verify: we could not find out. It is never a
// verdict, and never kept as one.
type Undecided struct {
	err     *Error
	message string
	subject Subject
	policy  string
	tree    Node
}

// Reason is one of the undecided reasons.
func (u *Undecided) Reason() Reason { return u.err.Reason }

// Message is ready to print, as Verdict.Message.
func (u *Undecided) Message() string { return u.message }

// Remedy says what to do; empty where there is none.
func (u *Undecided) Remedy() string { return u.err.Remedy }

// Policy names the policies that could not decide.
func (u *Undecided) Policy() string { return u.policy }

// Subject is what would have been judged; its Digest may be empty.
func (u *Undecided) Subject() Subject { return u.subject }

// Tree is the policy's rules with what each came to so far.
func (u *Undecided) Tree() Node { return u.tree }

// Error gives reason, cause and image, for logs.
func (u *Undecided) Error() string { return u.subject.Reference.String() + ": " + u.err.Error() }

// Unwrap gives the *Error.
func (u *Undecided) Unwrap() error { return u.err }

// WithoutTree is the verdict for who keeps it and needs no more than what it came to.
func (v Verdict) WithoutTree() Verdict {
	v.tree = Node{}
	return v
}

// AllReports lists what each check made of each candidate, in the order of the
// document and of the candidates.
func (n Node) AllReports() []Report {
	reports := append([]Report(nil), n.Reports...)
	for _, child := range n.Children {
		reports = append(reports, child.AllReports()...)
	}
	return reports
}
