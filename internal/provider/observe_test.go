package provider_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// scrape gives the exposed metrics, and how many series they are.
func scrape(t testing.TB, m *telemetry.Metrics) (text string, count int) {
	t.Helper()
	recorder := httptest.NewRecorder()
	m.Handler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			count++
		}
	}
	return recorder.Body.String(), count
}

func expectSeries(t testing.TB, m *telemetry.Metrics, want ...string) {
	t.Helper()
	text, _ := scrape(t, m)
	for _, line := range want {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no series %s", line)
		}
	}
}

// The images are as many as the attack's; the errors are made where a registry
// would make them, with text of its own in each.
func TestL34_ManyImagesAndErrorsMakeNoSeries(t *testing.T) {
	metrics := telemetry.NewMetrics(telemetry.Build{})
	select1 := func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
		if r.Image.Registry == "broken.example.com" {
			return verifier.NewBrokenChain([]verifier.Policy{{Name: "p"}}, &verifier.Error{
				Reason: verifier.ReasonPolicyInvalid, Message: "broken for " + r.Image.String(),
			}), verifier.Verdict{}
		}
		return nil, verifier.Refuse(r.Image.String(), &verifier.Error{Reason: verifier.ReasonPolicyNotFound, Message: "none for " + r.Image.String()})
	}
	server := newServer(t, provider.Options{Select: select1, Metrics: metrics, VerifyTimeout: time.Minute})
	keysOf := func(batch int) []string {
		keys := make([]string, 0, 1000)
		for i := range 334 {
			n := batch*334 + i
			keys = append(keys, fmt.Sprintf("r%d.example.com/image-%d", n, n), fmt.Sprintf("broken.example.com/image-%d", n), fmt.Sprintf("[n%d]not an image %d", n, n))
		}
		return keys[:1000]
	}
	batches := 100
	if raceDetector {
		batches = 10
	}
	post(t, server, "/v1/verify", keysOf(0)...)
	_, before := scrape(t, metrics)
	for batch := range batches {
		recorder := httptest.NewRecorder()
		server.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(requestOf(t, keysOf(batch)...))))
	}
	text, after := scrape(t, metrics)
	if before != after {
		t.Errorf("%d series became %d", before, after)
	}
	if strings.Contains(text, "example.com") || !strings.Contains(text, "POLICY_INVALID") {
		t.Error("an image is in the metrics, or nothing is")
	}
}

func TestRepeatsAreNotLoggedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := &lines{}
		server := newServer(t, provider.Options{Select: stocked().Select, Logger: telemetry.NewLogger(logs, slog.LevelInfo)})
		count := func() int { return strings.Count(logs.String(), `"msg":"`) }
		ask := func() {
			post(t, server, "/v1/verify", "shop.example.com/signed:1", "shop.example.com/unsigned:1", "shop.example.com/unreachable:1")
		}
		for range 10 {
			ask()
		}
		if n := count(); n != 3 {
			t.Errorf("%d lines for three decisions:\n%s", n, logs)
		}
		time.Sleep(6 * time.Minute)
		ask()
		if n := count(); n != 6 {
			t.Errorf("%d lines after the window", n)
		}
		post(t, server, "/v1/verify", "[shop]shop.example.com/signed:1")
		if n := count(); n != 7 {
			t.Errorf("%d lines after another key", n)
		}
	})
}

func TestADecisionIsLoggedWithWhatTheAnswerSays(t *testing.T) {
	logs := &lines{}
	server := newServer(t, provider.Options{Select: stocked().Select, Logger: telemetry.NewLogger(logs, slog.LevelInfo)})
	v := value(t, post(t, server, "/v1/verify", "[shop]shop.example.com/stranger:1"), "[shop]shop.example.com/stranger:1")
	for _, part := range []string{
		`"msg":"decided"`, `"traceID":"` + v["traceID"].(string) + `"`, `"key":"[shop]shop.example.com/stranger:1"`,
		`"status":"UNTRUSTED"`, `"reason":"IDENTITY_NOT_TRUSTED"`, `"policy":"production"`, `"digest":"` + v["digest"].(string) + `"`,
	} {
		if !strings.Contains(logs.String(), part) {
			t.Errorf("no %s in %s", part, logs)
		}
	}
}

func TestReadiness(t *testing.T) {
	notReady := errors.New("no configuration yet\nof\x1b any kind")
	server := newServer(t, provider.Options{Select: stocked().Select, Ready: func() error { return notReady }, DrainDelay: -1})
	get := func(path string) (int, string) {
		recorder := httptest.NewRecorder()
		server.Health().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
		return recorder.Code, recorder.Body.String()
	}
	expect := func(path string, status int, body string) {
		t.Helper()
		if gotStatus, got := get(path); gotStatus != status || got != body {
			t.Errorf("%s: %d %q", path, gotStatus, got)
		}
	}
	expect("/healthz", 200, "ok\n")
	expect("/readyz", 503, "not ready: no configuration yet?of? any kind\n")
	notReady = nil
	expect("/readyz", 200, "ok\n")
	expect("/metrics", 404, "404 page not found\n")
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("/readyz", 503, "not ready: shutting down\n")
	expect("/healthz", 200, "ok\n")
}
