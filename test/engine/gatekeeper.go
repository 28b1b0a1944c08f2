//go:build !gatekeeper320

package engine

import (
	"context"

	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	admissionv1 "k8s.io/api/admission/v1"
)

// What Gatekeeper 3.20 does not have is in this file; gatekeeper320.go has what
// takes its place there.

// MatchesOperations says whether a mutator can be for one operation alone.
const MatchesOperations = true

func (e *Engine) mutate(ctx context.Context, object *mutationtypes.Mutable, operation admissionv1.Operation) (bool, error) {
	object.Operation = operation
	return e.mutation.Mutate(ctx, object)
}

// generated gives the review of a generated object its parent's operation.
func generated(review *target.AugmentedUnstructured, operation admissionv1.Operation) *target.AugmentedUnstructured {
	review.Operation = operation
	return review
}
