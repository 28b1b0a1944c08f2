package watch

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// model is what `kubectl get pods` would say.
type model struct {
	pods  map[types.UID]*corev1.Pod
	nodes map[string]string
}

// lines are all uses of images: what the page should show.
func (m *model) lines() []string {
	var lines []string
	for _, p := range m.pods {
		if p.Status.Phase == corev1.PodSucceeded {
			continue
		}
		for i, c := range p.Spec.Containers {
			status := p.Status.ContainerStatuses[i]
			lines = append(lines, strings.Join([]string{p.Namespace, c.Image, m.nodes[p.Spec.NodeName], "Pod/" + p.Name, p.Name, c.Name, status.ContainerID, status.ImageID}, " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// shows are those that a Watch shows.
func (sc *scene) shows() []string {
	var lines []string
	for _, row := range sc.Rows(Filter{}) {
		for _, p := range row.Containers {
			lines = append(lines, strings.Join([]string{row.Namespace, row.Image, row.Platform, p.Workload, p.Pod, p.Container, p.ContainerID, p.ImageID}, " "))
		}
	}
	slices.Sort(lines)
	return lines
}

// TestThePageIsTheTruth: whatever becomes of pods, containers, nodes and policies, what
// is shown is what a fresh look at all pods would give, each use once, and nothing of
// what is gone is kept.
func TestThePageIsTheTruth(t *testing.T) {
	const steps = 1500
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(20261121, 7))
		store := registry(indexDigest, []digest.Digest{indexDigest}, nil)
		sc := newScene(t, store)
		digests := []digest.Digest{indexDigest, amd64, arm64, moved}
		m := &model{map[types.UID]*corev1.Pod{}, map[string]string{}}
		any := func() *corev1.Pod {
			keys := slices.Sorted(maps.Keys(m.pods))
			return m.pods[keys[random.IntN(len(keys))]].DeepCopy()
		}
		set := func(p *corev1.Pod) {
			m.pods[p.UID] = p
			sc.setPod(p.UID, podOf(trim(p)))
		}
		made := 0
		create := func() {
			p := podRunning([]string{"shop", "pay", "till"}[random.IntN(3)], fmt.Sprint("cart-", made), digests[random.IntN(4)])
			p.UID, p.Spec.NodeName = types.UID(fmt.Sprint(made)), []string{"amd", "arm", "new"}[random.IntN(3)]
			made++
			if random.IntN(2) == 0 {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "proxy", Image: "shop.example.com/proxy:1"})
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "proxy", ImageID: "shop.example.com/proxy@" + digests[random.IntN(4)].String()})
			}
			set(p)
		}
		sc.run(t, func() {
			for range 20 {
				create()
			}
			for step := range steps {
				switch random.IntN(8) {
				case 0, 1:
					create()
				case 2, 3: // deleted
					if len(m.pods) > 5 {
						p := any()
						delete(m.pods, p.UID)
						sc.setPod(p.UID, nil)
					}
				case 4: // a container restarts, maybe as something else
					p := any()
					p.Status.ContainerStatuses[0].ContainerID = fmt.Sprint("containerd://", step)
					p.Status.ContainerStatuses[0].ImageID = "shop.example.com/cart@" + digests[random.IntN(4)].String()
					set(p)
				case 5: // it ends, or is seen again
					p := any()
					p.Status.Phase = []corev1.PodPhase{corev1.PodRunning, corev1.PodSucceeded}[random.IntN(2)]
					set(p)
				case 6: // a node comes, goes or is another
					name := []string{"amd", "arm", "new"}[random.IntN(3)]
					m.nodes[name] = []string{"linux/amd64", "linux/arm64"}[random.IntN(2)]
					sc.setNode(name, m.nodes[name])
				case 7:
					if random.IntN(4) == 0 {
						sc.mu.Lock()
						sc.chain = trusting(store)
						sc.mu.Unlock()
					} else { // the watch began anew
						var all []*pod
						for _, p := range m.pods {
							if trimmed := podOf(trim(p)); trimmed != nil {
								all = append(all, trimmed)
							}
						}
						sc.replacePods("", all)
					}
				}
				if random.IntN(10) == 0 {
					settle(time.Duration(random.IntN(100)) * time.Minute)
				}
				if got, want := sc.shows(), m.lines(); !slices.Equal(got, want) {
					t.Fatalf("after %d steps:\n%s\nwant\n%s", step, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
			total := 0
			for _, n := range sc.Summary(nil).Containers {
				total += n
			}
			if total != len(m.lines()) {
				t.Errorf("the summary counts %d of %d", total, len(m.lines()))
			}
			for uid := range m.pods {
				sc.setPod(uid, nil)
			}
			settle(time.Hour)
			sc.Watch.mu.Lock()
			defer sc.Watch.mu.Unlock()
			if len(sc.pods)+len(sc.checks)+len(sc.rows)+len(sc.queue) != 0 {
				t.Errorf("%d pods, %d checks, %d rows and %d in the queue are left", len(sc.pods), len(sc.checks), len(sc.rows), len(sc.queue))
			}
		})
	})
}

// TestL34_FiguresAreBounded: distinct images, reasons and workloads, whatever they are
// called, make no more series than a namespace has statuses, and 600.
func TestL34_FiguresAreBounded(t *testing.T) {
	pods := 100_000
	if raceFactor > 1 {
		pods = 5_000
	}
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, nil, nil))
		sc.options.Select = func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			return nil, verifier.Refuse(r.Image.String(), &verifier.Error{Reason: verifier.ReasonPolicyNotFound, Message: "no policy is for " + r.Image.String()})
		}
		for i := range pods {
			p := podRunning("shop", fmt.Sprint("cart-", i), digest.FromString(fmt.Sprint(i)))
			p.Spec.Containers[0].Image = fmt.Sprintf("shop.example.com/cart-%d:1", i)
			sc.add(p)
		}
		series := 0
		sc.show(func(string, float64, ...string) { series++ })
		if most := 8*2 + 600; series > most {
			t.Errorf("%d series of %d pods, and not %d", series, pods, most)
		}
	})
}

// TestL25_ATenantsWordCountsAtHome: the same image under another namespace's policy, key
// or exemption is what it is there.
func TestL25_ATenantsWordCountsAtHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registry(indexDigest, nil, []digest.Digest{indexDigest}) // signed by mallory
		sc := newScene(t, store)
		memory := verifier.NewMemory(1 << 20)
		chain := func(signer string) *verifier.Chain {
			return verifier.NewChain([]verifier.Policy{{Name: "production", Require: verifiertest.Check("signed", signer)}}, store, memory)
		}
		chains := map[string]*verifier.Chain{"shop": chain("wabbit"), "mallory": chain("mallory")}
		exemption := verifier.Exemption{Name: "legacy", Reason: "being rebuilt", Until: time.Now().Add(time.Hour)}
		sc.options.Select = func(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
			if r.Namespace == "exempt" {
				verdict, _ := exemption.Admit(r.Image)
				return nil, verdict
			}
			if c := chains[r.Namespace]; c != nil {
				return c, verifier.Verdict{}
			}
			return nil, verifier.Refuse(r.Image.String(), &verifier.Error{Reason: verifier.ReasonPolicyNotFound, Message: "no policy"})
		}
		sc.run(t, func() {
			for _, namespace := range []string{"shop", "mallory", "exempt", "unknown"} {
				sc.add(podRunning(namespace, "cart", indexDigest))
			}
			settle(time.Minute)
			want := map[string]Status{"shop " + image: "UNTRUSTED", "mallory " + image: "TRUSTED", "exempt " + image: "EXEMPT", "unknown " + image: "REFUSED"}
			if got := sc.statuses(); !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	})
}

// TestL04_WhatAPodSaysOfItselfDoesNotCount: labels and annotations, ours and others'.
func TestL04_WhatAPodSaysOfItselfDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc := newScene(t, registry(indexDigest, nil, nil))
		sc.run(t, func() {
			p := podRunning("shop", "cart", indexDigest)
			forged := map[string]string{}
			for _, name := range []string{managedBy, notListed, "countersign.dev/status", "countersign.dev/digest", "countersign.dev/exempt", "images.example.com/cart"} {
				forged[name] = "TRUSTED"
			}
			p.Labels, p.Annotations = forged, forged
			sc.add(p)
			settle(time.Minute)
			if got := sc.statuses()["shop "+image]; got != "UNKNOWN" {
				t.Errorf("%s", got)
			}
		})
	})
}
