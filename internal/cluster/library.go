package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
)

const (
	// labelLibrary marks what was applied from the library's ConfigMap.
	labelLibrary = "countersign.dev/library"
	// constraints is the API group of Gatekeeper's constraints.
	constraints = "constraints.gatekeeper.sh"
	// dryrun is the enforcementAction that only reports.
	dryrun = "dryrun"
)

// library applies constraints and mutators, which the chart cannot: their kinds
// are there only once Gatekeeper has read their templates. Only the leader runs it.
type library struct {
	name, namespace string
	owner           func(context.Context) ([]any, error)
	cached          client.Reader
	api             client.Client
	snapshot        func() *config.Snapshot
	changed         trigger
	log             *slog.Logger
}

// Start applies the ConfigMap's objects until ctx ends.
func (l *library) Start(ctx context.Context) error {
	told := ""
	return repeat(ctx, l.changed, func() time.Duration {
		switch err := l.apply(ctx); {
		case err == nil || ctx.Err() != nil:
			told = ""
			return lookAround
		case err.Error() != told: // once, for as long as it is the same
			told = err.Error()
			l.log.WarnContext(ctx, "the library's constraints are not applied yet", slog.Any("error", err))
		}
		return retryStatus
	})
}

// repeat works, and works again after the time that the work gives or when the
// trigger is pulled, until ctx ends.
func repeat(ctx context.Context, changed trigger, work func() time.Duration) error {
	for {
		timer := time.NewTimer(work())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (l *library) apply(ctx context.Context) error {
	var source corev1.ConfigMap
	if err := l.cached.Get(ctx, client.ObjectKey{Namespace: l.namespace, Name: l.name}, &source); err != nil {
		return fmt.Errorf("read the library: %w", err)
	}
	owner, err := l.owner(ctx)
	if err != nil {
		return err
	}
	wanted := map[schema.GroupVersionKind]map[string]bool{}
	var failed error
	for _, file := range slices.Sorted(maps.Keys(source.Data)) {
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(source.Data[file]), &object.Object); err != nil {
			return fmt.Errorf("%s of the library: %w", file, err)
		}
		kind := object.GroupVersionKind()
		if wanted[kind] == nil {
			wanted[kind] = map[string]bool{}
		}
		wanted[kind][object.GetName()] = true
		failed = errors.Join(failed, l.applyOne(ctx, object, owner))
	}
	return errors.Join(failed, l.deleteOthers(ctx, wanted))
}

func (l *library) applyOne(ctx context.Context, object *unstructured.Unstructured, owner []any) error {
	labels := object.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelLibrary] = l.name
	object.SetLabels(labels)
	if owner != nil {
		object.Object["metadata"].(map[string]any)["ownerReferences"] = owner
	}
	if object.GroupVersionKind().Group == constraints {
		if err := l.holdBack(ctx, object); err != nil {
			return err
		}
	}
	err := l.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(controller), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

// holdBack lets a constraint only report until a ClusterTrustPolicy is ready: it
// would refuse every Pod. One that refuses already goes on, whatever becomes of
// the policies.
func (l *library) holdBack(ctx context.Context, constraint *unstructured.Unstructured) error {
	for _, status := range l.snapshot().Policies() {
		if status.Kind == api.KindClusterTrustPolicy && status.State == config.StateReady {
			return nil
		}
	}
	before := newObject(constraint.GroupVersionKind())
	err := l.api.Get(ctx, client.ObjectKeyFromObject(constraint), before)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read %s %s: %w", constraint.GetKind(), constraint.GetName(), err)
	}
	action, _, _ := unstructured.NestedString(before.Object, "spec", "enforcementAction")
	if err == nil && action != dryrun {
		return nil
	}
	return unstructured.SetNestedField(constraint.Object, dryrun, "spec", "enforcementAction")
}

// deleteOthers deletes what was applied before and is not wanted any more.
func (l *library) deleteOthers(ctx context.Context, wanted map[schema.GroupVersionKind]map[string]bool) error {
	known := append(slices.Collect(maps.Keys(wanted)), schema.GroupVersionKind{Group: "mutations.gatekeeper.sh", Version: "v1", Kind: "Assign"})
	var failed error
	for _, kind := range known {
		var list unstructured.UnstructuredList
		list.SetGroupVersionKind(kind)
		switch err := l.api.List(ctx, &list, client.MatchingLabels{labelLibrary: l.name}); {
		case meta.IsNoMatchError(err) || apierrors.IsNotFound(err): // there is no such kind, and so no object
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("list %s: %w", kind.Kind, err))
		}
		for i := range list.Items {
			if !wanted[kind][list.Items[i].GetName()] {
				failed = errors.Join(failed, client.IgnoreNotFound(l.api.Delete(ctx, &list.Items[i])))
			}
		}
	}
	return failed
}
