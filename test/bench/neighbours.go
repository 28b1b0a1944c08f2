package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

const (
	// neighbourKeys is how many images a tenant requests at a time, in requests of
	// neighbourBatch keys.
	neighbourKeys, neighbourBatch = 1000, 50
	// neighbourSlack is how much slower others may be for it: a tenth or so much,
	// whichever is more.
	neighbourSlack = 5 * time.Millisecond
)

// behind has every request but the first of a sign-in, `GET /v2/`, meet the fault, so
// that the registry is there and gives trouble.
func behind(fault registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path != "/v2/" && fault(w, r)
	}
}

// neighbours has signed images verified that nobody knows, alone and beside a tenant
// whose thousand images are at a registry that gives trouble, in turns. The trouble is
// the tenant's; the others' images are admitted, as fast as alone.
func (b *bench) neighbours(ctx context.Context) error {
	never := make(chan struct{})
	defer close(never)
	for _, c := range []struct {
		name  string
		fault registrytest.Fault
	}{
		{"is silent", registrytest.Hang(never)},
		{"answers 429", registrytest.Throttle("")},
		{"answers 503", registrytest.Status(http.StatusServiceUnavailable)},
		{"cuts connections", registrytest.Reset()},
	} {
		var alone, beside [2][]time.Duration // p50 and p99 of each run
		for run := range 2 * b.sizes.turns {
			into, fault := &alone, registrytest.Fault(nil)
			if run%2 == 1 {
				into, fault = &beside, c.fault
			}
			p50, p99, err := b.neighbour(ctx, fault)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			into[0], into[1] = append(into[0], p50), append(into[1], p99)
		}
		slow := latencies[len(latencies)-1]
		b.report.add(measureNeighbours, "beside 1,000 images of a registry that "+c.name, slow, values{
			{"p50 ms alone", milliseconds(median(alone[0]))}, {"p50 ms beside", milliseconds(median(beside[0]))},
			{"p99 ms alone", milliseconds(median(alone[1]))}, {"p99 ms beside", milliseconds(median(beside[1]))},
		}...)
		limit := max(median(alone[1])*11/10, median(alone[1])+neighbourSlack)
		b.report.demand(b.sizes.turns < 5 || median(beside[1]) <= limit*loose, "p99 beside a registry that %s is %v, alone %v", c.name, median(beside[1]), median(alone[1]))
	}
	return nil
}

func median(list []time.Duration) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

// neighbour measures one run; without a fault there is no tenant.
func (b *bench) neighbour(ctx context.Context, fault registrytest.Fault) (p50, p99 time.Duration, err error) {
	t, err := b.provider(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer t.stop()
	slow := latencies[len(latencies)-1]
	b.stage.registry.SetFault(registrytest.Delay(slow))
	defer b.stage.latency(0)
	tenant, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer stop()
	if fault != nil {
		b.stage.guarded.SetFault(behind(fault))
		began := make(chan error, neighbourKeys/neighbourBatch)
		for client := range neighbourKeys / neighbourBatch {
			wait.Go(func() { b.troublesome(tenant, t, client, began) })
		}
		for range cap(began) {
			if err := <-began; err != nil {
				return 0, 0, err
			}
		}
	}
	exchanges := exchangesOf(b.stage.many[:min(400, b.sizes.many)], byDigest, 1)
	each, err := b.crowd(ctx, t, 4, exchanges, func(i int, answer []byte) error { return exchanges[i].decided(answer) })
	return quantile(each, 0.5), quantile(each, 0.99), err
}

// troublesome requests images of the registry that gives trouble, always others, until
// it is stopped. It says when the first of them are under way.
func (b *bench) troublesome(ctx context.Context, t *target, client int, began chan<- error) {
	c, err := dial(ctx, t.address, b.stage.clients)
	if err != nil {
		began <- err
		return
	}
	defer c.close()
	for round := 0; ctx.Err() == nil; round++ {
		images := make([]*image, neighbourBatch)
		for i := range images {
			name := fmt.Sprintf("tenant-%d-%d-%d", client, round, i)
			images[i] = &image{host: b.stage.guarded.Host(), repository: name, digest: digest.FromString(name)}
		}
		if round == 0 {
			time.AfterFunc(100*time.Millisecond, func() { began <- nil })
		}
		if _, err := c.ask(newExchangeIn("tenant", byDigest, images...).request); err != nil && !errors.Is(err, context.Canceled) {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
