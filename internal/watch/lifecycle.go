package watch

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// What publishers attach to images that they will not maintain any more, as oras attach
// makes it. Nobody signs it, so that it decides nothing: it is a hint.
const (
	lifecycleType      = "application/vnd.microsoft.artifact.lifecycle"
	lifecycleEndOfLife = "vnd.microsoft.artifact.lifecycle.end-of-life.date"
	// lifecycleEvery is how often it is looked for, one request an image.
	lifecycleEvery = 24 * time.Hour
	// maxLifecycles is how many of them are read.
	maxLifecycles = 8
)

// EndOfLife is the kind of end that a publisher announces.
const EndOfLife verifier.EndKind = "end-of-life"

// lookForLifecycle does so when it is time. What fails leaves what was known.
func (w *Watch) lookForLifecycle(ctx context.Context, c *check) {
	w.mu.Lock()
	if c.lifecycleDue.IsZero() { // some time within a day: not all at the start
		c.lifecycleDue = time.Now().Add(time.Duration(w.options.Jitter() * float64(lifecycleEvery)))
	}
	due := !c.lifecycleDue.After(time.Now())
	of := append([]digest.Digest(nil), c.sameImage...)
	w.mu.Unlock()
	if !due || len(of) == 0 {
		return
	}
	end, err := endOfLife(ctx, c.key.chain, c.running, of)
	if err != nil {
		return // the next look tries again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.endOfLife, c.lifecycleDue = end, time.Now().Add(lifecycleEvery)
}

// endOfLife is the first that is announced of an image, by any of its digests; zero:
// none is.
func endOfLife(ctx context.Context, c chain, r running, of []digest.Digest) (first time.Time, err error) {
	for _, d := range of {
		read := 0
		for candidate, err := range c.Attached(ctx, r.at(d), lifecycleType) {
			if read++; read > maxLifecycles {
				break
			}
			if err != nil {
				if candidate.Descriptor.Digest == "" {
					return time.Time{}, err // it concerns the whole list
				}
				continue
			}
			if at := date(candidate.Manifest.Annotations[lifecycleEndOfLife]); !at.IsZero() && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first, nil
}

// date reads a day or an instant; zero: it is neither.
func date(text string) time.Time {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at
		}
	}
	return time.Time{}
}
