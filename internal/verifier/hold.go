package verifier

import (
	"context"
	"errors"
	"strings"
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

// maxText is how much of a text that evidence has written is kept.
const maxText = 1 << 10

// lean gives findings that hold no more than is shown of them. What a scheme's errors
// hold, certificates among it, is as large as the evidence, and they are remembered for
// longer. Undecided ones are not.
func lean(found []Finding) []Finding {
	small := make([]Finding, len(found))
	for i, f := range found {
		f.Claims.Signer.Name, f.Claims.Signer.Issuer = bounded(f.Claims.Signer.Name), bounded(f.Claims.Signer.Issuer)
		if len(f.Claims.Logged) > 0 {
			logged := make([]*Error, len(f.Claims.Logged))
			for j, e := range f.Claims.Logged {
				logged[j] = e.lean()
			}
			f.Claims.Logged = logged
		}
		if f.Err != nil && !f.Err.Reason.Undecided() {
			f.Err = f.Err.lean()
		}
		small[i] = f
	}
	return small
}

func (e *Error) lean() *Error {
	if e == nil {
		return nil
	}
	small := &Error{Reason: e.Reason, Message: bounded(e.Message), Remedy: bounded(e.Remedy)}
	if e.Err != nil {
		small.Err = errors.New(bounded(e.Err.Error()))
	}
	return small
}

func bounded(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:maxText]), "")
}
