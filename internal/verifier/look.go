package verifier

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxDecisionBytes bounds the manifests and blobs of one decision.
const maxDecisionBytes = 32 << 20

// task is one candidate for one check.
type task struct {
	check     *Check
	candidate Candidate
	unread    *Error // why the candidate could not be read, or nil
}

// ahead begins work whose result may be wanted.
func ahead(work func() error) func() error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	return func() error { return <-done }
}

func (c *Chain) proved(seen *observations) bool {
	for _, policy := range c.policies {
		if decide(policy.Require, seen).Outcome != OutcomeTrusted {
			return false
		}
	}
	return true
}

func tooMany(check *Check) *Error {
	return &Error{
		Reason:  ReasonLimitExceeded,
		Message: fmt.Sprintf("none of the first %d candidates for %s is trusted, and there are more", maxCandidates, check.Name),
		Remedy:  "Delete signatures that nobody needs from the repository",
	}
}

// fetchFunc reads content, as Evidence.Fetch says.
type fetchFunc func(context.Context, ocispec.Descriptor) ([]byte, error)

// boundedFetch shares one byte budget between all fetches of a decision. It
// charges what the descriptor claims; the store holds the bytes to that.
func (c *Chain) boundedFetch(subject Subject, spent *atomic.Int64) fetchFunc {
	return func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Size < 0 || d.Size > maxDecisionBytes || spent.Add(d.Size) > maxDecisionBytes {
			return nil, tooLarge()
		}
		return c.store.Fetch(ctx, subject, d)
	}
}

func tooLarge() *Error {
	return &Error{
		Reason:  ReasonLimitExceeded,
		Message: fmt.Sprintf("the evidence is larger than %d MiB", maxDecisionBytes>>20),
		Remedy:  "Delete signatures that nobody needs from the repository",
	}
}

// known gives what is known of a task without any I/O: why its candidate could not be
// read, or what was found before and holds, which is renewed ahead of its end.
func (c *Chain) known(ctx context.Context, subject Subject, t task) (findings, bool) {
	if t.unread != nil {
		made := findings{findings: []Finding{{Err: t.unread}}}
		if !t.unread.Reason.Undecided() { // that is so as long as the list is
			made.renewAt = time.Now().Add(maxFindingAge)
		}
		return made, true
	}
	if IsAfresh(ctx) {
		return findings{}, false
	}
	made, ok := c.memory.recall(t.check, subject, t.candidate.Descriptor.Digest)
	if ok && time.Now().After(made.renewAt) {
		c.renew(ctx, subject, t)
	}
	return made, ok
}

// judge has the scheme verify the task's candidate, and remembers what it found.
func (c *Chain) judge(ctx context.Context, subject Subject, t task, fetch fetchFunc) findings {
	found := judge(ctx, t.check, Evidence{Subject: subject, Candidate: t.candidate, Fetch: fetch})
	return c.memory.keep(t.check, subject, t.candidate.Descriptor.Digest, found)
}

// renew makes findings anew ahead of their end, once for all and behind those who
// go on with the old ones. What comes out undecided takes nobody's place.
func (c *Chain) renew(ctx context.Context, subject Subject, t task) {
	nobodyWaits, done := context.WithCancel(ctx)
	done()
	key := findingKey(t.check, subject, t.candidate.Descriptor.Digest)
	_, _ = c.memory.renewals.Do(nobodyWaits, key, decisionBudget, func(ctx context.Context) (struct{}, error) {
		fetch := c.boundedFetch(subject.at(t.candidate.Repository), new(atomic.Int64))
		c.judge(ctx, subject, t, fetch)
		return struct{}{}, nil
	})
}

// judge asks the scheme, and holds what it says to the contract: the proof is
// about our subject, of the kind that is wanted, and names its signer.
func judge(ctx context.Context, check *Check, evidence Evidence) (findings []Finding) {
	defer func() {
		if p := recover(); p != nil {
			findings = []Finding{{Err: &Error{
				Reason: ReasonInternal, Message: "verification of a signature crashed", Remedy: "Report this with the trace id",
				Err: fmt.Errorf("check %s, candidate %s: panic: %v", check.Name, evidence.Candidate.Descriptor.Digest, p),
			}}}
		}
	}()
	ctx, done := WithHold(ctx, needs(evidence.Candidate))
	defer done()
	findings = check.Verifier.Verify(ctx, evidence)
	if len(findings) == 0 {
		return []Finding{{Err: &Error{Reason: ReasonFormatUnsupported, Message: "the signature proves nothing"}}}
	}
	for i := range findings {
		if f := &findings[i]; f.Err == nil {
			f.Err = breach(check, evidence.Subject, f.Claims)
		}
	}
	return findings
}

// breach says how proven claims fail to be what the check wants, or nil.
func breach(check *Check, subject Subject, claims Claims) *Error {
	switch {
	case claims.SubjectDigest != subject.Digest || subject.Digest == "":
		return &Error{
			Reason:  ReasonSubjectMismatch,
			Message: "the signature is another image's",
			Remedy:  "Sign this digest",
		}
	case claims.Kind != check.Kind || claims.Kind == "":
		return &Error{
			Reason:  ReasonFormatUnsupported,
			Message: fmt.Sprintf("found a %s where a %s is wanted", claims.Kind, check.Kind),
			Remedy:  "Sign this digest",
		}
	case claims.Signer.ID == "":
		return &Error{Reason: ReasonInternal, Message: "the signature names no signer"}
	}
	return nil
}
