package provider

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Gatekeeper reviews only as many admissions at once as it has threads, and its
// webhook is given up after three seconds: an admission that waits in its queue for
// that long is let in unseen where the failure policy is Ignore. The provider cannot
// see that queue. It sees the requests of one Gatekeeper that need more than memory:
// where their number stays at its highest, or where the next one comes as soon as one
// is answered, others are waiting.
const (
	// saturated is for how long it must look so before requests are answered for the
	// sake of others. What waits has waited for that long, and a second more of
	// answering leaves it a second.
	saturated = time.Second
	// prompt is how soon after an answer the next request of a queue comes, and
	// promptAlone the same where no other is in flight: whoever waits for each answer
	// before he makes the next Pod takes longer.
	prompt, promptAlone = 10 * time.Millisecond, 3 * time.Millisecond
	// busyLife is how long a request may take while others are known to wait. What is
	// known, or comes from disk, takes less.
	busyLife = 5 * time.Millisecond
	// busyMemory is how long they are taken to wait after the last sign of it.
	busyMemory = time.Second
	// highestMemory is how long a number of requests counts as the highest.
	highestMemory = 10 * time.Second
	// maxClients bounds the clients that are known; each is an address that has shown
	// Gatekeeper's certificate.
	maxClients = 1 << 10
)

// errQueue is why a request is undecided that was answered for the sake of others.
var errQueue = &verifier.Error{
	Reason:  verifier.ReasonTimeout,
	Message: "no decision yet, and other admissions are waiting; verification goes on",
	Remedy:  "Try again in a few seconds",
}

// queues watch over the requests in flight of each client. Safe for concurrent use.
type queues struct {
	relieved func() // called for each request that was answered for the sake of others

	mu      sync.Mutex // guards all below, and the clients
	clients map[string]*client
}

// client is one Gatekeeper, by its address.
type client struct {
	inFlight []*inFlight // the oldest first
	// highest is the most that were in flight in this highestMemory, and before in the
	// one before it.
	highest, before int
	window          time.Time
	// fullSince is since when the number is at its highest, but for moments; zero: it
	// is not.
	fullSince time.Time
	// left is when the last request ended, and lastBegun when that one had begun.
	left, lastBegun time.Time
	// prompts counts the requests in a row that came as soon as another had been
	// answered, and promptSince is when the first of those others had begun.
	prompts     int
	promptSince time.Time
	// busyUntil is until when requests have busyLife.
	busyUntil time.Time
	timer     *time.Timer
}

// inFlight is a request that is not answered yet.
type inFlight struct {
	begun time.Time
	end   context.CancelCauseFunc
	ended bool // for the sake of others
}

func newQueues(relieved func()) *queues {
	return &queues{relieved: relieved, clients: map[string]*client{}}
}

// enter counts a request of the client at the address until leave is called. The
// context that it gives ends with errQueue where the request is to be answered for
// the sake of others.
func (q *queues) enter(ctx context.Context, address string) (_ context.Context, leave func()) {
	ctx, end := context.WithCancelCause(ctx)
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		address = address[:i] // a connection's port says nothing
	}
	r := &inFlight{begun: time.Now(), end: end}
	q.mu.Lock()
	c := q.client(address, r.begun)
	c.enter(r)
	q.watch(c, r.begun)
	q.mu.Unlock()
	return ctx, func() {
		q.mu.Lock()
		c.leave(r)
		q.watch(c, c.left) // what is known now may be about those that are left
		q.mu.Unlock()
		end(nil)
	}
}

// client gives the books of an address. The caller holds mu.
func (q *queues) client(address string, now time.Time) *client {
	c := q.clients[address]
	if c != nil {
		return c
	}
	if len(q.clients) >= maxClients {
		for other, of := range q.clients {
			if len(of.inFlight) == 0 && now.Sub(of.left) > highestMemory {
				delete(q.clients, other)
			}
		}
	}
	c = &client{window: now}
	if len(q.clients) < maxClients {
		q.clients[strings.Clone(address)] = c
	}
	return c
}

func (c *client) enter(r *inFlight) {
	now := r.begun
	if now.Sub(c.window) > highestMemory {
		c.before, c.highest, c.window = c.highest, 0, now
		if now.Sub(c.left) > highestMemory {
			c.before = 0
		}
	}
	c.inFlight = append(c.inFlight, r)
	n := len(c.inFlight)
	c.highest = max(c.highest, n)
	c.learn(n, now)
	late := now.Sub(c.left) > prompt
	switch {
	case n >= c.full() && (c.fullSince.IsZero() || late):
		c.fullSince = now
	case n < c.full() && late:
		c.fullSince = time.Time{}
	}
}

// full is how many requests are the most that the client sends at once, and two at
// least: one is no sign of others.
func (c *client) full() int { return max(c.highest, c.before, 2) }

// learn takes requests that come as soon as others are answered for ones that had
// been waiting.
func (c *client) learn(n int, now time.Time) {
	soon := prompt
	if n == 1 {
		soon = promptAlone
	}
	if now.Sub(c.left) > soon {
		c.prompts = 0
		return
	}
	if c.prompts++; c.prompts == 1 {
		c.promptSince = c.lastBegun
	}
	if now.Before(c.busyUntil) || now.Sub(c.promptSince) >= saturated {
		c.busyUntil = now.Add(busyMemory)
	}
}

func (c *client) leave(r *inFlight) {
	now := time.Now()
	c.left, c.lastBegun = now, r.begun
	if i := slices.Index(c.inFlight, r); i >= 0 {
		c.inFlight = append(c.inFlight[:i], c.inFlight[i+1:]...)
	}
}

// due is when the oldest request must be answered for the sake of others, as far as
// is known now; the zero time: its own deadline does.
func (c *client) due(now time.Time) time.Time {
	for _, r := range c.inFlight {
		switch {
		case r.ended:
			continue
		case now.Before(c.busyUntil):
			return r.begun.Add(busyLife)
		case !c.fullSince.IsZero() && len(c.inFlight) >= c.full():
			return later(c.fullSince.Add(saturated), r.begun.Add(busyLife))
		}
		break
	}
	return time.Time{}
}

// watch has the client looked at when its oldest request is due. The caller holds mu.
func (q *queues) watch(c *client, now time.Time) {
	due := c.due(now)
	if due.IsZero() {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(due.Sub(now), func() { q.relieve(c) })
}

// relieve answers the requests that are due.
func (q *queues) relieve(c *client) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, r := range c.inFlight {
		if r.ended {
			continue
		}
		if due := c.due(now); due.IsZero() || due.After(now) {
			break
		}
		r.ended = true
		r.end(errQueue)
		q.relieved()
	}
	q.watch(c, now)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
