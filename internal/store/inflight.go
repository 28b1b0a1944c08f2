package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// stage is what bytes are held for. Work takes bytes of one stage at a time, and of
// a later one only while it holds an earlier one's: so no two wait for each other.
type stage int

const (
	// stageHeld is for the manifests that a decision judges.
	stageHeld stage = iota
	// stageJudged is for the blobs of one candidate, until it is judged.
	stageJudged
	// stageRead is for a body, until it is read and decoded.
	stageRead
	stages
)

// What a byte that was claimed may take in memory.
const (
	// heldWeight is a decoded manifest's: its strings, and its descriptors.
	heldWeight = 2
	// judgedWeight is a blob's: the bytes, and what a scheme decodes of them.
	judgedWeight = 2
	// readWeight is a body's: its bytes, and what is decoded of them.
	readWeight = 3
)

const (
	// maxBytesWait is how long work waits for its bytes: longer than an admission
	// has, so that what goes on behind it may succeed, and shorter than a decision, so
	// that what cannot be held gives its place to others.
	maxBytesWait = 3 * time.Second
	// largeParts of largeWhole are what large bodies may take of a stage. The rest is
	// for small ones, which ordinary evidence is.
	largeParts, largeWhole = 3, 4
	// smallBytes is the most that counts as small, weighed, and firstOfHost what a host
	// that has nothing may have in any case.
	smallBytes  = 256 << 10
	firstOfHost = 64 << 10
	// defaultInFlight is the process's bound where nobody sets one.
	defaultInFlight = 64 << 20
	// minInFlight is the least with which a list of 4 MiB can be read.
	minInFlight = 16 << 20
)

// inFlight bounds the bytes from registries, disks and shared caches that the process
// holds at once, beside what its caches keep. A host takes no more of a stage than it
// leaves to the others, and so a half at most; each may have one small body besides.
// Safe for concurrent use.
type inFlight struct {
	mu   sync.Mutex // guards the pools
	pool [stages]pool
}

// pool is one stage's.
type pool struct {
	all, taken int64
	hosts      map[string]*share
	waiting    []*share // hosts with waiters, in turn
}

// share is one host's part of a pool.
type share struct {
	host  string
	taken int64
	// small and large ones wait apart, so that ordinary evidence passes.
	small, large []*claim
}

// claim is somebody who waits.
type claim struct {
	bytes   int64
	granted chan struct{}
}

func newInFlight(bytes int64) *inFlight {
	f := &inFlight{}
	bytes = max(bytes, minInFlight)
	for s, all := range [stages]int64{stageHeld: bytes / 4, stageJudged: bytes / 4, stageRead: bytes / 2} {
		f.pool[s] = pool{all: all, hosts: map[string]*share{}}
	}
	return f
}

// take waits until the bytes may be held for the host, and gives the func that gives
// them back. More than a host may ever have counts as that much, so that it comes
// alone. The error is LIMIT_EXCEEDED.
func (f *inFlight) take(ctx context.Context, s stage, host string, bytes int64) (release func(), err error) {
	p := &f.pool[s]
	f.mu.Lock()
	c := &claim{bytes: min(max(bytes, 0), p.large()/2)}
	h := p.hosts[host]
	if h == nil {
		h = &share{host: host}
		p.hosts[host] = h
	}
	release = sync.OnceFunc(func() { f.release(p, h, c.bytes) })
	queue := h.queue(c)
	if len(*queue) == 0 && p.fits(h, c) {
		p.grant(h, c)
		f.mu.Unlock()
		return release, nil
	}
	if len(h.small)+len(h.large) == 0 {
		p.waiting = append(p.waiting, h)
	}
	c.granted = make(chan struct{})
	*queue = append(*queue, c)
	f.mu.Unlock()

	timer := time.NewTimer(maxBytesWait)
	defer timer.Stop()
	select {
	case <-c.granted:
		return release, nil
	case <-timer.C:
		err = context.DeadlineExceeded
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	f.mu.Lock()
	i := slices.Index(*queue, c)
	if i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
		p.rest(h)
		p.next() // one who waited behind it may fit
	}
	f.mu.Unlock()
	if i < 0 { // it came at the same moment
		release()
	}
	return nil, &verifier.Error{
		Reason:  verifier.ReasonLimitExceeded,
		Message: "the evidence of too many images is being read at once",
		Remedy:  "Try again in a few seconds; a provider with a higher memory limit reads more at once",
		Err:     err,
	}
}

func (f *inFlight) release(p *pool, h *share, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.taken -= bytes
	h.taken -= bytes
	p.rest(h)
	p.next()
}

func (h *share) queue(c *claim) *[]*claim {
	if c.bytes <= smallBytes {
		return &h.small
	}
	return &h.large
}

// large is what large bodies may take of it.
func (p *pool) large() int64 { return p.all * largeParts / largeWhole }

// fits reports whether the host then has no more than is left. A host that has nothing
// may have a small body in any case, or many hosts would leave none to the next.
func (p *pool) fits(h *share, c *claim) bool {
	all := p.all
	if c.bytes > smallBytes {
		all = p.large()
	}
	if h.taken == 0 && c.bytes <= firstOfHost {
		return true
	}
	return h.taken+c.bytes <= all-p.taken-c.bytes
}

func (p *pool) grant(h *share, c *claim) {
	p.taken += c.bytes
	h.taken += c.bytes
}

// rest forgets what is not needed of a host. The caller holds the lock.
func (p *pool) rest(h *share) {
	if len(h.small)+len(h.large) > 0 {
		return
	}
	if i := slices.Index(p.waiting, h); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	if h.taken == 0 && p.hosts[h.host] == h {
		delete(p.hosts, h.host)
	}
}

// next lets pass who may, host by host, so that each comes to its turn. The caller
// holds the lock.
func (p *pool) next() {
	for i := 0; i < len(p.waiting); {
		h := p.waiting[i]
		passed := p.pass(h, &h.small)
		passed = p.pass(h, &h.large) || passed
		if !passed {
			i++
			continue
		}
		p.waiting = slices.Delete(p.waiting, i, i+1)
		if len(h.small)+len(h.large) > 0 {
			p.waiting = append(p.waiting, h) // it comes last now
		}
	}
}

// pass grants the first of a queue, if it fits. The caller holds the lock.
func (p *pool) pass(h *share, queue *[]*claim) bool {
	if len(*queue) == 0 || !p.fits(h, (*queue)[0]) {
		return false
	}
	c := (*queue)[0]
	*queue = (*queue)[1:]
	p.grant(h, c)
	close(c.granted)
	return true
}
