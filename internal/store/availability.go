package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// silence is how long a request stays without an answer before its host is probed.
	silence = 300 * time.Millisecond
	// downAfter is how many probes in a row must fail before a host is away.
	downAfter = 3
	// refusedPause is between probes that are refused.
	refusedPause = 30 * time.Millisecond
	// probeEvery is how often a host that is away is probed, and probedFor is for how
	// long after its view last wanted it.
	probeEvery, probedFor = 250 * time.Millisecond, 30 * time.Second
	// freshFor is how long a failed probe says anything.
	freshFor = time.Second
	// maxProbed is how many hosts of views are probed at once. Beyond it, the one that
	// was not wanted for longest is left.
	maxProbed = 128
	// maxLag bounds how slow a host is taken to be.
	maxLag = 2 * time.Second
)

// availability knows which peers cannot be connected to at all. A peer is away when
// several connections in a row were refused or unanswered; any answer to any request
// ends that. What a list, a blob, a certificate, DNS, or our own limits do is never it.
// Safe for concurrent use.
type availability struct {
	mu    sync.Mutex // guards all below, and what the presences hold
	known map[peer]*presence
}

// presence is what is known of one peer: it has requests under way, or is probed, or
// was slow to answer.
type presence struct {
	waiting map[*context.CancelCauseFunc]struct{} // requests under way
	wanted  time.Time                             // by the view, the last time

	// probing ends the probes; nil: there are none. verdict is closed when the first
	// of them have told whether the peer is away.
	probing context.CancelFunc
	verdict chan struct{}
	// row is how many probes in a row failed, and failed when the last one did.
	row    int
	failed time.Time
	// away is the error for all requests while the peer is away, or nil.
	away *verifier.Error
	// answered is when a request or a probe last was, and lag how long a probe took
	// where that was longer than we expect.
	answered time.Time
	lag      time.Duration
}

func newAvailability() *availability { return &availability{known: map[peer]*presence{}} }

// Away implements verifier.Store.
func (v *View) Away(registry string) *verifier.Error {
	host := ""
	if c, ok := v.clients[registry]; ok {
		host = c.host
	} else {
		host = reference(registry, "").Host()
	}
	a := v.store.availability
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[peer{v.id, strings.ToLower(host)}]
	if p == nil {
		return nil
	}
	p.wanted = time.Now()
	return p.isAway(p.wanted)
}

// isAway gives the error for a peer that is away, as far as that is of now.
func (p *presence) isAway(now time.Time) *verifier.Error {
	if p.away == nil || now.Sub(p.failed) > freshFor {
		return nil
	}
	return p.away
}

// begin notes a request to the peer. The context ends when the peer is found to be
// away, see ended; the caller calls leave. Where it is away already, that is the error.
func (a *availability) begin(ctx context.Context, at peer) (_ context.Context, leave func(), away *verifier.Error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[at]
	if p == nil {
		if len(a.known) >= maxBooks {
			a.forget()
		}
		p = &presence{waiting: map[*context.CancelCauseFunc]struct{}{}}
		a.known[at] = p
	}
	p.wanted = time.Now()
	if away := p.isAway(p.wanted); away != nil {
		return nil, nil, away
	}
	ctx, cancel := context.WithCancelCause(ctx)
	p.waiting[&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(p.waiting, &cancel)
		if len(p.waiting) == 0 && p.probing == nil && p.lag == 0 && a.known[at] == p {
			delete(a.known, at)
		}
	}, nil
}

// forget drops all that has nothing under way. The caller holds mu.
func (a *availability) forget() {
	for at, p := range a.known {
		if len(p.waiting) == 0 && p.probing == nil {
			delete(a.known, at)
		}
	}
}

// ended gives the error with which availability ended the request, or nil.
func ended(ctx context.Context) *verifier.Error {
	var away *verifier.Error
	if errors.As(context.Cause(ctx), &away) && away.Reason == verifier.ReasonRegistryAway {
		return away
	}
	return nil
}

// expect has the client's host probed if a request that is sent now stays without an
// answer. The caller says when it ends, and whether the host answered.
func (a *availability) expect(c *client) (over func(answered bool)) {
	began := time.Now()
	var ended atomic.Bool
	var timer *time.Timer
	timer = time.AfterFunc(time.Hour, func() {
		a.suspect(c, false)
		if timer.Reset(probeEvery); ended.Load() {
			timer.Stop()
		}
	})
	timer.Reset(silence + a.lag(c.peer(c.host)))
	return func(answered bool) {
		ended.Store(true)
		timer.Stop()
		if answered {
			a.answer(c.peer(c.host), time.Since(began))
		}
	}
}

func (a *availability) lag(at peer) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.known[at]; p != nil {
		return p.lag
	}
	return 0
}

// answer notes that the peer answered a request, whatever the answer.
func (a *availability) answer(at peer, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[at]
	if p == nil {
		return
	}
	if took < silence {
		p.lag = 0
	}
	p.isThere(time.Now())
}

// isThere ends what was suspected. The caller holds mu.
func (p *presence) isThere(now time.Time) {
	p.answered, p.row, p.away = now, 0, nil
	if p.probing != nil {
		p.probing()
		p.probing = nil
	}
	p.decided()
}

func (p *presence) decided() {
	if p.verdict != nil {
		close(p.verdict)
		p.verdict = nil
	}
}

// judge waits until probes have told whether the client's host is away, after a request
// to it was refused or unanswered, or until the context ends.
func (a *availability) judge(ctx context.Context, c *client) {
	if verdict := a.suspect(c, true); verdict != nil {
		select {
		case <-verdict:
		case <-ctx.Done():
		}
	}
}

// suspect has the client's host probed, unless it is already, and gives what is closed
// when that has told something; nil: nothing will. Failed says that a connection was
// refused or unanswered, and not just that an answer takes long: that asks again only
// when the last answer is some time ago.
func (a *availability) suspect(c *client, failed bool) <-chan struct{} {
	if _, closed := c.gate(c.host); closed {
		return nil // and wants no request
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.known[c.peer(c.host)]
	switch now := time.Now(); {
	case p == nil:
		return nil
	case p.probing != nil:
		return p.verdict
	case !failed && now.Sub(p.answered) < probeEvery, !a.room():
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.probing, p.row, p.verdict = cancel, 0, make(chan struct{})
	go a.watch(ctx, c, p)
	return p.verdict
}

// room makes room for one more peer to be probed. The caller holds mu.
func (a *availability) room() bool {
	var oldest *presence
	probed := 0
	for _, p := range a.known {
		if p.probing == nil {
			continue
		}
		probed++
		if oldest == nil || p.wanted.Before(oldest.wanted) {
			oldest = p
		}
	}
	if probed < maxProbed {
		return true
	}
	if time.Since(oldest.wanted) < freshFor {
		return false
	}
	oldest.leave()
	return true
}

// leave ends the probes without a result. The caller holds mu.
func (p *presence) leave() {
	p.probing()
	p.probing, p.row, p.away = nil, 0, nil
	p.decided()
}

// fail notes that a probe failed, and reports whether the peer is away. The caller
// holds mu.
func (p *presence) fail(host string, outcome probed, now time.Time) bool {
	p.row++
	p.failed = now
	if p.row < downAfter {
		return false
	}
	if p.away == nil {
		p.away = awayError(host, outcome)
	}
	for cancel := range p.waiting {
		(*cancel)(p.away)
	}
	p.decided()
	return true
}

func awayError(host string, outcome probed) *verifier.Error {
	e := &verifier.Error{
		Reason:  verifier.ReasonRegistryAway,
		Message: fmt.Sprintf("the registry %s does not answer", host),
		Remedy:  "Check that the registry runs, and that the network policies let Countersign reach it",
		Err:     outcome.err,
	}
	if errors.Is(outcome.err, syscall.ECONNREFUSED) {
		e.Message = fmt.Sprintf("the registry %s refused the connection", host)
		e.Remedy = "Check that the registry runs and that its port is right"
	}
	return e
}

// unanswered reports whether an error means that a host refused the connection, cannot
// be reached, or did not answer: not that something on the way to it said no.
func unanswered(err error) bool {
	var (
		dns     *net.DNSError
		refused *refusedAddress
		timeout net.Error
	)
	switch {
	case errors.As(err, &dns), errors.As(err, &refused), errors.Is(err, context.Canceled):
		return false
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return true
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return true
	}
	return errors.As(err, &timeout) && timeout.Timeout()
}
