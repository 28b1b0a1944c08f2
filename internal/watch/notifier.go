package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// gather is how long transitions are waited for that belong together.
	gather = 10 * time.Second
	// sendTimeout ends one attempt.
	sendTimeout = 10 * time.Second
	// firstResend is the pause after a first failure; it doubles with each, and after
	// maxSends a notice is given up.
	firstResend = 5 * time.Second
	maxSends    = 9
	// sweepEvery is how often it is seen what nothing runs any more.
	sweepEvery = time.Minute
	// maxQueued bounds what waits for a service; the oldest goes.
	maxQueued = 1000
)

// NotifierOptions say whom a Notifier tells.
type NotifierOptions struct {
	Sinks []Sink
	// Sent is told of each notice: "sent", "failed" or "dropped".
	Sent func(sink, result string)
	// Event takes what became of an image, as soon as it is news.
	Event func(Transition)
	// Runs reports whether anything runs an image in a namespace, as far as it is known.
	Runs func(key string) bool
	// Kept outlives the process; nil: nothing does.
	Kept Kept
	Log  *slog.Logger
}

// Kept keeps what services were told, by row. It is the Notifier's alone.
type Kept interface {
	Load(context.Context) (map[string]Told, error)
	Save(context.Context, map[string]Told) error
}

// Notifier tells services what became of images: one notice an image, however many
// workloads run it, and another when it is resolved everywhere. What they were told
// before it was started they are not told again. Safe for concurrent use.
type Notifier struct {
	options NotifierOptions
	client  *http.Client

	mu    sync.Mutex // guards all below
	found map[string]Transition
	told  *told         // nil until what is kept is known
	wake  chan struct{} // has room for one
}

// NewNotifier makes a Notifier; see Run.
func NewNotifier(o NotifierOptions) *Notifier {
	return &Notifier{
		options: o, found: map[string]Transition{}, wake: make(chan struct{}, 1),
		client: &http.Client{Timeout: sendTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Tell takes what a row of a Watch is found to be, by its key, news or not.
func (n *Notifier) Tell(key string, t Transition) {
	n.mu.Lock()
	n.found[key] = t
	n.mu.Unlock()
	n.awake()
}

func (n *Notifier) awake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run tells until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	queues := make([]chan *delivery, len(n.options.Sinks))
	var sending sync.WaitGroup
	defer sending.Wait()
	for i, sink := range n.options.Sinks {
		queues[i] = make(chan *delivery, maxQueued)
		sending.Go(func() { n.send(ctx, sink, queues[i]) })
	}
	if !n.remember(ctx) {
		return nil
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-n.wake:
			n.keep(ctx) // what has arrived
		case <-sweep.C:
			n.sweep()
			continue
		case <-ctx.Done():
			n.keep(context.WithoutCancel(ctx))
			return nil
		}
		if !n.anythingFound() {
			continue
		}
		select { // what belongs together comes together
		case <-time.After(gather):
		case <-ctx.Done():
			n.keep(context.WithoutCancel(ctx))
			return nil
		}
		n.say(queues)
	}
}

func (n *Notifier) anythingFound() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.found) > 0
}

// remember reads what is kept: before it is known nothing is told.
func (n *Notifier) remember(ctx context.Context) bool {
	var kept map[string]Told
	for n.options.Kept != nil {
		var err error
		if kept, err = n.options.Kept.Load(ctx); err == nil {
			break
		}
		if apierrors.IsForbidden(err) {
			n.options.Log.WarnContext(ctx, "what is told cannot be kept: it is told again after a restart", slog.Any("error", err))
			n.options.Kept = nil
			break
		}
		n.options.Log.WarnContext(ctx, "nobody can be told anything yet", slog.Any("error", err))
		select {
		case <-time.After(firstResend):
		case <-ctx.Done():
			return false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = newTold(kept)
	return true
}

// say sends what is news on its way.
func (n *Notifier) say(queues []chan *delivery) {
	n.mu.Lock()
	news, over := n.told.say(n.found)
	n.found = map[string]Transition{}
	n.mu.Unlock()
	keys := slices.Sorted(maps.Keys(news))
	for _, key := range keys {
		n.options.Event(news[key])
	}
	list := notices(keys, news)
	for _, registry := range slices.Sorted(maps.Keys(over)) {
		list = append(list, verifiedAgain(registry, over[registry]))
	}
	for _, notice := range list {
		d := &delivery{Notice: notice, notifier: n, left: len(queues)}
		if len(queues) == 0 {
			d.arrived()
		}
		for i, sink := range n.options.Sinks {
			n.enqueue(sink, queues[i], d)
		}
	}
}

// sweep finds what nothing runs any more.
func (n *Notifier) sweep() {
	n.mu.Lock()
	keys := slices.Collect(maps.Keys(n.told.entries))
	n.mu.Unlock()
	runs := map[string]bool{}
	for _, key := range keys { // without mu: who is asked tells us things meanwhile
		runs[key] = n.options.Runs(key)
	}
	n.mu.Lock()
	gone := n.told.gone(time.Now(), runs)
	for key, t := range gone {
		if _, found := n.found[key]; !found {
			n.found[key] = t
		}
	}
	n.mu.Unlock()
	if len(gone) > 0 || n.unkept() {
		n.awake()
	}
}

func (n *Notifier) unkept() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.told.changed
}

// keep writes down what was told, if it is something else. What cannot be written now
// is written with what is next, or within a minute.
func (n *Notifier) keep(ctx context.Context) {
	n.mu.Lock()
	changed, kept := n.told.changed, n.told.kept()
	n.told.changed = false
	n.mu.Unlock()
	if !changed || n.options.Kept == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := n.options.Kept.Save(ctx, kept); err != nil {
		n.options.Log.WarnContext(ctx, "what was told cannot be written down; trying again", slog.Any("error", err))
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told.changed = true
	}
}

// delivery is a notice on its way to all services.
type delivery struct {
	Notice
	notifier *Notifier
	left     int // services that were not told yet; guarded by the Notifier's mu
}

// done notes that a service was told, or will not be.
func (d *delivery) done(sink Sink, result string) {
	d.notifier.options.Sent(sink.Name, result)
	d.notifier.mu.Lock()
	d.left--
	last := d.left == 0
	d.notifier.mu.Unlock()
	if last {
		d.arrived()
	}
}

// arrived notes that all were told, and has it written down.
func (d *delivery) arrived() {
	d.notifier.mu.Lock()
	for key, status := range d.rows {
		d.notifier.told.said(key, status)
	}
	d.notifier.mu.Unlock()
	d.notifier.awake()
}

// enqueue puts a notice behind the others; where there is no room the oldest goes.
func (n *Notifier) enqueue(sink Sink, queue chan *delivery, d *delivery) {
	for {
		select {
		case queue <- d:
			return
		default:
		}
		select {
		case oldest := <-queue:
			oldest.done(sink, "dropped")
		default:
		}
	}
}

// send sends a service's notices in their order.
func (n *Notifier) send(ctx context.Context, sink Sink, queue chan *delivery) {
	for {
		select {
		case d := <-queue:
			n.deliver(ctx, sink, d)
		case <-ctx.Done():
			return
		}
	}
}

// deliver tries until a notice was taken, or refused for good, or too often.
func (n *Notifier) deliver(ctx context.Context, sink Sink, d *delivery) {
	for attempt := 1; ; attempt++ {
		err := n.post(ctx, sink, d.Notice)
		if err == nil {
			d.done(sink, "sent")
			return
		}
		if ctx.Err() != nil {
			return
		}
		n.options.Log.WarnContext(ctx, "a notice was not taken", slog.String("sink", sink.Name), slog.Int("attempt", attempt), slog.Any("error", err))
		if errors.Is(err, errRefused) || attempt == maxSends {
			d.done(sink, "failed")
			return
		}
		select {
		case <-time.After(firstResend << (attempt - 1)):
		case <-ctx.Done():
			return
		}
	}
}
