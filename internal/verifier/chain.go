package verifier

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/flight"
)

const (
	// decisionBudget is how long one decision may be worked on, waited for or not.
	decisionBudget = 10 * time.Second
	// slowImagePatience is how long a caller waits for an image that was not decided
	// in time before, so that its retries do not hold Gatekeeper's slots.
	slowImagePatience = 300 * time.Millisecond
)

// Chain verifies images under the policies that apply to them. Immutable but
// for the work under way; safe for concurrent use.
type Chain struct {
	policies []Policy
	names    string
	checks   []*Check
	// repositories are where each of the checks wants its evidence, see Wanted.
	repositories []Reference
	wanted       []Wanted // by repository
	wantedKey    string
	places       []place
	exhaustive   bool
	store        Store
	memory       *Memory
	exemptions   []Exemption
	broken       *Error
	decisions    flight.Group[decision]
}

// decision is a verdict or why there is none.
type decision struct {
	verdict   Verdict
	undecided *Undecided
	// away is why a policy that admits the image could not be decided, or nil.
	away *Error
}

// NewChain makes the chain of the policies that must all hold, unless one of
// the exemptions names the image's digest. The store is the view of the
// registries that the first policy asked for.
func NewChain(policies []Policy, store Store, memory *Memory, exemptions ...Exemption) *Chain {
	c := &Chain{policies: policies, names: names(policies), store: store, memory: memory, exemptions: exemptions}
	var all []Wanted
	for _, policy := range policies {
		c.exhaustive = c.exhaustive || exhaustive(policy.Require)
		for _, check := range checks(policy.Require) {
			wants := check.Verifier.Wants()
			c.checks, c.repositories, all = append(c.checks, check), append(c.repositories, wants.Repository), append(all, wants)
		}
	}
	c.wanted = merge(all)
	c.wantedKey, c.places = wantedKey(c.wanted), places(c.wanted)
	return c
}

// NewBrokenChain answers every image with undecided: a policy that cannot be
// used still owns its images, so that no weaker policy takes its place.
func NewBrokenChain(policies []Policy, cause *Error) *Chain {
	return &Chain{policies: policies, names: names(policies), broken: cause}
}

func names(policies []Policy) string {
	list := make([]string, len(policies))
	for i, policy := range policies {
		list[i] = policy.Name
	}
	return strings.Join(list, ", ")
}

// Policies names the policies that must hold, comma-separated.
func (c *Chain) Policies() string { return c.names }

// Verify judges the requested image. An error means undecided and is an *Undecided
// that wraps an *Error. When ctx ends first the work goes on, within its own budget,
// and the next call finds it or its results; where the cause of ctx's end is an
// *Error, that is why the image is undecided.
func (c *Chain) Verify(ctx context.Context, request Request) (Verdict, error) {
	ref := request.Image
	if c.broken != nil {
		return Verdict{}, c.undecided(Subject{Reference: ref, Digest: ref.Digest}, c.broken, Node{})
	}
	last, slow := c.memory.slow.Get(c.slowKey(ref))
	if slow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, slowImagePatience)
		defer cancel()
	}
	key := ref.String()
	if IsAfresh(ctx) {
		key = "afresh " + key // who joined another's would see what that remembers
	}
	d, err := c.decisions.Do(ctx, key, decisionBudget, func(ctx context.Context) (decision, error) {
		return c.work(ctx, request), nil
	})
	if err != nil {
		d = c.unseen(ref, c.interrupted(ref, err, last))
	}
	if d.undecided != nil {
		return Verdict{}, d.undecided
	}
	return d.verdict, nil
}

// slowKey names an image and the way in which this chain reads registries: what
// another policy's registry options or credential met says nothing about it.
func (c *Chain) slowKey(ref Reference) string { return c.store.ID() + " " + ref.String() }

// Examine judges the image as Verify does, but looks at every candidate even
// when the first is enough: for people who want to see all that is there.
func (c *Chain) Examine(ctx context.Context, request Request) (Verdict, error) {
	if c.broken != nil {
		return c.Verify(ctx, request)
	}
	d := c.decide(ctx, request.Image, true)
	if d.undecided != nil {
		return Verdict{}, d.undecided
	}
	return d.verdict, nil
}

// Contents reads what an image is made of, which has a digest. The error is an
// *Undecided.
func (c *Chain) Contents(ctx context.Context, ref Reference) (Contents, error) {
	subject, err := c.Resolve(ctx, ref)
	if err != nil {
		return Contents{}, err
	}
	contents, err := c.store.Contents(ctx, subject)
	if err != nil {
		return Contents{}, c.undecided(subject, AsError(err), Node{})
	}
	return contents, nil
}

// Discover gives all that is attached to the image, of whatever type, unread
// and unproved, as Store.Candidates does. The error is an *Undecided.
func (c *Chain) Discover(ctx context.Context, ref Reference) (Subject, iter.Seq2[Candidate, error], error) {
	subject, err := c.Resolve(ctx, ref)
	if err != nil {
		return Subject{}, nil, err
	}
	return subject, func(yield func(Candidate, error) bool) {
		seen := map[digest.Digest]bool{}
		for _, w := range c.everything() {
			for candidate, err := range c.store.Candidates(ctx, subject.at(w.Repository), w).All {
				if d := candidate.Descriptor.Digest; w.Leftovers && seen[d] {
					continue
				}
				seen[candidate.Descriptor.Digest] = true
				candidate.Repository = w.Repository
				if !yield(candidate, err) {
					return
				}
			}
		}
		if len(seen) > 0 {
			return
		}
		if err := c.store.Exists(ctx, subject); err != nil {
			yield(Candidate{}, err)
		}
	}, nil
}

// Attached gives what of one artifact type is attached to an image that has a digest,
// unread and unproved, as Store.Candidates does.
func (c *Chain) Attached(ctx context.Context, ref Reference, artifactType string) iter.Seq2[Candidate, error] {
	return c.store.Candidates(ctx, Subject{Reference: ref, Digest: ref.Digest}, Wanted{ArtifactTypes: []string{artifactType}}).All
}

// everything is whatever is attached, wherever the chain looks.
func (c *Chain) everything() []Wanted {
	var all []Wanted
	for _, w := range c.wanted {
		anyType := []string{AnyArtifactType}
		all = append(all,
			Wanted{Repository: w.Repository, ArtifactTypes: anyType, TagSuffixes: w.TagSuffixes},
			Wanted{Repository: w.Repository, ArtifactTypes: anyType, Leftovers: true})
	}
	return all
}

// interrupted explains why no decision was there in time. Last is why this image had
// none before, or nil.
func (c *Chain) interrupted(ref Reference, err error, last *Error) *Error {
	var (
		panicked *flight.PanicError
		stopped  *Error
	)
	switch {
	case errors.As(err, &panicked):
		return &Error{Reason: ReasonInternal, Message: "verification crashed", Remedy: "Report this with the trace id", Err: err}
	case errors.As(err, &stopped):
		return stopped
	case last != nil:
		return &Error{Reason: ReasonTimeout, Message: last.Message + "; still trying", Remedy: last.Remedy, Err: err}
	}
	late := &Error{
		Reason:  ReasonTimeout,
		Message: "no decision within the deadline; verification goes on",
		Remedy:  "Try again in a few seconds",
		Err:     err,
	}
	if errors.Is(err, context.DeadlineExceeded) {
		c.memory.slow.Put(c.slowKey(ref), late, 0, time.Now().Add(slowImageAge))
	}
	return late
}

// work makes one decision, and notes whether the image can be decided in time.
func (c *Chain) work(ctx context.Context, request Request) decision {
	ref := request.Image
	// What is proved costs no request, and waits for no place among those that do.
	if ref.Digest != "" && !c.exhaustive && !IsAfresh(ctx) && len(c.exemptions) == 0 {
		if d, ok := c.recall(ctx, Subject{Reference: ref, Digest: ref.Digest}, false); ok {
			return d
		}
	}
	leave, refused := c.memory.shares.enter(ctx, ref.Registry, request.Namespace)
	if refused != nil {
		return c.unseen(ref, refused)
	}
	defer leave()
	d := c.decide(ctx, ref, c.exhaustive)
	cause := d.away
	if d.undecided != nil {
		cause = d.undecided.err
	}
	if cause != nil {
		switch cause.Reason {
		case ReasonRegistryUnreachable, ReasonRegistryThrottled, ReasonTimeout:
			c.memory.slow.Put(c.slowKey(ref), cause, 0, time.Now().Add(slowImageAge))
			return d
		}
	}
	c.memory.slow.Delete(c.slowKey(ref))
	return d
}

func (c *Chain) decide(ctx context.Context, ref Reference, exhaustive bool) decision {
	subject, err := c.store.Resolve(ctx, ref)
	if err != nil {
		return c.unseen(ref, undecidedError(err))
	}
	for _, e := range c.exemptions {
		if verdict, ok := e.admit(subject); ok {
			verdict.validUntil = earlier(verdict.validUntil, tagged(subject))
			return decision{verdict: verdict}
		}
	}
	if !exhaustive && !IsAfresh(ctx) {
		if d, ok := c.recall(ctx, subject, true); ok {
			return d
		}
	}
	return c.listed(ctx, subject, exhaustive)
}

// unseen concludes for an image of which nothing could be seen.
func (c *Chain) unseen(ref Reference, cause *Error) decision {
	return c.conclude(Subject{Reference: ref, Digest: ref.Digest}, &observations{list: cause})
}

// undecidedError takes the store's word for what went wrong, but not that it
// is a verdict: a registry's trouble never is.
func undecidedError(err error) *Error {
	e := AsError(err)
	if !e.Reason.Undecided() {
		return &Error{Reason: ReasonRegistryInvalid, Message: e.Message, Remedy: e.Remedy, Err: err}
	}
	return e
}

// Resolve pins the image as Verify would, without judging it: for mutation.
// The error is an *Undecided.
func (c *Chain) Resolve(ctx context.Context, ref Reference) (Subject, error) {
	if c.broken != nil {
		return Subject{}, c.undecided(Subject{Reference: ref, Digest: ref.Digest}, c.broken, Node{})
	}
	subject, err := c.store.Resolve(ctx, ref)
	if err == nil {
		return subject, nil
	}
	cause := undecidedError(err)
	return Subject{}, c.undecided(Subject{Reference: ref, Digest: ref.Digest}, cause, Node{})
}

// tagged is how long the subject is what its reference names; zero: nobody knows.
func tagged(s Subject) time.Time {
	if s.Reference.Digest != "" {
		return time.Now().Add(maxFindingAge)
	}
	return s.Until
}

// earlier is the first of two ends, of which zero has come already.
func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
