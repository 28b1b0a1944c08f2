package cluster

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
)

const (
	// settle is how long changes are gathered before they become a Snapshot: a
	// kubectl apply of several objects is one change.
	settle = 50 * time.Millisecond
	// lookAround is how often everything is looked at although nothing was said to
	// have changed: files that policies name announce nothing, and time passes.
	lookAround = 10 * time.Second
)

// kinds of our own.
func kinds() []schema.GroupVersionKind {
	var list []schema.GroupVersionKind
	for _, kind := range []string{api.KindClusterTrustPolicy, api.KindTrustPolicy, api.KindExemption} {
		list = append(list, schema.FromAPIVersionAndKind(api.APIVersion, kind))
	}
	return list
}

// newObject is an empty object of a kind.
func newObject(kind schema.GroupVersionKind) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	return object
}

// list gives all objects of some kinds, in a stable order.
func list(ctx context.Context, from client.Reader, kinds []schema.GroupVersionKind) ([]unstructured.Unstructured, error) {
	var all []unstructured.Unstructured
	for _, kind := range kinds {
		var objects unstructured.UnstructuredList
		objects.SetGroupVersionKind(kind)
		if err := from.List(ctx, &objects); err != nil {
			return nil, fmt.Errorf("list %s: %w", kind.Kind, err)
		}
		all = append(all, objects.Items...)
	}
	slices.SortFunc(all, func(a, b unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetKind(), b.GetKind()), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all, nil
}

// policies makes Snapshots of the cluster's objects. It runs in every replica.
type policies struct {
	from     client.Reader
	objects  *config.Objects
	ratify   bool
	defaults func(context.Context) []ratify.Object // of Ratify, where the cluster has none
	changed  trigger                               // pulled when an object, or what it refers to, changed
	// refreshed tells that the Snapshot may be another one although no object changed.
	refreshed <-chan struct{}
	decided   []trigger // to pull when there is another Snapshot
	log       *slog.Logger
	parsed    map[types.UID]parsed
}

// parsed is an object that was read, to be read once.
type parsed struct {
	generation int64
	document   *config.Document
}

// NeedLeaderElection reports that every replica serves.
func (p *policies) NeedLeaderElection() bool { return false }

// Start makes Snapshots until ctx ends. The caches are filled by then.
func (p *policies) Start(ctx context.Context) error {
	around := time.NewTicker(lookAround)
	defer around.Stop()
	for {
		if err := p.update(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.changed:
			if !wait(ctx, settle) {
				return nil
			}
		case <-p.refreshed:
		case <-around.C:
		}
	}
}

func (p *policies) update(ctx context.Context) error {
	objects, err := list(ctx, p.from, kinds())
	if err != nil {
		return err
	}
	known := p.parsed
	p.parsed = make(map[types.UID]parsed, len(objects))
	documents := make([]*config.Document, len(objects))
	for i := range objects {
		object := &objects[i]
		one, ok := known[object.GetUID()]
		if !ok || one.generation != object.GetGeneration() {
			one = parsed{object.GetGeneration(), config.ParseObject(object.Object)}
		}
		p.parsed[object.GetUID()], documents[i] = one, one.document
	}
	var others []ratify.Object
	if p.ratify {
		if _, others, err = ratifyObjects(ctx, p.from); err != nil {
			return err
		}
		others = withDefaults(others, p.defaults(ctx))
	}
	p.objects.Update(ctx, documents, others...)
	for _, t := range p.decided {
		t.pull()
	}
	return nil
}

// trigger remembers that something happened, however often, until it is looked at.
type trigger chan struct{}

func newTrigger() trigger { return make(trigger, 1) }

func (t trigger) pull() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// wait waits, and reports whether ctx is still alive.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
