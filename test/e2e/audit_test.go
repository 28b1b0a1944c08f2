package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// TestAuditReportsWhatRuns: what came in before trust was withdrawn keeps
// running, and stands in the constraint's status with our reason.
func TestAuditReportsWhatRuns(t *testing.T) {
	s := in(t, "audit", nil)
	image := s.signed(t, "audit/cart:1.4")
	must(t, s.Client.Create(t.Context(), pod("audit", "cart", image)))
	s.distrust(t, "audit", image)
	objects, err := kubeyaml.Read(libraryDir + "/trusted-images/samples/pods.yaml")
	must(t, err)
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		constraint := objects[0].DeepCopy()
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(constraint), constraint); err != nil {
			return err
		}
		violations, _, err := unstructured.NestedSlice(constraint.Object, "status", "violations")
		if err != nil {
			return err
		}
		for _, each := range violations {
			violation := each.(map[string]any)
			message := fmt.Sprint(violation["message"])
			if violation["namespace"] == "audit" && violation["name"] == "cart" && strings.Contains(message, `signed by "CN=wabbit`) {
				t.Log(message)
				return nil
			}
		}
		return fmt.Errorf("no violation of the Pod in %v", violations)
	}))
}
