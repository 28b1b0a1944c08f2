package store

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// gate keeps a view's requests from a host that wants to be left alone.
type gate struct {
	until  time.Time
	status int
}

// closedHost is an error for a redirect to a host that wants to be left alone.
type closedHost struct {
	host string
	gate gate
}

func (e *closedHost) Error() string { return e.host + " wants to be left alone" }

// gate gives the host's, where it is closed to this view.
func (c *client) gate(host string) (gate, bool) { return c.store.gates.Get(c.peer(host).String()) }

// follow is checkRedirect, and leaves alone a host that wants that.
func (c *client) follow(req *http.Request, via []*http.Request) error {
	if closed, ok := c.gate(req.URL.Host); ok {
		return &closedHost{req.URL.Host, closed}
	}
	return checkRedirect(req, via)
}

func (c *client) waitAtGate(ctx context.Context, host string) *failure {
	for {
		closed, ok := c.gate(host)
		if !ok {
			return nil
		}
		wait := time.Until(closed.until)
		if wait > c.store.options.MaxThrottleWait || !pause(ctx, wait) {
			return leftAlone(host, closed)
		}
	}
}

func leftAlone(host string, closed gate) *failure {
	reason, cause := verifier.ReasonRegistryThrottled, "has had too many requests"
	if closed.status != http.StatusTooManyRequests {
		reason, cause = verifier.ReasonRegistryUnreachable, "is unavailable"
	}
	f := fail(reason, fmt.Errorf("%s answered %d with Retry-After", host, closed.status),
		"Try again later; a credential or a mirror usually has a higher limit",
		"the registry %s %s and wants to be left alone for %s", host, cause, time.Until(closed.until).Round(time.Second))
	f.again, f.closed = true, host
	return f
}

// closeGate waits out Retry-After in full for every request of this view to that
// host, and reports whether there was one. Another view has another credential,
// mirror or proxy, and a limit of its own.
func (c *client) closeGate(host string, resp *http.Response) bool {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return false
	}
	after := retryAfter(resp.Header.Get("Retry-After"))
	if after <= 0 {
		return false
	}
	until := time.Now().Add(min(after, maxRetryAfter))
	if closed, ok := c.gate(host); !ok || until.After(closed.until) {
		c.store.gates.Put(c.peer(host).String(), gate{until, resp.StatusCode}, 32, until)
	}
	return true
}

// retryAfter reads seconds or a date (RFC 9110, 10.2.3); 0 if it is neither.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return time.Until(date)
	}
	return 0
}
