package install

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// everywhere waits until each replica gives the reasons.
func (s *scene) everywhere(t *testing.T, reasons map[string]string) {
	t.Helper()
	for _, address := range s.addresses() {
		a := s.asker(t, address)
		for key, want := range reasons {
			eventually(t, func(ctx context.Context) error {
				if got, err := a.reason(ctx, key); err != nil || got != want {
					return fmt.Errorf("%s: %s, want %s: %w", key, got, want, err)
				}
				return nil
			})
		}
	}
}

// again ends a replica and runs it once more.
func (s *scene) again(t *testing.T, i int) {
	t.Helper()
	must(t, s.replicas[i].Stop())
	must(t, s.restartReplica(t.Context(), i))
	must(t, s.publish(t.Context()))
}

// TestL42_AStrayCharacterTurnsNothingOff: the API server takes what YAML does not,
// and a broader policy does not take the place of the one that has it, in replicas
// that go on and in one that is restarted.
func TestL42_AStrayCharacterTurnsNothingOff(t *testing.T) {
	s := in(t, "stray")
	signed := s.signed(t, "stray/shop/cart:1.4", "wabbit")
	unsigned := s.Name("stray/shop/unsigned:1.4")
	must(t, s.Push(t.Context(), "stray/shop/unsigned:1.4"))
	strict, wide := s.policy("stray", "stray/shop/**", map[string]any{"inline": s.root(t, "wabbit")}), s.policy("stray-wide", "stray/**", nil)
	wide.Object["spec"].(map[string]any)["require"] = map[string]any{"skip": map[string]any{"reason": "a test"}}
	for _, policy := range []*unstructured.Unstructured{strict, wide} {
		s.apply(t, policy)
		s.ready(t, policy, "InForce")
	}
	want := map[string]string{"[stray]" + signed: "TRUSTED", "[stray]" + unsigned: "SIGNATURE_NOT_FOUND"}
	s.everywhere(t, want)
	for _, stray := range []string{"\x7f", "\u0092", "\u2028"} {
		// Server-side apply reads YAML; all other ways read JSON.
		patch, err := json.Marshal(map[string]any{"spec": map[string]any{"owner": "the ops" + stray + " team"}})
		must(t, err)
		must(t, s.Client.Patch(t.Context(), strict.DeepCopy(), client.RawPatch(types.MergePatchType, patch)))
		if said := s.ready(t, strict, "LastGoodInForce"); !strings.HasPrefix(said, "an earlier version is in force: spec.owner: ") {
			t.Error(said)
		}
		s.everywhere(t, want)
	}
	s.again(t, 0)
	s.everywhere(t, want)
}

// TestL51_ASecondPolicyStopsNothing: the condition of a policy with a pattern that another
// has says so, and what worked works, also in a replica that is restarted.
func TestL51_ASecondPolicyStopsNothing(t *testing.T) {
	s := in(t, "second")
	image, other := s.signed(t, "second/cart:1.4", "wabbit"), s.signed(t, "other/cart:1.4", "wabbit")
	production := s.policy("second-production", "second/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, production)
	s.ready(t, production, "InForce")
	newer := s.policy("second-a", "second/**", map[string]any{"inline": s.root(t, "mallory")})
	newer.Object["spec"].(map[string]any)["images"] = []any{s.Host + "/second/**", s.Host + "/other/**"}
	must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(production), production))
	eventually(t, func(context.Context) error { // the API server counts in seconds
		if born := production.GetCreationTimestamp(); time.Since(born.Time) < time.Second {
			return fmt.Errorf("made at %s", born)
		}
		return nil
	})
	s.apply(t, newer)
	if said := s.ready(t, newer, "PatternTaken"); !strings.Contains(said, "spec.images[0]: ClusterTrustPolicy second-production has the same pattern") {
		t.Error(said)
	}
	s.ready(t, production, "InForce")
	want := map[string]string{"[second]" + image: "TRUSTED", "[second]" + other: "CERTIFICATE_NOT_TRUSTED"}
	s.everywhere(t, want)
	s.again(t, 1)
	s.everywhere(t, want)
}
