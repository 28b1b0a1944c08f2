package verifier

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Hold is work that goes on using what a Store gave it: a decision its candidates,
// the judging of a candidate its blobs. A Store that bounds its bytes counts them until
// the work is done. Safe for concurrent use.
type Hold struct {
	// Need is the most that the work will use, in bytes as descriptors claim them; zero:
	// unknown.
	Need int64

	mu      sync.Mutex // guards all below
	taken   bool
	err     error
	release func()
}

type holdKey struct{}

// WithHold begins work that ends with done.
func WithHold(ctx context.Context, need int64) (_ context.Context, done func()) {
	h := &Hold{Need: need}
	return context.WithValue(ctx, holdKey{}, h), h.done
}

// HoldOf is the work that the context belongs to, or nil.
func HoldOf(ctx context.Context) *Hold {
	h, _ := ctx.Value(holdKey{}).(*Hold)
	return h
}

// Once has the bytes of the whole work taken, by whoever needs some of them first. An
// error is all others' as well.
func (h *Hold) Once(take func() (release func(), err error)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.taken {
		h.taken = true
		h.release, h.err = take()
	}
	return h.err
}

func (h *Hold) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.release != nil {
		h.release()
	}
	h.taken, h.release = true, nil
}

// needs is the most that judging the candidate uses: its layers, each once.
func needs(candidate Candidate) (bytes int64) {
	type blob struct {
		digest digest.Digest
		size   int64
	}
	seen := make(map[blob]bool, len(candidate.Manifest.Layers))
	for _, layer := range candidate.Manifest.Layers {
		b := blob{layer.Digest, layer.Size}
		if layer.Size > 0 && layer.Size <= maxDecisionBytes && !seen[b] {
			bytes = min(bytes+layer.Size, maxDecisionBytes)
		}
		seen[b] = true
	}
	return bytes
}
