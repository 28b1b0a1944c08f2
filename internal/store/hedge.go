package store

import (
	"context"
	"io"
	"net/http"
	"time"
)

const (
	// hedgePart of all questions may be asked a second time: one in twenty, so that
	// a registry that is slow for everybody is not asked for twice as much.
	hedgePart = 20
	// hedgeCredit is how many may be before there were so many questions.
	hedgeCredit = 4
)

// hedges counts the requests to one peer, and those that were sent twice.
type hedges struct{ sent, twice int }

// asked counts a request to the peer.
func (p *pace) asked(at peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.book(at).hedges.sent++
}

// again reports whether one more request to the peer may be sent twice, and counts it.
func (p *pace) again(at peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &p.book(at).hedges
	if h.twice >= h.sent/hedgePart+hedgeCredit {
		return false
	}
	h.twice++
	return true
}

// hedged asks, and asks a second time over another connection where the first one
// is silent for too long: the packet of one connection is lost, or one of the
// registry's machines hangs. Questions change nothing, so that asking twice is
// safe; who answers first is heard, and the other one is told to stop.
func (c *client) hedged(req *http.Request) (*http.Response, error) {
	after := c.store.options.HedgeAfter
	c.store.pace.asked(c.peer(c.host))
	first, second := c.following(c.http), c.following(c.second)
	if after < 0 {
		return first.Do(req)
	}
	answers := make(chan asked, 2)
	ctx, stopFirst := context.WithCancel(req.Context())
	go ask(ctx, stopFirst, first, req, answers)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a.resp, a.err
	case <-timer.C:
	}
	if _, closed := c.gate(c.host); closed || !c.store.pace.again(c.peer(c.host)) {
		a := <-answers
		return a.resp, a.err
	}
	ctx, stopSecond := context.WithCancel(req.Context())
	go ask(ctx, stopSecond, second, req, answers)
	a := <-answers
	if a.err != nil { // the other one may still be heard
		a = <-answers
		return a.resp, a.err
	}
	stop := stopFirst
	if a.by == first {
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

// following gives the client with redirects that leave closed hosts alone.
func (c *client) following(by *http.Client) *http.Client {
	following := *by
	following.CheckRedirect = c.follow
	return &following
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
