package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// stored are the objects that a cluster has.
type stored []*unstructured.Unstructured

func (s stored) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("only lists are read")
}

func (s stored) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	list := into.(*unstructured.UnstructuredList)
	for _, object := range s {
		if object.GroupVersionKind() == list.GroupVersionKind() {
			list.Items = append(list.Items, *object.DeepCopy())
		}
	}
	return nil
}

// written makes an object as the API server hands it out.
func written(kind, name string, born time.Duration, spec map[string]any) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.APIVersion, "kind": kind, "spec": spec,
		"metadata": map[string]any{
			"name": name, "uid": "uid-of-" + name, "generation": int64(1), "resourceVersion": "12", "annotations": map[string]any{"note\u2028": "\x7f\u0092"},
			"creationTimestamp": time.Unix(1e9, 0).Add(born).UTC().Format(time.RFC3339),
			"managedFields":     []any{map[string]any{"manager": "kubectl", "fieldsV1": map[string]any{"f:spec": map[string]any{}}}},
		},
	}}
	if kind == api.KindTrustPolicy {
		object.SetNamespace("shop")
	}
	return object
}

func newObjects() *config.Objects {
	registries := store.New(store.Options{})
	return config.NewObjects(config.ObjectsOptions{Environment: config.Environment{
		View: func(o store.ViewOptions) (verifier.Store, error) { return registries.View(o) }, Memory: verifier.NewMemory(1 << 20),
	}})
}

func exempting(images ...any) map[string]any {
	return map[string]any{"images": images, "require": map[string]any{"skip": map[string]any{"reason": "a test"}}}
}

func edited(object *unstructured.Unstructured, value any, path ...string) *unstructured.Unstructured {
	next := object.DeepCopy()
	if err := unstructured.SetNestedField(next.Object, value, path...); err != nil {
		panic(err)
	}
	next.SetGeneration(object.GetGeneration() + 1)
	return next
}

// conditions gives each object's condition once the policies are those.
func conditions(t *testing.T, objects *config.Objects, known *policies, held ...*unstructured.Unstructured) map[string]string {
	t.Helper()
	known.from, known.objects, known.log = stored(held), objects, slog.New(slog.DiscardHandler)
	known.defaults = func(context.Context) []ratify.Object { return nil }
	if err := known.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for _, status := range objects.Snapshot().Policies() {
		c := conditionOf(status, time.Now())
		said[status.Name] = fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
	}
	return said
}

func policyOf(objects *config.Objects, image string) string {
	ref, err := verifier.ParseReference(image)
	if err != nil {
		panic(err)
	}
	chain, verdict := objects.Snapshot().For(verifier.Request{Namespace: "shop", Image: ref})
	if chain != nil { // the policies skip unless they are broken
		return "undecided by " + chain.Policies()
	}
	return verdict.Policy()
}

// TestL42_TheConditionOfAStrayCharacter is on the object that has it, and nothing
// else changes.
func TestL42_TheConditionOfAStrayCharacter(t *testing.T) {
	objects, known := newObjects(), &policies{}
	strict, wide := written(api.KindClusterTrustPolicy, "strict", 0, exempting("shop.example.com/**")), written(api.KindClusterTrustPolicy, "wide", 0, exempting("**/**"))
	if said := conditions(t, objects, known, strict, wide); said["strict"] != "True InForce in force as it is written" {
		t.Error(said)
	}
	for _, stray := range []string{"\x7f", "\u0092", "\u2028", "\ufeff"} {
		said := conditions(t, objects, known, edited(strict, "the ops"+stray+" team", "spec", "owner"), wide)
		if !strings.HasPrefix(said["strict"], "False LastGoodInForce an earlier version is in force: spec.owner: ") || len(said) != 2 {
			t.Errorf("%q: %v", stray, said)
		}
		if got := policyOf(objects, "shop.example.com/cart"); got != "strict" {
			t.Errorf("%q: %s", stray, got)
		}
	}
}

// TestL42_TheConditionWhereImagesCannotBeRead says what that means for others.
func TestL42_TheConditionWhereImagesCannotBeRead(t *testing.T) {
	for kind, want := range map[string]string{
		api.KindClusterTrustPolicy: "False Invalid which images it is about cannot be read, so that every image where it applies is undecided: spec.images[0]: ",
		api.KindTrustPolicy:        "False Invalid which images it is about cannot be read, so that every image of its namespace is undecided: spec.images[0]: ",
	} {
		objects := newObjects()
		said := conditions(t, objects, &policies{}, written(kind, "odd", 0, exempting("shop\u0092.example.com/**")), written(api.KindClusterTrustPolicy, "wide", 0, exempting("**/**")))
		if !strings.HasPrefix(said["odd"], want) {
			t.Errorf("%s: %v", kind, said)
		}
		if got := policyOf(objects, "other.example.com/x"); !strings.HasPrefix(got, "undecided by ") {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

// TestL51_TheConditionOfASecondPolicy says whose the pattern is, and the first one
// is in force as before.
func TestL51_TheConditionOfASecondPolicy(t *testing.T) {
	objects, known := newObjects(), &policies{}
	production := written(api.KindClusterTrustPolicy, "production", 0, exempting("reg.example.com/shop/**"))
	for name, c := range map[string]struct {
		images []any
		said   string
	}{
		"the same":    {[]any{"reg.example.com/shop/**"}, "False PatternTaken it decides about no image: spec.images[0]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern"},
		"and another": {[]any{"reg.example.com/shop/**", "reg.example.com/x"}, "False PatternTaken its other patterns are in force: spec.images[0]: ClusterTrustPolicy production has the same pattern. The older one decides: write both into one policy, or change a pattern"},
	} {
		x := written(api.KindClusterTrustPolicy, "a", time.Second, exempting(c.images...))
		x.SetUID(types.UID("uid of " + name))
		conditions(t, objects, known, x)
		said := conditions(t, objects, known, x, production)
		if said["a"] != c.said || said["production"] != "True InForce in force as it is written" {
			t.Errorf("%s: %v", name, said)
		}
		if got := policyOf(objects, "reg.example.com/shop/cart"); got != "production" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestL42_RatifysObjectsAreCalledWhatTheyAre, whatever else they have.
func TestL42_RatifysObjectsAreCalledWhatTheyAre(t *testing.T) {
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": ratify.Group + "/v1beta1", "kind": "NamespacedStore", "KIND": "Verifier", "Spec": map[string]any{"name": "other"},
		"metadata": map[string]any{"name": "store", "namespace": "shop", "Name": "other", "annotations": map[string]any{"note": "\x7f"}},
		"spec":     map[string]any{"name": "oras\u0092"},
	}}
	got, err := ratifyObject(object)
	if err != nil || got.String() != "Store shop/store" || string(got.Spec) != "{\"name\":\"oras\u0092\"}" {
		t.Errorf("%s %s, %v", got, got.Spec, err)
	}
}
