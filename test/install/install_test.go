package install

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func (s *scene) constraint(ctx context.Context) (action string, err error) {
	constraint := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "CountersignTrustedImagesV1"}}
	if err := s.Client.Get(ctx, client.ObjectKey{Name: "trusted-images"}, constraint); err != nil {
		return "", err
	}
	action, _, err = unstructured.NestedString(constraint.Object, "spec", "enforcementAction")
	if err == nil {
		err = s.Enforced(ctx, constraint)
	}
	return action, err
}

// TestTheConstraintWaitsForAPolicy: after the installation nothing is refused,
// and with the first policy what it does not trust is.
func TestTheConstraintWaitsForAPolicy(t *testing.T) {
	s := in(t, "first")
	eventually(t, func(ctx context.Context) error {
		if action, err := s.constraint(ctx); err != nil || action != "dryrun" {
			return fmt.Errorf("%q, %w", action, err)
		}
		return nil
	})
	trusted := s.signed(t, "first/cart:1.4", "wabbit")
	must(t, s.Push(t.Context(), "first/unsigned:1"))
	must(t, s.tryPod(t.Context(), "first", s.Name("first/unsigned:1")))

	policy := s.policy("production", "first/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	eventually(t, func(ctx context.Context) error {
		if action, err := s.constraint(ctx); err != nil || action != "deny" {
			return fmt.Errorf("%q, %w", action, err)
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error {
		err := s.tryPod(ctx, "first", s.Name("first/unsigned:1"))
		if err == nil || !strings.Contains(err.Error(), "no signature found; policy production wants signer. Sign this digest, or ask platform@example.com") {
			return fmt.Errorf("an unsigned image: %w", err)
		}
		t.Log(err)
		return nil
	})
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "first", trusted) })
}
