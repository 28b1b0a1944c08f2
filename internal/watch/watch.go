package watch

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// spread is how much sooner or later than the interval an image is looked at
	// again, so that not all are at once: a fifth.
	spread = 0.2
	// firstPause is how soon what failed is tried again; it doubles with each time.
	firstPause = 30 * time.Second
	// patientFailures is how often looking may fail before the last verdict gives way
	// to ERROR.
	patientFailures = 3
	// soonest is how soon an image is looked at again whose verdict says that it ends.
	soonest = 5 * time.Second
	// snapshotPoll is how often it is seen whether policies have changed.
	snapshotPoll = time.Second
	// checkBudget ends one look: several decisions of ten seconds.
	checkBudget = 45 * time.Second
)

// Options say what a Watch is made of. A zero field means its default.
type Options struct {
	// Select finds the Chain that judges an image, or its verdict.
	Select func(verifier.Request) (*verifier.Chain, verifier.Verdict)
	// Snapshot is what Select is made of: another one gives other answers.
	Snapshot func() any
	// Interval is how often an image is looked at again, a fifth sooner or later: 1 h.
	Interval time.Duration
	// DriftInterval is how often it is looked whether a tag has moved, a fifth sooner or
	// later: 6 h. It is no sooner than the Interval.
	DriftInterval time.Duration
	// Parallel is how many images are looked at at once: 8.
	Parallel int
	// Rate is how many images a second are begun to be looked at at most: 10.
	Rate float64
	// Jitter gives numbers in [0, 1): math/rand.
	Jitter func() float64
	// Admission knows what admission was asked about; nil: nobody does.
	Admission Admission
	// Memory keeps what was known over a restart; nil: nothing does.
	Memory Memory
	// Changed is told of what became of images, one after the other; it must be quick.
	Changed func(Transition)
	// Found is told what a row is, when that is first found out and when it is something
	// else, whatever it was before; it must be quick.
	Found func(key string, t Transition)
	Log   *slog.Logger
}

// Admission reports that admission was never asked about a pod's digests, as far as that
// can be known. Safe for concurrent use.
type Admission interface {
	Never(created time.Time, digests ...digest.Digest) bool
}

// Memory keeps what was last known of images, and what became of them. Safe for
// concurrent use.
type Memory interface {
	// Known gives what was last known of an image; the zero Known: nothing.
	Known(key string) Known
	// Keep remembers it.
	Keep(key string, known Known)
	// Add remembers what became of an image.
	Add(Transition)
}

// Known is what was last known of an image in a namespace.
type Known struct {
	Status Status          `json:"status"`
	Reason verifier.Reason `json:"reason"`
	// Since is when it became so, and At when it was last found to be.
	Since time.Time `json:"since"`
	At    time.Time `json:"at"`
}

// Transition is that an image in a namespace has become something else.
type Transition struct {
	Time      time.Time       `json:"time"`
	Namespace string          `json:"namespace"`
	Image     string          `json:"image"`
	Digest    string          `json:"digest,omitempty"`
	From      Status          `json:"from,omitempty"` // empty: it was not there
	To        Status          `json:"to"`
	Reason    verifier.Reason `json:"reason"`
	Message   string          `json:"message"`
	Policy    string          `json:"policy,omitempty"`
	Workloads []Workload      `json:"workloads,omitempty"`
}

// Watch verifies what runs. Safe for concurrent use.
type Watch struct {
	options Options
	wake    chan struct{} // has room for one

	mu     sync.Mutex // guards all below
	pods   map[types.UID]*pod
	nodes  map[string]string // platform by name
	checks map[checkKey]*check
	rows   map[rowKey]*row
	queue  queue
	seen   any // the Snapshot by which containers are bound
	synced bool
	passed time.Time // when all was looked at for the first time
}

// checkKey is all that a look depends on.
type checkKey struct {
	chain    *verifier.Chain
	settled  string // the verdict, where there is no chain
	image    string // as the spec names it
	imageID  string
	platform string
}

// check is one look, for all containers that it speaks of.
type check struct {
	key     checkKey
	running running
	rows    map[*row]int // how many containers of each

	outcome  Outcome // the last
	verdict  Outcome // the last that is one
	trouble  Outcome // why looking failed since, if it did
	failures int
	due      time.Time
	drift    *Drift // from what the reference names
	// sameImage are the digests by which its reference names it; none: it was not looked.
	sameImage []digest.Digest
	// endOfLife is when its publisher says that it ends; zero: they do not.
	endOfLife, lifecycleDue time.Time

	driftDue time.Time // when that is looked at again
	index    int       // in the queue; -1: in nobody's
	afresh   bool      // whether the next look is past what is remembered
	gone     bool
}

// rowKey names an image in a namespace.
type rowKey struct{ namespace, image, imageID, platform string }

func (k rowKey) String() string {
	return k.namespace + "\n" + k.image + "\n" + k.imageID + "\n" + k.platform
}

// row is an image in a namespace, as people see it.
type row struct {
	key        rowKey
	checks     map[*check]int
	containers map[*container]struct{}
	known      Known
	found      Status // that was told last; empty: nothing was
}

// New makes a Watch; see Run.
func New(o Options) *Watch {
	if o.Interval == 0 {
		o.Interval = time.Hour
	}
	if o.DriftInterval == 0 {
		o.DriftInterval = 6 * time.Hour
	}
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	if o.Rate == 0 {
		o.Rate = 10
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Changed == nil {
		o.Changed = func(Transition) {}
	}
	if o.Found == nil {
		o.Found = func(string, Transition) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Watch{
		options: o, wake: make(chan struct{}, 1), pods: map[types.UID]*pod{}, nodes: map[string]string{},
		checks: map[checkKey]*check{}, rows: map[rowKey]*row{},
	}
}

// Run looks at images when they are due, until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	ctx = verifier.WithPriority(ctx, verifier.PriorityWatch)
	var looking sync.WaitGroup
	defer looking.Wait()
	places := make(chan struct{}, w.options.Parallel)
	pause := time.Duration(float64(time.Second) / w.options.Rate)
	poll := time.NewTicker(snapshotPoll)
	defer poll.Stop()
	for {
		w.rebind()
		c, wait := w.next(time.Now())
		if c == nil {
			select {
			case <-time.After(wait):
			case <-w.wake:
			case <-poll.C:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		looking.Go(func() {
			defer func() { <-places }()
			w.look(ctx, c)
		})
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// look looks at one image, and notes what it came to.
func (w *Watch) look(ctx context.Context, c *check) {
	if c.key.chain == nil { // the verdict that needed no look has ended
		w.selectAgain(c)
		return
	}
	w.mu.Lock()
	afresh := c.afresh
	w.mu.Unlock()
	if afresh {
		ctx = verifier.Afresh(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, checkBudget)
	defer cancel()
	outcome := verify(bounded, c.key.chain, c.running)
	if outcome.Status != StatusError {
		w.lookForDrift(bounded, c)
		w.lookForLifecycle(bounded, c)
	}
	if ctx.Err() != nil {
		return
	}
	w.note(c, outcome)
}

// next takes the check that is due, or says how long there is none.
func (w *Watch) next(now time.Time) (*check, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) > 0 && !w.queue[0].due.After(now) {
		c, _ := heap.Pop(&w.queue).(*check)
		return c, 0
	}
	if w.synced && w.passed.IsZero() && w.allLookedAt() {
		w.passed = now
	}
	if len(w.queue) == 0 {
		return nil, time.Minute
	}
	return nil, w.queue[0].due.Sub(now)
}

func (w *Watch) allLookedAt() bool {
	for _, c := range w.checks {
		if c.outcome.Status == "" {
			return false
		}
	}
	return true
}

// schedule puts a check into the queue. The caller holds mu.
func (w *Watch) schedule(c *check, due time.Time, afresh bool) {
	c.due, c.afresh = due, afresh
	if c.index >= 0 {
		heap.Fix(&w.queue, c.index)
	} else {
		heap.Push(&w.queue, c)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// queue orders checks by when they are due; a heap.
type queue []*check

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	c, _ := x.(*check)
	c.index = len(*q)
	*q = append(*q, c)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	last.index = -1
	return last
}
