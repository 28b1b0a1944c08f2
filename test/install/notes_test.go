package install

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestL56_AWebhookThatIgnoresFailuresIsSaid in each policy and in the chart's notes, for
// as long as it does.
func TestL56_AWebhookThatIgnoresFailuresIsSaid(t *testing.T) {
	s := in(t, "ignoring")
	policy := s.policy("ignoring", "ignoring/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	t.Cleanup(func() { must(t, s.Webhooks(context.Background(), "Fail", s.gatekeeperCA)) })
	const warning = "WARNING: Gatekeeper's webhook has failurePolicy Ignore"
	for _, c := range []struct {
		failurePolicy, enforced string
		warned                  bool
	}{
		{"Fail", "True FailurePolicyFail", false},
		{"Ignore", "False FailurePolicyIgnore", true},
		{"Fail", "True FailurePolicyFail", false},
	} {
		must(t, s.Webhooks(t.Context(), c.failurePolicy, s.gatekeeperCA))
		eventually(t, func(ctx context.Context) error { return s.enforcement(ctx, policy, c.enforced) })
		notes, err := s.run(t.Context(), "helm upgrade "+release+" charts/countersign --namespace "+namespace+" --reuse-values --dry-run=server --hide-secret")
		must(t, err)
		if strings.Contains(string(notes), warning) != c.warned {
			t.Errorf("%s: the notes: %s", c.failurePolicy, tail(string(notes)))
		}
	}
}

// enforcement is nil when a policy's condition AdmissionEnforced is as it should be.
func (s *scene) enforcement(ctx context.Context, policy *unstructured.Unstructured, want string) error {
	now := policy.DeepCopy()
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(policy), now); err != nil {
		return err
	}
	conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
	for _, one := range conditions {
		if c := one.(map[string]any); c["type"] == "AdmissionEnforced" {
			if got := fmt.Sprint(c["status"], " ", c["reason"]); got != want {
				return fmt.Errorf("%s, want %s: %v", got, want, c["message"])
			}
			return nil
		}
	}
	return fmt.Errorf("no condition AdmissionEnforced in %v", conditions)
}
