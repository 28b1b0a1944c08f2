package watch

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

func TestDriftAndWhatEnds(t *testing.T) {
	s := in(t, "drift")
	viewer := s.reader(t, "drift-viewer", "drift")
	s.push(t, "drift/cart:1", true)
	s.push(t, "drift/cart:2", true)
	s.push(t, "drift/moves:1", true)
	s.push(t, "drift/moves:2", true)
	before := s.imageID("drift/moves:1")
	must(t, s.Move(t.Context(), "drift/moves:1", "drift/moves:2"))
	must(t, s.Push(t.Context(), "drift/brief:1"))
	must(t, s.Sign(t.Context(), "drift/brief:1", "wabbit", notationtest.SignOptions{Expiry: time.Now().Add(10 * 24 * time.Hour)}))
	s.pod(t, "drift", "moved", "drift/moves:1", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ImageID = before })
	s.pod(t, "drift", "pinned", "drift/cart:1", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image = s.imageID("drift/cart:1")
		p.Status.ContainerStatuses[0].ImageID = s.imageID("drift/cart:2")
	})
	s.pod(t, "drift", "as-it-is", "drift/cart:1")
	s.pod(t, "drift", "brief", "drift/brief:1")
	yes := true
	for name, image := range map[string]string{"cart-a": "drift/cart:1", "cart-b": "drift/cart:2"} {
		s.pod(t, "drift", name, image, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = s.Name("drift/cart:2")
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "cart", UID: "x", Controller: &yes}}
		})
	}
	want := "as-it-is: ; brief: ; cart-a: replicas-differ tag-moved; cart-b: replicas-differ; moved: tag-moved; pinned: digest-differs"
	eventually(t, func(ctx context.Context) error {
		var page struct {
			Items []struct {
				Drift      []struct{ Kind, Message string }
				Containers []struct{ Pod string }
			}
		}
		if code, _, err := s.get(ctx, viewer, "/api/v1/results", &page); err != nil || code != http.StatusOK {
			return fmt.Errorf("%d: %w", code, err)
		}
		var got []string
		for _, row := range page.Items {
			var kinds []string
			for _, d := range row.Drift {
				kinds = append(kinds, d.Kind)
			}
			slices.Sort(kinds)
			for _, c := range row.Containers {
				got = append(got, c.Pod+": "+strings.Join(kinds, " "))
			}
		}
		slices.Sort(got)
		if strings.Join(got, "; ") != want {
			return fmt.Errorf("%s", strings.Join(got, "; "))
		}
		return nil
	})
	var forecast struct {
		Items []struct {
			At                     time.Time
			What, Image, Namespace string
			Workloads              []string
		}
	}
	eventually(t, func(ctx context.Context) error {
		_, _, err := s.get(ctx, viewer, "/api/v1/forecast", &forecast)
		if err == nil && len(forecast.Items) == 0 {
			err = fmt.Errorf("nothing ends")
		}
		return err
	})
	if e := forecast.Items[0]; len(forecast.Items) != 1 || e.What != "signature" || e.Image != s.Name("drift/brief:1") || !slices.Equal(e.Workloads, []string{"Pod/brief"}) || time.Until(e.At) > 10*24*time.Hour {
		t.Errorf("%+v", forecast)
	}
	var none struct{ Items []any }
	if _, _, err := s.get(t.Context(), viewer, "/api/v1/forecast?days=9", &none); err != nil || len(none.Items) != 0 {
		t.Errorf("%v, %v", none, err)
	}
}

func TestWhatAdmissionWasNeverAskedAbout(t *testing.T) {
	s := in(t, "admitted")
	viewer := s.reader(t, "admitted-viewer", "admitted")
	s.push(t, "admitted/asked:1", true)
	s.push(t, "admitted/slipped:1", true)
	s.record.Add(s.Digest("admitted/asked:1"))
	want := "asked, slipped never-admitted"
	n := 0
	eventuallyWithin(t, 3*time.Minute, func(ctx context.Context) error {
		// A pod that was created before the watcher looked first says nothing: another.
		if n++; n%100 == 1 {
			for _, name := range []string{"asked", "slipped"} {
				s.pod(t, "admitted", fmt.Sprint(name, "-", n), "admitted/"+name+":1")
			}
		}
		var page struct {
			Items []struct {
				Image string
				Drift []struct{ Kind, Message string }
			}
		}
		if code, _, err := s.get(ctx, viewer, "/api/v1/results", &page); err != nil || code != http.StatusOK {
			return fmt.Errorf("%d: %w", code, err)
		}
		var got []string
		for _, row := range page.Items {
			line := strings.TrimSuffix(strings.TrimPrefix(row.Image, s.Name("admitted/")), ":1")
			for _, d := range row.Drift {
				line += " " + d.Kind
			}
			got = append(got, line)
		}
		if strings.Join(got, ", ") != want {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}
