package store_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// port is an address that a registry listens at, or not.
type port struct {
	t       *testing.T
	address string
	to      string

	mu       sync.Mutex // guards all below
	listener net.Listener
	conns    []net.Conn
}

func newPort(t *testing.T, r *registrytest.Registry) *port {
	p := &port{t: t, address: closedPort(t), to: r.Host()}
	p.open()
	t.Cleanup(p.close)
	return p
}

func (p *port) open() {
	p.t.Helper()
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = listener
	p.mu.Unlock()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go p.carry(conn)
		}
	}()
}

func (p *port) carry(conn net.Conn) {
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		_ = conn.Close()
		return
	}
	p.mu.Lock()
	p.conns = append(p.conns, conn, to)
	p.mu.Unlock()
	go func() {
		_, _ = io.Copy(to, conn)
		_ = to.Close()
	}()
	_, _ = io.Copy(conn, to)
	_ = conn.Close()
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
	}
	p.listener = nil
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestL56_ARegistryThatIsAway: that is found out soon, ends what waits for it, is
// answered at once from then on, and ends with its first answer.
func TestL56_ARegistryThatIsAway(t *testing.T) {
	type outage struct {
		begin, end func(*registrytest.Registry, *port)
	}
	for name, test := range map[string]struct {
		outage
		says string
	}{
		"refuses connections": {outage{
			func(_ *registrytest.Registry, p *port) { p.close() },
			func(_ *registrytest.Registry, p *port) { p.open() },
		}, "refused the connection"},
		"answers no request": {outage{
			func(r *registrytest.Registry, _ *port) { r.SetFault(registrytest.Hang(nil)) },
			func(r *registrytest.Registry, _ *port) { r.SetFault(nil) },
		}, "does not answer"},
		"accepts connections and no more": {outage{
			func(_ *registrytest.Registry, p *port) {
				p.close()
				listener, err := net.Listen("tcp", p.address) // the kernel accepts them
				if err != nil {
					p.t.Fatal(err)
				}
				p.mu.Lock()
				p.listener = listener
				p.mu.Unlock()
			},
			func(_ *registrytest.Registry, p *port) { p.close(); p.open() },
		}, "does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.Start(t, registrytest.Options{})
			image := r.PushImage(repo, "v1")
			r.AttachReferrer(repo, image, notation(1))
			p := newPort(t, r)
			options := quick()
			options.TagTTL = time.Nanosecond
			s := store.New(options)
			t.Cleanup(s.CloseIdleConnections)
			v, err := s.View(store.ViewOptions{Registries: []store.Registry{{Host: p.address, PlainHTTP: true}}})
			if err != nil {
				t.Fatal(err)
			}
			ref := verifier.Reference{Registry: p.address, Repository: repo, Tag: "v1"}
			if _, err := v.Resolve(t.Context(), ref); err != nil || v.Away(p.address) != nil {
				t.Fatalf("before: %v, away %v", err, v.Away(p.address))
			}
			test.begin(r, p)
			var wait sync.WaitGroup
			for i := range 100 { // more than there are places
				wait.Go(func() {
					at := ref
					at.Tag = fmt.Sprint("v", i)
					began := time.Now()
					_, err := v.Resolve(t.Context(), at)
					if got := verifier.AsError(err); got.Reason != verifier.ReasonRegistryAway || time.Since(began) > 4*time.Second {
						t.Errorf("%v after %v", err, time.Since(began))
					}
				})
			}
			wait.Wait()
			until(t, "it is known to be away", func() bool { return v.Away(p.address) != nil })
			first := v.Away(p.address).Error()
			began := time.Now()
			for range 1000 {
				_, err := v.Resolve(t.Context(), ref)
				if got := verifier.AsError(err); got.Reason != verifier.ReasonRegistryAway || got.Message != "the registry "+p.address+" "+test.says {
					t.Fatalf("got %v", err)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("a thousand answers took %v", took)
			}
			if again := v.Away(p.address).Error(); again != first {
				t.Errorf("%q, then %q", first, again)
			}
			if other := open(t, s, r, nil); other.Away(p.address) != nil {
				t.Error("another view has it from this one")
			}
			test.end(r, p)
			began = time.Now()
			until(t, "it is known to be back", func() bool { return v.Away(p.address) == nil })
			if took := time.Since(began); took > 3*500*time.Millisecond {
				t.Errorf("known to be back after %v", took)
			}
			began = time.Now()
			subject, err := v.Resolve(t.Context(), ref)
			if err != nil {
				t.Fatalf("the first after it: %v", err)
			}
			if got := look(t.Context(), v, subject, signatures); len(got.candidates) != 1 || time.Since(began) > time.Second {
				t.Errorf("%v after %v", got, time.Since(began))
			}
		})
	}
}

// TestL44_WhatIsNeverAway: what somebody else can bring about, or what a change of the
// configuration mends, lets no image pass where a policy says so for a registry that is
// away.
func TestL44_WhatIsNeverAway(t *testing.T) {
	dead := closedPort(t)
	hang := registrytest.Hang(nil)
	for name, test := range map[string]struct {
		options  registrytest.Options
		fault    registrytest.Fault
		registry func(*store.Registry)
		store    func(*store.Options)
	}{
		"one list hangs":       {fault: registrytest.On("/referrers/", hang)},
		"one tag hangs":        {fault: registrytest.On("/manifests/v1", hang)},
		"one manifest hangs":   {fault: registrytest.On("/manifests/sha256:", hang)},
		"one blob hangs":       {fault: registrytest.On("/blobs/", hang)},
		"one list answers 500": {fault: registrytest.On("/referrers/", registrytest.Status(500))},
		"one blob 502":         {fault: registrytest.On("/blobs/", registrytest.Status(502))},
		"all answers are 500":  {fault: registrytest.Status(500)},
		"all answers are 503":  {fault: withRetryAfter("30", registrytest.Status(503))},
		"all answers are 429":  {fault: registrytest.Throttle("")},
		"all connections cut":  {fault: registrytest.Reset()},
		"blobs are elsewhere":  {fault: registrytest.On("/blobs/", registrytest.Redirect("http://"+dead, 307))},
		"tokens are elsewhere": {options: registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer", Realm: "http://" + dead + "/token"}}},
		"another authority":    {options: registrytest.Options{TLS: true}, registry: func(r *store.Registry) { r.CAs = nil }},
		"plain HTTP":           {registry: func(r *store.Registry) { r.PlainHTTP = false }},
		"no such name":         {registry: func(r *store.Registry) { r.Host = "registry.invalid" }},
		"an address refused":   {store: func(o *store.Options) { o.AllowLoopback = false }},
		"it is slow":           {options: registrytest.Options{Latency: 700 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.Start(t, test.options)
			image := r.PushImage(repo, "v1")
			r.AttachReferrer(repo, image, notation(1))
			r.SetFault(test.fault)
			options := quick()
			options.AttemptTimeout, options.Budget = 2*time.Second, 3*time.Second
			if test.store != nil {
				test.store(&options)
			}
			registry := store.Registry{Host: r.Host(), PlainHTTP: r.CA() == nil, CAs: r.CA()}
			if test.registry != nil {
				test.registry(&registry)
			}
			s := store.New(options)
			t.Cleanup(s.CloseIdleConnections)
			v, err := s.View(store.ViewOptions{Registries: []store.Registry{registry}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() {
				for ctx.Err() == nil {
					if away := v.Away(registry.Host); away != nil {
						t.Errorf("away: %v", away)
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
			subject := subjectOf(r, image)
			subject.Reference.Registry = registry.Host
			for range 2 {
				_, err := v.Resolve(ctx, verifier.Reference{Registry: registry.Host, Repository: repo, Tag: "v1"})
				if err != nil && reason(err) == verifier.ReasonRegistryAway {
					t.Errorf("resolve: %v", err)
				}
				got := look(ctx, v, subject, signatures)
				for _, reason := range append(got.list, got.broken...) {
					if reason == verifier.ReasonRegistryAway {
						t.Errorf("%+v", got)
					}
				}
				for _, c := range got.candidates {
					if _, err := v.Fetch(ctx, subject, c.Manifest.Layers[0]); err != nil && reason(err) == verifier.ReasonRegistryAway {
						t.Errorf("fetch: %v", err)
					}
				}
			}
			cancel()
			wait.Wait()
		})
	}
}

// TestARedirectTargetIsLeftAloneToo: it has a window of its own.
func TestARedirectTargetIsLeftAloneToo(t *testing.T) {
	blobs, r := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	r.SetFault(registrytest.On("/blobs/", registrytest.Redirect(blobs.URL(), http.StatusTemporaryRedirect)))
	blobs.SetFault(registrytest.Throttle("30"))
	for i := range 3 {
		layer := r.PushBlob(repo, "text/plain", fmt.Append(nil, i))
		if _, err := v.Fetch(t.Context(), subjectOf(r, image), layer); reason(err) != verifier.ReasonRegistryThrottled {
			t.Errorf("got %v", err)
		}
	}
	if n := len(blobs.Requests()); n != 1 {
		t.Errorf("%d requests to where the blobs are", n)
	}
	if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
		t.Errorf("the registry itself: %v", err)
	}
}
