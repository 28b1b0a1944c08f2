package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/hostile"
)

const (
	// tenantRate is how many requests a second either tenant sends, of tenantKeys images.
	tenantRate, tenantKeys = 20, 4
	// neighbourRate is how many the neighbours send, of one image each.
	neighbourRate = 50
	// tolerated is how much slower a neighbour's median may be, or a tenth.
	tolerated = 5 * time.Millisecond
)

// TestATenantsWorstMinute: a tenant who may write policies of his own brings a mirror that
// is gone, registries that are silent, throttle and send as much as they may, and an
// authority whose revocation list never comes, and edits his policies all the time. Nobody
// else's signed image is refused, no unsigned one is admitted, and the others wait no longer
// than beside a tenant who sends as many ordinary requests.
func TestATenantsWorstMinute(t *testing.T) {
	s := in(t, "worst")
	in(t, "neighbour")
	duration, turns := 5*time.Second, 2
	if os.Getenv("COUNTERSIGN_LONG") != "" {
		duration, turns = 60*time.Second, 5
	}
	s.apply(t, s.policy("neighbour", "neighbour/**", map[string]any{"inline": s.root(t, "wabbit")}))
	var known []string
	for i := range 50 {
		known = append(known, s.signed(t, fmt.Sprintf("neighbour/known-%d:1", i), "wabbit"))
	}
	must(t, s.Push(t.Context(), "neighbour/unsigned:1"))
	unsigned := s.Name("neighbour/unsigned:1")
	worst := s.worstTenant(t)
	a := s.asker(t, s.addresses()[0])
	for _, image := range known {
		eventually(t, func(ctx context.Context) error {
			if got, err := a.reason(ctx, "[neighbour]"+image); err != nil || got != "TRUSTED" {
				return fmt.Errorf("%s: %s %w", image, got, err)
			}
			return nil
		})
	}
	var ordinary atomic.Int64
	tenants := []func(context.Context) []string{
		func(context.Context) []string {
			keys := make([]string, tenantKeys)
			for i := range keys {
				keys[i] = "[neighbour]" + known[int(ordinary.Add(1))%len(known)]
			}
			return keys
		},
		worst.keys,
	}
	var p50 [2][]time.Duration
	cold := 0
	for turn := range 2 * turns {
		var fresh []string
		for range int(duration.Seconds()) * neighbourRate / 5 {
			cold++
			fresh = append(fresh, s.signed(t, fmt.Sprintf("neighbour/cold-%d:1", cold), "wabbit"))
		}
		edits := func() {}
		if turn%2 == 1 {
			edits = worst.edit(t)
		}
		tenant := under(t, tenantRate, func(ctx context.Context) (string, error) {
			_, _ = a.post(ctx, tenants[turn%2](ctx)...)
			return "", nil
		})
		took := s.neighbours(t, a, duration, known, fresh, unsigned)
		tenant.stop()
		edits()
		p50[turn%2] = append(p50[turn%2], took)
	}
	for i := range p50 {
		slices.Sort(p50[i])
	}
	beside, alone := p50[1][len(p50[1])/2], p50[0][len(p50[0])/2]
	t.Logf("the neighbours' p50 is %v beside the worst tenant, %v beside an ordinary one: %v", beside, alone, p50)
	if beside > max(alone*11/10, alone+tolerated) {
		t.Error("a tenant makes his neighbours wait")
	}
}

// neighbours send requests for signed images that are known and that are not, and for one
// that is not signed. It gives the median time of an answer.
func (s *scene) neighbours(t *testing.T, a *asker, duration time.Duration, known, fresh []string, unsigned string) time.Duration {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	reasons := map[string]int{}
	var n atomic.Int64
	l := under(t, neighbourRate, func(ctx context.Context) (string, error) {
		i := int(n.Add(1))
		kind, image, want := "known", known[i%len(known)], "TRUSTED"
		switch at := i / 5; {
		case i%5 == 1:
			kind, image, want = "unsigned", unsigned, "SIGNATURE_NOT_FOUND"
		case i%5 == 2 && at < len(fresh):
			kind, image = "cold", fresh[at]
		}
		begun := time.Now()
		got, err := a.reason(ctx, "[neighbour]"+image)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(begun))
		reasons[kind+" "+got]++
		if err == nil && got != want {
			return fmt.Sprintf("%s %s: %s", kind, image, got), nil
		}
		return "", err
	})
	select {
	case <-time.After(duration):
	case <-t.Context().Done():
	}
	l.stop()
	slices.Sort(took)
	t.Logf("%v, p50 %v, p99 %v", reasons, took[len(took)/2], took[len(took)*99/100])
	if len(l.wrong) > 0 {
		t.Errorf("%d are wrong: %q", len(l.wrong), l.wrong[:min(5, len(l.wrong))])
	}
	if len(l.errs) > 0 {
		t.Errorf("%d have no answer: %v", len(l.errs), l.errs[0])
	}
	return took[len(took)/2]
}

// worst is a tenant who does what he may.
type worst struct {
	scene  *scene
	hosts  []string
	own    []string
	policy *unstructured.Unstructured
	n      atomic.Int64
}

func (s *scene) worstTenant(t *testing.T) *worst {
	t.Helper()
	silent := registrytest.Start(t, registrytest.Options{})
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	silent.SetFault(registrytest.Hang(never))
	throttled := registrytest.Start(t, registrytest.Options{})
	throttled.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		return r.URL.Path != "/v2/" && registrytest.Throttle("")(w, r)
	})
	huge := hostile.Start(hostile.Attack{
		Referrers: 64, Manifest: 4_000_000, Types: []string{hostile.NotationType}, LayerType: "application/jose+json", Image: 4_000_000,
	})
	t.Cleanup(huge.Close)
	gone := registrytest.Start(t, registrytest.Options{})
	gone.Close()
	w := &worst{scene: s, hosts: []string{silent.Host(), throttled.Host(), huge.Host}}
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	signer := root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://" + silent.Host() + "/list.crl"}})
	for i := range 20 {
		name := fmt.Sprintf("worst/own/%d:1", i)
		must(t, s.Push(t.Context(), name))
		must(t, s.Attach(t.Context(), name, "", signer.Sign(s.Descriptor(name), notationtest.SignOptions{})))
		w.own = append(w.own, s.Name(name))
	}
	cluster := s.policy("worst", "worst/**", map[string]any{"inline": s.root(t, "wabbit")})
	spec := cluster.Object["spec"].(map[string]any)
	spec["delegate"], spec["namespaces"] = true, []any{"worst"}
	registries, images, private := []any{}, []any{s.Host + "/worst/**"}, []any{gone.Host()}
	for _, host := range w.hosts {
		registries, images, private = append(registries, map[string]any{"host": host, "plainHTTP": true}), append(images, host+"/**"), append(private, host)
	}
	spec["images"], spec["privateHosts"] = images, private
	s.apply(t, cluster)
	source := map[string]any{"inline": string(root.PEM())}
	for name, change := range map[string]func(spec map[string]any){
		"worst": func(spec map[string]any) { spec["images"], spec["registries"] = images[1:], registries },
		"own":   func(spec map[string]any) { spec["images"] = []any{s.Host + "/worst/own/**"} },
		"mirror": func(spec map[string]any) {
			spec["images"] = []any{s.Host + "/worst/mirror/**"}
			spec["registries"] = []any{map[string]any{"host": s.Host, "mirror": gone.Host()}, map[string]any{"host": gone.Host(), "plainHTTP": true}}
		},
	} {
		policy := s.policy(name, "worst/**", source)
		policy.SetKind("TrustPolicy")
		policy.SetNamespace("worst")
		change(policy.Object["spec"].(map[string]any))
		s.apply(t, policy)
		s.ready(t, policy, "InForce")
		w.policy = policy
	}
	return w
}

// keys are those of one request: always other images, of all the trouble there is.
func (w *worst) keys(context.Context) []string {
	keys := make([]string, tenantKeys)
	for i := range keys {
		n := w.n.Add(1)
		image := fmt.Sprintf("%s/image-%d:1", w.hosts[n%int64(len(w.hosts))], n)
		switch n % 5 {
		case 3:
			image = w.own[n%int64(len(w.own))]
		case 4:
			image = w.scene.Name(fmt.Sprintf("worst/mirror/%d:1", n))
		}
		keys[i] = "[worst]" + image
	}
	return keys
}

// edit edits a policy until it is stopped.
func (w *worst) edit(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	edits := 0
	group.Go(func() {
		for ctx.Err() == nil {
			patch, err := json.Marshal(map[string]any{"spec": map[string]any{"owner": fmt.Sprintf("edit %d", edits)}})
			if err == nil {
				err = w.scene.Client.Patch(ctx, w.policy.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
			}
			if err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "context") {
				t.Error(err)
				return
			}
			edits++
		}
	})
	return func() {
		cancel()
		group.Wait()
		t.Logf("%d edits", edits)
	}
}
