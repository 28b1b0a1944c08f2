package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/cluster"
)

// trouble is a registry and what it does to requests.
type trouble struct {
	*registrytest.Registry
	kind string
}

// troubles are registries of each kind, which a policy lists.
func (s *scene) troubles(t *testing.T, kinds map[string]int) map[string][]trouble {
	t.Helper()
	never := make(chan struct{})
	all := map[string][]trouble{}
	var images, registries []string
	for kind, n := range kinds {
		for range n {
			registry, err := registrytest.New(registrytest.Options{})
			must(t, err)
			t.Cleanup(registry.Close)
			switch kind {
			case "dead":
				registry.Refuse()
			case "hanging":
				registry.SetFault(registrytest.Hang(never))
			case "lists hang":
				registry.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
					return strings.Contains(r.URL.Path, "/referrers/") && registrytest.Hang(never)(w, r)
				})
			case "cold":
				registry.SetFault(registrytest.Delay(20 * time.Millisecond))
			}
			all[kind] = append(all[kind], trouble{registry, kind})
			images = append(images, fmt.Sprintf("%q", registry.Host()+"/**"))
			registries = append(registries, fmt.Sprintf("{host: %q, plainHTTP: true}", registry.Host()))
		}
	}
	t.Cleanup(func() { close(never) }) // before the registries are closed
	policy := strings.NewReplacer(`["$REGISTRY/**"]`, "["+strings.Join(images, ", ")+"]",
		`[{host: "$REGISTRY", plainHTTP: true}]`, "["+strings.Join(registries, ", ")+"]", "{name: production}", "{name: troubles}").Replace(production)
	must(t, s.Policy("troubles.yaml", policy))
	t.Cleanup(func() { _ = os.Remove(s.Policies + "/troubles.yaml") })
	for _, of := range all {
		must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
			err := s.tryPod(ctx, "failopen", of[0].Host()+"/probe:1")
			if err == nil || strings.Contains(err.Error(), "no ClusterTrustPolicy matches") {
				return fmt.Errorf("the policy is not in force: %w", err)
			}
			return nil
		}))
		break
	}
	return all
}

// outcomes are what became of the Pods of one load.
type outcomes struct {
	mu       sync.Mutex // guards all below
	sent     int
	admitted []string
	refused  []string
	took     []time.Duration
}

func (o *outcomes) note(what string, err error, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent++
	o.took = append(o.took, took)
	if err == nil {
		o.admitted = append(o.admitted, what)
	} else {
		o.refused = append(o.refused, err.Error())
	}
}

// TestL56_AdmissionIsNotOpenedByARegistry: where the API server ignores a webhook that
// takes too long, Gatekeeper has two threads, and unsigned images of registries in
// trouble come faster than those can take, none is let in; and what was proved before
// is let in all the while. Signed images of a healthy registry that were not seen before may
// have to be tried again: how many is logged, for docs/performance.md.
func TestL56_AdmissionIsNotOpenedByARegistry(t *testing.T) {
	s := in(t, "failopen", nil)
	must(t, s.Namespace(t.Context(), "bystander", nil))
	rates, span := []int{20, 40}, 6*time.Second
	if os.Getenv("COUNTERSIGN_LONG") != "" {
		rates, span = []int{4, 6, 8, 12, 20, 40}, 15*time.Second
	}
	known := s.signed(t, "bystander/cart:1") + "@" + s.Digest("bystander/cart:1").String()
	must(t, s.tryPod(t.Context(), "bystander", known))
	must(t, s.Webhooks(t.Context(), "Ignore", s.gatekeeperCA))
	fresh := s.signed(t, "bystander/fresh:1")
	defer func() {
		must(t, s.Webhooks(context.WithoutCancel(t.Context()), "Fail", s.gatekeeperCA))
		s.eventuallyAdmitted(t, "bystander", fresh) // what was not known before is decided again
	}()
	for column, c := range []struct {
		name  string
		kinds map[string]int // registries
	}{
		{"a closed port", map[string]int{"dead": 1}},
		{"a registry that hangs", map[string]int{"hanging": 1}},
		{"lists that hang", map[string]int{"lists hang": 1}},
		{"cold, at 20 ms", map[string]int{"cold": 1}},
		{"all of them, several of each", map[string]int{"dead": 4, "hanging": 4, "lists hang": 4, "cold": 4}},
	} {
		for _, rate := range rates {
			t.Run(fmt.Sprintf("%s, %d a second", c.name, rate), func(t *testing.T) {
				var all []trouble
				for _, of := range s.troubles(t, c.kinds) {
					all = append(all, of...)
				}
				slices.SortFunc(all, func(a, b trouble) int { return strings.Compare(a.Host(), b.Host()) })
				var bad, good, cold outcomes
				var fresh []string
				for i := range int(span.Seconds()) * 2 {
					fresh = append(fresh, s.signed(t, fmt.Sprintf("bystander/cold-%d-%d:%d", column, rate, i)))
				}
				s.registry.SetFault(registrytest.Delay(20 * time.Millisecond))
				defer s.registry.SetFault(nil)
				var wait sync.WaitGroup
				began := time.Now()
				for i := range int(span.Seconds() * float64(rate)) {
					r := all[i%len(all)]
					name := fmt.Sprintf("image-%d", i)
					if r.kind == "cold" || r.kind == "lists hang" {
						r.PushImage(name, "1")
					}
					time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
					wait.Go(func() { s.attempt(t, &bad, "failopen", r.Host()+"/"+name+":1") })
					if i%(rate/2) == 0 {
						wait.Go(func() { s.attempt(t, &good, "bystander", known) })
						wait.Go(func() { s.attempt(t, &cold, "bystander", fresh[i/(rate/2)]) })
					}
				}
				wait.Wait()
				t.Logf("unsigned: %d sent, %d admitted, half in %s, all in %s; proved before: %d sent, %d refused, all in %s",
					bad.sent, len(bad.admitted), middle(bad.took), slices.Max(bad.took), good.sent, len(good.refused), slices.Max(good.took))
				t.Logf("not seen before: %d sent, %d refused, all in %s", cold.sent, len(cold.refused), slices.Max(cold.took))
				if len(bad.admitted) > 0 {
					t.Errorf("%d of %d unsigned images were admitted, %s among them", len(bad.admitted), bad.sent, bad.admitted[0])
				}
				if len(good.refused) > 0 {
					t.Errorf("%d of %d bystanders were refused: %s", len(good.refused), good.sent, good.refused[0])
				}
				must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error { return s.tryPod(ctx, "bystander", known) }))
			})
		}
	}
}

func (s *scene) attempt(t *testing.T, into *outcomes, namespace, image string) {
	began := time.Now()
	err := s.Client.Create(t.Context(), pod(namespace, "probe", image), client.DryRunAll)
	into.note(image, err, time.Since(began))
}

func middle(list []time.Duration) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}
