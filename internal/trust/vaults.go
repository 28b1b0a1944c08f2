package trust

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/azure"
)

const (
	// DefaultRefreshInterval is how often a vault is asked.
	DefaultRefreshInterval = 5 * time.Minute
	// MinRefreshInterval keeps far below what a vault lets one ask.
	MinRefreshInterval = 30 * time.Second
	// DefaultMaxAge is for how long what could not be refreshed counts.
	DefaultMaxAge = 24 * time.Hour

	// askBudget is how long one object may take, its versions included.
	askBudget = 30 * time.Second
	// retryBase and retryMost are how soon what failed is tried again.
	retryBase = 2 * time.Second
	retryMost = 2 * time.Minute
	// unread is for how long nobody must have read an object until it is let go.
	unread = 10 * time.Minute
	// parallel is how many objects are asked for at once.
	parallel = 8
	// maxReferences bounds what all policies together may name.
	maxReferences = 4096
)

// Material is what a vault holds. Not changed once made.
type Material struct {
	// PEM has certificates, or public keys.
	PEM []byte
	// ReadAt is when the vault said so last.
	ReadAt time.Time
	// Stale says why it could not be refreshed since; nil where it was.
	Stale *Error
}

// Error is why there is no material, or none that is new.
type Error struct {
	Message, Remedy string
	// Withdrawn is set where the vault has said that there is none any more, or
	// where what there was is too old: nothing of it may count.
	Withdrawn bool
	// Pending is set until the vault has been asked once.
	Pending bool

	after time.Duration
}

func (e *Error) Error() string {
	if e.Remedy == "" {
		return e.Message
	}
	return e.Message + ". " + e.Remedy
}

// Options say how vaults are asked.
type Options struct {
	Credentials *azure.Credentials
	// Transport reaches vaults; nil: azure.NewTransport.
	Transport http.RoundTripper
	// Path of a file in which what was read is kept for the next start; empty:
	// nowhere. It has certificates and public keys only.
	Path string
	// OnChange is called when what Read gives has changed. It must be quick.
	OnChange func()
	// Log hears of what cannot be read; nil: nobody.
	Log *slog.Logger
	// Now is the time, and Jitter gives numbers in [0, 1); nil: the usual.
	Now    func() time.Time
	Jitter func() float64
}

// Vaults keeps what references name. Safe for concurrent use.
type Vaults struct {
	options Options
	client  *http.Client
	wake    chan struct{} // has room for one
	saving  sync.Mutex    // held while the file is written

	mu     sync.Mutex // guards all below
	items  map[Reference]*item
	kept   map[string]keptItem // from the file, until it is asked for
	change chan struct{}       // closed at the next change
}

// item is what is known of one object.
type item struct {
	refresh   time.Duration // the shortest that anybody wants
	readBy    time.Time     // when somebody read it last
	due       time.Time
	asking    bool
	failures  int
	pem       []byte
	at        time.Time
	err       *Error // of the last time; nil: it went well
	everAsked bool
}

// New makes Vaults that have asked nobody yet; see Run.
func New(o Options) *Vaults {
	if o.Transport == nil {
		o.Transport = azure.NewTransport()
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = mathrand.Float64
	}
	v := &Vaults{
		options: o, client: azure.NewClient(o.Transport), wake: make(chan struct{}, 1),
		items: map[Reference]*item{}, change: make(chan struct{}),
	}
	v.kept = v.restore()
	return v
}

// Read gives what is known, and asks nobody: Run does. The error is an *Error.
func (v *Vaults) Read(r Reference) (Material, error) {
	r.RefreshInterval = max(orDefault(r.RefreshInterval, DefaultRefreshInterval), MinRefreshInterval)
	r.MaxAge = orDefault(r.MaxAge, DefaultMaxAge)
	now := v.options.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	i, err := v.item(r, now)
	if err != nil {
		return Material{}, err
	}
	i.readBy = now
	if !i.asking && now.Sub(i.due) > time.Second { // as after a machine slept
		v.look()
	}
	switch {
	case len(i.pem) == 0 && i.err == nil:
		return Material{}, &Error{Message: r.String() + " has not been read yet", Remedy: "It is being read", Pending: true}
	case len(i.pem) == 0:
		return Material{}, i.err
	case now.Sub(i.at) > r.MaxAge:
		return Material{}, i.tooOld(r)
	}
	return Material{PEM: i.pem, ReadAt: i.at, Stale: i.err}, nil
}

func (i *item) tooOld(r Reference) *Error {
	e := &Error{
		Message:   fmt.Sprintf("%s could not be refreshed since %s, longer than the %s of maxAge", r, i.at.UTC().Format(time.RFC3339), r.MaxAge),
		Withdrawn: true,
	}
	if i.err != nil {
		e.Message += ": " + i.err.Message
		e.Remedy = i.err.Remedy
	}
	return e
}

// item finds the object, or begins to keep it.
func (v *Vaults) item(r Reference, now time.Time) (*item, error) {
	key := r.object()
	i, known := v.items[key]
	if !known {
		if len(v.items) >= maxReferences {
			return nil, &Error{Message: fmt.Sprintf("more than %d certificates and keys of vaults are named", maxReferences), Remedy: "Name fewer"}
		}
		i = &item{refresh: r.RefreshInterval, due: now}
		name := keyOf(key)
		if kept, ok := v.kept[name]; ok { // for the start: the vault may withdraw it from here on
			i.pem, i.at = kept.PEM, kept.ReadAt
			delete(v.kept, name)
		}
		v.items[key] = i
		v.look()
	}
	i.refresh = min(i.refresh, r.RefreshInterval)
	return i, nil
}

func orDefault(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// Run asks the vaults when that is due, until ctx ends.
func (v *Vaults) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	slots := make(chan struct{}, parallel)
	for {
		next, due := v.due()
		for _, r := range due {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			group.Go(func() {
				defer func() { <-slots }()
				v.refresh(ctx, r)
			})
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-v.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// due lists what is to be asked for now, and says when to look again.
func (v *Vaults) due() (next time.Duration, due []Reference) {
	now := v.options.Now()
	next = time.Minute
	v.mu.Lock()
	defer v.mu.Unlock()
	for r, i := range v.items {
		switch {
		case i.asking:
		case !i.readBy.IsZero() && now.Sub(i.readBy) > unread:
			delete(v.items, r)
		case !now.Before(i.due):
			i.asking = true
			due = append(due, r)
		default:
			next = min(next, i.due.Sub(now))
		}
	}
	slices.SortFunc(due, func(a, b Reference) int { return strings.Compare(a.String(), b.String()) })
	return max(next, 10*time.Millisecond), due
}

// Idle reports whether nobody has read anything yet.
func (v *Vaults) Idle() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.items) == 0
}

// Settle waits until all that was read so far has been asked for once.
func (v *Vaults) Settle(ctx context.Context) error {
	for {
		v.mu.Lock()
		change, pending := v.change, false
		for _, i := range v.items {
			pending = pending || !i.everAsked
		}
		v.mu.Unlock()
		if !pending {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// refresh asks for one object, and notes what became of it.
func (v *Vaults) refresh(ctx context.Context, r Reference) {
	asking, cancel := context.WithTimeout(ctx, askBudget)
	defer cancel()
	pem, err := v.ask(asking, r)
	if ctx.Err() != nil {
		return
	}
	changed := v.note(r, pem, err)
	if changed || err == nil { // when it was read is worth keeping as well
		v.save()
	}
	if changed {
		v.options.OnChange()
	}
	v.look() // it is due another time now
}

// look has Run see what is due.
func (v *Vaults) look() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func (v *Vaults) note(r Reference, pem []byte, err error) (changed bool) {
	now := v.options.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	i := v.items[r]
	if i == nil {
		return false
	}
	before := i.err
	i.asking, i.everAsked = false, true
	defer func() { close(v.change); v.change = make(chan struct{}) }()
	if err == nil {
		changed = string(i.pem) != string(pem) || before != nil
		i.pem, i.at, i.err, i.failures = pem, now, nil, 0
		i.due = now.Add(spread(i.refresh, v.options.Jitter()))
		if before != nil {
			v.options.Log.Info("a vault is read again", slog.String("object", r.String()))
		}
		return changed
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Message: r.String() + " could not be read"}
	}
	changed = before == nil || before.Message != e.Message || e.Withdrawn && len(i.pem) > 0
	i.err = e
	if e.Withdrawn {
		i.pem = nil
	}
	if changed {
		v.options.Log.Warn("a vault cannot be read", slog.String("object", r.String()), slog.String("message", e.Message), slog.String("remedy", e.Remedy))
	}
	wait := min(retryBase<<min(i.failures, 8), retryMost, i.refresh)
	i.failures++
	i.due = now.Add(max(spread(wait, v.options.Jitter()), e.after))
	return changed
}

// spread takes a fifth away or adds it, so that what began together does not stay
// together.
func spread(d time.Duration, jitter float64) time.Duration {
	return d + time.Duration((jitter-0.5)*0.4*float64(d))
}

// Age is how old what is in use of one object is.
type Age struct {
	Object string
	Age    time.Duration
	Failed bool
}

// Ages tells how old all is that is in use, for metrics.
func (v *Vaults) Ages() []Age {
	now := v.options.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []Age
	for r, i := range v.items {
		if len(i.pem) > 0 {
			list = append(list, Age{r.String(), now.Sub(i.at), i.err != nil})
		}
	}
	slices.SortFunc(list, func(a, b Age) int { return strings.Compare(a.Object, b.Object) })
	return list
}
