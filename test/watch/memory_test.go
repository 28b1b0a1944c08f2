package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/hostile"
)

// TestL47_WhatRunsIsLargerThanMemory: pods run images of a registry that has as much
// attached to them as it may, and indexes of 4 MiB. The watcher stays within the memory
// of its container, and goes on looking at the images of a healthy registry.
func TestL47_WhatRunsIsLargerThanMemory(t *testing.T) {
	if os.Getenv(binary.RaceVariable) != "" {
		t.Skip("the race detector takes several times the memory")
	}
	const maxResident, images = 400, 8
	pods := 8
	if os.Getenv("COUNTERSIGN_LONG") != "" {
		pods = 20
	}
	t.Setenv("GOMEMLIMIT", "320MiB") // as it is set in a container of 512 MiB
	s := in(t, "memory", "memory-healthy")
	both := []string{hostile.NotationType, hostile.BundleType}
	for name, a := range map[string]hostile.Attack{
		"annotations of 4 MB":          {Referrers: 64, Manifest: 4_000_000, Types: both, LayerType: "application/jose+json", Image: 4_000_000},
		"manifests as large as may be": {Referrers: 64, Manifest: 256 << 10, Types: both, LayerType: "application/jose+json", Image: 4_000_000},
		"envelopes of 1 MiB":           {Referrers: 64, Manifest: 1000, Types: []string{hostile.NotationType}, Layers: 1, Blob: 1 << 20, LayerType: "application/jose+json", Image: 4_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			h := hostile.Start(a)
			t.Cleanup(h.Close)
			must(t, s.Policy("hostile.yaml", strings.NewReplacer("$REGISTRY", h.Host, "name: production", "name: hostile").Replace(policy)))
			t.Cleanup(func() { must(t, os.Remove(filepath.Join(s.Policies, "hostile.yaml"))) })
			kubeconfig := filepath.Join(s.dir, "watch.kubeconfig")
			w := s.instead(t, "--kubeconfig", kubeconfig, "--state", t.TempDir(), "--rate", "100", "--parallel", "8", "--content-cache", t.TempDir())
			t.Cleanup(func() {
				for _, name := range []string{"memory", "memory-healthy"} {
					_ = s.Client.DeleteAllOf(context.WithoutCancel(t.Context()), &corev1.Pod{}, client.InNamespace(name), client.GracePeriodSeconds(0))
				}
			})
			healthy := 0
			for i := range pods {
				cart := fmt.Sprintf("memory/cart-%d-%s:1", i, strings.ToLower(strings.ReplaceAll(name, " ", "-")))
				s.push(t, cart, true)
				s.pod(t, "memory", fmt.Sprint("hostile-", i), cart, func(p *corev1.Pod) {
					p.Spec.Containers, p.Status.ContainerStatuses = nil, nil
					for j := range images {
						image, container := h.Name(i*images+j), fmt.Sprint("c", j)
						p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: container, Image: image})
						p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: container, Image: image, ImageID: image})
					}
				})
				s.pod(t, "memory-healthy", fmt.Sprint("cart-", i), cart)
				healthy++
			}
			containers := func(ctx context.Context, namespace, status string) (sum int, err error) {
				text, err := w.Figures(ctx)
				for _, found := range regexp.MustCompile(`(?m)^countersign_watch_containers\{namespace="`+namespace+`",status="`+status+`"\} (\d+)$`).FindAllStringSubmatch(text, -1) {
					n, _ := strconv.Atoi(found[1])
					sum += n
				}
				return sum, err
			}
			begun := time.Now()
			eventually(t, func(ctx context.Context) error {
				if n, err := containers(ctx, "memory-healthy", "TRUSTED"); n != healthy {
					return fmt.Errorf("%d of %d containers of a healthy registry are trusted: %w", n, healthy, errors.Join(err))
				}
				return nil
			})
			trusted := time.Since(begun)
			eventually(t, func(ctx context.Context) error {
				n, err := containers(ctx, "memory", "PENDING")
				all, _ := containers(ctx, "memory", `\w+`)
				if n != 0 || all == 0 {
					return fmt.Errorf("%d of %d containers of the hostile registry have not been looked at: %w", n, all, errors.Join(err))
				}
				return nil
			})
			if n, err := containers(t.Context(), "memory", "TRUSTED"); n != 0 || err != nil {
				t.Errorf("%d containers of the hostile registry are trusted, %v", n, err)
			}
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
			must(t, err)
			_, after, _ := strings.Cut(string(data), "VmHWM:")
			line, _, _ := strings.Cut(after, "kB")
			peak, err := strconv.Atoi(strings.TrimSpace(line))
			must(t, err)
			t.Logf("%d healthy containers trusted after %v, all %d hostile ones looked at after %v, which sent %d MiB; VmHWM %d MiB",
				healthy, trusted.Round(time.Second), pods*images, time.Since(begun).Round(time.Second), h.Sent.Load()>>20, peak>>10)
			if peak>>10 > maxResident {
				t.Errorf("the process had %d MiB in memory, and may have %d", peak>>10, maxResident)
			}
		})
	}
}
