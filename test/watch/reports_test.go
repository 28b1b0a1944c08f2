package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/tools"
)

const (
	openReports   = "github.com/openreports/reports-api@v0.2.1"
	policyReports = "github.com/kyverno/kyverno@v1.18.2"
)

func (s *scene) report(ctx context.Context, apiVersion, kind, namespace string) (*unstructured.Unstructured, error) {
	r := &unstructured.Unstructured{}
	r.SetAPIVersion(apiVersion)
	r.SetKind(kind)
	return r, s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "countersign"}, r)
}

func (s *scene) define(t *testing.T, module, file string) {
	t.Helper()
	path, err := tools.File(t.Context(), module, file)
	must(t, err)
	must(t, s.ApplyFile(t.Context(), path))
	must(t, s.watcher.Stop())
	must(t, s.startWatcher(t.Context()))
}

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

func TestANamespaceIsWatchedWithARole(t *testing.T) {
	s := in(t, "limited", "beyond")
	objects, err := charted(t.Context(), "fullnameOverride=limited", "watch.policiesConfigMap=policies", "watch.notifySecret=notify", "watch.namespaces={limited}")
	must(t, err)
	for _, object := range objects {
		if strings.HasPrefix(object.GetKind(), "Cluster") {
			t.Errorf("there is a %s %s", object.GetKind(), object.GetName())
		}
	}
	must(t, s.Apply(t.Context(), objects...))
	s.define(t, openReports, "config/crd/openreports.io_reports.yaml")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, s.Kubeconfig(t.Context(), namespace, "limited-watch", kubeconfig))
	s.push(t, "limited/unsigned:1", false)
	s.pod(t, "limited", "cart", "limited/unsigned:1")
	s.pod(t, "beyond", "cart", "limited/unsigned:1")
	w := s.instead(t, "--kubeconfig", kubeconfig, "--namespaces=limited", "--lease=limited-watch", "--state", t.TempDir(), "--notify", filepath.Join(s.dir, "notify"),
		"--reports", "--reports-owner=limited-watch", "--events")
	eventually(t, func(ctx context.Context) error {
		text, err := w.Figures(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(text, `countersign_watch_containers{namespace="limited",status="UNKNOWN"} 1`) || strings.Contains(text, `namespace="beyond"`) {
			return errors.New("it does not watch the one namespace")
		}
		r, err := s.report(ctx, "openreports.io/v1alpha1", "Report", "limited")
		if err != nil {
			return err
		}
		owners := r.GetOwnerReferences()
		if len(owners) != 1 || owners[0].Kind != "Role" || owners[0].Name != "limited-watch-pods" {
			return fmt.Errorf("it belongs to %v", owners)
		}
		var events corev1.EventList
		if err := s.Client.List(ctx, &events, client.InNamespace("limited")); err != nil || len(events.Items) == 0 {
			return fmt.Errorf("no Event: %w", err)
		}
		if len(s.told.of(s.Name("limited/unsigned:1"))) == 0 {
			return errors.New("nobody was told")
		}
		return nil
	})
	if log := w.Log(); strings.Contains(log, "forbidden") {
		t.Errorf("it asks for more than it may: %s", log[max(0, len(log)-4000):])
	}
}
