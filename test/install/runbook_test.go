package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// patches are those of the page, in their order.
func patches(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, line := range lines(t) {
		if strings.HasPrefix(line, "kubectl patch ") {
			list = append(list, line)
		}
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
	s.says(t, one)
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "runbook", trusted) })
	if err := s.tryPod(t.Context(), "runbook", untrusted); err == nil {
		t.Error("another image is admitted as well")
	}
	s.says(t, all[1])
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

// says runs a command, which must not fail.
func (s *scene) says(t *testing.T, line string) {
	t.Helper()
	if out, err := s.run(t.Context(), line); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}
