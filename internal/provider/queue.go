package provider

import (
	"context"
	"maps"
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
// where as many are in flight all the time, and another one comes as soon as one is
// answered, more are waiting.
const (
	// saturated is for how long it must look so before requests are answered for the
	// sake of others. With a request's own deadline, what waits has waited for two
	// seconds then, which leaves it one.
	saturated = time.Second
	// prompt is how soon after an answer the next request of a queue comes, from a
	// Gatekeeper whose processor is busy, and promptAlone the same where one at a time is
	// in flight: a client that waits for each answer before it makes the next Pod takes
	// longer.
	prompt, promptAlone = 60 * time.Millisecond, 4 * time.Millisecond
	// fullPatience is how long as many requests as at least two may be in flight without
	// any answer before the oldest is answered, to see whether another one comes.
	fullPatience = 1200 * time.Millisecond
	// wearyLife is how long a request may take for as long as wearyMemory after others
	// were known to wait. Gatekeeper reviews nothing while one of its own changes waits
	// for a review to end, so that a single slow request can hold up all others.
	wearyLife, wearyMemory = 300 * time.Millisecond, 15 * time.Second
	// busyLife is how long a request may take while others are known to wait. What is
	// known, or comes from disk, takes less. Half of Gatekeeper's threads may be taken for
	// as long as wearyLife by requests of namespaces that took less for slowMemory: they
	// are not those for which the others wait.
	busyLife, slowMemory = 5 * time.Millisecond, 5 * time.Second
	// busyMemory is how long they are taken to wait after the last sign of it.
	busyMemory = time.Second
	// clientMemory is how long a client is known that sends nothing, and maxClients how
	// many are; each is an address that has shown Gatekeeper's certificate.
	clientMemory, maxClients = 10 * time.Second, 1 << 10
	// maxSlow is how many namespaces are known to be slow; where they are more, all are.
	maxSlow = 1 << 8
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
	// level is how many were in flight since then, but for moments after an answer, and
	// refills how often another one came in such a moment.
	level   int
	since   time.Time
	refills int
	// below is since when fewer are in flight; zero: there are not fewer.
	below time.Time
	// most is the highest number in flight since then: about as many threads there are.
	most   int
	mostAt time.Time
	// favoured is how many in flight are.
	favoured int
	// slow is when a request of a namespace last took wearyLife or longer, or was answered
	// for the sake of others while that was so.
	slow map[string]time.Time
	// busyUntil is until when others are known to wait, and relieved when a request was
	// last answered for them.
	busyUntil, relieved time.Time
	late                bool      // the last request had used up its time, which was long
	left                time.Time // when the last request ended
	timer               *time.Timer
}

// inFlight is a request that is not answered yet.
type inFlight struct {
	namespace string
	begun     time.Time
	end       context.CancelCauseFunc
	ended     bool // for the sake of others
	favoured  bool // may take wearyLife while others wait
}

func newQueues(relieved func()) *queues {
	return &queues{relieved: relieved, clients: map[string]*client{}}
}

// enter counts a request of the client at the address, about an image in the namespace,
// until leave is called. The context that it gives ends with errQueue where the request is
// to be answered for the sake of others.
//
// Late tells leave that the request's time was used up.
func (q *queues) enter(ctx context.Context, address, namespace string) (_ context.Context, leave func(late bool)) {
	outer := ctx
	ctx, end := context.WithCancelCause(ctx)
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		address = address[:i] // a connection's port says nothing
	}
	r := &inFlight{namespace: strings.Clone(namespace), begun: time.Now(), end: end}
	q.mu.Lock()
	c := q.client(address, r.begun)
	c.enter(r)
	q.watch(c, r.begun)
	q.mu.Unlock()
	return ctx, func(late bool) {
		q.mu.Lock()
		if outer.Err() != nil { // the webhook was given up: what waits behind it will be
			c.tire(time.Now())
		}
		c.leave(r)
		c.late = late && !r.ended && c.left.Sub(r.begun) >= saturated
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
			if len(of.inFlight) == 0 && now.Sub(of.left) > clientMemory {
				delete(q.clients, other)
			}
		}
	}
	c = &client{slow: map[string]time.Time{}}
	if len(q.clients) < maxClients {
		q.clients[strings.Clone(address)] = c
	}
	return c
}

func (c *client) enter(r *inFlight) {
	now := r.begun
	c.settle(now)
	c.inFlight = append(c.inFlight, r)
	if n := len(c.inFlight); n >= c.most || now.Sub(c.mostAt) > wearyMemory {
		c.most, c.mostAt = n, now
	}
	switch n := len(c.inFlight); {
	case n > c.level:
		c.level, c.since, c.refills, c.below = n, now, 0, time.Time{}
	case n == c.level && !c.below.IsZero():
		c.refills++
		c.below = time.Time{}
	}
	soon := now.Sub(c.left) <= prompt
	switch {
	case c.refills > 0 && now.Sub(c.since) >= saturated, soon && c.weary(now) && c.relieved.Equal(c.left):
		c.busyUntil = now.Add(busyMemory)
	case soon && c.late:
		c.tire(now)
	}
}

// tire notes a sign that others may be waiting, too weak to answer at once for them.
func (c *client) tire(now time.Time) {
	if c.busyUntil.Before(now) {
		c.busyUntil = now
	}
}

// weary reports whether others were known to wait not long ago.
func (c *client) weary(now time.Time) bool {
	return !c.busyUntil.IsZero() && now.Sub(c.busyUntil) < wearyMemory
}

func (c *client) leave(r *inFlight) {
	c.left = time.Now()
	if r.ended {
		c.relieved = c.left
	}
	c.forget(r)
	if c.left.Sub(r.begun) >= wearyLife || r.ended && c.isSlow(r.namespace, c.left) {
		c.slowed(r.namespace)
	}
	c.settle(c.left)
	if i := slices.Index(c.inFlight, r); i >= 0 {
		c.inFlight = slices.Delete(c.inFlight, i, i+1)
	}
	if len(c.inFlight) < c.level && c.below.IsZero() {
		c.below = c.left
	}
}

// settle takes the number in flight for what it is when it has been lower for longer
// than a moment.
func (c *client) settle(now time.Time) {
	moment := prompt
	if c.level == 1 {
		moment = promptAlone
	}
	if !c.below.IsZero() && now.Sub(c.below) > moment {
		c.level, c.since, c.refills, c.below = len(c.inFlight), now, 0, time.Time{}
	}
}

// isSlow reports whether requests of the namespace took long not long ago.
func (c *client) isSlow(namespace string, now time.Time) bool {
	at, slow := c.slow[namespace]
	return slow && now.Sub(at) < slowMemory
}

// slowed notes that a request of the namespace took long.
func (c *client) slowed(namespace string) {
	if len(c.slow) >= maxSlow {
		maps.DeleteFunc(c.slow, func(_ string, at time.Time) bool { return c.left.Sub(at) >= slowMemory })
	}
	if len(c.slow) < maxSlow {
		c.slow[namespace] = c.left
	}
}

// favour reports whether a request may go on for longer while others wait, so that those
// who fill the queue with what is slow do not stop a neighbour whose image takes moments.
func (c *client) favour(r *inFlight, now time.Time) bool {
	if !r.favoured && c.favoured < c.most/2 && len(c.slow) < maxSlow && !c.isSlow(r.namespace, now) {
		r.favoured = true
		c.favoured++
	}
	return r.favoured
}

// busy reports whether others are known to wait.
func (c *client) busy(now time.Time) bool { return now.Before(c.busyUntil) }

// due is when a request must be answered for the sake of others, as far as is known now;
// the zero time: its own deadline does. While others are not known to wait, the oldest
// request is due first.
func (c *client) due(r *inFlight, now time.Time) time.Time {
	switch {
	case c.busy(now) && !c.favour(r, now):
		return r.begun.Add(busyLife)
	case c.weary(now):
		return r.begun.Add(wearyLife)
	case c.level < 2 || len(c.inFlight) < c.level:
		return time.Time{}
	}
	return latest(r.begun.Add(busyLife), c.since.Add(fullPatience), c.relieved.Add(prompt))
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// watch has the client looked at when the next request is due. The caller holds mu.
func (q *queues) watch(c *client, now time.Time) {
	var next time.Time
	for _, r := range c.inFlight {
		if r.ended {
			continue
		}
		if due := c.due(r, now); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
		if !c.busy(now) {
			break
		}
	}
	if next.IsZero() {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(next.Sub(now), func() { q.relieve(c) })
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
		switch due := c.due(r, now); {
		case !due.IsZero() && !due.After(now):
			r.ended = true
			r.end(errQueue)
			c.forget(r)
			c.relieved = now
			q.relieved()
		case !c.busy(now):
			q.watch(c, now)
			return
		}
	}
	q.watch(c, now)
}

// forget no longer counts a request among those that may take longer.
func (c *client) forget(r *inFlight) {
	if r.favoured {
		r.favoured = false
		c.favoured--
	}
}
