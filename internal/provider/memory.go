package provider

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
)

const (
	// replyOverhead is what a remembered reply costs beside its texts.
	replyOverhead = 1 << 10
	// renewBudget is how long a reply may be renewed; the Chain's own is as long.
	renewBudget = 10 * time.Second
	// renewedAhead is the last part of its life in which a reply is renewed, behind
	// whoever asks then: a fifth.
	renewedAhead = 5
	// renewPause is the least time between two tries to renew a reply, which are
	// in vain as long as what it rests on is being fetched.
	renewPause = 100 * time.Millisecond
)

// memory remembers replies by key, written out, for as long as their verdict and
// the Snapshot that made it hold. A hit decides nothing: it repeats what was said
// while nothing that was said rests on has changed. Safe for concurrent use.
type memory struct {
	snapshot func() any // nil: nothing is remembered
	replies  *cache.Cache[*remembered]
	renewals flight.Group[struct{}]
}

// remembered is a reply and what it was made of.
type remembered struct {
	*reply
	snapshot any
	until    time.Time
	renewAt  atomic.Int64 // in nanoseconds of Unix time
}

func newMemory(snapshot func() any, bytes int64) *memory {
	return &memory{snapshot: snapshot, replies: cache.New[*remembered](bytes)}
}

// recall gives the reply to the key if it still holds.
func (m *memory) recall(key string) *remembered {
	if m == nil || m.snapshot == nil {
		return nil
	}
	r, ok := m.replies.Get(key)
	if !ok || r.snapshot != m.snapshot() {
		return nil
	}
	return r
}

// holds is the Snapshot that a reply will be of which is made from now on.
func (m *memory) holds() any {
	if m == nil || m.snapshot == nil {
		return nil
	}
	return m.snapshot()
}

// keep remembers a decided reply. The Snapshot was the one that held before the
// reply was made: if another does now, it is found out when it is recalled.
func (m *memory) keep(a *answer, snapshot any, write func(b []byte, a *answer) []byte) {
	if snapshot == nil || a.undecided != nil || len(a.key) > maxKeyLength {
		return
	}
	now := time.Now()
	until := a.verdict.ValidUntil()
	if !until.After(now) {
		return
	}
	kept := *a.reply
	kept.signers = signers(a)
	kept.verdict = a.verdict.WithoutTree() // which may hold megabytes of a stranger's
	written := write(nil, a)
	kept.written = string(written)
	key := strings.Clone(a.key) // it is a part of a request's body
	r := &remembered{reply: &kept, snapshot: snapshot, until: until}
	r.renewAt.Store(until.Add(now.Sub(until) / renewedAhead).UnixNano())
	m.replies.Put(key, r, int64(len(kept.written)+len(kept.image))+replyOverhead, until)
}

// renew makes a reply anew ahead of its end, once for all who ask now.
func (s *Server) renew(e *endpoint, key string, r *remembered) {
	now := time.Now()
	due := r.renewAt.Load()
	if now.UnixNano() < due || !r.renewAt.CompareAndSwap(due, now.Add(max(r.until.Sub(now)/4, renewPause)).UnixNano()) {
		return
	}
	nobodyWaits, done := context.WithCancel(context.Background())
	done()
	key = strings.Clone(key)
	_, _ = e.memory.renewals.Do(nobodyWaits, key, renewBudget, func(ctx context.Context) (struct{}, error) {
		snapshot := e.memory.holds()
		a := e.answer(ctx, key)
		e.memory.keep(&a, snapshot, e.value)
		return struct{}{}, nil
	})
}
