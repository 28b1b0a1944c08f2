package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// sameSize is how far the echo's answers may be from the provider's.
const sameSize = 0.01

// warm asks for what the provider has decided before, beside the echo provider.
func (b *bench) warm(ctx context.Context) error {
	b.stage.latency(0)
	t, err := b.provider(ctx)
	if err != nil {
		return err
	}
	defer t.stop()
	for i, f := range b.stage.formats {
		if f.sign == nil {
			continue
		}
		value, err := b.prime(ctx, t, f, byDigest)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := b.besideEcho(ctx, t, f, value, i == 0); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// prime lets the provider decide on all images of a format, and gives the value
// of the first.
func (b *bench) prime(ctx context.Context, t *target, f *format, by naming) ([]byte, error) {
	c, err := dial(ctx, t.address, b.stage.clients)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var value []byte
	for i, e := range exchangesOf(b.stage.images[f.name], by, 10) {
		time.Sleep(between)
		answer, err := c.ask(e.request)
		if err != nil {
			return nil, err
		}
		if err := e.decided(answer); err != nil {
			return nil, err
		}
		if i == 0 {
			if value, err = valueOf(answer); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// besideEcho measures the provider and the echo in turns: every cell of the
// table, or one.
func (b *bench) besideEcho(ctx context.Context, t *target, f *format, value []byte, every bool) error {
	echo, err := b.echo(ctx, value)
	if err != nil {
		return err
	}
	defer echo.stop()
	for _, keys := range []int{1, 10} {
		for _, kept := range []bool{true, false} {
			for _, clients := range []int{1, 8} {
				if !every && (keys != 1 || !kept || clients != 8) {
					continue
				}
				l := &load{clients: clients, kept: kept, exchanges: exchangesOf(b.stage.images[f.name], byDigest, keys)[1:], tls: b.stage.clients}
				name := fmt.Sprintf("%s, %d key, c=%d", f.name, keys, clients)
				if keys > 1 {
					name = fmt.Sprintf("%s, %d keys, c=%d", f.name, keys, clients)
				}
				if !kept {
					name += ", a connection each"
				}
				if err := b.inTurns(ctx, name, l, t, echo); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) inTurns(ctx context.Context, name string, l *load, t, echo *target) error {
	var ours, theirs sample
	var ratios []float64
	for pair := range b.sizes.pairs {
		var got [2]sample
		for turn := range got {
			who := (pair + turn) % 2 // neither is always the first
			var err error
			if got[who], err = l.run(ctx, [...]*target{t, echo}[who], b.sizes.window); err != nil {
				return fmt.Errorf("%s: %w", [...]string{"provider", "echo"}[who], err)
			}
		}
		ours.add(got[0])
		theirs.add(got[1])
		ratios = append(ratios, got[0].perSecond()/got[1].perSecond())
	}
	slices.Sort(ratios)
	ratio := (ratios[(len(ratios)-1)/2] + ratios[len(ratios)/2]) / 2
	b.report.add(measureWarm, name, 0, values{
		{"req/s", ours.perSecond()}, {"echo", theirs.perSecond()}, {"of echo", ratio},
		{"CPU ms/1000", 1000 * ours.cpuPerRequest()}, {"echo", 1000 * theirs.cpuPerRequest()}, {"x echo", ours.cpuPerRequest() / theirs.cpuPerRequest()},
		{"p50 ms", milliseconds(quantile(ours.each, 0.5))}, {"p99 ms", milliseconds(quantile(ours.each, 0.99))}, {"bytes", float64(ours.bytes)},
	}...)
	if off := math.Abs(float64(ours.bytes-theirs.bytes)) / float64(theirs.bytes); off > sameSize {
		return fmt.Errorf("the echo answers with %d bytes and the provider with %d", theirs.bytes, ours.bytes)
	}
	return nil
}
