package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

const (
	// bareRuns of a format's bare round trips.
	bareRuns = 30
	// loose is how much slower than its budget a ratio may be on a machine that
	// has other things to do.
	loose = 3
)

// series is what came of images that were asked for one after another.
type series struct {
	each     []time.Duration
	requests int   // of all
	trips    []int // of each: how many requests waited for one another
	cpu      time.Duration
}

func (s *series) usualTrips() int {
	slices.Sort(s.trips)
	return s.trips[len(s.trips)/2]
}

func (s *series) requestsPer(n int) float64 { return float64(s.requests) / float64(len(s.each)*n) }
func (s *series) cpuPer(n int) float64      { return milliseconds(s.cpu) / float64(len(s.each)*n) }

// oneByOne sends the exchanges one after another over one connection. The first
// warms up connections and code, and is not counted.
func (b *bench) oneByOne(ctx context.Context, t *target, registry *registrytest.Registry, exchanges []*exchange) (s series, err error) {
	c, err := dial(ctx, t.address, b.stage.clients)
	if err != nil {
		return s, err
	}
	defer c.close()
	var before usage
	for i, e := range exchanges {
		settle(registry)
		registry.Reset()
		time.Sleep(between)
		began := time.Now()
		answer, err := c.ask(e.request)
		took := time.Since(began)
		if err != nil {
			return s, err
		}
		if err := e.decided(answer); err != nil {
			return s, err
		}
		if i == 0 {
			if before, err = t.usage(ctx); err != nil {
				return s, err
			}
			continue
		}
		settle(registry)
		s.each = append(s.each, took)
		s.requests += len(registry.Requests())
		s.trips = append(s.trips, registry.RoundTrips())
	}
	after, err := t.usage(ctx)
	s.cpu = after.cpu - before.cpu
	return s, err
}

// settle waits until the registry has nothing to do, which is very soon: the
// answer is there, and what goes on behind it is bounded.
func settle(registry *registrytest.Registry) {
	for registry.InFlight() > 0 {
		runtime.Gosched()
	}
}

// exchanges asks for the first image alone, and then for the others so many at
// a time.
func exchangesOf(images []*image, by naming, size int) []*exchange {
	list := []*exchange{newExchange(by, images[0])}
	for at := 1; at < len(images); at += size {
		list = append(list, newExchange(by, images[at:min(at+size, len(images))]...))
	}
	return list
}

// some of a format's images, as many as fit the latency.
func (b *bench) some(f *format, latency time.Duration) []*image {
	images := b.stage.images[f.name]
	if latency > 0 {
		return images[:b.sizes.slow]
	}
	return images
}

// known leaves out the formats that the binary has no policies for.
func (b *bench) known(ctx context.Context) error {
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	c, err := dial(ctx, t.address, b.stage.clients)
	if err != nil {
		return err
	}
	defer c.close()
	var known []*format
	for _, f := range b.stage.formats {
		answer, err := c.ask(newExchange(byDigest, b.stage.images[f.name][0]).request)
		if err != nil {
			return err
		}
		if bytes.Contains(answer, []byte(`"systemError":"POLICY_INVALID`)) {
			b.report.Unknown = append(b.report.Unknown, f.name)
			continue
		}
		known = append(known, f)
	}
	b.stage.formats = known
	return nil
}

// cold asks for images that the provider has never seen, one at a time.
func (b *bench) cold(ctx context.Context) error {
	b.one = map[string]time.Duration{}
	for _, latency := range latencies {
		b.stage.latency(latency)
		for _, by := range []naming{byDigest, byTag} {
			t, err := b.provider(ctx)
			if err != nil {
				return err
			}
			for _, f := range b.stage.formats {
				if err := b.coldOf(ctx, t, f, by, latency); err != nil {
					t.stop()
					return fmt.Errorf("%s: %w", f.name, err)
				}
			}
			t.stop()
		}
	}
	return nil
}

func (b *bench) coldOf(ctx context.Context, t *target, f *format, by naming, latency time.Duration) error {
	images := b.some(f, latency)
	s, err := b.oneByOne(ctx, t, b.stage.registry, exchangesOf(images, by, 1))
	if err != nil {
		return err
	}
	p50 := quantile(s.each, 0.5)
	list := values{
		{"p50 ms", milliseconds(p50)}, {"p95 ms", milliseconds(quantile(s.each, 0.95))},
		{"requests", s.requestsPer(1)}, {"round trips", float64(s.usualTrips())}, {"CPU ms", s.cpuPer(1)},
	}
	if f.sign == nil {
		b.report.add(measureCold, f.name+", "+by.String(), latency, list...)
		return nil
	}
	bare, err := b.bare(images, by)
	if err != nil {
		return err
	}
	list = append(list, value{"bare ms", milliseconds(bare)}, value{"x bare", float64(p50) / float64(bare)})
	b.report.add(measureCold, f.name+", "+by.String(), latency, list...)

	requests := f.requests
	if by == byTag {
		requests++
	} else {
		b.one[f.name+latency.String()] = p50
	}
	b.report.demand(s.requestsPer(1) <= float64(requests), "%s %s: %.2f requests for a cold image, want %d", f.name, by, s.requestsPer(1), requests)
	// A registry that takes no time answers one question before the next is
	// asked, even where nobody waited for it.
	if trips := len(images[0].way) + int(by) + 1; latency > 0 {
		b.report.demand(s.usualTrips() <= trips, "%s %s: %d sequential round trips, want %d", f.name, by, s.usualTrips(), trips)
		budget := time.Duration(trips) * latency * 115 / 100
		b.report.demand(p50 <= loose*budget, "%s %s: a cold image takes %v, want %v", f.name, by, p50, budget)
	}
	return nil
}

// bare is the median of the fewest requests, one after another, that reach an
// image's signature, with nothing verified.
func (b *bench) bare(images []*image, by naming) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	var each []time.Duration
	for i, image := range images[:min(bareRuns+1, len(images))] {
		paths := image.way
		if by == byTag {
			paths = append([]string{fmt.Sprintf("/v2/%s/manifests/%s", image.repository, image.tag)}, paths...)
		}
		began := time.Now()
		for _, path := range paths {
			response, err := client.Get("http://" + image.host + path) //nolint:noctx // it is our own registry
			if err != nil {
				return 0, err
			}
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				return 0, fmt.Errorf("%s: %s %w", path, response.Status, err)
			}
		}
		if i > 0 { // the first opens the connection
			each = append(each, time.Since(began))
		}
	}
	return quantile(each, 0.5), nil
}

// batches asks for images never seen, several at a time, as for a pod with as
// many containers.
func (b *bench) batches(ctx context.Context) error {
	for _, latency := range latencies {
		b.stage.latency(latency)
		for _, size := range []int{10, 50} {
			t, err := b.provider(ctx)
			if err != nil {
				return err
			}
			for _, f := range b.stage.formats {
				if f.sign == nil {
					continue
				}
				if err := b.batchesOf(ctx, t, f, size, latency); err != nil {
					t.stop()
					return fmt.Errorf("%s: %w", f.name, err)
				}
			}
			t.stop()
		}
	}
	return nil
}

func (b *bench) batchesOf(ctx context.Context, t *target, f *format, size int, latency time.Duration) error {
	s, err := b.oneByOne(ctx, t, b.stage.registry, exchangesOf(b.stage.images[f.name], byDigest, size))
	if err != nil {
		return err
	}
	p50, one := quantile(s.each, 0.5), b.one[f.name+latency.String()]
	b.report.add(measureBatches, fmt.Sprintf("%s, %d keys", f.name, size), latency, values{
		{"p50 ms", milliseconds(p50)}, {"max ms", milliseconds(quantile(s.each, 1))}, {"requests", s.requestsPer(size)},
		{"CPU ms", s.cpuPer(size)}, {"x one", float64(p50) / float64(one)},
	}...)
	b.report.demand(s.requestsPer(size) <= float64(f.requests), "%s: %.2f requests for an image of a batch, want %d", f.name, s.requestsPer(size), f.requests)
	return nil
}

// tokens asks for images in a registry that wants a token for each repository.
func (b *bench) tokens(ctx context.Context) error {
	for _, latency := range latencies {
		b.stage.latency(latency)
		t, err := b.provider(ctx)
		if err != nil {
			return err
		}
		defer t.stop()
		for _, c := range []struct {
			name     string
			images   []*image
			requests int
		}{{"notation, one repository", b.stage.together, 3}, {"notation, a repository each", b.stage.apart, 4}} {
			s, err := b.oneByOne(ctx, t, b.stage.guarded, exchangesOf(c.images, byDigest, 1))
			if err != nil {
				return err
			}
			b.report.add(measureTokens, c.name, latency, values{
				{"p50 ms", milliseconds(quantile(s.each, 0.5))}, {"p95 ms", milliseconds(quantile(s.each, 0.95))},
				{"requests", s.requestsPer(1)}, {"round trips", float64(s.usualTrips())},
			}...)
			b.report.demand(s.requestsPer(1) <= float64(c.requests), "%s: %.2f requests for a cold image, want %d", c.name, s.requestsPer(1), c.requests)
		}
	}
	return nil
}
