package store

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// firstBytes are read of a body that does not say how long it is, before it
	// counts as the longest that it may be.
	firstBytes = 16 << 10
	// freeBytes in memory are judged without being counted: small evidence that was
	// read already.
	freeBytes = 16 << 10
	// freeHeldBytes of manifests are held by a decision without being counted.
	freeHeldBytes = 64 << 10
)

func nothingHeld() {}

// reading counts a body of that size until release, wherever it is read from.
func (c *client) reading(ctx context.Context, size int64) (release func(), err error) {
	return c.store.inFlight.take(ctx, stageRead, c.host, readWeight*size)
}

// Count counts bytes of a host that others than this package read and hold, until
// release: revocation lists, which may be as large as evidence.
func (s *Store) Count(ctx context.Context, host string, bytes int64) (release func(), err error) {
	return s.inFlight.take(ctx, stageRead, host, bytes)
}

// judging counts the blobs of the candidate that is being judged, all at once with the
// first of them.
func (c *client) judging(ctx context.Context, size int64, inMemory bool) (release func(), err error) {
	work := verifier.HoldOf(ctx)
	if work != nil {
		size = max(size, work.Need)
	}
	if inMemory && size <= freeBytes {
		return nothingHeld, nil
	}
	take := func() (func(), error) { return c.store.inFlight.take(ctx, stageJudged, c.host, judgedWeight*size) }
	if work == nil {
		return take()
	}
	return nothingHeld, work.Once(take)
}

// holding counts the manifests that a decision may hold of a list at one time, until all
// of it is judged.
func (c *client) holding(ctx context.Context, l *list) (release func(), err error) {
	var attached, named int64
	for _, e := range l.entries {
		switch size := e.descriptor.Size; {
		case size <= 0 || size > candidateLimit(e):
		case e.source == verifier.SourceTagSuffix:
			named += size
		default:
			attached += size
		}
	}
	size := attached + named
	if size <= freeHeldBytes {
		return nothingHeld, nil
	}
	take := func() (func(), error) { return c.store.inFlight.take(ctx, stageHeld, c.host, heldWeight*size) }
	if work := verifier.HoldOf(ctx); work != nil {
		return nothingHeld, work.Once(take) // it ends after the list does
	}
	return take()
}

// bodies are those that were read for one piece of work.
type bodies struct {
	mu       sync.Mutex // guards all below
	releases []func()
	over     bool
}

type bodiesKey struct{}

// withBodies begins work that uses the bodies of answers until done.
func withBodies(ctx context.Context) (_ context.Context, done func()) {
	b := &bodies{}
	return context.WithValue(ctx, bodiesKey{}, b), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, release := range b.releases {
			release()
		}
		b.releases, b.over = nil, true
	}
}

// keep counts a body until the work of the context is done, if it belongs to any.
func keep(ctx context.Context, release func()) {
	b, ok := ctx.Value(bodiesKey{}).(*bodies)
	if !ok {
		release()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		release()
		return
	}
	b.releases = append(b.releases, release)
}

// body reads what the question wants of an answer, at most its limit, when the bytes
// may be held. Of a question with a size whoever asked has counted them.
func (c *client) body(ctx context.Context, q question, resp *http.Response) (data []byte, longer bool, err error) {
	switch {
	case resp.StatusCode != http.StatusOK:
		return read(resp.Body, maxErrorBytes)
	case q.size > 0 || q.limit == 0:
		return readCounted(resp.Body, min(resp.ContentLength, q.limit), q.limit)
	}
	counted := min(resp.ContentLength, q.limit)
	if counted < 0 {
		counted = min(firstBytes, q.limit)
	}
	release, err := c.reading(ctx, counted)
	if err != nil {
		return nil, false, err
	}
	if resp.ContentLength >= 0 {
		data, longer, err = readCounted(resp.Body, counted, q.limit)
	} else if data, err = io.ReadAll(io.LimitReader(resp.Body, counted)); err == nil && int64(len(data)) == counted {
		release() // who holds a little and waits for more would keep others waiting
		if release, err = c.reading(ctx, q.limit); err != nil {
			return nil, false, err
		}
		data, longer, err = read(io.MultiReader(bytes.NewReader(data), resp.Body), q.limit)
	}
	if err != nil {
		release()
		return nil, false, err
	}
	keep(ctx, release)
	return data, longer, nil
}

// readCounted reads a body whose limit was counted, and whose header says that size;
// negative: it does not. So it need not be copied from buffer to larger buffer.
func readCounted(body io.Reader, size, limit int64) (data []byte, longer bool, err error) {
	var buffer bytes.Buffer
	buffer.Grow(int(max(size, 0)) + bytes.MinRead)
	return readInto(&buffer, body, limit)
}
