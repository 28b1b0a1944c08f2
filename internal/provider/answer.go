package provider

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// answer is what became of one key.
type answer struct {
	key string
	*reply
	took  time.Duration
	fresh bool // no repeat of what was logged a short while ago
}

// reply is what a key is answered: a verdict, a pinned image, or why neither. One
// that is remembered is shared: not to be changed.
type reply struct {
	// image is what was asked about, in its canonical spelling where it has one.
	image string
	// request is what the key asked; zero where it could not be read.
	request verifier.Request
	// verdict of a key on verify; zero on mutate.
	verdict verifier.Verdict
	// value of a key on mutate.
	value string
	// undecided says why there is neither; then policy says whose images these are.
	undecided *verifier.Error
	policy    string
	// written is the value with a gap for what differs each time, and signers are
	// its signers, of one that is remembered.
	written, signers string
}

const (
	statusUndecided = "UNDECIDED"
	statusPinned    = "PINNED"
	statusUnchanged = "UNCHANGED"
	reasonNone      = "NONE"
)

// outcome names the answer for metrics and logs.
func (a *answer) outcome() (status, reason string) {
	switch {
	case a.undecided != nil:
		return statusUndecided, string(a.undecided.Reason)
	case a.value == "":
		return string(a.verdict.Status()), string(a.verdict.Reason())
	case a.value == a.key:
		return statusUnchanged, reasonNone
	default:
		return statusPinned, reasonNone
	}
}

// tell says in the key's span what became of it.
func (a *answer) tell(span telemetry.Span) {
	if span == (telemetry.Span{}) {
		return
	}
	status, reason := a.outcome()
	span.Set("countersign.image", a.image)
	span.Set("countersign.status", status)
	span.Set("countersign.reason", reason)
	if a.undecided != nil {
		span.Fail(a.undecided.Message)
	}
	span.End()
}

// verify judges one key.
func (s *Server) verify(ctx context.Context, key string) answer {
	request, err := s.requests.parse(key)
	if err != nil {
		_, image, _ := splitKey(key)
		image = elide(image, verifier.MaxReferenceLength)
		return answer{key: key, reply: &reply{image: image, verdict: verifier.Refuse(image, verifier.AsError(err))}}
	}
	a := answer{key: key, reply: &reply{image: request.Image.String(), request: request}}
	chain, verdict := s.options.Select(request)
	if chain != nil {
		a.policy = chain.Policies()
		if verdict, err = chain.Verify(ctx, request); err != nil {
			a.undecided = verifier.AsError(err)
			return a
		}
	}
	a.verdict = verdict
	if d := verdict.Digest(); d != "" && s.options.Answered != nil {
		s.options.Answered(d)
	}
	if verdict.Status() == "" {
		a.undecided = &verifier.Error{Reason: verifier.ReasonInternal, Message: "there is no verdict", Remedy: "Report this with the trace id"}
	}
	return a
}

// mutate pins one key to the digest that its tag names now. What no policy
// verifies it leaves alone, and what it cannot read: the runtime will say so.
// A key with brackets is left alone too. Gatekeeper sends the image as it is
// written in the pod, so the brackets would be the pod author's, who must not
// look into another namespace's registries by writing its name.
func (s *Server) mutate(ctx context.Context, key string) answer {
	unchanged := answer{key: key, reply: &reply{value: key}}
	request, err := s.requests.parse(key)
	if err != nil || request.Namespace != "" || request.Image.Digest != "" {
		return unchanged
	}
	chain, _ := s.options.Select(request)
	if chain == nil {
		return unchanged
	}
	a := answer{key: key, reply: &reply{image: request.Image.String(), policy: chain.Policies()}}
	subject, err := chain.Resolve(ctx, request.Image)
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errQueue):
		a.undecided = errQueue
	case err != nil && ctx.Err() != nil:
		a.undecided = late(err)
	case err != nil:
		a.undecided = verifier.AsError(err)
	case subject.Digest == "":
		a.undecided = &verifier.Error{Reason: verifier.ReasonInternal, Message: "there is no digest", Remedy: "Report this with the trace id"}
	default:
		a.value = subject.Pinned()
	}
	return a
}

func late(cause error) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonTimeout, Message: "no answer within the deadline", Remedy: "Try again in a few seconds", Err: cause,
	}
}

// notReached is why a key was not tried before the context ended.
func notReached(ctx context.Context) *verifier.Error {
	if cause := context.Cause(ctx); errors.Is(cause, errQueue) {
		return errQueue
	}
	return late(errNotReached)
}

var errNotReached = errors.New("the deadline came before its turn")

// answerOne keeps one key's trouble with that key.
func (s *Server) answerOne(ctx context.Context, e *endpoint, key string) (a answer) {
	start := time.Now()
	ctx, span := s.options.Traces.Part(ctx, "key")
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			a = undecided(key, &verifier.Error{
				Reason: verifier.ReasonInternal, Message: "answering crashed", Remedy: "Report this with the trace id",
				Err: fmt.Errorf("panic: %v: %s", p, debug.Stack()),
			})
		}
		a.took = time.Since(start)
		a.tell(span)
	}()
	// A key that is not even tried must not look as if its registry were slow.
	if ctx.Err() != nil {
		return undecided(key, notReached(ctx))
	}
	if refused, ok := e.refuse(key); ok { // and is remembered by no memory, which others share
		return refused
	}
	snapshot := e.memory.holds()
	a = e.answer(ctx, key)
	e.memory.keep(&a, snapshot, e.value)
	return a
}

func undecided(key string, cause *verifier.Error) answer {
	return answer{key: key, reply: &reply{undecided: cause}}
}

// repeat answers one key with what is remembered of it.
func (s *Server) repeat(ctx context.Context, e *endpoint, key string) (answer, bool) {
	if _, refused := e.refuse(key); refused {
		return answer{}, false
	}
	start := time.Now()
	known := e.memory.recall(key)
	if known == nil {
		return answer{}, false
	}
	_, span := s.options.Traces.Part(ctx, "key")
	a := answer{key: key, reply: known.reply, took: time.Since(start)}
	a.tell(span)
	return a, true
}

const (
	// maxParallel is how many keys of a request are asked about at once: a
	// batch of 50 takes as long as one image, and what is cold waits for a
	// registry, not for us.
	maxParallel = 64
	// grace is how long after the deadline the answers of those keys are
	// gathered that were told to stop; it is in our margin to Gatekeeper's own.
	grace = 50 * time.Millisecond
)

// answerAll answers every key, in the keys' order, by shortly after the deadline.
// What is not done by then is undecided, and its work nobody waits for.
//
// The client is the address that the request came from.
func (s *Server) answerAll(ctx context.Context, e *endpoint, client string, keys []string, deadline time.Time) []answer {
	answers := make([]answer, len(keys))
	var unknown []int
	for i, key := range keys {
		var known bool
		if answers[i], known = s.repeat(ctx, e, key); !known {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return answers
	}
	ctx, leave := e.queues.enter(ctx, client, namespaceOf(keys[unknown[0]]))
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer func() {
		leave(errors.Is(ctx.Err(), context.DeadlineExceeded))
		cancel()
	}()
	if len(keys) == 1 {
		answers[0] = s.answerOne(ctx, e, keys[0])
		return answers
	}
	finished := slices.Repeat([]bool{true}, len(keys))
	for _, i := range unknown {
		finished[i] = false
	}
	done := make(chan int, len(unknown)) // which are written; has room for all, so that nobody waits for us
	var next atomic.Int64
	for range min(len(unknown), maxParallel) {
		go func() {
			for n := int(next.Add(1)) - 1; n < len(unknown); n = int(next.Add(1)) - 1 {
				i := unknown[n]
				answers[i] = s.answerOne(ctx, e, keys[i])
				done <- i
			}
		}()
	}
	stop := ctx.Done()
	var end <-chan time.Time
	for left := len(unknown); left > 0; {
		select {
		case i := <-done:
			finished[i] = true
			left--
		case <-stop:
			stop, end = nil, time.After(grace)
		case <-end:
			return unfinished(keys, answers, finished, notReached(ctx))
		}
	}
	return answers
}

// unfinished copies the answers that are there; the others may still be
// written, by workers that nobody waits for, and are not touched.
func unfinished(keys []string, answers []answer, finished []bool, pending *verifier.Error) []answer {
	list := make([]answer, len(keys))
	for i, key := range keys {
		if finished[i] {
			list[i] = answers[i]
		} else {
			list[i] = undecided(key, pending)
		}
	}
	return list
}

// fewKeys is how many are compared each with each, which costs less than a map.
const fewKeys = 16

func allDiffer(keys []string) bool {
	for i, key := range keys {
		if slices.Contains(keys[:i], key) {
			return false
		}
	}
	return true
}

// distinct drops the keys that were there before: one item answers them all.
func distinct(keys []string) []string {
	if len(keys) <= fewKeys && allDiffer(keys) {
		return keys
	}
	seen := make(map[string]struct{}, len(keys))
	list := keys[:0]
	for _, key := range keys {
		if _, again := seen[key]; !again {
			seen[key] = struct{}{}
			list = append(list, key)
		}
	}
	return list
}
