package cluster

import (
	"context"
	"fmt"
	"reflect"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// things is an API server's objects, as a reader has them. What it does not do panics.
type things struct {
	client.Client
	all     []client.Object
	err     error // of every question
	patched []client.Object
}

func (c *things) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if c.err != nil {
		return c.err
	}
	for _, one := range c.all {
		same := reflect.TypeOf(one) == reflect.TypeOf(into)
		if wanted, ok := into.(*unstructured.Unstructured); same && ok {
			same = wanted.GetKind() == one.(*unstructured.Unstructured).GetKind()
		}
		if same && client.ObjectKeyFromObject(one) == key {
			reflect.ValueOf(into).Elem().Set(reflect.ValueOf(one.DeepCopyObject()).Elem())
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.String())
}

func (c *things) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	if c.err != nil {
		return c.err
	}
	if list, ok := into.(*unstructured.UnstructuredList); ok {
		for _, one := range c.all {
			if object, ok := one.(*unstructured.Unstructured); ok && object.GetKind() == list.GetKind() {
				list.Items = append(list.Items, *object.DeepCopy())
			}
		}
		return nil
	}
	items := reflect.ValueOf(into).Elem().FieldByName("Items")
	for _, one := range c.all {
		if value := reflect.ValueOf(one).Elem(); value.Type() == items.Type().Elem() {
			items.Set(reflect.Append(items, value))
		}
	}
	return nil
}

func (c *things) Status() client.SubResourceWriter { return statusOf{c: c} }

type statusOf struct {
	client.SubResourceWriter
	c *things
}

func (s statusOf) Patch(_ context.Context, object client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	s.c.patched = append(s.c.patched, object)
	return nil
}

// skipping is a policy that skips the images of a host.
func skipping(name, host string, generation int64) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "countersign.dev/v1beta1", "kind": "ClusterTrustPolicy",
		"metadata": map[string]any{"name": name, "uid": "uid of " + name, "generation": generation},
		"spec": map[string]any{
			"images": []any{host + "/**"}, "require": map[string]any{"skip": map[string]any{"reason": fmt.Sprint("generation ", generation)}},
		},
	}}
}
