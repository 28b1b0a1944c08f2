package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// patches are those of the page, in their order.
func patches(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/kubernetes.md")
	must(t, err)
	var list []string
	for _, found := range regexp.MustCompile(`kubectl patch countersigntrustedimagesv1 trusted-images --type merge --patch '([^']+)'`).FindAllSubmatch(page, -1) {
		list = append(list, string(found[1]))
	}
	if len(list) != 2 {
		t.Fatalf("%d patches", len(list))
	}
	return list
}

// TestTheRunbook of a provider that is down: what the page says lets Pods in, and
// is undone when the provider is back.
func TestTheRunbook(t *testing.T) {
	s := in(t, "runbook")
	trusted, untrusted := s.enforced(t, "runbook")
	constraint := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "CountersignTrustedImagesV1"}}
	constraint.SetName("trusted-images")
	for i := range s.replicas {
		must(t, s.replicas[i].Stop())
		s.replicas[i].Server = nil
	}
	s.balancer.set(nil)
	eventually(t, func(ctx context.Context) error {
		if err := s.tryPod(ctx, "runbook", trusted); err == nil || !strings.Contains(err.Error(), "provider countersign gave no verdict") {
			return fmt.Errorf("nobody says yes: %w", errors.Join(err, errors.New("admitted")))
		}
		return nil
	})
	for _, house := range []string{"kube-system", "gatekeeper-system", namespace} { // L40: it is not locked
		eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, house, untrusted) })
	}
	all := patches(t)
	one := strings.Replace(all[0], "shop.example.com/cart", s.Host+"/runbook/cart", 1)
	must(t, s.Client.Patch(t.Context(), constraint, client.RawPatch(types.MergePatchType, []byte(one))))
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "runbook", trusted) })
	if err := s.tryPod(t.Context(), "runbook", untrusted); err == nil {
		t.Error("another image is admitted as well")
	}
	must(t, s.Client.Patch(t.Context(), constraint, client.RawPatch(types.MergePatchType, []byte(all[1]))))
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "runbook", untrusted) })

	for i := range s.replicas {
		must(t, s.restartReplica(t.Context(), i))
	}
	must(t, s.publish(t.Context()))
	eventually(t, func(ctx context.Context) error {
		if action, err := s.constraint(ctx); err != nil || action != "deny" {
			return fmt.Errorf("%q, %w", action, err)
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error {
		if err := s.tryPod(ctx, "runbook", untrusted); err == nil {
			return errors.New("an unsigned image is admitted")
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "runbook", trusted) })
}
