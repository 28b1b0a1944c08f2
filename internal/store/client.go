package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// client asks one registry with the options and the credential of one view.
// Each question goes through ask: sign-in, retries, time and byte limits are
// there and nowhere else.
type client struct {
	store    *Store
	view     string // the view's id
	registry Registry
	scheme   string
	host     string // as dialled: docker.io is at registry-1.docker.io
	prefix   string // of repositories, at a mirror
	http     *http.Client
	second   *http.Client // over connections of its own, see hedge
	tokens   *http.Client // does not leave the token endpoint's origin
}

// question is one request and what is wanted of its answer.
type question struct {
	method     string
	url        *url.URL
	repository string // whose scope a token must have
	accept     string
	kind       string // as in Exchange
	// limit is how many bytes of a good answer are read.
	limit int64
	// size, when positive, is how many bytes a good answer has at least; fewer
	// were cut short on the way, and are asked for again.
	size int64
}

// answer is what came back, read whole. Its status is 200, 404 or another of
// the 400s that the caller knows better.
type answer struct {
	status int
	header http.Header
	body   []byte
	// longer reports that the body went on after limit.
	longer bool
	url    *url.URL // after redirects
}

// gate keeps a host from being asked while it wants to be left alone.
type gate struct {
	until  time.Time
	status int
}

// repository is what the reference's is called at the host.
func (c *client) repository(ref verifier.Reference) string { return c.prefix + ref.Repository }

func (c *client) endpoint(repository, rest string) *url.URL {
	return &url.URL{Scheme: c.scheme, Host: c.host, Path: "/v2/" + repository + "/" + rest}
}

func (c *client) key(parts ...string) string {
	key := c.view + " " + c.host
	for _, part := range parts {
		key += " " + part
	}
	return key
}

// ask sends the question until it is answered, tries or time run out, or the
// host wants to be left alone for longer than anyone waits.
func (c *client) ask(ctx context.Context, q question) (*answer, error) {
	for n := 1; ; n++ {
		if f := c.waitAtGate(ctx, c.host); f != nil {
			return nil, f.err
		}
		a, f := c.inTurn(ctx, q, n)
		if f == nil {
			return a, nil
		}
		if !f.again || n >= c.store.options.Attempts {
			return nil, f.err
		}
		if _, closed := c.store.gates.Get(c.host); closed {
			continue // the host has said for how long
		}
		if !pause(ctx, c.backoff(n)) {
			return nil, f.err
		}
	}
}

// inTurn sends the question once when its turn has come. A host that was told of
// while it waited wants to be left alone by it as well.
func (c *client) inTurn(ctx context.Context, q question, n int) (*answer, *failure) {
	leave, err := c.store.pace.enter(ctx, c.host)
	if err != nil {
		return nil, fail(verifier.ReasonRegistryThrottled, err, "Try again in a few seconds",
			"the registry %s has too many requests of ours waiting", c.host)
	}
	defer leave()
	if closed, ok := c.store.gates.Get(c.host); ok {
		return nil, leftAlone(c.host, closed).retryable()
	}
	return c.attempt(ctx, q, n)
}

// backoff doubles with each attempt; jitter takes up to half of it away, so
// that those who failed together do not come back together.
func (c *client) backoff(attempt int) time.Duration {
	full := min(c.store.options.RetryBase<<(attempt-1), maxRetryPause)
	return full - time.Duration(c.store.options.Jitter()*float64(full)/2)
}

// pause waits, and reports false where that would outlive the context.
func pause(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *client) waitAtGate(ctx context.Context, host string) *failure {
	for {
		closed, ok := c.store.gates.Get(host)
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
	return fail(reason, fmt.Errorf("%s answered %d with Retry-After", host, closed.status),
		"Try again later; a credential or a mirror usually has a higher limit",
		"the registry %s %s and wants to be left alone for %s", host, cause, time.Until(closed.until).Round(time.Second))
}

// closeGate heeds Retry-After in full, for all who ask that host.
func (s *Store) closeGate(host string, resp *http.Response) {
	if resp.StatusCode == http.StatusTooManyRequests {
		s.pace.throttle(host)
	} else if resp.StatusCode != http.StatusServiceUnavailable {
		return
	}
	after := retryAfter(resp.Header.Get("Retry-After"))
	if after <= 0 {
		return
	}
	until := time.Now().Add(min(after, maxRetryAfter))
	if closed, ok := s.gates.Get(host); ok && closed.until.After(until) {
		return
	}
	s.gates.Put(host, gate{until, resp.StatusCode}, 32, until)
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

// attempt sends the question once, signed in, and reads the answer whole.
func (c *client) attempt(ctx context.Context, q question, n int) (_ *answer, f *failure) {
	ctx, cancel := context.WithTimeout(ctx, c.store.options.AttemptTimeout)
	defer cancel()
	seen := Exchange{Host: c.host, Kind: q.kind, Attempt: n}
	begun := time.Now()
	defer func() {
		seen.Duration = time.Since(begun)
		c.store.options.Observe(seen)
	}()

	resp, shown, f := c.signedIn(ctx, q)
	if f != nil {
		return nil, f
	}
	defer func() { _ = resp.Body.Close() }()
	seen.Status = resp.StatusCode
	host := resp.Request.URL.Host
	c.store.closeGate(host, resp)

	body, longer, err := c.body(ctx, q, resp)
	var known *verifier.Error
	switch {
	case errors.As(err, &known): // our own limit
		return nil, &failure{err: known}
	case err != nil:
		return nil, c.unreachable(host, err)
	}
	a := &answer{resp.StatusCode, resp.Header, body, longer, resp.Request.URL}
	switch status := resp.StatusCode; {
	case status == http.StatusOK:
		if q.method == http.MethodGet && int64(len(body)) < q.size {
			return nil, fail(verifier.ReasonRegistryInvalid, io.ErrUnexpectedEOF, "",
				"the registry %s sent %d bytes of %d", host, len(body), q.size).retryable()
		}
		return a, nil
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && sameOrigin(q.url, a.url):
		return nil, c.refused(status, host, shown)
	case status < 400:
		return nil, c.unexpected(host, status)
	}
	if f := c.unexpected(host, a.status); f.again {
		return nil, f
	}
	return a, nil
}

// roundTrip sends the question as it is.
func (c *client) roundTrip(ctx context.Context, q question, authorization string) (*http.Response, *failure) {
	req, err := http.NewRequestWithContext(ctx, q.method, q.url.String(), nil)
	if err != nil {
		return nil, fail(verifier.ReasonReferenceInvalid, err, "", "no request can be made of the reference")
	}
	req.Header.Set("User-Agent", c.store.options.UserAgent)
	if q.accept != "" {
		req.Header.Set("Accept", q.accept)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.hedged(req)
	if err != nil {
		return nil, c.unreachable(failedHost(err, c.host), err)
	}
	return resp, nil
}

// failedHost is the host that a redirect had led to when it failed.
func failedHost(err error, host string) string {
	var at *url.Error
	if errors.As(err, &at) {
		if u, parseErr := url.Parse(at.URL); parseErr == nil && u.Host != "" {
			return u.Host
		}
	}
	return host
}

// read takes at most limit bytes, growing as they come: what a header or a
// descriptor claims allocates nothing.
func read(body io.Reader, limit int64) (data []byte, longer bool, err error) {
	return readInto(new(bytes.Buffer), body, limit)
}

func readInto(buffer *bytes.Buffer, body io.Reader, limit int64) (data []byte, longer bool, err error) {
	n, err := buffer.ReadFrom(io.LimitReader(body, limit+1))
	if err != nil {
		return nil, false, err
	}
	if n > limit {
		return buffer.Bytes()[:limit], true, nil
	}
	return buffer.Bytes(), false, nil
}
