package store_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func robot(password string) store.CredentialSource {
	return auth.NewStatic(auth.Credential{Username: "robot", Password: password})
}

func TestEachCauseHasItsReasonAndItsWords(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	account := func(scheme string) registrytest.Auth {
		return registrytest.Auth{Scheme: scheme, Username: "robot", Password: "right"}
	}
	for _, test := range []struct {
		name       string
		options    registrytest.Options
		fault      registrytest.Fault
		registry   func(*store.Registry)
		store      func(*store.Options)
		want       verifier.Reason
		says, cure string
	}{
		{name: "no such name", registry: func(r *store.Registry) { r.Host = "registry.invalid" },
			want: verifier.ReasonRegistryUnreachable, says: "DNS"},
		{name: "nobody listens", registry: func(r *store.Registry) { r.Host = closed.Addr().String() },
			want: verifier.ReasonRegistryAway, says: "refused the connection"},
		{name: "unknown authority", options: registrytest.Options{TLS: true}, registry: func(r *store.Registry) { r.CAs = nil },
			want: verifier.ReasonRegistryUnreachable, says: "unknown authority", cure: "registries[].ca"},
		{name: "TLS to plain HTTP", registry: func(r *store.Registry) { r.PlainHTTP = false },
			want: verifier.ReasonRegistryUnreachable, says: "speaks plain HTTP", cure: "registries[].plainHTTP"},
		{name: "plain HTTP to TLS", options: registrytest.Options{TLS: true}, registry: func(r *store.Registry) { r.PlainHTTP = true },
			want: verifier.ReasonRegistryInvalid, says: "400", cure: "registries[].plainHTTP"},
		{name: "no answer", fault: registrytest.On("/manifests/", registrytest.Hang(nil)), store: func(o *store.Options) { o.AttemptTimeout = 50 * time.Millisecond },
			want: verifier.ReasonRegistryUnreachable, says: "did not answer within 50ms"},
		{name: "reset", fault: registrytest.Reset(),
			want: verifier.ReasonRegistryUnreachable, says: "cut the connection"},
		{name: "500", fault: registrytest.Status(500), want: verifier.ReasonRegistryUnreachable, says: "answered 500"},
		{name: "429", fault: registrytest.Throttle(""), want: verifier.ReasonRegistryThrottled, says: "too many requests"},
		{name: "418", fault: registrytest.Status(418), want: verifier.ReasonRegistryInvalid, says: "answered 418"},
		{name: "304", fault: registrytest.Status(304), want: verifier.ReasonRegistryInvalid, says: "answered 304"},
		{name: "404", fault: registrytest.Status(404), want: verifier.ReasonImageNotFound, says: "no such tag"},
		{name: "Basic, anonymous", options: registrytest.Options{Auth: account("Basic")},
			want: verifier.ReasonRegistryUnauthorized, says: "none is set", cure: "registries[].auth"},
		{name: "Basic, wrong", options: registrytest.Options{Auth: account("Basic")}, registry: func(r *store.Registry) { r.Credential = robot("wrong") },
			want: verifier.ReasonRegistryUnauthorized, says: "refused the configured credential", cure: "registries[].auth"},
		{name: "Bearer, anonymous", options: registrytest.Options{Auth: account("Bearer")},
			want: verifier.ReasonRegistryUnauthorized, says: "none is set", cure: "registries[].auth"},
		{name: "Bearer, wrong", options: registrytest.Options{Auth: account("Bearer")}, registry: func(r *store.Registry) { r.Credential = robot("wrong") },
			want: verifier.ReasonRegistryUnauthorized, says: "refused the configured credential"},
		{name: "403", fault: registrytest.Status(403), want: verifier.ReasonRegistryUnauthorized, says: "none is set"},
		{name: "403, signed in", options: registrytest.Options{Auth: account("Basic")}, fault: signedInBut(403), registry: func(r *store.Registry) { r.Credential = robot("right") },
			want: verifier.ReasonRegistryUnauthorized, says: "does not let the configured credential"},
		{name: "401 without a challenge", fault: registrytest.Status(401), want: verifier.ReasonRegistryUnauthorized, says: "none is set"},
		{name: "the credential cannot be read", options: registrytest.Options{Auth: account("Basic")},
			registry: func(r *store.Registry) { r.Credential = auth.NewDockerConfig("/none/config.json") },
			want:     verifier.ReasonRegistryUnauthorized, says: "could not be read", cure: "registries[].auth"},
		{name: "loopback", store: func(o *store.Options) { o.AllowLoopback = false },
			want: verifier.ReasonRegistryUnreachable, says: "a loopback address"},
		{name: "redirects for ever", fault: redirectHome, want: verifier.ReasonRegistryInvalid, says: "redirect"},
		{name: "a header of 1 MB", fault: longHeader, want: verifier.ReasonRegistryUnreachable, says: "could not be asked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.Start(t, test.options)
			r.PushImage(repo, "v1")
			r.SetFault(test.fault)
			options := quick()
			options.Budget = 3 * time.Second
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
			_, err = v.Resolve(t.Context(), verifier.Reference{Registry: registry.Host, Repository: repo, Tag: "v1"})
			got := verifier.AsError(err)
			if got.Reason != test.want || !strings.Contains(got.Message, test.says) || !strings.Contains(got.Remedy, test.cure) {
				t.Errorf("got %s: %s. %s (%v)", got.Reason, got.Message, got.Remedy, got.Err)
			}
			if strings.Contains(err.Error(), "right") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("%q tells a password", err)
			}
		})
	}
}

// signedInBut answers a request that was signed in with the status.
func signedInBut(status int) registrytest.Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		return req.Header.Get("Authorization") != "" && registrytest.Status(status)(w, req)
	}
}

func redirectHome(w http.ResponseWriter, req *http.Request) bool {
	http.Redirect(w, req, req.URL.Path, http.StatusTemporaryRedirect)
	return true
}

func longHeader(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("X", strings.Repeat("x", 1<<20))
	return false
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]func(*registrytest.Registry) registrytest.Fault{
		"408":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Status(408) },
		"429":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Throttle("") },
		"500":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Status(500) },
		"502":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Status(502) },
		"503":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Status(503) },
		"504":   func(*registrytest.Registry) registrytest.Fault { return registrytest.Status(504) },
		"reset": func(*registrytest.Registry) registrytest.Fault { return registrytest.Reset() },
		"cut":   func(r *registrytest.Registry) registrytest.Fault { return r.CutShort(5) },
		"short": func(*registrytest.Registry) registrytest.Fault { return short },
	} {
		for _, path := range []string{"/manifests/v1", "/referrers/", "/manifests/sha256:", "/blobs/", "/token"} {
			if name == "short" && !strings.Contains(path, ":") && path != "/blobs/" {
				continue // where no size is known, a short answer is an answer
			}
			t.Run(name+" of "+path, func(t *testing.T) {
				r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}, TLS: name == "reset"})
				v := open(t, store.New(quick()), r, nil)
				image := r.PushImage(repo, "v1")
				r.AttachReferrer(repo, image, notation(1))
				r.SetFault(registrytest.On(path, registrytest.First(2, fault(r))))
				if got := decide(t, v, byTag(r, "v1"), signatures); len(got.candidates) != 1 || got.list != nil || got.broken != nil {
					t.Errorf("got %+v\n%s", got, paths(r))
				}
			})
		}
	}
}

func TestAnAnswerThatNeverEndsIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]func(*registrytest.Registry) registrytest.Fault{
		"no answer":         func(*registrytest.Registry) registrytest.Fault { return registrytest.Hang(nil) },
		"one byte a minute": func(r *registrytest.Registry) registrytest.Fault { return r.Slow(time.Minute) },
	} {
		for _, path := range []string{"/v1", "/referrers/", "/manifests/sha256:", "/blobs/"} {
			t.Run(name+" at "+path, func(t *testing.T) {
				t.Parallel()
				options := quick()
				options.AttemptTimeout, options.Budget = 500*time.Millisecond, 10*time.Second
				r := registrytest.Start(t, registrytest.Options{NoDigestHeader: true})
				v := open(t, store.New(options), r, nil)
				image := r.PushImage(repo, "v1")
				r.AttachReferrer(repo, image, notation(1))
				r.SetFault(registrytest.On(path, registrytest.First(1, fault(r))))
				if got := decide(t, v, byTag(r, "v1"), signatures); len(got.candidates) != 1 || got.list != nil || got.broken != nil {
					t.Errorf("got %+v", got)
				}
			})
		}
	}
}

// short ends a body early and says so, as a proxy that was cut itself does.
func short(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	_, _ = w.Write([]byte(`{"sch`))
	return true
}

func TestARegistryWithErrorsRefusesNobody(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	var n atomic.Int64
	r.SetFault(func(w http.ResponseWriter, req *http.Request) bool { // 5 % errors, 1 % resets
		switch i := n.Add(1); {
		case i%100 == 50:
			return registrytest.Reset()(w, req)
		case i%20 == 7:
			return registrytest.Status(http.StatusServiceUnavailable)(w, req)
		}
		return false
	})
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range 50 {
				image := r.PushImage(repo, "")
				r.AttachReferrer(repo, image, notation(1000*worker+i))
				if got := decide(t, v, byDigest(r, image.Digest), signatures); len(got.candidates) != 1 || got.list != nil || got.broken != nil {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	wait.Wait()
	if n.Load() < 600 {
		t.Errorf("%d requests for 200 images", n.Load())
	}
}

func TestTriesAreFew(t *testing.T) {
	for status, want := range map[int][]int{500: {10, 5}, 429: {10, 5}, 404: {1, 1}, 403: {1, 1}, 400: {1, 1}, 501: {1, 1}} {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		r.SetFault(registrytest.Status(status))
		for question, want := range want { // a registry that only fails is spared
			r.Reset()
			if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err == nil {
				t.Errorf("%d gave no error", status)
			}
			if n := len(r.Requests()); n != want {
				t.Errorf("%d, question %d: %d requests, want %d", status, question, n, want)
			}
		}
	}
}

func TestRetryAfterIsHeededInFull(t *testing.T) {
	for _, test := range []struct {
		name, value string
		status      int
		want        verifier.Reason
	}{
		{"seconds", "30", 429, verifier.ReasonRegistryThrottled},
		{"less than the budget", "5", 429, verifier.ReasonRegistryThrottled},
		{"a date", time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat), 429, verifier.ReasonRegistryThrottled},
		{"unavailable", "30", 503, verifier.ReasonRegistryUnreachable},
		{"for ever", "2147483647", 429, verifier.ReasonRegistryThrottled},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, other := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
			options := quick()
			options.RetryBase = 2 * time.Second // not waited for: the host has said for how long
			s := store.New(options)
			v := open(t, s, r, nil)
			image := r.PushImage(repo, "v1")
			r.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Retry-After", test.value)
				w.WriteHeader(test.status)
				return true
			})
			begun := time.Now()
			_, err := v.Resolve(t.Context(), byTag(r, "v1"))
			if got := verifier.AsError(err); got.Reason != test.want || time.Since(begun) > time.Second {
				t.Errorf("got %v after %s", err, time.Since(begun))
			}
			r.SetFault(nil)
			r.Reset()
			for _, view := range []*store.View{v, open(t, s, r, nil)} { // the same view twice
				for range 3 {
					if _, err := view.Resolve(t.Context(), byTag(r, "v1")); reason(err) != test.want {
						t.Errorf("inside the window: %v", err)
					}
					if got := look(t.Context(), view, subjectOf(r, image), both); !slices.Contains(got.list, test.want) {
						t.Errorf("inside the window: %+v", got)
					}
				}
			}
			if n := len(r.Requests()); n != 0 {
				t.Errorf("%d requests inside the window", n)
			}
			other.PushImage(repo, "v1")
			if _, err := open(t, s, other, nil).Resolve(t.Context(), byTag(other, "v1")); err != nil {
				t.Errorf("another host: %v", err)
			}
		})
	}
}

func TestALaterAndShorterRetryAfterOpensNothing(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	r.PushImage(repo, "v0")
	if _, err := v.Resolve(t.Context(), byTag(r, "v0")); err != nil { // the first contact goes alone
		t.Fatal(err)
	}
	arrived, long := make(chan struct{}), make(chan struct{})
	r.SetFault(registrytest.Each(
		registrytest.On("/v1", func(w http.ResponseWriter, req *http.Request) bool {
			<-arrived
			return registrytest.Throttle("30")(w, req)
		}),
		registrytest.On("/v2", func(w http.ResponseWriter, req *http.Request) bool {
			arrived <- struct{}{}
			<-long
			return registrytest.Throttle("1")(w, req)
		}),
	))
	resolve := func(tag string) error {
		_, err := v.Resolve(t.Context(), byTag(r, tag))
		return err
	}
	second := make(chan error)
	go func() { second <- resolve("v2") }()
	if err := resolve("v1"); reason(err) != verifier.ReasonRegistryThrottled {
		t.Errorf("the first: %v", err)
	}
	close(long)
	if err := <-second; reason(err) != verifier.ReasonRegistryThrottled {
		t.Errorf("the second: %v", err)
	}
	r.SetFault(nil)
	r.Reset()
	if err := resolve("v3"); reason(err) != verifier.ReasonRegistryThrottled || len(r.Requests()) != 0 {
		t.Errorf("inside the longer window: %v", err)
	}
}

func TestAPanicStaysWithItsRequest(t *testing.T) {
	for _, kind := range []string{"tag", "token", "referrers", "manifest", "blob"} {
		r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
		options := quick()
		var panics atomic.Bool
		panics.Store(true)
		options.Observe = func(e store.Exchange) {
			if e.Kind == kind && panics.Load() {
				panic(kind)
			}
		}
		v := open(t, store.New(options), r, nil)
		image := r.PushImage(repo, "v1")
		r.AttachReferrer(repo, image, notation(1))
		_, err := v.Resolve(t.Context(), byTag(r, "v1"))
		got := look(t.Context(), v, subjectOf(r, image), both)
		_, fetchErr := v.Fetch(t.Context(), subjectOf(r, image), r.PushBlob(repo, "text/plain", []byte("x")))
		reasons := append(append(got.list, got.broken...), reason(err), reason(fetchErr))
		if !slices.Contains(reasons, verifier.ReasonInternal) {
			t.Errorf("%s: %v", kind, reasons)
		}
		panics.Store(false)
		if got := decide(t, v, byTag(r, "v1"), both); len(got.candidates) != 1 || got.list != nil || got.broken != nil {
			t.Errorf("%s, afterwards: %+v", kind, got)
		}
	}
}

func TestAShortRetryAfterIsWaitedFor(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	options := quick()
	options.MaxThrottleWait = 5 * time.Second
	v := open(t, store.New(options), r, nil)
	r.PushImage(repo, "v1")
	r.SetFault(registrytest.First(1, registrytest.Throttle("1")))
	begun := time.Now()
	if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < 900*time.Millisecond || len(r.Requests()) != 2 {
		t.Errorf("%d requests in %s", len(r.Requests()), took)
	}
}

func TestAThrottledTokenEndpointIsLeftAloneToo(t *testing.T) {
	tokens := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer", Realm: tokens.URL() + "/token"}})
	v := open(t, store.New(quick()), r, nil)
	r.PushImage(repo, "v1")
	tokens.SetFault(registrytest.Throttle("30"))
	for range 3 {
		if _, err := v.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryThrottled {
			t.Errorf("got %v", err)
		}
	}
	if n := len(tokens.Requests()); n != 1 {
		t.Errorf("%d requests to the token endpoint", n)
	}
}

func TestL41_AnImpatientClientPoisonsNobody(t *testing.T) {
	steps := map[string]func(context.Context, *store.View, *registrytest.Registry) error{
		"/manifests/v1": func(ctx context.Context, v *store.View, r *registrytest.Registry) error {
			_, err := v.Resolve(ctx, byTag(r, "v1"))
			return err
		},
		"/referrers/": func(ctx context.Context, v *store.View, r *registrytest.Registry) error {
			image := r.PushImage("other/app", "") // any digest: what is listed counts
			for _, err := range v.Candidates(ctx, subjectOf(r, image), signatures).All {
				return err
			}
			return nil
		},
	}
	for path, step := range steps {
		t.Run("gives up at "+path, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(quick()), r, nil)
			r.PushImage(repo, "v1")
			release, arrived := make(chan struct{}), make(chan struct{}, 9)
			r.SetFault(registrytest.On(path, func(w http.ResponseWriter, req *http.Request) bool {
				arrived <- struct{}{}
				return registrytest.Hang(release)(w, req)
			}))
			impatient, giveUp := context.WithCancel(t.Context())
			first := make(chan error)
			go func() { first <- step(impatient, v, r) }()
			<-arrived
			giveUp()
			if err := <-first; reason(err) != verifier.ReasonTimeout {
				t.Errorf("the impatient one got %v", err)
			}
			second := make(chan error)
			go func() {
				_, err := v.Resolve(t.Context(), byTag(r, "v1"))
				second <- err
			}()
			close(release)
			if err := <-second; err != nil {
				t.Errorf("the patient one got %v", err)
			}
			r.SetFault(nil)
			if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
				t.Errorf("the next one got %v", err)
			}
		})
	}
	for name, fault := range map[string]registrytest.Fault{"hangs": registrytest.Hang(nil), "answers only 500": registrytest.Status(500), "resets": registrytest.Reset()} {
		t.Run("the registry "+name+" and recovers", func(t *testing.T) {
			options := quick()
			options.AttemptTimeout, options.Budget = 30*time.Millisecond, 100*time.Millisecond
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(options), r, nil)
			image := r.PushImage(repo, "v1")
			r.AttachReferrer(repo, image, notation(1))
			r.SetFault(fault)
			if _, err := v.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnreachable {
				t.Errorf("while it lasts: %v", err)
			}
			if got := look(t.Context(), v, subjectOf(r, image), both); len(got.list) == 0 || got.candidates != nil {
				t.Errorf("while it lasts: %+v", got)
			}
			r.SetFault(nil)
			if got := decide(t, v, byTag(r, "v1"), both); len(got.candidates) != 1 || got.list != nil {
				t.Errorf("the first after the recovery: %+v", got)
			}
		})
	}
}

func TestAnExpiredDeadlineIsATimeout(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	blob := r.PushBlob(repo, "text/plain", []byte("x"))
	r.SetFault(registrytest.Hang(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := v.Resolve(ctx, byTag(r, "v1")); reason(err) != verifier.ReasonTimeout {
		t.Errorf("resolve: %v", err)
	}
	if _, err := v.Fetch(ctx, subjectOf(r, image), blob); reason(err) != verifier.ReasonTimeout {
		t.Errorf("fetch: %v", err)
	}
	if got := look(ctx, v, subjectOf(r, image), both); !slices.Equal(got.list, []verifier.Reason{verifier.ReasonTimeout}) {
		t.Errorf("candidates: %+v", got)
	}
}
