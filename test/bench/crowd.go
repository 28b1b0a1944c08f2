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

// crowd sends each exchange once, from so many clients with a connection each,
// and gives how long each took. Check is called by many at once.
func (b *bench) crowd(ctx context.Context, t *target, clients int, exchanges []*exchange, check func(i int, answer []byte) error) ([]time.Duration, error) {
	connections := make([]*connection, clients)
	for i := range connections {
		var err error
		if connections[i], err = dial(ctx, t.address, b.stage.clients); err != nil {
			return nil, err
		}
		defer connections[i].close()
	}
	each := make([]time.Duration, len(exchanges))
	errs := make([]error, clients)
	var next atomic.Int64
	var wg sync.WaitGroup
	for client, c := range connections {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(exchanges) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				time.Sleep(between)
				began := time.Now()
				answer, err := c.ask(exchanges[i].request)
				each[i] = time.Since(began)
				if err == nil {
					err = check(i, answer)
				}
				if err != nil {
					errs[client] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return each, errors.Join(append(errs, ctx.Err())...)
}

// stampede has many clients ask for the same image at once, which the provider
// has never seen.
func (b *bench) stampede(ctx context.Context) error {
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	slow := latencies[len(latencies)-1]
	b.stage.latency(slow)
	defer b.stage.latency(0)
	f := b.stage.formats[0]
	images := b.stage.images[f.name]
	if _, err := b.oneByOne(ctx, t, b.stage.registry, exchangesOf(images[:1], byDigest, 1)); err != nil {
		return err
	}
	var each []time.Duration
	requests := 0
	for _, image := range images[1 : 1+b.sizes.stampedes] {
		herd := make([]*exchange, b.sizes.herd)
		for i := range herd {
			herd[i] = newExchange(byDigest, image)
		}
		b.stage.registry.Reset()
		took, err := b.crowd(ctx, t, len(herd), herd, func(i int, answer []byte) error { return herd[i].decided(answer) })
		if err != nil {
			return err
		}
		settle(b.stage.registry)
		requests = max(requests, len(b.stage.registry.Requests()))
		each = append(each, took...)
	}
	b.report.add(measureHerd, fmt.Sprintf("%s, %d at once", f.name, b.sizes.herd), slow, values{
		{"p50 ms", milliseconds(quantile(each, 0.5))}, {"p99 ms", milliseconds(quantile(each, 0.99))},
		{"max ms", milliseconds(quantile(each, 1))}, {"requests", float64(requests)},
	}...)
	b.report.demand(requests <= f.requests, "a stampede makes %d registry requests, want %d", requests, f.requests)
	return nil
}

const mib = 1 << 20

// memory asks for many images, and looks at what the provider has become.
func (b *bench) memory(ctx context.Context) error {
	const clients = 32
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	idle, err := t.usage(ctx)
	if err != nil {
		return err
	}
	exchanges := exchangesOf(b.stage.many, byDigest, 1)
	began := time.Now()
	each, err := b.crowd(ctx, t, clients, exchanges, func(i int, answer []byte) error { return exchanges[i].decided(answer) })
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := t.usage(ctx)
	if err != nil {
		return err
	}
	n := float64(len(exchanges))
	b.stage.registry.Reset()
	// All of them again, to see whether many cost more than few when warm.
	l := &load{clients: 8, kept: true, exchanges: exchanges, tls: b.stage.clients}
	warm, err := l.run(ctx, t, time.Duration(b.sizes.pairs)*b.sizes.window)
	if err != nil {
		return err
	}
	b.report.demand(after.resident < 300*mib, "%d images take %.0f MiB", len(exchanges), after.resident/mib)
	b.report.add(measureMemory, fmt.Sprintf("notation, %d images, c=%d", len(exchanges), clients), 0, values{
		{"images/s", n / took.Seconds()}, {"CPU ms", milliseconds(after.cpu-idle.cpu) / n}, {"p99 ms", milliseconds(quantile(each, 0.99))},
		{"idle MiB", idle.resident / mib}, {"MiB", after.resident / mib},
		{"warm req/s", warm.perSecond()}, {"CPU ms/1000", 1000 * warm.cpuPerRequest()},
	}...)
	return nil
}

// faults has the registry fail at random. A signed image may be undecided; it
// must not be refused.
func (b *bench) faults(ctx context.Context) error {
	for _, f := range []struct {
		name  string
		fault registrytest.Fault
		n     int
	}{
		{"5 % of requests answered 500, 1 % cut", registrytest.Each(atRandom(5, registrytest.Status(http.StatusInternalServerError)), atRandom(1, registrytest.Reset())), b.sizes.faults},
		{"20 % of requests answered 500", atRandom(20, registrytest.Status(http.StatusInternalServerError)), min(b.sizes.faults, 1000)},
	} {
		if err := b.faultsOf(ctx, f.name, f.fault, f.n); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func (b *bench) faultsOf(ctx context.Context, name string, fault registrytest.Fault, images int) error {
	const clients = 8
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	registry := b.stage.registry
	registry.SetFault(fault)
	defer registry.SetFault(nil)

	pending := exchangesOf(b.stage.many[:images], byDigest, 1)
	ask := func() (each []time.Duration, counts [accepted + 1]int, err error) {
		outcomes := make([]outcome, len(pending))
		each, err = b.crowd(ctx, t, clients, pending, func(i int, answer []byte) error {
			list, err := pending[i].outcomes(answer)
			if err == nil {
				outcomes[i] = list[0]
			}
			return err
		})
		var open []*exchange
		for i, o := range outcomes {
			counts[o]++
			if o == undecided {
				open = append(open, pending[i])
			}
		}
		pending = open
		return each, counts, err
	}
	n := float64(len(pending))
	registry.Reset()
	each, first, err := ask()
	if err != nil {
		return err
	}
	requests := len(registry.Requests())
	_, second, err := ask()
	if err != nil {
		return err
	}
	registry.Reset()
	wrong := first[refused] + second[refused]
	b.report.add(measureErrors, fmt.Sprintf("notation, %s, c=%d", name, clients), 0, values{
		{"images", n}, {"refused", float64(wrong)}, {"undecided", float64(first[undecided])}, {"asked again", float64(second[undecided])},
		{"p50 ms", milliseconds(quantile(each, 0.5))}, {"p99 ms", milliseconds(quantile(each, 0.99))}, {"requests", float64(requests) / n},
	}...)
	b.report.demand(wrong == 0, "%d signed images refused with %s", wrong, name)
	return nil
}

// atRandom narrows a fault to some of the requests, the same in every run as
// long as they come in the same order.
func atRandom(percent int, fault registrytest.Fault) registrytest.Fault {
	var mu sync.Mutex
	source := rand.New(rand.NewPCG(1, uint64(percent)))
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		hit := source.IntN(100) < percent
		mu.Unlock()
		return hit && fault(w, r)
	}
}
