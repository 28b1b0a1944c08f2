//go:build gatekeeper320

package engine

import (
	"context"

	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	admissionv1 "k8s.io/api/admission/v1"
)

// MatchesOperations says whether a mutator can be for one operation alone.
const MatchesOperations = false

func (e *Engine) mutate(_ context.Context, object *mutationtypes.Mutable, _ admissionv1.Operation) (bool, error) {
	return e.mutation.Mutate(object)
}

// generated leaves the review without an operation, as Gatekeeper 3.20 does.
func generated(review *target.AugmentedUnstructured, _ admissionv1.Operation) *target.AugmentedUnstructured {
	return review
}
