package store

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// hedgePart of all questions may be asked a second time: one in twenty, so that
	// a registry that is slow for everybody is not asked for twice as much.
	hedgePart = 20
	// hedgeCredit is how many may be before there were so many questions.
	hedgeCredit = 4
)

// hedges counts questions and those that were asked twice.
type hedges struct{ asked, twice atomic.Int64 }

// allow reports whether one more may be asked twice.
func (h *hedges) allow() bool {
	if h.twice.Add(1) <= h.asked.Load()/hedgePart+hedgeCredit {
		return true
	}
	h.twice.Add(-1)
	return false
}

// hedged asks, and asks a second time over another connection where the first one
// is silent for too long: the packet of one connection is lost, or one of the
// registry's machines hangs. Questions change nothing, so that asking twice is
// safe; who answers first is heard, and the other one is told to stop.
func (c *client) hedged(req *http.Request) (*http.Response, error) {
	after := c.store.options.HedgeAfter
	c.store.hedges.asked.Add(1)
	if after < 0 {
		return c.http.Do(req)
	}
	answers := make(chan asked, 2)
	ctx, stopFirst := context.WithCancel(req.Context())
	go ask(ctx, stopFirst, c.http, req, answers)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.resp, a.err
	case <-timer.C:
	}
	if _, closed := c.store.gates.Get(c.host); closed || !c.store.hedges.allow() {
		a := <-answers
		return a.resp, a.err
	}
	ctx, stopSecond := context.WithCancel(req.Context())
	go ask(ctx, stopSecond, c.second, req, answers)
	a := <-answers
	if a.err != nil { // the other one may still be heard
		a = <-answers
		return a.resp, a.err
	}
	stop := stopFirst
	if a.by == c.http {
		stop = stopSecond
	}
	stop()
	go func() {
		if late := <-answers; late.err == nil {
			_ = late.resp.Body.Close()
		}
	}()
	return a.resp, a.err
}

// asked is what came of one try.
type asked struct {
	by   *http.Client
	resp *http.Response
	err  error
}

// ask asks once. The context ends with the answer's body.
func ask(ctx context.Context, stop context.CancelFunc, by *http.Client, req *http.Request, answers chan<- asked) {
	resp, err := by.Do(req.WithContext(ctx))
	if err != nil {
		stop()
	} else {
		resp.Body = &endsWith{resp.Body, stop}
	}
	answers <- asked{by, resp, err}
}

// endsWith ends a request's context when its body is closed.
type endsWith struct {
	io.ReadCloser
	stop context.CancelFunc
}

func (b *endsWith) Close() error {
	defer b.stop()
	return b.ReadCloser.Close()
}
