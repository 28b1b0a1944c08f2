package verifier

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// waveSize is how many candidates are verified at once. A wave is judged as
	// a whole and in candidate order, so that equal evidence gives equal answers.
	waveSize = 8
	// maxCandidates is how many candidates one check tries: far above what
	// people attach, and what a stranger's flood can make us do.
	maxCandidates = 64
	// maxDecisionBytes bounds the blobs read for one decision.
	maxDecisionBytes = 32 << 20
)

// task is one candidate for one check.
type task struct {
	check     *Check
	candidate Candidate
	unread    *Error // why the candidate could not be read, or nil
}

// search is one look at a subject.
type search struct {
	subject    Subject
	exhaustive bool
	seen       *observations
	tried      map[*Check]int
	spent      atomic.Int64 // bytes, see boundedFetch
	// found tells in which place a candidate was seen first.
	found map[digest.Digest]place
}

// look verifies candidates until they end or, unless all must be seen, until
// what was proved is enough.
func (c *Chain) look(ctx context.Context, subject Subject, exhaustive bool) *observations {
	s := &search{
		subject: subject, exhaustive: exhaustive,
		seen: &observations{
			reports: map[*Check][]Report{}, capped: map[*Check]*Error{}, until: time.Now().Add(maxFindingAge),
		},
		tried: map[*Check]int{}, found: map[digest.Digest]place{},
	}
	stages := c.stages(subject, exhaustive)
	exists := func() error { return c.store.Exists(ctx, subject) }
	for i, stage := range stages {
		// Of leftovers there are none where the registry lists anything.
		stage = where(stage, func(p place) bool { return !p.leftovers || !s.hasReferrers(p.repository) })
		if i > 0 && i == len(stages)-1 && s.nothing() {
			exists = ahead(exists) // most likely nothing is there, and this is asked next
		}
		for _, w := range ask(c.wanted, stage) {
			if c.lookAt(ctx, s, w) {
				c.memory.foundAt(subject, c.wantedKey, s.proofs())
				return s.seen
			}
		}
	}
	if s.nothing() {
		if err := exists(); err != nil {
			s.seen.list = undecidedError(err)
		}
	}
	s.sort(c.places)
	return s.seen
}

// lookAt verifies wave by wave what is there of the wanted, and reports whether
// it was enough.
func (c *Chain) lookAt(ctx context.Context, s *search, wanted Wanted) (enough bool) {
	at := s.subject.at(wanted.Repository)
	listing := c.store.Candidates(ctx, at, wanted)
	next, stop := iter.Pull2(listing.All)
	defer func() {
		stop()
		s.seen.hold(listing.until())
	}()
	fetch := c.boundedFetch(at, &s.spent)
	for more := true; more; {
		var tasks []task
		tasks, more = c.wave(next, s, wanted)
		for i, made := range c.verify(ctx, s.subject, tasks, fetch) {
			check := tasks[i].check
			s.seen.hold(made.renewAt)
			for _, finding := range made.findings {
				s.seen.reports[check] = append(s.seen.reports[check], Report{
					Check: check.Name, Scheme: check.Scheme, Candidate: tasks[i].candidate, Finding: finding,
				})
			}
		}
		if !s.exhaustive && c.proved(s.seen) {
			return true
		}
	}
	return false
}

// ahead begins work whose result may be wanted.
func ahead(work func() error) func() error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	return func() error { return <-done }
}

func (s *search) nothing() bool { return len(s.found) == 0 && s.seen.list == nil }

func (s *search) hasReferrers(repository Reference) bool {
	for _, p := range s.found {
		if p == (place{repository: repository}) {
			return true
		}
	}
	return false
}

// proofs are the places from which proof came.
func (s *search) proofs() []place {
	var places []place
	for _, reports := range s.seen.reports {
		for _, report := range reports {
			if p := s.found[report.Candidate.Descriptor.Digest]; report.Finding.Err == nil && !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	return places
}

// sort gives reports the places' order, in whatever order those were asked.
func (s *search) sort(places []place) {
	for _, reports := range s.seen.reports {
		slices.SortStableFunc(reports, func(a, b Report) int {
			return cmp.Compare(
				slices.Index(places, s.found[a.Candidate.Descriptor.Digest]),
				slices.Index(places, s.found[b.Candidate.Descriptor.Digest]))
		})
	}
}

func (c *Chain) proved(seen *observations) bool {
	for _, policy := range c.policies {
		if decide(policy.Require, seen).Outcome != OutcomeTrusted {
			return false
		}
	}
	return true
}

// wave takes the next candidates from the stream and says who shall judge
// them, and whether there may be more.
func (c *Chain) wave(next func() (Candidate, error, bool), s *search, wanted Wanted) (tasks []task, more bool) {
	for range waveSize {
		candidate, err, ok := next()
		if !ok {
			return tasks, false
		}
		if err != nil && candidate.Descriptor.Digest == "" {
			s.seen.list = undecidedError(err)
			continue
		}
		candidate.Repository = wanted.Repository
		s.note(candidate, wanted.Leftovers)
		var unread *Error
		if err != nil {
			unread = AsError(err)
		}
		for i, check := range c.checks {
			// Of what cannot be read nobody knows whose it is.
			if c.repositories[i] != wanted.Repository || !check.Verifier.Handles(candidate) && (unread == nil || candidate.ArtifactType != "") {
				continue
			}
			if s.tried[check]++; s.tried[check] > maxCandidates {
				s.seen.capped[check] = tooMany(check)
				continue
			}
			tasks = append(tasks, task{check, candidate, unread})
		}
		if len(s.seen.capped) == len(c.checks) {
			return tasks, false
		}
	}
	return tasks, true
}

// note keeps where a candidate was seen first.
func (s *search) note(candidate Candidate, leftovers bool) {
	d := candidate.Descriptor.Digest
	if _, known := s.found[d]; !known {
		s.found[d] = place{repository: candidate.Repository, suffix: candidate.TagSuffix, leftovers: leftovers}
	}
}

func tooMany(check *Check) *Error {
	return &Error{
		Reason:  ReasonLimitExceeded,
		Message: fmt.Sprintf("none of the first %d candidates for %s is trusted, and there are more", maxCandidates, check.Name),
		Remedy:  "Delete signatures that nobody needs from the repository",
	}
}

// boundedFetch shares one byte budget between all fetches of a decision. It
// charges what the descriptor claims; the store holds the bytes to that.
func (c *Chain) boundedFetch(subject Subject, spent *atomic.Int64) func(context.Context, ocispec.Descriptor) ([]byte, error) {
	return func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Size < 0 || d.Size > maxDecisionBytes || spent.Add(d.Size) > maxDecisionBytes {
			return nil, &Error{
				Reason:  ReasonLimitExceeded,
				Message: fmt.Sprintf("the evidence is larger than %d MiB", maxDecisionBytes>>20),
				Remedy:  "Delete signatures that nobody needs from the repository",
			}
		}
		return c.store.Fetch(ctx, subject, d)
	}
}

// verify judges the tasks at once and gives what was found in the tasks' order.
func (c *Chain) verify(ctx context.Context, subject Subject, tasks []task, fetch func(context.Context, ocispec.Descriptor) ([]byte, error)) []findings {
	made := make([]findings, len(tasks))
	var wg sync.WaitGroup
	for i, t := range tasks {
		if t.unread != nil {
			made[i].findings = []Finding{{Err: t.unread}}
			if !t.unread.Reason.Undecided() { // that is so as long as the list is
				made[i].renewAt = time.Now().Add(maxFindingAge)
			}
			continue
		}
		if known, ok := c.memory.recall(t.check, subject, t.candidate.Descriptor.Digest); ok && !IsAfresh(ctx) {
			made[i] = known
			if time.Now().After(known.renewAt) {
				c.renew(ctx, subject, t)
			}
			continue
		}
		wg.Go(func() {
			found := judge(ctx, t.check, Evidence{Subject: subject, Candidate: t.candidate, Fetch: fetch})
			made[i] = c.memory.keep(t.check, subject, t.candidate.Descriptor.Digest, found)
		})
	}
	wg.Wait()
	return made
}

// renew makes findings anew ahead of their end, once for all and behind those who
// go on with the old ones. What comes out undecided takes nobody's place.
func (c *Chain) renew(ctx context.Context, subject Subject, t task) {
	nobodyWaits, done := context.WithCancel(ctx)
	done()
	key := findingKey(t.check, subject, t.candidate.Descriptor.Digest)
	_, _ = c.memory.renewals.Do(nobodyWaits, key, decisionBudget, func(ctx context.Context) (struct{}, error) {
		fetch := c.boundedFetch(subject.at(t.candidate.Repository), new(atomic.Int64))
		found := judge(ctx, t.check, Evidence{Subject: subject, Candidate: t.candidate, Fetch: fetch})
		c.memory.keep(t.check, subject, t.candidate.Descriptor.Digest, found)
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
