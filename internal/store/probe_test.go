package store

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// wire answers requests as a network does, and counts them.
type wire struct {
	mu  sync.Mutex // guards all below
	err error
	n   int
}

func (w *wire) meets(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *wire) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	if w.err != nil {
		return nil, w.err
	}
	return &http.Response{StatusCode: http.StatusUnauthorized, Body: http.NoBody, Request: req}, nil
}

func refusedConnection() error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func probing(w *wire) (*availability, *client) {
	s := New(Options{})
	return s.availability, &client{store: s, view: "view", host: "registry.example.com", scheme: "https", http: &http.Client{Transport: w}}
}

// TestL56_ProbesHaveTheirTime: a refusal is known after a tenth of a second, is looked at
// every quarter of one, and for half a minute after anybody wanted it.
func TestL56_ProbesHaveTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{err: refusedConnection()}
		a, c := probing(w)
		at := c.peer(c.host)
		ctx, leave, away := a.begin(t.Context(), at)
		if away != nil {
			t.Fatal(away)
		}
		began := time.Now()
		a.judge(ctx, c)
		if took := time.Since(began); took > 100*time.Millisecond || w.sent() != downAfter {
			t.Errorf("%d probes in %v", w.sent(), took)
		}
		if away := ended(ctx); away == nil || away.Reason != verifier.ReasonRegistryAway {
			t.Errorf("the request that waits has %v", away)
		}
		leave()
		before := w.sent()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := w.sent() - before; n < 39 || n > 41 {
			t.Errorf("%d probes in ten seconds", n)
		}
		if _, _, away := a.begin(t.Context(), at); away == nil {
			t.Error("it is not away any more")
		}
		time.Sleep(probedFor + time.Second)
		synctest.Wait()
		before = w.sent()
		time.Sleep(time.Minute)
		synctest.Wait()
		if w.sent() != before {
			t.Errorf("%d probes when nobody wanted it", w.sent()-before)
		}
		if _, leave, away := a.begin(t.Context(), at); away != nil {
			t.Errorf("and it is still %v", away)
		} else {
			leave()
		}
		if len(a.known) != 0 {
			t.Errorf("%v is still known", a.known)
		}
	})
}

// TestL56_TheFirstAnswerEndsIt, whatever it is, of a probe or of a request.
func TestL56_TheFirstAnswerEndsIt(t *testing.T) {
	for name, answer := range map[string]func(*availability, *client, *wire){
		"a probe's 401": func(_ *availability, _ *client, w *wire) { w.meets(nil) },
		"a request's":   func(a *availability, c *client, _ *wire) { a.answer(c.peer(c.host), time.Millisecond) },
		"DNS":           func(_ *availability, _ *client, w *wire) { w.meets(&net.DNSError{IsNotFound: true}) },
		"a reset":       func(_ *availability, _ *client, w *wire) { w.meets(syscall.ECONNRESET) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &wire{err: refusedConnection()}
				a, c := probing(w)
				ctx, leave, _ := a.begin(t.Context(), c.peer(c.host))
				a.judge(ctx, c)
				leave()
				answer(a, c, w)
				time.Sleep(probeEvery + time.Millisecond)
				synctest.Wait()
				_, leave, away := a.begin(t.Context(), c.peer(c.host))
				if away != nil {
					t.Fatalf("still %v", away)
				}
				leave()
				sent := w.sent()
				time.Sleep(time.Minute)
				if w.sent() != sent {
					t.Errorf("%d probes afterwards", w.sent()-sent)
				}
			})
		})
	}
}

// TestL44_TwoRefusalsAreNotAway, nor is what an old probe met.
func TestL44_TwoRefusalsAreNotAway(t *testing.T) {
	p := &presence{waiting: nil}
	now := time.Now()
	for n := range downAfter {
		if away := p.fail("registry.example.com", probed{failed: true, err: errSilent}, now); away != (n == downAfter-1) {
			t.Errorf("away after %d: %v", n+1, away)
		}
	}
	if p.isAway(now) == nil || p.isAway(now.Add(freshFor+time.Millisecond)) != nil {
		t.Error("it is away for as long as a probe is fresh")
	}
}

// TestL44_WhatIsUnanswered is what no server took part in.
func TestL44_WhatIsUnanswered(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{refusedConnection(), true},
		{os.NewSyscallError("connect", syscall.ENETUNREACH), true},
		{os.NewSyscallError("connect", syscall.EHOSTUNREACH), true},
		{os.ErrDeadlineExceeded, true},
		{&net.DNSError{IsTimeout: true}, false},
		{&net.DNSError{IsNotFound: true}, false},
		{&refusedAddress{what: "a private"}, false},
		{syscall.ECONNRESET, false},
		{syscall.EMFILE, false},
		{syscall.EADDRNOTAVAIL, false},
		{errors.New("tls: bad record MAC"), false},
	} {
		if got := unanswered(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

// TestFewHostsAreProbed at once: an attacker chooses their names. The ones that nobody
// wants any more go first.
func TestFewHostsAreProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{err: refusedConnection()}
		a, c := probing(w)
		ctx, leave, _ := a.begin(t.Context(), c.peer(c.host))
		a.judge(ctx, c)
		leave()
		others := 0
		for range 20 { // a hundred hosts a second
			for range 100 {
				other := *c
				others++
				other.host = time.Duration(others).String()
				ctx, leave, _ := a.begin(t.Context(), other.peer(other.host))
				a.suspect(&other, true)
				leave()
				_ = ctx
			}
			time.Sleep(time.Second)
			synctest.Wait()
			probed := 0
			a.mu.Lock()
			for _, p := range a.known {
				if p.probing != nil {
					probed++
				}
			}
			a.mu.Unlock()
			if probed > maxProbed {
				t.Fatalf("%d are probed", probed)
			}
			if _, leave, away := a.begin(t.Context(), c.peer(c.host)); away == nil {
				leave()
				t.Fatal("the one that is wanted is not known to be away")
			}
		}
		time.Sleep(2 * probedFor)
	})
}
