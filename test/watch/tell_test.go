package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/tools"
)

// The definitions of reports, as others ship them.
const (
	openReports   = "github.com/openreports/reports-api@v0.2.1"
	policyReports = "github.com/kyverno/kyverno@v1.18.2"
)

// report gives the report of a namespace.
func (s *scene) report(ctx context.Context, apiVersion, kind, namespace string) (*unstructured.Unstructured, error) {
	r := &unstructured.Unstructured{}
	r.SetAPIVersion(apiVersion)
	r.SetKind(kind)
	return r, s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "countersign"}, r)
}

// define has the cluster know objects, and the watcher look anew which there are.
func (s *scene) define(t *testing.T, module, file string) {
	t.Helper()
	path, err := tools.File(t.Context(), module, file)
	must(t, err)
	must(t, s.ApplyFile(t.Context(), path))
	must(t, s.watcher.Stop())
	must(t, s.startWatcher(t.Context()))
}

// undefine has the cluster not know objects.
func (s *scene) undefine(t *testing.T, name string) {
	t.Helper()
	definition := &unstructured.Unstructured{}
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	definition.SetKind("CustomResourceDefinition")
	definition.SetName(name)
	must(t, client.IgnoreNotFound(s.Client.Delete(t.Context(), definition)))
	eventually(t, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKey{Name: name}, definition.DeepCopy()); !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s is still there: %w", name, err)
		}
		return nil
	})
}

// TestWhatShouldNotRunIsReported: in one report a namespace, whose summary is exact,
// that is written on change only, and is none but ours to keep.
func TestWhatShouldNotRunIsReported(t *testing.T) {
	const bad = 5000
	s := in(t, "reported", "reported-well")
	s.push(t, "reported/unsigned:1", false)
	s.push(t, "reported/cart:1", true)
	s.pod(t, "reported-well", "cart", "reported/cart:1")
	var group errgroup.Group
	group.SetLimit(16)
	for i := range bad {
		group.Go(func() error {
			return s.Client.Create(t.Context(), &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "reported", Name: fmt.Sprint("cart-", i)},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: s.Name("reported/unsigned:1")}}},
			})
		})
	}
	must(t, group.Wait())
	t.Cleanup(func() {
		_ = s.Client.DeleteAllOf(context.WithoutCancel(t.Context()), &corev1.Pod{}, client.InNamespace("reported"), client.GracePeriodSeconds(0))
	})

	counts := func(apiVersion, kind string) func(context.Context) error {
		return func(ctx context.Context) error {
			r, err := s.report(ctx, apiVersion, kind, "reported")
			if err != nil {
				return err
			}
			if n, _, _ := unstructured.NestedInt64(r.Object, "summary", "fail"); n != bad {
				return fmt.Errorf("it counts %d", n)
			}
			return nil
		}
	}
	s.undefine(t, "reports.openreports.io") // as another test has it
	s.define(t, policyReports, "config/crds/policyreport/wgpolicyk8s.io_policyreports.yaml")
	eventually(t, counts("wgpolicyk8s.io/v1alpha2", "PolicyReport"))
	s.define(t, openReports, "config/crd/openreports.io_reports.yaml")
	eventually(t, counts("openreports.io/v1alpha1", "Report"))
	eventually(t, func(ctx context.Context) error { // and not both
		if _, err := s.report(ctx, "wgpolicyk8s.io/v1alpha2", "PolicyReport", "reported"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the report of the other kind is still there: %w", err)
		}
		return nil
	})

	r, err := s.report(t.Context(), "openreports.io/v1alpha1", "Report", "reported")
	must(t, err)
	data, err := json.Marshal(r)
	must(t, err)
	results, _, _ := unstructured.NestedSlice(r.Object, "results")
	if len(results) != 500 || len(data) > 400_000 || r.GetAnnotations()["countersign.dev/results-not-listed"] != fmt.Sprint(bad-500) {
		t.Errorf("%d results, %d bytes, %v", len(results), len(data), r.GetAnnotations())
	}
	t.Logf("%d bytes; the first result: %v", len(data), results[0])
	var well *unstructured.Unstructured
	eventually(t, func(ctx context.Context) (err error) {
		well, err = s.report(ctx, "openreports.io/v1alpha1", "Report", "reported-well")
		return err
	})
	if pass, _, _ := unstructured.NestedInt64(well.Object, "summary", "pass"); pass != 1 || well.Object["results"] != nil {
		t.Errorf("%v", well.Object)
	}
	kubectl, err := tools.Build(t.Context(), tools.Kubectl(), t.Output())
	must(t, err)
	out, err := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", s.AdminKubeconfig(), "get", "reports", "--all-namespaces").CombinedOutput()
	must(t, err)
	t.Logf("%s", out)

	// Whoever changes or deletes it has it back.
	r.Object["results"] = []any{}
	must(t, s.Client.Update(t.Context(), r))
	must(t, s.Client.Delete(t.Context(), well))
	eventually(t, func(ctx context.Context) error {
		again, err := s.report(ctx, "openreports.io/v1alpha1", "Report", "reported")
		if err != nil {
			return err
		}
		if results, _, _ := unstructured.NestedSlice(again.Object, "results"); len(results) != 500 {
			return fmt.Errorf("it lists %d", len(results))
		}
		_, err = s.report(ctx, "openreports.io/v1alpha1", "Report", "reported-well")
		return err
	})

	// Nothing is written while nothing changes.
	r, err = s.report(t.Context(), "openreports.io/v1alpha1", "Report", "reported")
	must(t, err)
	time.Sleep(25 * time.Second) // two comparisons and more: nothing happens that could be waited for
	idle, err := s.report(t.Context(), "openreports.io/v1alpha1", "Report", "reported")
	must(t, err)
	if idle.GetResourceVersion() != r.GetResourceVersion() {
		t.Error("it was written while nothing changed")
	}

	// A namespace in which nothing runs any more has none, and neither has anybody when
	// the watcher's rights are gone.
	must(t, s.Client.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace("reported-well"), client.GracePeriodSeconds(0)))
	eventually(t, func(ctx context.Context) error {
		if _, err := s.report(ctx, "openreports.io/v1alpha1", "Report", "reported-well"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("nothing runs there, and there is a report: %w", err)
		}
		return nil
	})
	must(t, s.watcher.Stop())
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		must(t, s.rights(ctx))
		must(t, s.startWatcher(ctx))
	})
	role := &unstructured.Unstructured{}
	role.SetAPIVersion(rbacv1.SchemeGroupVersion.String())
	role.SetKind("ClusterRole")
	role.SetName(account)
	must(t, s.Client.Delete(t.Context(), role))
	eventually(t, func(ctx context.Context) error {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion("openreports.io/v1alpha1")
		list.SetKind("ReportList")
		if err := s.Client.List(ctx, list); err != nil || len(list.Items) > 0 {
			return fmt.Errorf("%d reports are left: %w", len(list.Items), err)
		}
		return nil
	})
}

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

// TestWhatAdmissionWasNeverAskedAbout shows, and what it was asked about does not.
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
}
