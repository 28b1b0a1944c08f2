package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptrace"
	"time"
)

// probePatience is how long each step of a probe may take: to connect, to agree on
// TLS, to answer.
const probePatience = 400 * time.Millisecond

// probeSlice is in what slices it is counted. One that took longer counts no more:
// where it is this process that gets no processor, the host is given more time.
const probeSlice = 40 * time.Millisecond

// probed is what one probe met.
type probed struct {
	// failed: the connection was refused or unanswered. Otherwise there was an answer,
	// or the probe failed for another reason, which says nothing.
	failed bool
	err    error
	// took is how long an answer took; 0 where there was none.
	took time.Duration
}

var errSilent = errors.New("no answer")

// watch probes the client's host until it answers, or the view has not wanted it for
// long: a few times in a row, and then, if it is away, at intervals.
func (a *availability) watch(ctx context.Context, c *client, p *presence) {
	outcomes := make(chan probed)
	client := c.prober()
	sent := 0
	start := func(patient bool) {
		sent++
		go c.probe(ctx, client, p.patience(a), patient, outcomes)
	}
	start(true)
	tick := time.NewTimer(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case outcome := <-outcomes:
			a.mu.Lock()
			if ctx.Err() != nil {
				a.mu.Unlock()
				return
			}
			now := time.Now()
			if !outcome.failed {
				if outcome.took > 0 {
					p.lag = 0
				}
				if outcome.took > probePatience {
					p.lag = min(outcome.took, maxLag)
				}
				p.isThere(now)
				a.mu.Unlock()
				return
			}
			switch known := p.away != nil; {
			case p.fail(c.host, outcome, now):
				if !known {
					tick.Reset(probeEvery)
				}
			case errors.Is(outcome.err, errSilent):
				tick.Reset(0)
			default:
				tick.Reset(refusedPause)
			}
			a.mu.Unlock()
		case <-tick.C:
			a.mu.Lock()
			unwanted := time.Since(p.wanted) > probedFor && len(p.waiting) == 0
			if unwanted && ctx.Err() == nil {
				p.leave()
				if p.lag == 0 && a.known[c.peer(c.host)] == p {
					delete(a.known, c.peer(c.host))
				}
			}
			burst := p.away == nil
			a.mu.Unlock()
			if unwanted {
				return
			}
			if start(burst || sent%4 == 0); !burst { // so that a host that became slow is seen as well
				tick.Reset(probeEvery)
			}
		}
	}
}

// patience is how long a step of a probe of the peer may take.
func (p *presence) patience(a *availability) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return probePatience + p.lag
}

// prober sends probes: as the view connects to its host, over a connection of each
// probe's own, as one that hangs says nothing of the host.
func (c *client) prober() *http.Client {
	leave := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	trip, ok := c.http.Transport.(*router)
	if !ok {
		return &http.Client{Transport: c.http.Transport, CheckRedirect: leave}
	}
	fresh := *trip
	for i, own := range trip.own {
		if t, ok := own.(*http.Transport); ok {
			t = t.Clone()
			t.DisableKeepAlives = true
			t.ForceAttemptHTTP2, t.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
			t.TLSClientConfig.NextProtos = []string{"http/1.1"}
			fresh.own[i] = t
		}
	}
	return &http.Client{Transport: &fresh, CheckRedirect: leave}
}

// probe requests /v2/ once, with no credential, and tells what it met: at the latest
// when a step has taken longer than patience. A patient probe goes on after that, and
// tells if there is an answer after all.
func (c *client) probe(ctx context.Context, client *http.Client, patience time.Duration, patient bool, outcomes chan<- probed) {
	ctx, cancel := context.WithTimeout(ctx, c.store.options.AttemptTimeout+patience)
	defer cancel()
	tell := func(o probed) {
		select {
		case outcomes <- o:
		case <-ctx.Done():
		}
	}
	steps := make(chan struct{}, 8)
	step := func() {
		select {
		case steps <- struct{}{}:
		default:
		}
	}
	done := make(chan probed, 1)
	go func() {
		began := time.Now()
		err := c.requestVersion(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			ConnectStart:     func(string, string) { step() },
			ConnectDone:      func(string, string, error) { step() },
			TLSHandshakeDone: func(tls.ConnectionState, error) { step() },
		}), client)
		if err == nil {
			done <- probed{took: time.Since(began)}
		} else {
			done <- probed{err: err, failed: unanswered(err)}
		}
	}()
	timer := time.NewTimer(time.Hour) // until it connects: DNS is not the host
	defer timer.Stop()
	left, silent := patience, false
	for {
		select {
		case <-steps:
			left = patience
			timer.Reset(probeSlice)
		case <-timer.C:
			if left -= probeSlice; left > 0 {
				timer.Reset(probeSlice)
				continue
			}
			if !silent {
				tell(probed{failed: true, err: errSilent})
			}
			if silent = true; !patient {
				return
			}
		case o := <-done:
			if !o.failed || !silent { // a failure was told before
				tell(o)
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// requestVersion requests what every registry has. Any answer is one.
func (c *client) requestVersion(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.scheme+"://"+c.host+"/v2/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.store.options.UserAgent)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
