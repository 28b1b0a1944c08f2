package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
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
	tenant   bool   // the options are not an administrator's
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

// peer is a host as this view reaches it.
func (c *client) peer(host string) peer { return peer{c.view, strings.ToLower(host)} }

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

// ask sends the question until it is answered, tries or time run out, the host wants
// to be left alone for longer than anyone waits, or the host is found to be away.
func (c *client) ask(ctx context.Context, q question) (*answer, error) {
	ctx, leave, away := c.store.availability.begin(ctx, c.peer(c.host))
	if away != nil {
		return nil, away
	}
	defer leave()
	a, f := c.tries(ctx, q)
	if f == nil {
		return a, nil
	}
	if away := ended(ctx); away != nil {
		return nil, away
	}
	return nil, f.err
}

func (c *client) tries(ctx context.Context, q question) (*answer, *failure) {
	for n := 1; ; n++ {
		if f := c.waitAtGate(ctx, c.host); f != nil {
			return nil, f
		}
		a, f := c.inTurn(ctx, q, n)
		if f == nil || !f.again || n >= c.maxTries() {
			return a, f
		}
		if f.closed != "" { // that host has said for how long
			if f := c.waitAtGate(ctx, f.closed); f != nil {
				return nil, f
			}
			continue
		}
		if f.unanswered {
			c.store.availability.judge(ctx, c)
		}
		if !pause(ctx, c.backoff(n)) {
			return nil, f
		}
	}
}

// maxTries is how often a request is sent. A host that fails all requests at present is
// spared half of that.
func (c *client) maxTries() int {
	if tries := c.store.options.Attempts; !c.store.pace.fails(c.peer(c.host)) {
		return tries
	}
	return (c.store.options.Attempts + 1) / 2
}

// inTurn sends the question once when its turn has come.
func (c *client) inTurn(ctx context.Context, q question, n int) (*answer, *failure) {
	leave, err := c.store.pace.enter(ctx, c.peer(c.host))
	if err != nil {
		return nil, fail(verifier.ReasonRegistryThrottled, err, "Try again in a few seconds",
			"the registry %s has too many requests of ours waiting", c.host)
	}
	defer leave()
	return c.attempt(ctx, q, n)
}

// backoff doubles with each attempt; jitter takes up to half of it away, so
// that those who failed together do not come back together.
func (c *client) backoff(attempt int) time.Duration {
	full := min(c.store.options.RetryBase<<min(attempt-1, 16), max(maxRetryPause, c.store.options.RetryBase))
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
	if !c.closeGate(host, resp) && host == c.host {
		c.store.pace.count(c.peer(host), resp.StatusCode)
	}

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
		if _, closed := c.gate(host); closed {
			f.closed = host
		}
		return nil, f
	}
	return a, nil
}

// roundTrip sends the question as it is, unless the host wants to be left alone since
// the question's turn came.
func (c *client) roundTrip(ctx context.Context, q question, authorization string) (*http.Response, *failure) {
	if closed, ok := c.gate(c.host); ok {
		return nil, leftAlone(c.host, closed)
	}
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
	answered := c.store.availability.expect(c)
	resp, err := c.hedged(req)
	if err == nil {
		answered(true)
		return resp, nil
	}
	host := failedHost(err, c.host)
	answered(host != c.host)
	var closed *closedHost
	if errors.As(err, &closed) {
		return nil, leftAlone(closed.host, closed.gate)
	}
	f := c.unreachable(host, err)
	if host == c.host {
		c.store.pace.count(c.peer(host), 0)
		// Where it was silent, it is probed already, and tries do not wait for that.
		f.unanswered = unanswered(err) && !errors.Is(err, context.DeadlineExceeded)
		if errors.Is(err, context.DeadlineExceeded) {
			c.store.availability.suspect(c, true)
		}
	}
	return nil, f
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
