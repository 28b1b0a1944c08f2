package watch

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
)

// second starts a replica beside the one that watches, with a state of its own.
func (s *scene) second(t *testing.T) *binary.Server {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, s.Kubeconfig(t.Context(), namespace, account, kubeconfig))
	w, err := binary.Run(t.Context(), s.executable, "watch", "--config", s.Policies, "--kubeconfig", kubeconfig, "--pod-namespace", namespace,
		"--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--state", t.TempDir(), "--notify", filepath.Join(s.dir, "notify"), "--allow-loopback")
	must(t, err)
	return w
}

// TestTheLeaderIsKilled in the midst of telling: another replica, which knows nothing
// of it, watches within half a minute, tells what was not told, and nothing twice.
func TestTheLeaderIsKilled(t *testing.T) {
	s := in(t, "killed")
	const images = 12
	image := func(i int) string { return fmt.Sprintf("killed/unsigned-%d:1", i) }
	for i := range images {
		s.push(t, image(i), false)
	}
	told := func(from, to int) (n int, twice []string) {
		for i := from; i < to; i++ {
			switch got := len(s.told.of(s.Name(image(i)))); {
			case got == 1:
				n++
			case got > 1:
				twice = append(twice, image(i))
			}
		}
		return n, twice
	}
	for i := range images / 2 {
		s.pod(t, "killed", fmt.Sprint("cart-", i), image(i))
	}
	eventually(t, func(context.Context) error {
		if n, _ := told(0, images/2); n != images/2 {
			return fmt.Errorf("%d of %d are told", n, images/2)
		}
		return nil
	})
	var written string
	kept := func(ctx context.Context) error { // that they were told, for whoever is next
		var m corev1.ConfigMap
		err := s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: account}, &m)
		if err == nil && m.ResourceVersion == written {
			err = fmt.Errorf("nothing was written")
		}
		written = m.ResourceVersion
		return err
	}
	eventually(t, kept)
	next := s.second(t)
	// What the first finds out now it tells nobody any more: it gathers for ten seconds.
	for i := images / 2; i < images; i++ {
		s.pod(t, "killed", fmt.Sprint("cart-", i), image(i))
	}
	eventually(t, func(context.Context) error {
		if !strings.Contains(s.watcher.Log(), `"image":"`+s.Name(image(images-1))) {
			return fmt.Errorf("it was not found out")
		}
		return nil
	})
	killed := time.Now()
	s.watcher.Kill()
	t.Cleanup(func() {
		_ = next.Stop()
		must(t, s.startWatcher(context.WithoutCancel(t.Context())))
	})
	must(t, next.Ready(t.Context()))
	t.Logf("another replica watches after %v", time.Since(killed).Round(time.Second))
	if took := time.Since(killed); took > 30*time.Second {
		t.Errorf("%v", took)
	}
	eventually(t, func(context.Context) error {
		if n, twice := told(0, images); n+len(twice) != images {
			return fmt.Errorf("%d of %d are told", n, images)
		}
		return nil
	})
	if _, twice := told(0, images); len(twice) > 0 {
		t.Errorf("told twice: %v", twice)
	}
}

// TestTheAPIServerIsAway: it is asked ever less often, the watcher is not ready, and
// when it is back all is as before.
func TestTheAPIServerIsAway(t *testing.T) {
	s := in(t, "away")
	s.push(t, "away/cart:1", true)
	s.pod(t, "away", "cart", "away/cart:1")
	api, kubeconfig := s.before(t)
	w := s.instead(t, "--kubeconfig", kubeconfig, "--state", t.TempDir(), "--reports", "--events")
	trusted := func(ctx context.Context) error {
		n, err := figure(ctx, w, `countersign_watch_containers{namespace="away",status="TRUSTED"}`)
		if err == nil && n != 1 {
			err = fmt.Errorf("%v", n)
		}
		return err
	}
	eventually(t, trusted)
	api.setAway(true)
	api.questions()
	ready := func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Health+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it answers %d", resp.StatusCode)
		}
		return nil
	}
	eventually(t, func(ctx context.Context) error {
		if ready(ctx) == nil {
			return fmt.Errorf("it is still ready")
		}
		return nil
	})
	away := time.Now()
	eventually(t, func(context.Context) error { // and some time more
		if time.Since(away) < 25*time.Second {
			return fmt.Errorf("not long enough")
		}
		return nil
	})
	asked := api.questions()
	t.Logf("%d questions: %s", len(asked), strings.Join(asked, ", "))
	if len(asked) > 18 {
		t.Errorf("it was asked %d times", len(asked))
	}
	api.setAway(false)
	eventuallyWithin(t, 3*time.Minute, ready)
	eventually(t, trusted)
}

// TestARegistryThatWantsToBeLeftAlone is left alone for as long as it says, and what it
// was asked for is known then.
func TestARegistryThatWantsToBeLeftAlone(t *testing.T) {
	const patience = 12 * time.Second
	s := in(t, "throttled")
	viewer := s.reader(t, "throttled-viewer", "throttled")
	want := map[string]string{}
	for i := range 5 {
		s.push(t, fmt.Sprintf("throttled/cart-%d:1", i), true)
		want[fmt.Sprintf("cart-%d/main", i)] = "TRUSTED"
	}
	var mu sync.Mutex
	var first time.Time
	var early []string
	s.registry.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		switch {
		case first.IsZero():
			first = now
		case now.Sub(first) >= patience:
			return false
		case now.Sub(first) > time.Second: // what was under way when it said so may arrive
			early = append(early, r.URL.Path)
		}
		return registrytest.Throttle(fmt.Sprint(patience.Seconds()))(w, r)
	})
	t.Cleanup(func() { s.registry.SetFault(nil) })
	for i := range 5 {
		s.pod(t, "throttled", fmt.Sprint("cart-", i), fmt.Sprintf("throttled/cart-%d:1", i))
	}
	eventuallyWithin(t, 2*time.Minute, func(ctx context.Context) error {
		got, err := s.statuses(ctx, viewer, "throttled")
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("%v", got)
		}
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	if first.IsZero() || len(early) > 0 {
		t.Errorf("it was asked within what it said: %v", early)
	}
}
