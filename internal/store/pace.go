package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxInFlight is how many requests are under way at once to all hosts, and
	// maxHostInFlight to one host for all views. Beyond either, only a view that has
	// fewer than fewInFlight under way to that host may send another, up to reserve
	// times as many in all: hosts that hang, and many views of one host, do not keep
	// others from sending.
	maxInFlight, maxHostInFlight = 1024, 256
	fewInFlight, reserve         = 4, 2
	// maxInFlightWatch and maxInFlightCommand are what of a view's at a host, or of
	// all, the work that can wait may take, so that an admission finds a place at once.
	maxInFlightWatch, maxInFlightCommand = 8, 32
	// maxShutWait is the longest wait for a turn at a peer that refuses everything.
	maxShutWait = time.Second
	// maxBooks is how many hosts of views are known before the idle ones are
	// forgotten: an attacker chooses their names.
	maxBooks = 1 << 12
)

// peer is a host as one view reaches it. What is learned of a host's trouble is kept
// by peer, so that another view's mirror, credential or options have no part in it.
type peer struct {
	view string // its id
	host string // as dialled
}

func (p peer) String() string { return p.view + " " + p.host }

// pace lets requests pass: so many at a time, the more urgent ones first, with
// places for each peer. Safe for concurrent use.
type pace struct {
	now func() time.Time

	mu    sync.Mutex // guards all below
	books map[peer]*book
	// hosts are the requests under way to a host, from all views; none at 0.
	hosts map[string]int
	all   [verifier.Priorities]int // under way, by priority
	// waiting are the books in which a turn waits.
	waiting map[*book]struct{}
}

// book is what is known of one peer.
type book struct {
	of       peer
	underWay [verifier.Priorities]int
	turns    [verifier.Priorities][]*turn // that wait
	hedges   hedges
	rate     rate
	wake     *time.Timer
}

// turn is one request that waits.
type turn struct {
	done     chan struct{} // closed when it is granted, or dismissed with err
	err      error
	priority verifier.Priority
	deadline time.Time // zero: none
}

// errNoTurn is for a request whose deadline comes before its turn.
var errNoTurn = errors.New("the turn would come after the deadline")

func newPace() *pace {
	return &pace{now: time.Now, books: map[peer]*book{}, hosts: map[string]int{}, waiting: map[*book]struct{}{}}
}

// enter waits for a turn at the peer. Who gets one calls leave. A request whose turn
// cannot come before its deadline does not wait, and takes no turn.
func (p *pace) enter(ctx context.Context, at peer) (leave func(), err error) {
	t := &turn{done: make(chan struct{}), priority: verifier.PriorityOf(ctx)}
	t.deadline, _ = ctx.Deadline()
	p.mu.Lock()
	b := p.book(at)
	b.turns[t.priority] = append(b.turns[t.priority], t)
	p.grantAt(b)
	p.dismiss(b)
	p.mu.Unlock()
	leave = func() { p.leave(b, t.priority) }
	select {
	case <-t.done:
		if t.err != nil {
			return nil, t.err
		}
		return leave, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(b.turns[t.priority], t)
	if i >= 0 {
		b.turns[t.priority] = slices.Delete(b.turns[t.priority], i, i+1)
		p.noteWaiting(b)
	}
	p.mu.Unlock()
	if i < 0 && t.err == nil { // it came at the same moment
		leave()
	}
	return nil, context.Cause(ctx)
}

func (p *pace) leave(b *book, priority verifier.Priority) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.underWay[priority]--
	p.all[priority]--
	if p.hosts[b.of.host]--; p.hosts[b.of.host] == 0 {
		delete(p.hosts, b.of.host)
	}
	p.grant() // to another peer as well, where all had been too many
}

// book gives the peer's. The caller holds mu.
func (p *pace) book(of peer) *book {
	b := p.books[of]
	if b == nil {
		if len(p.books) >= maxBooks {
			p.forget()
		}
		b = &book{of: of}
		p.books[of] = b
	}
	return b
}

// dismiss ends the turns that the rate does not let come before their deadline, and
// those of admissions at a peer that refuses everything which would come too late for
// an answer: going on behind it leads nowhere. The caller holds mu.
func (p *pace) dismiss(b *book) {
	now := p.now()
	if !b.waits() || !b.rate.limits(now) {
		return
	}
	ahead := 1 - b.rate.tokens
	for priority, turns := range b.turns {
		b.turns[priority] = slices.DeleteFunc(turns, func(t *turn) bool {
			wait := time.Duration(ahead / b.rate.limit * float64(time.Second))
			late := !t.deadline.IsZero() && now.Add(wait).After(t.deadline)
			if late || b.rate.shut && wait > maxShutWait && t.priority == verifier.PriorityAdmission {
				t.err = errNoTurn
				close(t.done)
				return true
			}
			ahead++
			return false
		})
	}
	p.noteWaiting(b)
}

// forget drops the books of idle peers, and those last to which a rate applies. The
// caller holds mu.
func (p *pace) forget() {
	now := p.now()
	drop := func(limited bool) {
		for of, b := range p.books {
			if b.idle() && (limited || !b.rate.limits(now)) {
				delete(p.books, of)
			}
		}
	}
	if drop(false); len(p.books) > maxBooks/2 {
		drop(true)
	}
}

func (b *book) idle() bool { return total(b.underWay) == 0 && !b.waits() }

func (b *book) waits() bool { return len(b.turns[0])+len(b.turns[1])+len(b.turns[2]) > 0 }

func total(of [verifier.Priorities]int) (sum int) {
	for _, n := range of {
		sum += n
	}
	return sum
}

// noteWaiting keeps the set of books in which a turn waits. The caller holds mu.
func (p *pace) noteWaiting(b *book) {
	if b.waits() {
		p.waiting[b] = struct{}{}
	} else {
		delete(p.waiting, b)
	}
}

// grant lets pass who may, the more urgent first. The caller holds mu.
func (p *pace) grant() {
	now := p.now()
	for priority := range verifier.Priority(verifier.Priorities) {
		for b := range p.waiting {
			for p.pass(b, priority, now) {
			}
		}
	}
	for b := range p.waiting {
		p.noteWaiting(b)
	}
}

// grantAt does the same where only one book has changed.
func (p *pace) grantAt(b *book) {
	now := p.now()
	for priority := range verifier.Priority(verifier.Priorities) {
		for p.pass(b, priority, now) {
		}
	}
	p.noteWaiting(b)
}

// pass lets one of the peer's pass, if there is one and one may. The caller holds mu.
func (p *pace) pass(b *book, priority verifier.Priority, now time.Time) bool {
	if len(b.turns[priority]) == 0 || !p.place(b) || !mayWait(p.all, priority) || !mayWait(b.underWay, priority) || !p.spend(b, now) {
		return false
	}
	t := b.turns[priority][0]
	b.turns[priority] = b.turns[priority][1:]
	b.underWay[priority]++
	p.all[priority]++
	p.hosts[b.of.host]++
	close(t.done)
	return true
}

// place reports whether the peer may have one more under way.
func (p *pace) place(b *book) bool {
	own, host, all := total(b.underWay), p.hosts[b.of.host], total(p.all)
	if own < fewInFlight {
		return host < reserve*maxHostInFlight && all < reserve*maxInFlight
	}
	return own < maxConns && host < maxHostInFlight && all < maxInFlight
}

// mayWait reports whether one more of the priority fits among those under way.
func mayWait(underWay [verifier.Priorities]int, priority verifier.Priority) bool {
	switch priority {
	case verifier.PriorityWatch:
		return underWay[priority] < maxInFlightWatch
	case verifier.PriorityCommand:
		return underWay[priority] < maxInFlightCommand
	}
	return true
}

// spend takes what the peer's rate lets pass, or has the peer looked at again when
// there will be something to take. The caller holds mu.
func (p *pace) spend(b *book, now time.Time) bool {
	wait := b.rate.spend(now)
	if wait > 0 && b.wake == nil {
		b.wake = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			b.wake = nil
			p.grant()
		})
	}
	return wait <= 0
}
