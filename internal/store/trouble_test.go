package store_test

import (
	"net"
	"net/http"
	"testing"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// otherViews are views of the same host that have another credential, another
// option, or another host that is dialled.
func otherViews(t *testing.T, s *store.Store, r *registrytest.Registry) map[string]*store.View {
	t.Helper()
	mirror := registrytest.Start(t, registrytest.Options{})
	mirror.PushImage(repo, "v1")
	mirrored, err := s.View(store.ViewOptions{Registries: []store.Registry{
		{Host: r.Host(), Mirror: mirror.Host()}, {Host: mirror.Host(), PlainHTTP: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := s.View(store.ViewOptions{Registries: []store.Registry{
		{Host: r.Host(), PlainHTTP: true, TokenHosts: []string{"auth.example.com"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*store.View{"credential": open(t, s, r, robot("x")), "mirror": mirrored, "token hosts": tokens}
}

// TestL44_AnotherCredentialsThrottling closes the registry to that credential, and to
// no other view of it.
func TestL44_AnotherCredentialsThrottlingIsNotOurs(t *testing.T) {
	for name, fault := range map[string]registrytest.Fault{
		"429, Retry-After":         registrytest.Throttle("120"),
		"429, the longest":         registrytest.Throttle("2147483647"),
		"503, Retry-After":         withRetryAfter("120", registrytest.Status(503)),
		"429, without Retry-After": registrytest.Throttle(""),
		"500":                      registrytest.Status(500),
		"cut":                      registrytest.Reset(),
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			r.PushImage(repo, "v1")
			s := store.New(quick())
			throttled := open(t, s, r, nil)
			r.SetFault(fault)
			for range 5 {
				if _, err := throttled.Resolve(t.Context(), byTag(r, "v1")); err == nil {
					t.Fatal("the registry answered")
				}
			}
			r.SetFault(nil)
			for other, v := range otherViews(t, s, r) {
				if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
					t.Errorf("the view of another %s: %v", other, err)
				}
				if away := v.Away(r.Host()); away != nil {
					t.Errorf("the view of another %s: %v", other, away)
				}
			}
			if away := throttled.Away(r.Host()); away != nil {
				t.Errorf("a registry that answers is away: %v", away)
			}
		})
	}
}

// TestL50_ATenantsDeadMirror is no trouble of the registry's own.
func TestL50_ATenantsDeadMirrorDeniesNobody(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	s := store.New(quick())
	tenant, err := s.View(store.ViewOptions{Registries: []store.Registry{
		{Host: r.Host(), Mirror: closedPort(t)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := tenant.Resolve(t.Context(), byTag(r, "v1")); err == nil {
			t.Fatal("a closed port answered")
		}
	}
	v := open(t, s, r, nil)
	if got := decide(t, v, byTag(r, "v1"), signatures); len(got.candidates) != 1 || got.list != nil || v.Away(r.Host()) != nil {
		t.Errorf("got %v, away %v", got, v.Away(r.Host()))
	}
	direct, err := s.View(store.ViewOptions{}) // nor of a view that asks the host directly
	if err != nil {
		t.Fatal(err)
	}
	if away := direct.Away(r.Host()); away != nil {
		t.Errorf("away: %v", away)
	}
}

// closedPort is an address at which connections are refused.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func withRetryAfter(value string, fault registrytest.Fault) registrytest.Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		w.Header().Set("Retry-After", value)
		return fault(w, req)
	}
}
