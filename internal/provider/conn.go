package provider

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// idleOnce is how long a connection stays that was used once. Gatekeeper up
	// to 3.21, which AKS ships, opens one for every request and never closes it.
	idleOnce = 2 * time.Second
	// idleReused is how long a connection stays that was used again: a client
	// that keeps connections. Longer than Gatekeeper's 90 s, so that it is the
	// client who closes, and never while a request is on its way.
	idleReused = 100 * time.Second
	// maxConnections bounds the connections that are open. At two seconds each
	// that is 4,000 new ones a second, more than two cores can shake hands with.
	maxConnections = 8 << 10
)

// listener bounds the connections and makes each a conn.
type listener struct {
	net.Listener
	slots chan struct{}
}

func newListener(l net.Listener) *listener {
	return &listener{l, make(chan struct{}, maxConnections)}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.slots <- struct{}{}
	return &conn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// conn is a connection that knows whether it was used again. net/http has one
// idle timeout for all, and no hook that comes with a connection's deadline:
// but it calls ConnState with StateIdle and right after that sets the read
// deadline of the wait for the next request, both from the connection's own
// goroutine. TestConnectionUsedOnceIsClosed fails if that ever changes.
type conn struct {
	net.Conn
	release func()
	// All below are owned by the goroutine that serves the connection.
	requests int
	limit    time.Duration // of the next read deadline, where it is set
}

func (c *conn) Close() error {
	c.release()
	return c.Conn.Close()
}

func (c *conn) SetReadDeadline(t time.Time) error {
	if c.limit > 0 {
		if limited := time.Now().Add(c.limit); t.IsZero() || limited.Before(t) {
			t = limited
		}
		c.limit = 0
	}
	return c.Conn.SetReadDeadline(t)
}

// connState is the server's ConnState hook.
func connState(nc net.Conn, state http.ConnState) {
	overTLS, ok := nc.(*tls.Conn)
	if !ok {
		return
	}
	c, ok := overTLS.NetConn().(*conn)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		c.requests++
	case http.StateIdle:
		if c.requests == 1 {
			c.limit = idleOnce
		}
	}
}

// connectionLog is where net/http complains of connections: failed handshakes
// above all, which are the sign of a certificate that the other side does not
// know. Each complaint is shown once in a while; every one is counted.
type connectionLog struct{ s *Server }

// Enabled implements slog.Handler.
func (connectionLog) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (l connectionLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l connectionLog) WithGroup(string) slog.Handler { return l }

// Handle implements slog.Handler.
func (l connectionLog) Handle(ctx context.Context, record slog.Record) error {
	// "http: TLS handshake error from 10.0.0.1:1234: EOF"
	what, peer := record.Message, ""
	if before, after, found := strings.Cut(record.Message, " from "); found {
		peer, what, _ = strings.Cut(after, ": ")
		what = strings.TrimPrefix(before, "http: ") + ": " + what
	}
	l.s.metrics.connectionErrors.Inc()
	level := slog.LevelDebug
	if !strings.HasSuffix(what, ": EOF") && l.s.repeats.first(time.Now(), what) { // EOF: somebody knocked, a probe
		level = slog.LevelWarn
	}
	l.s.log.LogAttrs(ctx, level, "connection failed", slog.String("error", what), slog.String("peer", peer))
	return nil
}
