package watch

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// scene is a Watch of a registry under one policy.
type scene struct {
	*Watch
	store *verifiertest.Store

	mu    sync.Mutex // guards all below
	chain *verifier.Chain
	told  []Transition
	asked []string // what was asked of the registry, "afresh " where it was
	away  bool
}

func newScene(t *testing.T, s *verifiertest.Store) *scene {
	t.Helper()
	sc := &scene{store: s, chain: trusting(s)}
	s.BeforeCandidates = func(ctx context.Context, subject verifier.Subject) error {
		sc.mu.Lock()
		defer sc.mu.Unlock()
		word := subject.Digest.Encoded()[:6]
		if verifier.IsAfresh(ctx) {
			word = "afresh " + word
		}
		sc.asked = append(sc.asked, word)
		if sc.away {
			return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry answered 503"}
		}
		return nil
	}
	sc.Watch = New(Options{
		Select: func(verifier.Request) (*verifier.Chain, verifier.Verdict) {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			return sc.chain, verifier.Verdict{}
		},
		Snapshot: func() any {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			return sc.chain
		},
		Changed: func(c Transition) {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			sc.told = append(sc.told, c)
		},
		Jitter: func() float64 { return 0.5 }, Rate: 1000,
	})
	return sc
}

// run has the Watch run in a bubble of time, until f returns.
func (sc *scene) run(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := contextOf(t)
	done := make(chan error)
	go func() { done <- sc.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ran is what was asked since it was asked for last.
func (sc *scene) ran() []string {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	asked := sc.asked
	sc.asked = nil
	return asked
}

// became is what was told since it was asked for last.
func (sc *scene) became() []string {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	var list []string
	for _, c := range sc.told {
		list = append(list, fmt.Sprintf("%s %s>%s", c.Namespace, c.From, c.To))
	}
	sc.told = nil
	slices.Sort(list)
	return list
}

// statuses are those of all rows, by namespace and image.
func (sc *scene) statuses() map[string]Status {
	sc.Watch.mu.Lock()
	defer sc.Watch.mu.Unlock()
	all := map[string]Status{}
	for key, r := range sc.rows {
		all[key.namespace+" "+key.image] = r.status()
	}
	return all
}

// podRunning is a pod whose one container runs a digest of the image.
func podRunning(namespace, name string, d digest.Digest) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name)},
		Spec:       corev1.PodSpec{NodeName: "amd", Containers: []corev1.Container{{Name: "cart", Image: image}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "cart", ImageID: "shop.example.com/cart@" + d.String(), ContainerID: "containerd://" + name},
		}},
	}
}

func (sc *scene) add(pods ...*corev1.Pod) {
	for _, p := range pods {
		sc.setPod(p.UID, podOf(trim(p)))
	}
}

// TestAnImageIsLookedAtOnce for all that run it, again every hour past what is
// remembered, and for a policy's change from what is.
func TestAnImageIsLookedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
		short := indexDigest.Encoded()[:6]
		sc.run(t, func() {
			for i := range 500 {
				sc.add(podRunning("shop", fmt.Sprint("cart-", i), indexDigest), podRunning("pay", fmt.Sprint("cart-", i), indexDigest))
			}
			settle(time.Second)
			if got := sc.ran(); !slices.Equal(got, []string{short}) {
				t.Errorf("at first: %v", got)
			}
			settle(61 * time.Minute)
			if got := sc.ran(); !slices.Equal(got, []string{"afresh " + short}) {
				t.Errorf("after an hour: %v", got)
			}
			sc.mu.Lock()
			sc.chain = trusting(sc.store)
			sc.mu.Unlock()
			settle(3 * time.Second)
			if got := sc.ran(); !slices.Equal(got, []string{short}) {
				t.Errorf("after a policy's change: %v", got)
			}
			if got := sc.became(); len(got) > 0 {
				t.Errorf("told: %v", got)
			}
		})
	})
}

// TestWhatBecomesOfAnImageIsToldOnce, in each namespace that runs it.
func TestWhatBecomesOfAnImageIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
		sc.run(t, func() {
			sc.add(podRunning("shop", "a", indexDigest), podRunning("shop", "b", indexDigest), podRunning("pay", "a", indexDigest), podRunning("pay", "m", moved))
			pulling := podRunning("till", "p", moved) // of what nobody runs yet nothing is told
			pulling.Spec.Containers[0].Image, pulling.Status.ContainerStatuses = "shop.example.com/cart@"+moved.String(), nil
			sc.add(pulling)
			settle(time.Second)
			if got := sc.became(); !slices.Equal(got, []string{"pay >UNKNOWN"}) {
				t.Errorf("at first: %v", got)
			}
			sc.mu.Lock()
			sc.chain = verifier.NewChain([]verifier.Policy{{Name: "production", Require: verifiertest.Check("signed", "another")}}, sc.store, verifier.NewMemory(1<<20))
			sc.mu.Unlock()
			settle(3 * time.Second)
			if got := sc.became(); !slices.Equal(got, []string{"pay TRUSTED>UNTRUSTED", "shop TRUSTED>UNTRUSTED"}) {
				t.Errorf("distrusted: %v", got)
			}
			sc.mu.Lock()
			sc.chain = trusting(sc.store)
			sc.mu.Unlock()
			settle(5 * time.Hour)
			if got := sc.became(); !slices.Equal(got, []string{"pay UNTRUSTED>TRUSTED", "shop UNTRUSTED>TRUSTED"}) {
				t.Errorf("trusted again: %v", got)
			}
		})
	})
}

// TestWhatCannotBeLookedAtStays with its last verdict, and is an ERROR when that has
// lasted.
func TestWhatCannotBeLookedAtStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
		sc.run(t, func() {
			sc.add(podRunning("shop", "a", indexDigest))
			settle(time.Second)
			sc.mu.Lock()
			sc.away = true
			sc.mu.Unlock()
			settle(48*time.Minute + 20*time.Second) // its finding is made again then
			if got := sc.statuses()["shop "+image]; got != "TRUSTED" {
				t.Errorf("%s after one failure", got)
			}
			sc.add(podRunning("shop", "b", moved))
			settle(5 * time.Minute)
			if got := sc.became(); !slices.Equal(got, []string{"shop >ERROR", "shop TRUSTED>ERROR"}) {
				t.Errorf("%v", got)
			}
			asked := len(sc.ran())
			settle(12 * time.Hour)
			if again := len(sc.ran()); again > 60 {
				t.Errorf("asked %d times in some minutes and %d times in twelve hours", asked, again)
			}
			sc.mu.Lock()
			sc.away = false
			sc.mu.Unlock()
			settle(2 * time.Hour)
			if got := sc.became(); !slices.Equal(got, []string{"shop ERROR>TRUSTED", "shop ERROR>UNKNOWN"}) && !slices.Equal(got, []string{"shop ERROR>TRUSTED", "shop ERROR>TRUSTED"}) {
				t.Errorf("%v", got)
			}
		})
	})
}

// TestARestartWhileARegistryIsAway shows what was known, and tells nothing until that
// has lasted.
func TestARestartWhileARegistryIsAway(t *testing.T) {
	history := openHistory(t, filepath.Join(t.TempDir(), "history"))
	synctest.Test(t, func(t *testing.T) {
		for restart := range 2 {
			sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
			sc.options.Memory = history
			sc.away = restart == 1
			sc.run(t, func() {
				sc.add(podRunning("shop", "a", indexDigest))
				settle(time.Minute)
				if got := sc.statuses()["shop "+image]; got != "TRUSTED" {
					t.Errorf("%s after %d restarts", got, restart)
				}
				if got := sc.became(); len(got) > 0 {
					t.Errorf("told: %v", got)
				}
				if restart == 1 {
					settle(5 * time.Minute)
					if got := sc.became(); !slices.Equal(got, []string{"shop TRUSTED>ERROR"}) {
						t.Errorf("told: %v", got)
					}
				}
			})
		}
	})
}

// TestAnExemptionEnds, and what it exempted is what it is.
func TestAnExemptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, nil, nil))
		ends := time.Now().Add(20 * time.Minute)
		exemption := verifier.Exemption{Name: "legacy", Reason: "being rebuilt", Until: ends}
		sc.options.Select = func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			if verdict, ok := exemption.Admit(r.Image); ok {
				return nil, verdict
			}
			return sc.chain, verifier.Verdict{}
		}
		sc.run(t, func() {
			sc.add(podRunning("shop", "a", indexDigest))
			settle(time.Second)
			if got := sc.statuses()["shop "+image]; got != "EXEMPT" {
				t.Errorf("%s at first", got)
			}
			settle(20 * time.Minute)
			settle(time.Minute)
			if got := sc.became(); !slices.Equal(got, []string{"shop EXEMPT>UNKNOWN"}) {
				t.Errorf("%v", got)
			}
		})
	})
}

// TestNothingGetsOld: what needs no registry is looked at every hour as well, so that
// nobody is told of an old look.
func TestNothingGetsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
		sc.options.Select = func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			if r.Namespace == "shop" {
				return sc.chain, verifier.Verdict{}
			}
			return nil, verifier.Refuse(r.Image.String(), &verifier.Error{Reason: verifier.ReasonPolicyNotFound, Message: "no policy"})
		}
		sc.run(t, func() {
			strange := podRunning("shop", "strange", indexDigest)
			strange.Status.ContainerStatuses[0].ImageID = "no digest"
			sc.add(podRunning("shop", "cart", indexDigest), podRunning("elsewhere", "cart", indexDigest), strange)
			for range 12 {
				settle(time.Hour)
				if oldest := sc.Summary(nil).Oldest; oldest == nil || time.Since(*oldest) > 61*time.Minute {
					t.Fatalf("the oldest look is of %v", oldest)
				}
			}
		})
	})
}

// TestEveryUseOfAnImageIsSeen, whatever the pod is called and whatever it is up to.
func TestEveryUseOfAnImageIsSeen(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	p := podRunning("my-kube-system", "x-kube-notary", indexDigest)
	p.Status.Phase = corev1.PodPending
	p.Spec.InitContainers = []corev1.Container{{Name: "schema", Image: "shop.example.com/schema:7"}, {Name: "proxy", Image: "shop.example.com/proxy:2", RestartPolicy: &always}}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "busybox"}}}
	p.Spec.Volumes = []corev1.Volume{{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "shop.example.com/model:1"}}}, {Name: "none"}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "proxy", ImageID: "sha256:" + strings.Repeat("a", 64)}}
	var got []string
	for _, c := range podOf(trim(p)).containers {
		got = append(got, fmt.Sprintf("%s %s %s %v", c.use, c.name, c.image, c.imageID != ""))
	}
	want := []string{
		"init schema shop.example.com/schema:7 false", "sidecar proxy shop.example.com/proxy:2 true", "container cart " + image + " true",
		"ephemeral debug busybox false", "volume model shop.example.com/model:1 false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	p.Status.Phase = corev1.PodSucceeded
	if podOf(p) != nil {
		t.Error("of a pod that has ended something runs")
	}
}

// TestPodsComeAndGo, and nothing of them is left.
func TestPodsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, []digest.Digest{indexDigest}, nil))
		sc.run(t, func() {
			for round := range 20 {
				var list []*pod
				for i := range 50 {
					list = append(list, podOf(podRunning(fmt.Sprint("n", i%5), fmt.Sprint("p", round, "-", i), []digest.Digest{indexDigest, amd64, moved}[i%3])))
				}
				sc.replacePods("", list)
				sc.setNode("amd", fmt.Sprint("linux/amd64", round))
				settle(time.Second)
				if len(sc.rows) != 15 || len(sc.pods) != 50 || len(sc.checks) != 3 {
					t.Fatalf("%d rows, %d pods, %d checks", len(sc.rows), len(sc.pods), len(sc.checks))
				}
			}
			sc.replacePods("", nil)
			settle(time.Second)
			if len(sc.rows)+len(sc.pods)+len(sc.checks)+len(sc.queue) > 0 {
				t.Errorf("%d rows, %d pods, %d checks, %d in the queue", len(sc.rows), len(sc.pods), len(sc.checks), len(sc.queue))
			}
		})
	})
}

func TestWhatAPodBelongsTo(t *testing.T) {
	yes := true
	for name, c := range map[string]struct {
		owner  metav1.OwnerReference
		labels map[string]string
		want   Workload
	}{
		"nobody":                  {metav1.OwnerReference{Kind: "ReplicaSet", Name: "x"}, nil, Workload{"Pod", "pod"}},
		"a Deployment":            {metav1.OwnerReference{Kind: "ReplicaSet", Name: "cart-6d4b", Controller: &yes}, map[string]string{"pod-template-hash": "6d4b"}, Workload{"Deployment", "cart"}},
		"a ReplicaSet of its own": {metav1.OwnerReference{Kind: "ReplicaSet", Name: "cart-6d4b", Controller: &yes}, nil, Workload{"ReplicaSet", "cart-6d4b"}},
		"a DaemonSet":             {metav1.OwnerReference{Kind: "DaemonSet", Name: "agent", Controller: &yes}, nil, Workload{"DaemonSet", "agent"}},
		"a CronJob":               {metav1.OwnerReference{Kind: "Job", Name: "report-29393280", Controller: &yes}, nil, Workload{"CronJob", "report"}},
		"a Job":                   {metav1.OwnerReference{Kind: "Job", Name: "migrate-7", Controller: &yes}, nil, Workload{"Job", "migrate-7"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Labels: c.labels, OwnerReferences: []metav1.OwnerReference{c.owner}}}
			if got := workloadOf(trim(p)); got != c.want {
				t.Errorf("%+v", got)
			}
		})
	}
}
