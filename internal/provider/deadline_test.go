package provider_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// hanging is a shop whose images under slow/ hang until released, and under
// deaf/ hang without listening to anybody.
func hanging(release <-chan struct{}) *shop {
	s := stocked()
	s.store.BeforeResolve = func(ctx context.Context, ref verifier.Reference) error {
		switch {
		case strings.HasPrefix(ref.Repository, "slow/"):
			select {
			case <-release:
			case <-ctx.Done():
				return &verifier.Error{Reason: verifier.ReasonTimeout, Message: "the registry did not answer", Err: ctx.Err()}
			}
		case strings.HasPrefix(ref.Repository, "deaf/"):
			<-release
		}
		return nil
	}
	return s
}

func newServer(t testing.TB, options provider.Options) *provider.Server {
	t.Helper()
	server, err := provider.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func TestTheAnswerLeavesBeforeGatekeeperGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := hanging(release)
		s.add("shop.example.com/slow/cart:1", "CN=wabbit")
		server := newServer(t, provider.Options{Select: s.Select})

		start := time.Now()
		response := post(t, server, "/v1/verify", "shop.example.com/slow/cart:1", "shop.example.com/signed:1")
		if took := time.Since(start); took < 1800*time.Millisecond || took > 1850*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		if got := decided(t, response, "shop.example.com/signed:1"); got != "TRUSTED/TRUSTED" {
			t.Error(got)
		}
		const want = "TIMEOUT shop.example.com/slow/cart:1: no decision within the deadline; verification goes on. Try again in a few seconds"
		if response.Response.SystemError != want {
			t.Errorf("systemError %q", response.Response.SystemError)
		}

		// The work went on behind, and the next admission finds it.
		close(release)
		synctest.Wait()
		response = post(t, server, "/v1/verify", "shop.example.com/slow/cart:1")
		if got := decided(t, response, "shop.example.com/slow/cart:1"); got != "TRUSTED/TRUSTED" {
			t.Error(got)
		}
	})
}

func TestMutationAnswersBeforeGatekeeperGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		server := newServer(t, provider.Options{Select: hanging(release).Select})
		for _, slow := range []string{"shop.example.com/slow/cart:1", "shop.example.com/deaf/cart:1"} {
			start := time.Now()
			response := post(t, server, "/v1/mutate", slow, "shop.example.com/signed:1")
			if took := time.Since(start); took < 800*time.Millisecond || took > 850*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
			if item := response.Response.Items[0]; !strings.HasPrefix(item.Error, "TIMEOUT: ") || item.Value != nil {
				t.Errorf("%+v", item)
			}
			if item := response.Response.Items[1]; item.Error != "" || !strings.Contains(item.Value.(string), "@sha256:") {
				t.Errorf("%+v", item)
			}
		}
	})
}

// More keys than are asked about at once, all hanging: those that were never
// tried say so, and their registry is not held to be slow.
func TestAKeyWhoseTurnNeverCameIsUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := hanging(release)
		server := newServer(t, provider.Options{Select: s.Select})
		keys := make([]string, 0, 101)
		for i := range 100 {
			keys = append(keys, fmt.Sprintf("shop.example.com/slow/%d:1", i))
		}
		start := time.Now()
		response := post(t, server, "/v1/verify", append(keys, "shop.example.com/signed:1")...)
		if took := time.Since(start); took > 1850*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		if len(response.Response.Items) != 0 || !strings.Contains(response.Response.SystemError, "TIMEOUT shop.example.com/slow/0:1: ") {
			t.Errorf("%+v", response.Response)
		}
		if calls := s.store.Calls("resolve"); calls != 64 {
			t.Errorf("%d images were asked about", calls)
		}
		close(release)
		synctest.Wait()
	})
}

func TestL36_TenKeysOneMalformedOnePanicsOneTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := hanging(release)
		logs := &lines{}
		metrics := telemetry.NewMetrics(telemetry.Build{})
		server := newServer(t, provider.Options{Select: s.Select, Metrics: metrics, Logger: telemetry.NewLogger(logs, slog.LevelInfo)})
		keys := []string{"[no such namespace]nginx", "panic.example.com/x", "shop.example.com/slow/cart:1"}
		for i := range 7 {
			image := fmt.Sprintf("shop.example.com/good-%d:1", i)
			s.add(image, "CN=wabbit")
			keys = append(keys, "[shop]"+image)
		}
		response := post(t, server, "/v1/verify", keys...)
		for _, key := range keys[3:] {
			if got := decided(t, response, key); got != "TRUSTED/TRUSTED" {
				t.Errorf("%s: %s", key, got)
			}
		}
		if got := decided(t, response, keys[0]); got != "REFUSED/REFERENCE_INVALID" {
			t.Error(got)
		}
		if len(response.Response.Items) != 8 {
			t.Errorf("%d items", len(response.Response.Items))
		}
		const want = "INTERNAL panic.example.com/x: answering crashed. Report this with the trace id; TIMEOUT shop.example.com/slow/cart:1: "
		if !strings.HasPrefix(response.Response.SystemError, want) {
			t.Errorf("systemError %q", response.Response.SystemError)
		}
		expectSeries(t, metrics,
			`countersign_panics_total 1`,
			`countersign_keys_total{endpoint="verify",reason="INTERNAL",status="UNDECIDED"} 1`,
			`countersign_keys_total{endpoint="verify",reason="TIMEOUT",status="UNDECIDED"} 1`,
			`countersign_keys_total{endpoint="verify",reason="REFERENCE_INVALID",status="REFUSED"} 1`,
			`countersign_keys_total{endpoint="verify",reason="TRUSTED",status="TRUSTED"} 7`)
		if !strings.Contains(logs.String(), "a bug at panic.example.com/x") {
			t.Error("the panic is not in the log")
		}
		close(release)
		synctest.Wait()
	})
}

// A manifest that makes a scheme panic is that key's trouble only.
func TestL11_AKeyWhoseVerificationPanicsHarmsNoOther(t *testing.T) {
	s := stocked()
	s.store.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
		if ref.Repository == "index-for-a-manifest" {
			var layers []string
			_ = layers[len(ref.Tag)]
		}
		return nil
	}
	d := open(t, provider.Options{Select: s.Select})
	response := d.ask(t, "shop.example.com/index-for-a-manifest:1", "shop.example.com/signed:1")
	if got := decided(t, response, "shop.example.com/signed:1"); got != "TRUSTED/TRUSTED" || len(response.Response.Items) != 1 {
		t.Errorf("%s, %+v", got, response.Response.Items)
	}
	if !strings.HasPrefix(response.Response.SystemError, "INTERNAL shop.example.com/index-for-a-manifest:1: ") {
		t.Errorf("systemError %q", response.Response.SystemError)
	}
}
