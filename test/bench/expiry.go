package main

import (
	"context"
	"time"
)

// What is remembered ends while other things are measured: a provider that has
// decided on some images is kept aside, and is asked about them again.

// prepare starts that provider.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.aged, err = b.provider(ctx); err != nil {
		return err
	}
	_, err = b.prime(ctx, b.aged, b.stage.formats[0], byTag)
	b.primed = time.Now()
	return err
}

// tagsExpire asks by tag when tags have to be resolved again and nothing else.
func (b *bench) tagsExpire(ctx context.Context) error {
	images := b.stage.images[nameNotation][:b.sizes.slow]
	return b.expire(ctx, "notation, by tag, tags expired", b.sizes.tags, byTag, images, 1)
}

// candidatesExpire asks when new signatures have to be looked for.
func (b *bench) candidatesExpire(ctx context.Context) error {
	images := b.stage.images[nameNotation][:b.sizes.slow]
	half := len(images) / 2
	if err := b.expire(ctx, "notation, by digest, all expired", b.sizes.candidates, byDigest, images[:half], 1); err != nil {
		return err
	}
	return b.expire(ctx, "notation, by tag, all expired", b.sizes.candidates, byTag, images[half:], 2)
}

// expire asks again so long after they were first asked for; 0: not at all.
func (b *bench) expire(ctx context.Context, name string, after time.Duration, by naming, images []*image, requests int) error {
	if after == 0 {
		return nil
	}
	select {
	case <-time.After(time.Until(b.primed.Add(after))):
	case <-ctx.Done():
		return ctx.Err()
	}
	slow := latencies[len(latencies)-1]
	b.stage.latency(slow)
	defer b.stage.latency(0)
	s, err := b.oneByOne(ctx, b.aged, b.stage.registry, exchangesOf(images, by, 1))
	if err != nil {
		return err
	}
	b.report.add(measureExpiry, name, slow, values{
		{"p50 ms", milliseconds(quantile(s.each, 0.5))}, {"p95 ms", milliseconds(quantile(s.each, 0.95))},
		{"requests", s.requestsPer(1)}, {"round trips", float64(s.usualTrips())}, {"CPU ms", s.cpuPer(1)},
	}...)
	b.report.demand(s.requestsPer(1) <= float64(requests), "%s: %.2f requests, want %d", name, s.requestsPer(1), requests)
	return nil
}
