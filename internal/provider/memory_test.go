package provider_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// remembering is a door that remembers, of a shop whose answers hold for a while.
type remembering struct {
	*shop
	snapshot atomic.Pointer[string]
	server   *provider.Server
}

func newRemembering(t testing.TB, lifetime time.Duration) *remembering {
	t.Helper()
	r := &remembering{shop: newShop()}
	r.store.Lifetime = lifetime
	r.edit("first")
	server, err := provider.New(provider.Options{
		Select: r.Select, Snapshot: func() any { return r.snapshot.Load() },
		Logger: telemetry.NewLogger(io.Discard, slog.LevelInfo), VerifyTimeout: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	return r
}

func (r *remembering) edit(name string) { r.snapshot.Store(&name) }

func (r *remembering) ask(t testing.TB, path string, keys ...string) *externaldata.ProviderResponse {
	t.Helper()
	recorder := httptest.NewRecorder()
	r.server.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(requestOf(t, keys...))))
	return readAnswer(t, recorder.Body.Bytes())
}

func (r *remembering) status(t testing.TB, key string) string {
	t.Helper()
	return fmt.Sprint(value(t, r.ask(t, "/v1/verify", key), key)["status"])
}

// TestAnAnswerIsRepeated while what it rests on holds, byte for byte but for trace
// id and time, and asks nobody.
func TestAnAnswerIsRepeated(t *testing.T) {
	const key = "[shop]shop.example.com/cart:1.4"
	for _, path := range []string{"/v1/verify", "/ratify/gatekeeper/v1/verify", "/ratify/gatekeeper/v2/verify"} {
		synctest.Test(t, func(t *testing.T) {
			r := newRemembering(t, time.Minute)
			r.add("shop.example.com/cart:1.4", "CN=wabbit")
			first := value(t, r.ask(t, path, key), key)
			asked := r.store.Calls("resolve") + r.store.Calls("candidates")
			time.Sleep(time.Second)
			second := value(t, r.ask(t, path, key), key)
			if n := r.store.Calls("resolve") + r.store.Calls("candidates"); n != asked {
				t.Errorf("%s: the store was asked %d times, then %d", path, asked, n)
			}
			for _, differs := range []string{"traceID", "timestamp"} {
				if first[differs] == second[differs] {
					t.Errorf("%s: %s is the same", path, differs)
				}
				delete(first, differs)
				delete(second, differs)
			}
			if fmt.Sprint(first) != fmt.Sprint(second) {
				t.Errorf("%s: first\n%v\nthen\n%v", path, first, second)
			}
		})
	}
}

// TestAnAnswerEnds: with its verdict, with the Snapshot, and where there is none.
func TestAnAnswerEnds(t *testing.T) {
	const image, key = "shop.example.com/cart:1.4", "[shop]shop.example.com/cart:1.4"
	for name, c := range map[string]struct {
		lifetime time.Duration
		then     func(*remembering)
	}{
		"its verdict's time is over":      {time.Minute, func(*remembering) { time.Sleep(time.Minute) }},
		"a policy was edited":             {time.Hour, func(r *remembering) { r.edit("second") }},
		"the store cannot say how long":   {0, func(*remembering) {}},
		"the check's finding is worn out": {24 * time.Hour, func(*remembering) { time.Sleep(time.Hour) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRemembering(t, c.lifetime)
				r.add(image, "CN=wabbit")
				if s := r.status(t, key); s != "TRUSTED" {
					t.Fatal(s)
				}
				r.store.Tag(image, digestOf("another image"))
				c.then(r)
				if s := r.status(t, key); s != "UNKNOWN" {
					t.Errorf("still %s", s)
				}
			})
		})
	}
}

// TestUndecidedIsNeverRepeated, nor takes it the place of what was decided.
func TestUndecidedIsNeverRepeated(t *testing.T) {
	const image, key = "shop.example.com/cart:1.4", "[shop]shop.example.com/cart:1.4"
	synctest.Test(t, func(t *testing.T) {
		r := newRemembering(t, time.Minute)
		r.add(image, "CN=wabbit")
		away := true
		r.store.BeforeResolve = func(context.Context, verifier.Reference) error {
			if away {
				return &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "the registry speaks nonsense"}
			}
			return nil
		}
		if a := r.ask(t, "/v1/verify", key); len(a.Response.Items) != 0 || a.Response.SystemError == "" {
			t.Fatalf("%+v", a)
		}
		away = false
		if s := r.status(t, key); s != "TRUSTED" {
			t.Fatal(s)
		}
		away = true
		time.Sleep(50 * time.Second)
		if s := r.status(t, key); s != "TRUSTED" {
			t.Errorf("the old answer still held, and it is %s", s)
		}
		time.Sleep(10 * time.Second)
		if a := r.ask(t, "/v1/verify", key); len(a.Response.Items) != 0 {
			t.Errorf("after its end: %+v", a)
		}
	})
}

// TestWhatIsRememberedIsBounded: a key that is too long is answered, and not kept.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	r := newRemembering(t, time.Hour)
	key := "[shop]shop.example.com/" + strings.Repeat("x", 5000)
	for range 2 {
		if s := r.status(t, key); s != "REFUSED" {
			t.Error(s)
		}
	}
}

// TestAllocationsOfAWarmKey pins what a remembered answer allocates: what is
// beside it in a request is the request's.
func TestAllocationsOfAWarmKey(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	r := newRemembering(t, time.Hour)
	var keys []string
	for i := range 11 {
		image := fmt.Sprintf("shop.example.com/cart-%d:1.4", i)
		r.add(image, "CN=wabbit")
		keys = append(keys, "[shop]"+image)
	}
	measure := func(keys []string) float64 {
		body := requestOf(t, keys...)
		r.ask(t, "/v1/verify", keys...)
		w := &nowhere{header: http.Header{}}
		return testing.AllocsPerRun(200, func() {
			r.server.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(body)))
		})
	}
	one, eleven := measure(keys[:1]), measure(keys)
	if perKey := (eleven - one) / 10; perKey > 0.5 { // the growth of the list of keys
		t.Errorf("%.1f allocations for each further key", perKey)
	}
	if one > 27 { // most of them of the test itself and of net/http
		t.Errorf("%.0f allocations for a request of one key", one)
	}
}

// nowhere takes an answer.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}
