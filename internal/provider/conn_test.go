package provider_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// pipes is a listener without a network, so that connections live in a
// bubble's fake time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// link is a client's connection.
type link struct {
	net.Conn
	answers *bufio.Reader
}

// quiet is a door in a bubble.
type quiet struct {
	*door
	pipes *pipes
}

// openQuiet makes a door whose connections are pipes. Without what t.Cleanup
// of a bubble waits for: the caller shuts it down.
func openQuiet(t *testing.T, options provider.Options) *quiet {
	t.Helper()
	d := &door{logs: &lines{}, dir: t.TempDir(), serverCA: newAuthority(t, "countersign"), clientCA: newAuthority(t, "gatekeeper-ca")}
	d.client = d.clientCA.pair(t, "gatekeeper")
	d.writeServing(t, d.serverCA)
	d.write(t, "ca.crt", d.clientCA.pem())
	certs, err := provider.LoadCertificates(d.files())
	if err != nil {
		t.Fatal(err)
	}
	d.certs, d.Server = certs, newServer(t, options)
	q := &quiet{d, newPipes()}
	go func() {
		if err := d.Serve(q.pipes, certs.TLSConfig()); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	}()
	return q
}

func (q *quiet) dial(t *testing.T, certificate tls.Certificate) (*link, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	select {
	case q.pipes.conns <- theirs:
	case <-q.pipes.closed:
		return nil, net.ErrClosed
	}
	roots := x509.NewCertPool()
	roots.AddCert(q.serverCA.certificate)
	c := tls.Client(ours, &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
	if err := c.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return &link{c, bufio.NewReader(c)}, nil
}

// post sends a request and reads its answer.
func (l *link) post(t *testing.T, keys ...string) *http.Response {
	t.Helper()
	request := httptest.NewRequest(http.MethodPost, "https://localhost/v1/verify", strings.NewReader(requestOf(t, keys...)))
	if err := request.Write(l); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(l.answers, request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	readAnswer(t, body)
	if response.Close {
		_ = l.Conn.(*tls.Conn).NetConn().Close()
	}
	return response
}

// closedAfter waits for the other side to close, and says how long that took.
func (l *link) closedAfter(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	if _, err := l.answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("not closed in order: %v", err)
	}
	return time.Since(start)
}

func TestConnectionUsedOnceIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := openQuiet(t, provider.Options{Select: stocked().Select, DrainDelay: -1})
		defer func() { _ = q.Shutdown(context.Background()) }()
		once, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		once.post(t, "shop.example.com/signed:1")
		if d := once.closedAfter(t); d != 2*time.Second {
			t.Errorf("closed after %v", d)
		}

		again, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		again.post(t, "shop.example.com/signed:1")
		time.Sleep(1900 * time.Millisecond)
		again.post(t, "shop.example.com/signed:1")
		// Gatekeeper closes its own after 90 s: it is never us.
		if d := again.closedAfter(t); d != 100*time.Second {
			t.Errorf("a reused connection closed after %v", d)
		}
	})
}

func TestAConnectionThatSaysNothingIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := openQuiet(t, provider.Options{Select: stocked().Select, DrainDelay: -1})
		defer func() { _ = q.Shutdown(context.Background()) }()
		start := time.Now()
		ours, theirs := net.Pipe() // never begins TLS
		q.pipes.conns <- theirs
		if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		mute, err := q.dial(t, q.client) // never asks
		if err != nil {
			t.Fatal(err)
		}
		mute.closedAfter(t)
		slow, err := q.dial(t, q.client) // never ends its headers
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(slow, "POST /v1/verify HTTP/1.1\r\nHost: x\r\nX: "); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, slow)
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("three silent connections lived %v", d)
		}
	})
}

func TestDrainingLosesNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := openQuiet(t, provider.Options{Select: hanging(release).Select})
		idle, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		idle.post(t, "shop.example.com/signed:1")
		idle.post(t, "shop.example.com/signed:1")
		busy, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan *http.Response)
		go func() { answered <- busy.post(t, "shop.example.com/slow/cart:1") }()
		synctest.Wait()

		start, done := time.Now(), make(chan error)
		go func() { done <- q.Shutdown(context.Background()) }()
		synctest.Wait()
		// What is open is not cut, but told to go; who comes is still served.
		if response := idle.post(t, "shop.example.com/signed:1"); !response.Close {
			t.Error("an answer while draining does not close its connection")
		}
		late, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		if response := late.post(t, "shop.example.com/signed:1"); response.StatusCode != http.StatusOK || !response.Close {
			t.Errorf("%+v", response)
		}
		if response := <-answered; response.StatusCode != http.StatusOK || !response.Close {
			t.Errorf("%+v", response)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 5*time.Second || d > 6*time.Second {
			t.Errorf("drained for %v", d)
		}
		if _, err := q.dial(t, q.client); err == nil {
			t.Error("served after shutdown")
		}
		close(release)
	})
}

func TestShutdownHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		q := openQuiet(t, provider.Options{Select: hanging(release).Select, VerifyTimeout: time.Hour})
		stuck, err := q.dial(t, q.client)
		if err != nil {
			t.Fatal(err)
		}
		request := httptest.NewRequest(http.MethodPost, "https://localhost/v1/verify", strings.NewReader(requestOf(t, "shop.example.com/deaf/cart:1")))
		if err := request.Write(stuck); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, stuck) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		start := time.Now()
		if err := q.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := time.Since(start); d != 8*time.Second {
			t.Errorf("took %v", d)
		}
		close(release)
		_ = stuck.Close()
	})
}

// The first of two clients leaves in mid-verification.
func TestL41_TheFirstClientDisconnects(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 8)
	s := hanging(release)
	s.add("shop.example.com/slow/cart:1", "CN=wabbit")
	block := s.store.BeforeResolve
	s.store.BeforeResolve = func(ctx context.Context, r verifier.Reference) error {
		asked <- struct{}{}
		return block(ctx, r)
	}
	d := open(t, provider.Options{Select: s.Select})
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/verify", strings.NewReader(requestOf(t, "shop.example.com/slow/cart:1")))
		if err == nil {
			_, err = (&http.Client{Transport: d.transport(t, d.client)}).Do(request)
		}
		first <- err
	}()
	<-asked
	second := make(chan string, 1)
	go func() { second <- decided(t, d.ask(t, "shop.example.com/slow/cart:1"), "shop.example.com/slow/cart:1") }()
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	poll(t, "the door has seen the first one leave", func() bool {
		return strings.Contains(d.logs.String(), `"msg":"undecided"`)
	})
	close(release)
	if got := <-second; got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
	if got := decided(t, d.ask(t, "shop.example.com/slow/cart:1"), "shop.example.com/slow/cart:1"); got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
}
