package verifier

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// placePatience is how long the places of one stage are read before the next
	// stage begins beside them: a request that is answered late must not hold back
	// what another one has brought.
	placePatience = 300 * time.Millisecond
	// proofPatience is how long the rest of a wave is waited for once what is proved
	// is enough, so that equal evidence gives equal answers.
	proofPatience = 50 * time.Millisecond
)

// search reads the places of one subject at the same time and verifies what is in
// them, until all of it was seen or what was proved is enough. Its readers use it
// concurrently.
type search struct {
	chain      *Chain
	subject    Subject
	exhaustive bool
	spent      atomic.Int64  // bytes, see boundedFetch
	changed    chan struct{} // has room for one: something below has changed

	mu      sync.Mutex // guards all below
	over    bool       // what is below changes no more
	seen    *observations
	found   map[digest.Digest]position // where a candidate was seen first
	open    int                        // places that are being read
	running map[int]int                // verifications under way, by place
	crash   any                        // what the reading of a list panicked with
}

// position orders candidates: by place, and there as they are listed.
type position struct {
	place int // in Chain.places
	seq   int
}

func (p position) compare(other position) int {
	return cmp.Or(cmp.Compare(p.place, other.place), cmp.Compare(p.seq, other.seq))
}

// look verifies candidates until they end or, unless all must be seen, until
// what was proved is enough.
func (c *Chain) look(ctx context.Context, subject Subject, exhaustive bool) *observations {
	s := &search{
		chain: c, subject: subject, exhaustive: exhaustive, seen: newObservations(),
		changed: make(chan struct{}, 1), found: map[digest.Digest]position{}, running: map[int]int{},
	}
	reading, stop := context.WithCancel(ctx)
	defer stop() // ends the reading of what is not needed any more
	s.run(ctx, reading)
	return s.end()
}

// run begins the stages one after the other, each when the one before has ended or
// takes long. It returns when the search is over.
func (s *search) run(ctx, reading context.Context) {
	stages := s.chain.stages(s.subject, s.exhaustive)
	several := len(stages) > 1
	exists := func() error { return s.chain.store.Exists(reading, s.subject) }
	late := time.NewTimer(placePatience)
	defer late.Stop()
	next := func() {
		s.begin(reading, stages[0])
		stages = stages[1:]
		late.Reset(placePatience)
	}
	for !s.enough(ctx) {
		open, nothing := s.state()
		switch {
		case open > 0:
		case len(stages) > 0:
			if several && len(stages) == 1 && nothing {
				exists = ahead(exists) // most likely nothing is there, and this is requested next
			}
			next()
			continue
		default:
			if nothing {
				if err := exists(); err != nil {
					s.update(func() { s.seen.list = undecidedError(err) })
				}
			}
			return
		}
		var impatient <-chan time.Time
		if len(stages) > 0 {
			impatient = late.C
		}
		select {
		case <-s.changed:
		case <-impatient:
			next()
		case <-ctx.Done():
			s.update(func() { s.seen.list = s.unanswered(context.Cause(ctx)) })
			return
		}
	}
}

func (s *search) unanswered(cause error) *Error {
	return &Error{
		Reason: ReasonTimeout, Message: "the registry " + s.subject.Reference.Registry + " did not answer in time",
		Remedy: "Try again: what was begun goes on", Err: cause,
	}
}

// state tells how many places are being read, and whether nothing was found so far.
func (s *search) state() (open int, nothing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, len(s.found) == 0 && s.seen.list == nil
}

// begin reads the places of a stage, without leftovers where the registry lists
// anything.
func (s *search) begin(ctx context.Context, stage []place) {
	s.mu.Lock()
	stage = where(stage, func(p place) bool { return !p.leftovers || !s.hasReferrers(p.repository) })
	s.open += len(stage)
	s.mu.Unlock()
	for _, p := range stage {
		go s.read(ctx, p, ask(s.chain.wanted, []place{p})[0])
	}
}

// update changes what is guarded, unless the search is over.
func (s *search) update(change func()) {
	s.mu.Lock()
	if !s.over {
		change()
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default: // it is known already
	}
}

// enough reports whether what was proved is enough. It waits a little for what was
// begun together with the proof.
func (s *search) enough(ctx context.Context) bool {
	var grace <-chan time.Time
	for {
		proved, complete := s.proved()
		if !proved || complete {
			return proved
		}
		if grace == nil {
			timer := time.NewTimer(proofPatience)
			defer timer.Stop()
			grace = timer.C
		}
		select {
		case <-s.changed:
		case <-grace:
			return true
		case <-ctx.Done():
			return true
		}
	}
}

// proved reports whether what was proved is enough, and whether nothing is being
// verified any more in the places that proof came from.
func (s *search) proved() (proved, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.exhaustive || !s.chain.proved(s.seen) {
		return false, false
	}
	for d := range s.proofs() {
		if s.running[s.found[d].place] > 0 {
			return true, false
		}
	}
	return true, true
}

// proofs are the candidates that proved something. The caller holds mu, or the
// search is over.
func (s *search) proofs() map[digest.Digest]Candidate {
	proofs := map[digest.Digest]Candidate{}
	for _, reports := range s.seen.reports {
		for _, report := range reports {
			if report.Finding.Err == nil {
				proofs[report.Candidate.Descriptor.Digest] = report.Candidate
			}
		}
	}
	return proofs
}

// hasReferrers reports whether the registry lists referrers in the repository. The
// caller holds mu.
func (s *search) hasReferrers(repository Reference) bool {
	for _, at := range s.found {
		if s.chain.places[at.place] == (place{repository: repository}) {
			return true
		}
	}
	return false
}

// end gives what was seen, in the order of the places and their lists, in whatever
// order it was read.
func (s *search) end() *observations {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	if s.crash != nil {
		panic(s.crash) // whose flight knows what to do with it
	}
	for _, reports := range s.seen.reports {
		slices.SortStableFunc(reports, func(a, b Report) int {
			return s.found[a.Candidate.Descriptor.Digest].compare(s.found[b.Candidate.Descriptor.Digest])
		})
	}
	if !s.exhaustive && s.chain.proved(s.seen) {
		var places []place
		for d := range s.proofs() {
			places = appendNew(places, []place{s.chain.places[s.found[d].place]})
		}
		s.chain.memory.foundAt(s.chain.store.ID(), s.subject, s.chain.wantedKey, places)
	}
	return s.seen
}
