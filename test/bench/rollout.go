package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// gatekeeperClients is how many requests Gatekeeper's webhook has under way here.
const gatekeeperClients = 64

// rollout has pods come as a cluster makes them, whether or not the ones before
// were answered: of images that nobody knows at first, two to a pod, the registry
// +20 ms away. How long a pod waits counts from when it came.
func (b *bench) rollout(ctx context.Context) error {
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	slow := latencies[len(latencies)-1]
	b.stage.latency(slow)
	defer b.stage.latency(0)
	pods := b.sizes.pods
	every := b.sizes.rollout / time.Duration(pods)
	images := b.stage.many[:min(len(b.stage.many), 200)]
	source := rand.New(rand.NewPCG(1, uint64(pods)))

	connections := make(chan *connection, gatekeeperClients)
	for range gatekeeperClients {
		c, err := dial(ctx, t.address, b.stage.clients)
		if err != nil {
			return err
		}
		defer c.close()
		connections <- c
	}
	each, late := make([]time.Duration, pods), make([]error, pods)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range pods {
		comes := began.Add(time.Duration(i) * every)
		if wait := time.Until(comes); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		first := source.IntN(len(images))
		second := (first + 1 + source.IntN(len(images)-1)) % len(images)
		pod := newExchange(byTag, images[first], images[second])
		wg.Go(func() {
			c := <-connections
			answer, err := c.ask(pod.request)
			connections <- c
			each[i] = time.Since(comes)
			if err == nil {
				err = pod.decided(answer)
			}
			late[i] = err
		})
	}
	wg.Wait()
	undecided := 0
	for _, err := range late {
		if err != nil {
			undecided++
			b.report.demand(false, "a pod of a rollout was not admitted: %v", err)
		}
	}
	after, err := t.usage(ctx)
	if err != nil {
		return err
	}
	settle(b.stage.registry)
	requests := len(b.stage.registry.Requests())
	b.stage.registry.Reset()
	b.report.add(measureRollout, fmt.Sprintf("%d pods in %v, %d images", pods, b.sizes.rollout, len(images)), slow, values{
		{"pods/s", float64(pods) / b.sizes.rollout.Seconds()}, {"not admitted", float64(undecided)},
		{"p50 ms", milliseconds(quantile(each, 0.5))}, {"p99 ms", milliseconds(quantile(each, 0.99))}, {"max ms", milliseconds(quantile(each, 1))},
		{"requests/image", float64(requests) / float64(len(images))}, {"MiB", after.resident / mib},
	}...)
	return nil
}

// slowRegistry takes a second for each request: the first answer must leave in
// time, and whoever comes again a little later finds the decision made.
func (b *bench) slowRegistry(ctx context.Context) error {
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	const slow, again = time.Second, 2 * time.Second
	b.stage.latency(slow)
	defer b.stage.latency(0)
	e := newExchange(byDigest, b.stage.many[len(b.stage.many)-1])
	ask := func() (answer []byte, took time.Duration, err error) { // idle connections are closed meanwhile
		c, err := dial(ctx, t.address, b.stage.clients)
		if err != nil {
			return nil, 0, err
		}
		defer c.close()
		began := time.Now()
		answer, err = c.ask(e.request)
		return answer, time.Since(began), err
	}
	_, first, err := ask()
	if err != nil {
		return err
	}
	select {
	case <-time.After(again):
	case <-ctx.Done():
		return ctx.Err()
	}
	answer, second, err := ask()
	if err != nil {
		return err
	}
	b.report.add(measureSlow, "notation, by digest", slow, values{{"first ms", milliseconds(first)}, {"second ms", milliseconds(second)}}...)
	b.report.demand(first < 2*time.Second, "the first answer left after %v, and Gatekeeper waits for two seconds", first)
	if err := e.decided(answer); err != nil {
		b.report.demand(false, "the second admission: %v", err)
	}
	return nil
}
