package watch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestWhatRunsIsHeldToWhatItsReferenceNames: by its index, its manifest or its config.
func TestWhatRunsIsHeldToWhatItsReferenceNames(t *testing.T) {
	pinned := func(d digest.Digest) string { return "shop.example.com/cart@" + d.String() }
	for name, test := range map[string]struct {
		image, imageID, platform string
		tag                      digest.Digest
		want                     DriftKind
	}{
		"the index":                        {image, pinned(indexDigest), "linux/amd64", indexDigest, ""},
		"a manifest of the index":          {image, pinned(arm64), "linux/arm64", indexDigest, ""},
		"a manifest, no platform known":    {image, pinned(arm64), "", indexDigest, ""},
		"its config":                       {image, amd64Config.String(), "linux/amd64", indexDigest, ""},
		"its config, no platform known":    {image, "docker://" + arm64Config.String(), "", indexDigest, ""},
		"the config of the named manifest": {image, amd64Config.String(), "linux/amd64", amd64, ""},
		"another index":                    {image, pinned(indexDigest), "linux/amd64", amd64, DriftTag},
		"a manifest it has not any more":   {image, pinned(amd64), "linux/amd64", arm64, DriftTag},
		"a tag that is gone":               {"shop.example.com/cart:gone", pinned(amd64), "linux/amd64", amd64, DriftTag},
		"the pinned index":                 {pinned(indexDigest), pinned(indexDigest), "linux/amd64", moved, ""},
		"a manifest of the pinned index":   {pinned(indexDigest), pinned(amd64), "linux/amd64", moved, ""},
		"the config of the pinned index":   {pinned(indexDigest), amd64Config.String(), "linux/amd64", moved, ""},
		"another than is pinned":           {pinned(amd64), pinned(arm64), "linux/arm64", moved, DriftDigest},
		"another config than is pinned":    {pinned(amd64), arm64Config.String(), "linux/arm64", moved, DriftDigest},
		"what runs nowhere yet":            {image, "", "linux/amd64", moved, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := runningOf(test.image, test.imageID, test.platform)
			if err != nil {
				t.Fatal(err)
			}
			drift, same, err := drifted(context.Background(), trusting(registry(test.tag, nil, nil)), r)
			if err != nil {
				t.Fatal(err)
			}
			var got DriftKind
			if drift != nil {
				got = drift.Kind
			}
			if got != test.want || (len(same) > 0) != (test.want == "" && test.imageID != "") {
				t.Errorf("%+v, %v, want %q", drift, same, test.want)
			}
		})
	}
}

// TestATagThatMovesShows within six hours and a fifth, costs nothing when policies
// change, and stays while the registry is away.
func TestATagThatMovesShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registry(indexDigest, []digest.Digest{indexDigest}, nil)
		sc := newScene(t, store)
		resolved := 0
		store.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
			if ref.Digest != "" {
				return nil
			}
			sc.mu.Lock()
			defer sc.mu.Unlock()
			resolved++
			if sc.away {
				return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry answered 503"}
			}
			return nil
		}
		drifts := func() (kinds []DriftKind) {
			for _, row := range sc.Rows(Filter{}) {
				for _, d := range row.Drift {
					kinds = append(kinds, d.Kind)
				}
			}
			return kinds
		}
		asked := func() int {
			sc.mu.Lock()
			defer sc.mu.Unlock()
			n := resolved
			resolved = 0
			return n
		}
		sc.run(t, func() {
			sc.setNode("amd", "linux/amd64")
			sc.add(podRunning("shop", "cart-1", indexDigest), podRunning("pay", "cart-1", indexDigest))
			settle(time.Second)
			if n := asked(); n != 1 || len(drifts()) != 0 {
				t.Errorf("at first the tag was asked for %d times: %v", n, drifts())
			}
			store.Tag(image, moved)
			settle(5*time.Hour + 30*time.Minute)
			if n := asked(); n != 0 {
				t.Errorf("asked for %d times within six hours", n)
			}
			settle(time.Hour)
			if n := asked(); n != 1 || len(drifts()) != 2 || drifts()[0] != DriftTag {
				t.Errorf("after six hours the tag was asked for %d times: %v", n, drifts())
			}
			sc.mu.Lock()
			sc.chain, sc.away = trusting(store), true
			sc.mu.Unlock()
			settle(time.Minute)
			if n := asked(); n != 0 || len(drifts()) != 2 {
				t.Errorf("after a policy's change the tag was asked for %d times: %v", n, drifts())
			}
			settle(24 * time.Hour)
			if len(drifts()) != 2 {
				t.Errorf("with the registry away: %v", drifts())
			}
		})
	})
}

// TestReplicasThatDifferShow: pods of one workload, of one platform, of one reference.
func TestReplicasThatDifferShow(t *testing.T) {
	owned := func(p *corev1.Pod, deployment string) *corev1.Pod {
		p.Labels = map[string]string{"pod-template-hash": "abc"}
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: deployment + "-abc", Controller: &yes}}
		return p
	}
	other := func(p *corev1.Pod, node string) *corev1.Pod {
		p.Spec.NodeName = node
		return p
	}
	for name, test := range map[string]struct {
		pods []*corev1.Pod
		want int // rows that differ
	}{
		"the same":          {[]*corev1.Pod{owned(podRunning("shop", "a", amd64), "cart"), owned(podRunning("shop", "b", amd64), "cart")}, 0},
		"another digest":    {[]*corev1.Pod{owned(podRunning("shop", "a", amd64), "cart"), owned(podRunning("shop", "b", moved), "cart")}, 2},
		"another workload":  {[]*corev1.Pod{owned(podRunning("shop", "a", amd64), "cart"), owned(podRunning("shop", "b", moved), "till")}, 0},
		"another namespace": {[]*corev1.Pod{owned(podRunning("shop", "a", amd64), "cart"), owned(podRunning("pay", "b", moved), "cart")}, 0},
		"another platform":  {[]*corev1.Pod{owned(podRunning("shop", "a", amd64), "cart"), other(owned(podRunning("shop", "b", arm64), "cart"), "arm")}, 0},
		"of one index, unknown nodes": {
			[]*corev1.Pod{other(owned(podRunning("shop", "a", amd64), "cart"), ""), other(owned(podRunning("shop", "b", arm64), "cart"), "")}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := registry(indexDigest, []digest.Digest{indexDigest, moved}, nil)
				store.Make(moved, verifier.Contents{})
				sc := newScene(t, store)
				sc.run(t, func() {
					sc.setNode("amd", "linux/amd64")
					sc.setNode("arm", "linux/arm64")
					sc.add(test.pods...)
					settle(time.Second)
					rows := sc.Rows(Filter{Drifts: []DriftKind{DriftReplicas}})
					if len(rows) != test.want {
						t.Errorf("%+v", rows)
					}
				})
			})
		})
	}
}

// TestAnEndOfLifeIsForetold within a day and an hour, of what hostile and strange dates
// surround, and it stops nothing.
func TestAnEndOfLifeIsForetold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registry(indexDigest, []digest.Digest{indexDigest}, nil)
		ends := time.Now().Add(3 * 24 * time.Hour)
		for _, text := range []string{"", "soon", "99999999999-01-01", ends.AddDate(1, 0, 0).Format(time.RFC3339), ends.Format(time.DateOnly)} {
			store.List(subject(indexDigest), verifier.Candidate{
				Descriptor: ocispec.Descriptor{Digest: digest.FromString(text)}, ArtifactType: lifecycleType,
				Manifest: ocispec.Manifest{Annotations: map[string]string{lifecycleEndOfLife: text}},
			}, nil)
		}
		sc := newScene(t, store)
		sc.run(t, func() {
			sc.add(podRunning("shop", "cart", indexDigest))
			settle(25 * time.Hour)
			got := sc.Forecast(time.Now().Add(Horizon), nil)
			if len(got) != 1 || got[0].What != EndOfLife || got[0].At.Format(time.DateOnly) != ends.Format(time.DateOnly) || got[0].Workloads[0] != "Pod/cart" {
				t.Errorf("%+v", got)
			}
			if got := sc.Forecast(time.Now().Add(24*time.Hour), nil); len(got) != 0 {
				t.Errorf("within a day: %+v", got)
			}
			settle(3 * 24 * time.Hour)
			if got := sc.statuses()["shop "+image]; got != "TRUSTED" || sc.Summary(nil).Ending != 0 {
				t.Errorf("%s", got)
			}
		})
	})
}
