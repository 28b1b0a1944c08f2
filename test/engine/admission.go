package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/frameworks/constraint/pkg/client/reviews"
	"github.com/open-policy-agent/frameworks/constraint/pkg/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/expansion"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/util"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Decision is what the user is told.
type Decision struct {
	Allowed bool
	// Denials are the messages of constraints that deny, sorted, each as the
	// template wrote it.
	Denials []string
	// Warnings are the messages of constraints that warn.
	Warnings []string
	// Text is what kubectl prints of a refusal: each message after its constraint.
	Text string
}

// Create is the request that creates an object in a namespace, "" for an object
// that has none.
func Create(namespace string, object *unstructured.Unstructured) *admissionv1.AdmissionRequest {
	return request(admissionv1.Create, namespace, nil, object)
}

// Update is the request that replaces one object by another.
func Update(namespace string, old, object *unstructured.Unstructured) *admissionv1.AdmissionRequest {
	return request(admissionv1.Update, namespace, old, object)
}

// Delete is the request that deletes an object.
func Delete(namespace string, old *unstructured.Unstructured) *admissionv1.AdmissionRequest {
	return request(admissionv1.Delete, namespace, old, nil)
}

func request(operation admissionv1.Operation, namespace string, old, object *unstructured.Unstructured) *admissionv1.AdmissionRequest {
	of := object
	if of == nil {
		of = old
	}
	kind := of.GroupVersionKind()
	return &admissionv1.AdmissionRequest{
		UID:       "00000000-0000-0000-0000-000000000000",
		Kind:      metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind},
		Name:      of.GetName(),
		Namespace: namespace,
		Operation: operation,
		Object:    raw(object),
		OldObject: raw(old),
	}
}

func raw(object *unstructured.Unstructured) runtime.RawExtension {
	if object == nil {
		return runtime.RawExtension{}
	}
	content, err := json.Marshal(object.Object)
	if err != nil {
		panic(err) // what was read from YAML can be written as JSON
	}
	return runtime.RawExtension{Raw: content}
}

// Admit decides as the validating webhook does: on the object, and on what the
// ExpansionTemplates make of it.
func (e *Engine) Admit(ctx context.Context, request *admissionv1.AdmissionRequest) (Decision, error) {
	if err := e.usable(); err != nil {
		return Decision{}, err
	}
	namespace := e.namespaces.get(request.Namespace)
	responses, err := e.client.Review(ctx, &target.AugmentedReview{
		AdmissionRequest: request,
		Namespace:        namespace,
		Source:           mutationtypes.SourceTypeOriginal,
		IsAdmission:      true,
	}, reviews.EnforcementPoint(util.WebhookEnforcementPoint))
	if err != nil {
		return Decision{}, err
	}
	if len(request.Object.Raw) > 0 {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(request.Object.Raw); err != nil {
			return Decision{}, fmt.Errorf("object of the request: %w", err)
		}
		object.SetNamespace(request.Namespace)
		if err := e.reviewExpanded(ctx, responses, object, namespace, request.Operation, util.WebhookEnforcementPoint); err != nil {
			return Decision{}, err
		}
	}
	return decide(responses), nil
}

// Audit looks at an object that exists, as the audit does: without a request.
// Its Denials are the violations, whatever the constraint's action.
func (e *Engine) Audit(ctx context.Context, object *unstructured.Unstructured) (Decision, error) {
	if err := e.usable(); err != nil {
		return Decision{}, err
	}
	namespace := e.namespaces.get(object.GetNamespace())
	responses, err := e.client.Review(ctx, &target.AugmentedUnstructured{
		Object:    *object,
		Namespace: namespace,
		Source:    mutationtypes.SourceTypeOriginal,
	}, reviews.EnforcementPoint(util.AuditEnforcementPoint))
	if err != nil {
		return Decision{}, err
	}
	if err := e.reviewExpanded(ctx, responses, object, namespace, "", util.AuditEnforcementPoint); err != nil {
		return Decision{}, err
	}
	var d Decision
	for _, result := range responses.Results() {
		d.Denials = append(d.Denials, result.Msg)
	}
	slices.Sort(d.Denials)
	d.Allowed = len(d.Denials) == 0
	return d, nil
}

func (e *Engine) reviewExpanded(ctx context.Context, into *types.Responses, object *unstructured.Unstructured, namespace *corev1.Namespace, operation admissionv1.Operation, point string) error {
	resultants, err := e.expansion.Expand(&mutationtypes.Mutable{Object: object, Namespace: namespace})
	if err != nil {
		return fmt.Errorf("expand: %w", err)
	}
	for _, resultant := range resultants {
		implied, err := e.client.Review(ctx, generated(&target.AugmentedUnstructured{
			Object:    *resultant.Obj,
			Namespace: namespace,
			Source:    mutationtypes.SourceTypeGenerated,
		}, operation), reviews.EnforcementPoint(point))
		if err != nil {
			return fmt.Errorf("review of the generated %s: %w", resultant.Obj.GetKind(), err)
		}
		expansion.OverrideEnforcementAction(resultant.EnforcementAction, implied)
		expansion.AggregateResponses(resultant.TemplateName, into, implied)
	}
	return nil
}

// decide puts results together as the webhook does; for the same answer the
// same text, so in sorted order.
func decide(responses *types.Responses) Decision {
	var d Decision
	var lines []string
	for _, result := range responses.Results() {
		switch util.EnforcementAction(result.EnforcementAction) {
		case util.Deny:
			d.Denials = append(d.Denials, result.Msg)
			lines = append(lines, fmt.Sprintf("[%s] %s", result.Constraint.GetName(), result.Msg))
		case util.Warn:
			d.Warnings = append(d.Warnings, result.Msg)
		}
	}
	slices.Sort(d.Denials)
	slices.Sort(d.Warnings)
	slices.Sort(lines)
	d.Text = strings.Join(lines, "\n")
	d.Allowed = len(d.Denials) == 0
	return d
}
