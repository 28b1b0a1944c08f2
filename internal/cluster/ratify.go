package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
)

// maxBrief is how long Ratify's column ERROR was.
const maxBrief = 30

// ratifyKinds are the kinds of Ratify in its stored version.
func ratifyKinds() []schema.GroupVersionKind {
	var list []schema.GroupVersionKind
	for _, kind := range []string{ratify.KindStore, ratify.KindVerifier, ratify.KindPolicy, ratify.KindKeyManagementProvider} {
		for _, prefix := range []string{"", "Namespaced"} {
			list = append(list, schema.GroupVersionKind{Group: ratify.Group, Version: "v1beta1", Kind: prefix + kind})
		}
	}
	return append(list, schema.GroupVersionKind{Group: ratify.Group, Version: "v1beta1", Kind: ratify.KindCertificateStore})
}

// ratifyObjects reads Ratify's objects as we read them.
func ratifyObjects(ctx context.Context, from client.Reader) ([]unstructured.Unstructured, []ratify.Object, error) {
	found, err := list(ctx, from, ratifyKinds())
	if err != nil {
		return nil, nil, err
	}
	objects := make([]ratify.Object, len(found))
	for i := range found {
		if objects[i], err = ratifyObject(&found[i]); err != nil {
			return nil, nil, err
		}
	}
	return found, objects, nil
}

// ratifyObject reads one. What it is called is what the API server calls it, and
// of the rest only its spec counts.
func ratifyObject(found *unstructured.Unstructured) (ratify.Object, error) {
	read := map[string]any{
		"apiVersion": found.GetAPIVersion(), "kind": found.GetKind(),
		"metadata": map[string]any{"name": found.GetName(), "namespace": found.GetNamespace()},
	}
	if spec, there := found.Object["spec"]; there {
		read["spec"] = spec
	}
	data, err := json.Marshal(read)
	if err != nil {
		return ratify.Object{}, fmt.Errorf("%s %s: %w", found.GetKind(), client.ObjectKeyFromObject(found), err)
	}
	object, _, err := ratify.ParseObject(data)
	return object, err
}

// ratifyDefaults reads the objects that the chart's values ask for.
func (c *Cluster) ratifyDefaults(ctx context.Context) []ratify.Object {
	if c.options.RatifyObjects == "" {
		return nil
	}
	name := config.Object{Kind: config.KindConfigMap, Namespace: c.options.Reader.Namespace(), Name: c.options.RatifyObjects}
	data, err := c.options.Reader.ReadObject(name)
	if err != nil {
		c.log.WarnContext(ctx, "Ratify's objects of the chart are not there", slog.Any("error", err))
		return nil
	}
	objects, err := ratify.Parse(data["objects.yaml"])
	if err != nil {
		c.log.WarnContext(ctx, "Ratify's objects of the chart cannot be read", slog.Any("error", err))
	}
	return objects
}

// withDefaults adds the objects whose kinds and names the cluster does not have.
func withDefaults(objects, defaults []ratify.Object) []ratify.Object {
	known := map[string]bool{}
	for _, o := range objects {
		known[o.String()] = true
	}
	for _, o := range defaults {
		if !known[o.String()] {
			objects = append(objects, o)
		}
	}
	return objects
}

// ratifyStatuses tells in each of Ratify's objects what became of it, in the
// fields that Ratify had. Only the leader runs it.
type ratifyStatuses struct {
	client   client.Client // reads from the cache
	snapshot func() *config.Snapshot
	decided  trigger
	log      *slog.Logger
}

// Start writes statuses until ctx ends.
func (s *ratifyStatuses) Start(ctx context.Context) error {
	return repeat(ctx, s.decided, func() time.Duration {
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "a status could not be written", slog.Any("error", err))
			return retryStatus
		}
		return lookAround
	})
}

func (s *ratifyStatuses) write(ctx context.Context) error {
	found, objects, err := ratifyObjects(ctx, s.client)
	if err != nil {
		return err
	}
	errs := map[string]string{}
	for _, status := range s.snapshot().Ratify() {
		errs[status.String()] = status.Error
	}
	var failed error
	for i := range found {
		if said, known := errs[objects[i].String()]; known {
			failed = errors.Join(failed, s.writeOne(ctx, &found[i], objects[i].Kind, said))
		}
	}
	return failed
}

func (s *ratifyStatuses) writeOne(ctx context.Context, object *unstructured.Unstructured, kind, said string) error {
	before, _, _ := unstructured.NestedMap(object.Object, "status")
	after := map[string]any{"issuccess": said == ""}
	if said != "" {
		after["error"], after["brieferror"] = said, clip(said, maxBrief)
	}
	if before["issuccess"] == after["issuccess"] && before["error"] == after["error"] {
		return nil
	}
	if kind == ratify.KindKeyManagementProvider || kind == ratify.KindCertificateStore {
		after["lastfetchedtime"] = time.Now().UTC().Format(time.RFC3339)
	}
	written := object.DeepCopy()
	written.Object["status"] = after
	if err := s.client.Status().Patch(ctx, written, client.MergeFrom(object)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("status of %s %s: %w", object.GetKind(), client.ObjectKeyFromObject(object), err)
	}
	return nil
}
