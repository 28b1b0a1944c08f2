package watch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The definitions of reports, as others ship them.

// report gives the report of a namespace.

// define has the cluster know objects, and the watcher look anew which there are.

// undefine has the cluster not know objects.

// TestWhatShouldNotRunIsReported: in one report a namespace, whose summary is exact,

// that is written on change only, and is none but ours to keep.

// TestAWorkloadHasAnEvent when its image has become something else, by its UID, and

// one only.

func TestAWorkloadHasAnEvent(t *testing.T) {
	s := in(t, "events")
	s.push(t, "events/unsigned:1", false)
	labels := map[string]string{"app": "cart"}
	replicas := int32(3)
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "events", Name: "cart"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: s.Name("events/unsigned:1")}}},
			},
		},
	}
	must(t, s.Client.Create(t.Context(), deployment))
	eventually(t, func(ctx context.Context) error {
		var pods corev1.PodList
		if err := s.Client.List(ctx, &pods, client.InNamespace("events"), client.MatchingLabels(labels)); err != nil || len(pods.Items) < 3 {
			return fmt.Errorf("%d pods: %w", len(pods.Items), err)
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			before := client.MergeFrom(p.DeepCopy())
			p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Image: p.Spec.Containers[0].Image, ImageID: s.imageID("events/unsigned:1")}}}
			if err := s.Client.Status().Patch(ctx, p, before); err != nil {
				return err
			}
		}
		return nil
	})
	var found []corev1.Event
	ours := func(ctx context.Context) error {
		var events corev1.EventList
		if err := s.Client.List(ctx, &events, client.InNamespace("events")); err != nil {
			return err
		}
		found = slices.DeleteFunc(events.Items, func(e corev1.Event) bool { return e.Source.Component != "countersign-watch" })
		if len(found) == 0 {
			return fmt.Errorf("no event")
		}
		return nil
	}
	eventually(t, ours)
	if e := found[0]; e.InvolvedObject.Kind != "Deployment" || e.InvolvedObject.Name != "cart" || e.InvolvedObject.UID != deployment.UID || e.Reason != "ImageUnknown" || e.Type != corev1.EventTypeWarning {
		t.Errorf("%+v", e)
	}
	t.Logf("%s %s: %s", found[0].Reason, found[0].InvolvedObject.Name, found[0].Message)
	must(t, s.Client.Delete(t.Context(), deployment))
	must(t, ours(t.Context()))
	if len(found) != 1 {
		t.Errorf("%d events", len(found))
	}
}

// TestDriftAndWhatEnds: what is not as a pod, its tag or its replicas say, and what is

// trusted for some days only.

// TestWhatAdmissionWasNeverAskedAbout shows, and what it was asked about does not.

// TestTrustThatIsWithdrawnReachesEverybody within ninety seconds: API, page, figures,

// report and one notice, without a restart, and at two requests at most.

func TestTrustThatIsWithdrawnReachesEverybody(t *testing.T) {
	namespaces := []string{"withdrawn-a", "withdrawn-b", "withdrawn-c"}
	s := in(t, namespaces...)
	viewer := s.reader(t, "withdrawn-viewer", "")
	s.define(t, openReports, "config/crd/openreports.io_reports.yaml")
	s.push(t, "withdrawn/cart:1", true)
	_, err := s.Signer("successor")
	must(t, err)
	require := func(signer string) {
		t.Helper()
		document := strings.NewReplacer("{name: production}", "{name: withdrawn}", `["$REGISTRY/**"]`, `["$REGISTRY/withdrawn/**"]`, "name: wabbit,", "name: "+signer+",", "../wabbit.crt", "../"+signer+".crt").Replace(policy)
		must(t, s.Policy("withdrawn.yaml", document))
	}
	require("wabbit")
	t.Cleanup(func() { must(t, os.Remove(filepath.Join(s.Policies, "withdrawn.yaml"))) })
	for _, namespace := range namespaces {
		s.pod(t, namespace, "cart", "withdrawn/cart:1")
		s.become(t, viewer, namespace, map[string]string{"cart/main": "TRUSTED"})
	}
	asked := func() (n int) {
		for _, r := range s.registry.Requests() {
			if strings.Contains(r.Path, "/withdrawn/") {
				n++
			}
		}
		return n
	}
	before, withdrawn := asked(), time.Now()
	require("successor")
	for _, namespace := range namespaces {
		s.become(t, viewer, namespace, map[string]string{"cart/main": "UNTRUSTED"})
	}
	var page string
	_, _, err = s.get(t.Context(), viewer, "/?namespace=withdrawn-a", &page)
	must(t, err)
	if !strings.Contains(page, "UNTRUSTED") || !strings.Contains(page, s.Name("withdrawn/cart:1")) {
		t.Errorf("the page: %s", page)
	}
	eventuallyWithin(t, 90*time.Second, func(ctx context.Context) error {
		for _, namespace := range namespaces {
			if n, err := figure(ctx, s.watcher, `countersign_watch_containers{namespace="`+namespace+`",status="UNTRUSTED"}`); err != nil || n != 1 {
				return fmt.Errorf("the figure is %v: %w", n, err)
			}
			r, err := s.report(ctx, "openreports.io/v1alpha1", "Report", namespace)
			if err != nil {
				return err
			}
			if n, _, _ := unstructured.NestedInt64(r.Object, "summary", "fail"); n != 1 {
				return fmt.Errorf("the report counts %d", n)
			}
		}
		if len(s.told.of(s.Name("withdrawn/cart:1"))) == 0 {
			return fmt.Errorf("nobody was told")
		}
		return nil
	})
	took := time.Since(withdrawn)
	told := s.told.of(s.Name("withdrawn/cart:1"))
	t.Logf("everybody knew after %v, for %d requests: %+v", took.Round(time.Second), asked()-before, told)
	if took > 90*time.Second || asked()-before > 2 || len(told) != 1 || told[0].Status != "UNTRUSTED" || told[0].Previous != "TRUSTED" || len(told[0].Where) != 3 {
		t.Errorf("%v, %d requests, told %+v", took, asked()-before, told)
	}

	// Neither a restart nor a policy that cannot be read gives it back, and nobody is told
	// again.
	must(t, s.watcher.Stop())
	must(t, s.startWatcher(t.Context()))
	must(t, s.Policy("withdrawn.yaml", "kind: ClusterTrustPolicy\nspec: {everything: allowed}"))
	eventually(t, func(ctx context.Context) error {
		if n, err := figure(ctx, s.watcher, `countersign_policies{state="last good"}`); err != nil || n != 1 {
			return fmt.Errorf("%v policies are kept: %w", n, err)
		}
		return nil
	})
	for _, namespace := range namespaces {
		eventually(t, func(ctx context.Context) error {
			got, err := s.statuses(ctx, viewer, namespace)
			if err == nil && (len(got) != 1 || got["cart/main"] == "TRUSTED") {
				err = fmt.Errorf("%v", got)
			}
			return err
		})
	}
	if told := s.told.of(s.Name("withdrawn/cart:1")); len(told) != 1 {
		t.Errorf("told again: %+v", told)
	}
}

// TestANamespaceIsWatchedWithARole and nothing else: its pods, its report, which belongs

// to the Role, its Events, and no other namespace's.
