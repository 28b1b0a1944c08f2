package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// badAnswers are what a registry in trouble gives in the place of answers.
var badAnswers = []registrytest.Fault{
	registrytest.Throttle(""),
	registrytest.Status(http.StatusInternalServerError),
	registrytest.Status(http.StatusBadGateway),
	registrytest.Status(http.StatusServiceUnavailable),
	registrytest.Reset(),
}

// oneOf gives one of the faults at a time.
func oneOf(faults ...registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return faults[rand.IntN(len(faults))](w, r)
	}
}

// trouble has signed images verified that nobody knows, while the registry fails
// some requests, says Retry-After, or is away. All must be admitted.
func (b *bench) trouble(ctx context.Context) error {
	defer b.stage.registry.SetFault(nil)
	for _, c := range []struct {
		name    string
		percent int
		bad     registrytest.Fault
	}{
		{"429, 500, 502, 503, cut", 5, oneOf(badAnswers...)},
		{"429, 500, 502, 503, cut", 20, oneOf(badAnswers...)},
		{"429", 5, registrytest.Throttle("")},
		{"429", 20, registrytest.Throttle("")},
	} {
		if err := b.troubleOf(ctx, c.name, c.percent, c.bad); err != nil {
			return fmt.Errorf("%d %% %s: %w", c.percent, c.name, err)
		}
	}
	if err := b.windows(ctx); err != nil {
		return fmt.Errorf("Retry-After: %w", err)
	}
	return b.outages(ctx)
}

// troubleP99 is the budget with 5 % bad answers.
const troubleP99 = 400 * time.Millisecond

func (b *bench) troubleOf(ctx context.Context, name string, percent int, bad registrytest.Fault) error {
	const clients = 16
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	slow := latencies[len(latencies)-1]
	registry := b.stage.registry
	registry.Reset()
	registry.SetFault(registrytest.Each(registrytest.Delay(slow), atRandom(percent, bad)))
	exchanges := exchangesOf(b.stage.many[:b.sizes.faults], byDigest, 1)
	var not atomic.Int64
	each, err := b.crowd(ctx, t, clients, exchanges, func(i int, answer []byte) error {
		list, err := exchanges[i].outcomes(answer)
		if err == nil && list[0] != accepted {
			not.Add(1)
		}
		return err
	})
	if err != nil {
		return err
	}
	n := float64(len(exchanges))
	p99 := quantile(each, 0.99)
	b.report.add(measureTrouble, fmt.Sprintf("%d %% of requests answered %s, c=%d", percent, name, clients), slow, values{
		{"images", n}, {"not admitted", float64(not.Load())},
		{"p50 ms", milliseconds(quantile(each, 0.5))}, {"p99 ms", milliseconds(p99)}, {"max ms", milliseconds(quantile(each, 1))},
		{"requests", float64(len(registry.Requests())) / n},
	}...)
	registry.Reset()
	b.report.demand(not.Load() == 0, "%d of %d signed images not admitted with %d %% %s", not.Load(), len(exchanges), percent, name)
	b.report.demand(percent > 5 || p99 <= loose*troubleP99, "p99 with %d %% %s is %v, want %v", percent, name, p99, troubleP99)
	return nil
}

// closing is a registry that says Retry-After: 1, and notes what comes nevertheless.
type closing struct {
	mu     sync.Mutex // guards all below
	began  []time.Time
	inside int
}

// retryWindow is what the registry says, and grace is how long an answer may take to
// be read.
const retryWindow, grace = time.Second, 50 * time.Millisecond

func (c *closing) fault(percent int) registrytest.Fault {
	refuse := registrytest.Throttle("1")
	hit := atRandom(percent, func(http.ResponseWriter, *http.Request) bool { return true })
	return func(w http.ResponseWriter, r *http.Request) bool {
		c.mu.Lock()
		if n := len(c.began); n > 0 {
			if since := time.Since(c.began[n-1]); since > grace && since < retryWindow {
				c.inside++
			}
		}
		c.mu.Unlock()
		registrytest.Delay(latencies[len(latencies)-1])(w, r)
		if !hit(w, r) {
			return false
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.began = append(c.began, time.Now())
		return refuse(w, r)
	}
}

// opened counts the windows that began in a time, and tells whether it began in one.
func (c *closing) opened(from, to time.Time) (n int, within bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, began := range c.began {
		switch {
		case began.After(from) && began.Before(to):
			n++
		case !began.After(from) && from.Before(began.Add(retryWindow+grace)):
			within = true
		}
	}
	return n, within
}

// windows verifies images while a hundredth of the requests is answered 429 with
// Retry-After: 1. No request may come inside a window, and an image whose try begins
// after one, and meets no other, is admitted by it.
func (b *bench) windows(ctx context.Context) error {
	const clients, percent, maxTries = 8, 1, 20
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	registry, says := b.stage.registry, &closing{}
	registry.Reset()
	registry.SetFault(says.fault(percent))
	exchanges := exchangesOf(b.stage.many[:min(b.sizes.windows, len(b.stage.many))], byDigest, 1)
	var next, again, late atomic.Int64
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for client := range clients {
		c, err := dial(ctx, t.address, b.stage.clients)
		if err != nil {
			return err
		}
		defer c.close()
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(exchanges); i = int(next.Add(1)) - 1 {
				for try := 1; ; try++ {
					time.Sleep(between)
					began := time.Now()
					answer, err := c.ask(exchanges[i].request)
					var list []outcome
					if err == nil {
						list, err = exchanges[i].outcomes(answer)
					}
					if err != nil || try == maxTries {
						errs[client] = errors.Join(err, ctx.Err())
						break
					}
					if list[0] == accepted {
						break
					}
					again.Add(1)
					if n, within := says.opened(began.Add(-grace), time.Now()); n == 0 && !within {
						late.Add(1)
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	says.mu.Lock()
	defer says.mu.Unlock()
	b.report.add(measureWindows, fmt.Sprintf("%d %% answered 429 with Retry-After: 1, c=%d", percent, clients), latencies[len(latencies)-1], values{
		{"images", float64(len(exchanges))}, {"windows", float64(len(says.began))}, {"requests inside", float64(says.inside)},
		{"further tries", float64(again.Load())}, {"after a window in vain", float64(late.Load())},
	}...)
	b.report.demand(says.inside == 0, "%d requests inside a window of Retry-After", says.inside)
	b.report.demand(late.Load() == 0, "%d tries that began after a window were in vain", late.Load())
	return nil
}

// recovered is how long after its end an outage may still be felt.
const recovered = 500 * time.Millisecond

// outages has the registry fail everything for a while, with images asked for all the
// time, and wants the first one admitted half a second after it.
func (b *bench) outages(ctx context.Context) error {
	registry := b.stage.registry
	fault := func(f registrytest.Fault) func() error {
		return func() error {
			registry.SetFault(f)
			return nil
		}
	}
	slow := registrytest.Delay(latencies[len(latencies)-1])
	for _, c := range []struct {
		name       string
		begin, end func() error
	}{
		{"requests hang", fault(registrytest.Hang(nil)), fault(slow)},
		{"connections are refused", func() error { registry.Refuse(); return nil }, registry.Listen},
		{"all answers are 500", fault(registrytest.Status(http.StatusInternalServerError)), fault(slow)},
		{"all answers are 429", fault(registrytest.Throttle("")), fault(slow)},
	} {
		registry.SetFault(slow)
		if err := b.outage(ctx, c.name, c.begin, c.end); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (b *bench) outage(ctx context.Context, name string, begin, end func() error) error {
	const clients = 4
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	before, meanwhile, after := b.stage.many[0], b.stage.many[1:len(b.stage.many)-1], b.stage.many[len(b.stage.many)-1]
	ask := func(image *image, check func(*exchange, []byte) error) (time.Duration, error) {
		c, err := dial(ctx, t.address, b.stage.clients)
		if err != nil {
			return 0, err
		}
		defer c.close()
		e, began := newExchange(byDigest, image), time.Now()
		answer, err := c.ask(e.request)
		if err != nil {
			return 0, err
		}
		return time.Since(began), check(e, answer)
	}
	if _, err := ask(before, (*exchange).decided); err != nil {
		return err
	}
	if err := begin(); err != nil {
		return err
	}
	var each []time.Duration
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, clients)
	until := time.Now().Add(b.sizes.outage)
	for client := range clients {
		wg.Go(func() {
			for time.Now().Before(until) && errs[client] == nil {
				took, err := ask(meanwhile[int(next.Add(1))%len(meanwhile)], func(e *exchange, answer []byte) error {
					_, err := e.outcomes(answer)
					return err
				})
				errs[client] = err
				mu.Lock()
				each = append(each, took)
				mu.Unlock()
				select {
				case <-time.After(10 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(errs, end())...); err != nil {
		return err
	}
	select {
	case <-time.After(recovered):
	case <-ctx.Done():
		return ctx.Err()
	}
	first, wrong := ask(after, (*exchange).decided)
	b.report.add(measureOutage, fmt.Sprintf("%v of outage, %s", b.sizes.outage, name), latencies[len(latencies)-1], values{
		{"answers", float64(len(each))}, {"p50 ms", milliseconds(quantile(each, 0.5))}, {"max ms", milliseconds(quantile(each, 1))},
		{"first afterwards ms", milliseconds(first)},
	}...)
	b.report.demand(wrong == nil, "the first image after an outage (%s): %v", name, wrong)
	b.stage.registry.Reset()
	return nil
}
