package main

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"time"
)

// load is a number of clients that ask again as soon as they are answered.
type load struct {
	clients   int
	kept      bool // connections are
	exchanges []*exchange
	tls       *tls.Config
}

// sample is what came of some load.
type sample struct {
	requests  int
	took, cpu time.Duration
	each      []time.Duration
	bytes     int // of one answer
}

func (s *sample) add(other sample) {
	s.requests += other.requests
	s.took += other.took
	s.cpu += other.cpu
	s.each = append(s.each, other.each...)
	s.bytes = other.bytes
}

func (s *sample) perSecond() float64 { return float64(s.requests) / s.took.Seconds() }

// cpuPerRequest in ms is also that of a thousand requests in seconds.
func (s *sample) cpuPerRequest() float64 { return milliseconds(s.cpu) / float64(max(s.requests, 1)) }

// run asks the target for as long as the window is.
func (l *load) run(ctx context.Context, t *target, window time.Duration) (sample, error) {
	connections := make([]*connection, l.clients)
	defer func() {
		for _, c := range connections {
			if c != nil {
				c.close()
			}
		}
	}()
	if l.kept {
		for i := range connections {
			var err error
			if connections[i], err = dial(ctx, t.address, l.tls); err != nil {
				return sample{}, err
			}
		}
	}
	before, err := t.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	var wg sync.WaitGroup
	parts := make([]sample, l.clients)
	errs := make([]error, l.clients)
	started := time.Now()
	end := started.Add(window)
	for i := range l.clients {
		wg.Go(func() { parts[i], errs[i] = l.client(ctx, t, connections[i], i*len(l.exchanges)/l.clients, end) })
	}
	wg.Wait()
	s := sample{took: time.Since(started)}
	after, err := t.usage(ctx)
	if err != nil {
		return sample{}, err
	}
	s.cpu = after.cpu - before.cpu
	for _, part := range parts {
		s.requests += part.requests
		s.each = append(s.each, part.each...)
		s.bytes = part.bytes
	}
	return s, errors.Join(errs...)
}

// client asks from the given exchange on until end, at least once.
func (l *load) client(ctx context.Context, t *target, c *connection, at int, end time.Time) (s sample, err error) {
	for {
		e := l.exchanges[at%len(l.exchanges)]
		at++
		began := time.Now()
		if !l.kept {
			if c, err = dial(ctx, t.address, l.tls); err != nil {
				return s, err
			}
		}
		answer, err := c.ask(e.request)
		if err != nil {
			return s, err
		}
		done := time.Now()
		if !l.kept {
			c.close()
		}
		if err := e.trusts(answer); err != nil {
			return s, err
		}
		s.requests++
		s.bytes = len(answer)
		s.each = append(s.each, done.Sub(began))
		if done.After(end) || ctx.Err() != nil {
			return s, ctx.Err()
		}
	}
}

// quantile is the nearest-rank one; it sorts the list.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
