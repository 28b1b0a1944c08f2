package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/open-policy-agent/frameworks/constraint/pkg/core/templates"
	"github.com/open-policy-agent/gatekeeper/v3/apis"
	expansionunversioned "github.com/open-policy-agent/gatekeeper/v3/apis/expansion/unversioned"
	mutationsunversioned "github.com/open-policy-agent/gatekeeper/v3/apis/mutations/unversioned"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/mutators/assign"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// ApplyFile applies the objects of a YAML file.
func (e *Engine) ApplyFile(ctx context.Context, path string) error {
	objects, err := kubeyaml.Read(path)
	if err != nil {
		return err
	}
	if err := e.Apply(ctx, objects...); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Apply adds or replaces ConstraintTemplates, constraints, Assigns and
// ExpansionTemplates, each after the checks that Gatekeeper's webhook makes of
// it. Another kind is an error.
func (e *Engine) Apply(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, object := range objects {
		if err := e.apply(ctx, object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// Remove takes a constraint away again.
func (e *Engine) Remove(ctx context.Context, constraint *unstructured.Unstructured) error {
	_, err := e.client.RemoveConstraint(ctx, constraint)
	return err
}

func (e *Engine) apply(ctx context.Context, object *unstructured.Unstructured) error {
	group, kind := object.GroupVersionKind().Group, object.GetKind()
	switch {
	case group == "templates.gatekeeper.sh" && kind == "ConstraintTemplate":
		template := &templates.ConstraintTemplate{}
		if err := convert(object, template); err != nil {
			return err
		}
		_, err := e.client.AddTemplate(ctx, template)
		return err
	case group == "constraints.gatekeeper.sh":
		_, err := e.client.AddConstraint(ctx, object)
		return err
	case group == "mutations.gatekeeper.sh" && kind == "Assign":
		typed := &mutationsunversioned.Assign{}
		if err := convert(object, typed); err != nil {
			return err
		}
		mutator, err := assign.MutatorForAssign(typed)
		if err != nil {
			return err
		}
		return e.mutation.Upsert(mutator)
	case group == "expansion.gatekeeper.sh" && kind == "ExpansionTemplate":
		typed := &expansionunversioned.ExpansionTemplate{}
		if err := convert(object, typed); err != nil {
			return err
		}
		return e.expansion.UpsertTemplate(typed)
	}
	return fmt.Errorf("the engine knows no %s", strings.TrimPrefix(group+"/"+kind, "/"))
}

// convert turns an object into Gatekeeper's internal type for it.
func convert(object *unstructured.Unstructured, into any) error {
	scheme := runtime.NewScheme()
	if err := apis.AddToScheme(scheme); err != nil {
		return err
	}
	typed, err := scheme.New(object.GroupVersionKind())
	if err != nil {
		return err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed); err != nil {
		return err
	}
	return scheme.Convert(typed, into, nil)
}
