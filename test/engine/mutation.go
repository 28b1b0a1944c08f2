package engine

import (
	"context"
	"fmt"

	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Mutate gives the object of a request as the mutating webhook leaves it, and
// whether anything in it changed. An error is a refusal of the request.
func (e *Engine) Mutate(ctx context.Context, request *admissionv1.AdmissionRequest) (*unstructured.Unstructured, bool, error) {
	if err := e.usable(); err != nil {
		return nil, false, err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(request.Object.Raw); err != nil {
		return nil, false, fmt.Errorf("object of the request: %w", err)
	}
	own := object.GetNamespace()
	object.SetNamespace(request.Namespace)
	changed, err := e.mutate(ctx, &mutationtypes.Mutable{
		Object:    object,
		Namespace: e.namespaces.get(request.Namespace),
		Username:  request.UserInfo.Username,
		Source:    mutationtypes.SourceTypeOriginal,
	}, request.Operation)
	if err != nil {
		return nil, false, err
	}
	object.SetNamespace(own)
	return object, changed, nil
}
