package provider

import (
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
)

// replyOverhead is what a remembered reply costs beside its texts.
const replyOverhead = 1 << 10

// memory remembers replies by key, written out, for as long as their verdict and
// the Snapshot that made it hold. A hit decides nothing: it repeats what was said
// while nothing that it rests on can have changed. When that may have, what it rests
// on is asked for anew behind, and to decide from what is known meanwhile costs some
// microseconds. Safe for concurrent use.
type memory struct {
	snapshot func() any // nil: nothing is remembered
	replies  *cache.Cache[*remembered]
}

// remembered is a reply and what it was made of.
type remembered struct {
	*reply
	snapshot any
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
	until := a.verdict.ValidUntil()
	if !until.After(time.Now()) {
		return
	}
	kept := *a.reply
	kept.signers = signers(a)
	kept.verdict = a.verdict.WithoutTree() // which may hold megabytes of a stranger's
	written := write(nil, a)
	kept.written = string(written)
	key := strings.Clone(a.key) // it is a part of a request's body
	r := &remembered{reply: &kept, snapshot: snapshot}
	m.replies.Put(key, r, int64(len(kept.written)+len(kept.image))+replyOverhead, until)
}
