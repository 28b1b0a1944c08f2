package verifier

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"
)

const (
	// waveSize is how many candidates of a place are verified at once.
	waveSize = 8
	// candidatePatience is how long a candidate waits for more of its wave, and
	// evidencePatience how long the next wave waits for this one: neither a manifest
	// nor a blob that cannot be read holds back the evidence beside it for longer.
	candidatePatience = 50 * time.Millisecond
	evidencePatience  = 300 * time.Millisecond
	// maxCandidates is how many candidates of one place a check tries: far above
	// what people attach, and what a stranger's flood can make us do.
	maxCandidates = 64
)

// pair is what a listing yields.
type pair struct {
	candidate Candidate
	err       error
}

// reader verifies the candidates of one place.
type reader struct {
	search  *search
	place   place
	index   int // of the place, in Chain.places
	fetch   fetchFunc
	listed  int            // candidates so far
	tried   map[*Check]int // candidates, by check
	capped  int            // checks that try no more here
	running sync.WaitGroup // verifications
}

// read verifies what is in one place.
func (s *search) read(ctx context.Context, p place, wanted Wanted) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	at := s.subject.at(p.repository)
	held, done := WithHold(ctx, 0)
	defer done()
	listing := s.chain.store.Candidates(held, at, wanted)
	list := &stream{pairs: make(chan pair, waveSize)}
	go list.run(ctx, listing.All)
	r := &reader{
		search: s, place: p, index: slices.Index(s.chain.places, p),
		fetch: s.chain.boundedFetch(at, &s.spent), tried: map[*Check]int{},
	}
	for more := true; more && !list.ended; {
		more = r.verify(ctx, list.wave(ctx))
	}
	r.running.Wait()
	var until time.Time // nobody knows, unless the list was read to its end
	if list.ended && list.crash == nil {
		until = listing.until()
	}
	s.update(func() {
		s.open--
		s.seen.listed = earlier(s.seen.listed, until)
		if list.ended && s.crash == nil {
			s.crash = list.crash
		}
	})
}

// verify begins to verify a wave and waits for it, within bounds. It reports whether
// more is wanted.
func (r *reader) verify(ctx context.Context, wave []pair) (more bool) {
	var tasks []task
	r.search.update(func() {
		for _, next := range wave {
			tasks = append(tasks, r.tasks(next)...)
		}
	})
	done := make(chan struct{}, len(tasks))
	left := 0
	for _, t := range tasks {
		if made, known := r.search.chain.known(ctx, r.search.subject, t); known {
			r.report(t, made)
			continue
		}
		left++
		r.search.update(func() { r.search.running[r.index]++ })
		r.running.Go(func() {
			r.report(t, r.search.chain.judge(ctx, r.search.subject, t, r.fetch))
			r.search.update(func() { r.search.running[r.index]-- })
			done <- struct{}{}
		})
	}
	if left > 0 {
		patience := time.NewTimer(evidencePatience)
		defer patience.Stop()
		for ; left > 0; left-- {
			select {
			case <-done:
			case <-patience.C:
				left = 1
			case <-ctx.Done():
				return false
			}
		}
	}
	proved, _ := r.search.proved()
	return ctx.Err() == nil && !proved && r.capped < len(r.search.chain.checks)
}

// tasks says who shall judge the candidate. The caller holds the search's mu.
func (r *reader) tasks(next pair) []task {
	s, candidate := r.search, next.candidate
	if next.err != nil && candidate.Descriptor.Digest == "" {
		s.seen.list = undecidedError(next.err)
		return nil
	}
	candidate.Repository = r.place.repository
	at := position{r.index, r.listed}
	r.listed++
	if first, known := s.found[candidate.Descriptor.Digest]; !known || at.compare(first) < 0 {
		s.found[candidate.Descriptor.Digest] = at
	}
	var unread *Error
	switch {
	case next.err != nil:
		unread = AsError(next.err)
	case s.spent.Add(candidate.Descriptor.Size) > maxDecisionBytes:
		unread = tooLarge()
	}
	var tasks []task
	for i, check := range s.chain.checks {
		// Of what cannot be read nobody knows whose it is.
		if s.chain.repositories[i] != r.place.repository || !check.Verifier.Handles(candidate) && (unread == nil || candidate.ArtifactType != "") {
			continue
		}
		if r.tried[check]++; r.tried[check] > maxCandidates {
			if r.tried[check] == maxCandidates+1 {
				r.capped++
			}
			s.seen.capped[check] = tooMany(check)
			continue
		}
		tasks = append(tasks, task{check, candidate, unread})
	}
	return tasks
}

// report adds what was made of a task to what was seen.
func (r *reader) report(t task, made findings) {
	r.search.update(func() { r.search.seen.add(t, made) })
}

// stream is a listing that is read by a goroutine of its own, so that a candidate
// that is there is verified while the next one is still being read.
type stream struct {
	pairs chan pair
	crash any  // what the listing panicked with; nil before pairs is closed
	ended bool // the reader's: pairs is closed, and all of it was taken
}

// run reads the listing to its end, or to that of ctx.
func (l *stream) run(ctx context.Context, all iter.Seq2[Candidate, error]) {
	defer close(l.pairs)
	defer func() { l.crash = recover() }()
	for candidate, err := range all {
		select {
		case l.pairs <- pair{candidate, err}:
		case <-ctx.Done():
			return
		}
	}
}

// wave gives the next candidates, as many as come at about the same time.
func (l *stream) wave(ctx context.Context) (wave []pair) {
	var idle <-chan time.Time
	for len(wave) < waveSize {
		select {
		case next, ok := <-l.pairs:
			if !ok {
				l.ended = true
				return wave
			}
			wave = append(wave, next)
			if idle == nil {
				timer := time.NewTimer(candidatePatience)
				defer timer.Stop()
				idle = timer.C
			}
		case <-idle:
			return wave
		case <-ctx.Done():
			return wave
		}
	}
	return wave
}
