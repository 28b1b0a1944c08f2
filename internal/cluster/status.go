package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// conditionReady is true while an object is in force as it is written.
	conditionReady = "Ready"
	// conditionFresh is false while what the object refers to could not be
	// refreshed, or was withdrawn in part. It is there since it was false first.
	conditionFresh = "Fresh"
	// conditionReachable is false where a threshold can never be met, because too few of
	// its entries count apart. It is there since it was false first.
	conditionReachable                   = "ThresholdsReachable"
	reasonReachable, reasonTooFewEntries = "Reachable", "TooFewEntries"
)

// The reasons of the condition.
const (
	reasonInForce         = "InForce"
	reasonAuditing        = "Auditing"
	reasonInvalid         = "Invalid"         // never was good: its images are undecided
	reasonLastGood        = "LastGoodInForce" // an earlier version is in force
	reasonKeysUnavailable = "KeysUnavailable" // what it refers to is not there; never was
	reasonPatternTaken    = "PatternTaken"    // an older object has one of its patterns
	reasonExempting       = "Exempting"
	reasonEnding          = "EndingSoon"
	reasonEnded           = "Ended"
	reasonRefreshed       = "Refreshed"
	reasonStale           = "Stale"
	reasonWithdrawn       = "Withdrawn"
)

const (
	// maxShownProblems is how many problems a condition lists.
	maxShownProblems = 5
	// maxConditionMessage keeps a condition readable; the API server takes 32 KiB.
	maxConditionMessage = 2 << 10
	// retryStatus is how soon a status that could not be written is tried again.
	retryStatus = 5 * time.Second
)

// statuses tells in each object what became of it. Only the leader runs it.
type statuses struct {
	client   client.Client // reads from the cache
	snapshot func() *config.Snapshot
	webhook  *Webhook // nil: nothing is said about it
	decided  trigger
	events   events.EventRecorder
	log      *slog.Logger
}

// Start writes statuses until ctx ends.
func (s *statuses) Start(ctx context.Context) error {
	return repeat(ctx, s.decided, func() time.Duration {
		if err := s.write(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "a status could not be written", slog.Any("error", err))
			return retryStatus
		}
		return lookAround
	})
}

// write writes the statuses that are not what they should be.
func (s *statuses) write(ctx context.Context) error {
	objects, err := list(ctx, s.client, kinds())
	if err != nil {
		return err
	}
	byID := map[config.ID]config.PolicyStatus{}
	for _, status := range s.snapshot().Policies() {
		byID[status.ID] = status
	}
	var failed error
	for i := range objects {
		object := &objects[i]
		status, known := byID[config.ID{Kind: object.GetKind(), Namespace: object.GetNamespace(), Name: object.GetName()}]
		pending := len(status.Problems) > 0 && status.Problems[0].Pending
		if known && status.Generation == object.GetGeneration() && !pending { // else it is about to be
			failed = errors.Join(failed, s.writeOne(ctx, object, status))
		}
	}
	return failed
}

// conditions are those that an object of a kind should have. Fresh is there since it
// was false first.
func (s *statuses) conditions(status config.PolicyStatus, before []metav1.Condition) []metav1.Condition {
	wanted := []metav1.Condition{conditionOf(status, time.Now())}
	if fresh := freshness(status); find(before, conditionFresh) != nil || fresh.Status == metav1.ConditionFalse {
		wanted = append(wanted, fresh)
	}
	if reachable := reachability(status); find(before, conditionReachable) != nil || reachable.Status == metav1.ConditionFalse {
		wanted = append(wanted, reachable)
	}
	if status.Kind == api.KindClusterTrustPolicy && s.webhook != nil {
		if enforced, known := s.webhook.condition(); known {
			wanted = append(wanted, enforced)
		}
	}
	return wanted
}

func (s *statuses) writeOne(ctx context.Context, object *unstructured.Unstructured, status config.PolicyStatus) error {
	generation := object.GetGeneration()
	before := conditionsOf(object)
	conditions, wanted := slices.Clone(before), s.conditions(status, before)
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	changed := observed != generation
	for i := range wanted {
		wanted[i].ObservedGeneration = generation
		changed = meta.SetStatusCondition(&conditions, wanted[i]) || changed
	}
	if !changed {
		return nil
	}
	written := object.DeepCopy()
	list, err := encodeConditions(conditions)
	if err != nil {
		return err
	}
	written.Object["status"] = map[string]any{"observedGeneration": generation, "conditions": list}
	if equality.Semantic.DeepEqual(written.Object["status"], object.Object["status"]) {
		return nil
	}
	if err := s.client.Status().Patch(ctx, written, client.MergeFrom(object)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("status of %s %s: %w", object.GetKind(), client.ObjectKeyFromObject(object), err)
	}
	for _, condition := range wanted {
		if was := find(before, condition.Type); was == nil || was.Reason != condition.Reason {
			s.tell(object, was, condition)
		}
	}
	return nil
}

// find gives a copy of a condition.
func find(conditions []metav1.Condition, kind string) *metav1.Condition {
	found := meta.FindStatusCondition(conditions, kind)
	if found == nil {
		return nil
	}
	c := *found
	return &c
}

// reachability words whether each threshold of a policy can be met.
func reachability(s config.PolicyStatus) metav1.Condition {
	if len(s.Unreachable) == 0 {
		return metav1.Condition{Type: conditionReachable, Status: metav1.ConditionTrue, Reason: reasonReachable, Message: "each threshold can be met"}
	}
	return metav1.Condition{Type: conditionReachable, Status: metav1.ConditionFalse, Reason: reasonTooFewEntries, Message: strings.Join(s.Unreachable, "; ")}
}

// freshness words how what the object refers to fares.
func freshness(s config.PolicyStatus) metav1.Condition {
	c := metav1.Condition{Type: conditionFresh, Status: metav1.ConditionTrue, Reason: reasonRefreshed, Message: "all that it refers to is as it should be"}
	for _, w := range s.Warnings {
		c.Status, c.Message = metav1.ConditionFalse, shown(s.Warnings)
		if c.Reason != reasonWithdrawn {
			c.Reason = reasonStale
		}
		if w.Withdrawn {
			c.Reason = reasonWithdrawn
		}
	}
	return c
}

// tell makes an Event of a change. A policy that is well from the start is none.
func (s *statuses) tell(object *unstructured.Unstructured, before *metav1.Condition, ready metav1.Condition) {
	kind := "Warning"
	if ready.Status == metav1.ConditionTrue && ready.Reason != reasonEnding {
		kind = "Normal"
		if before == nil {
			return
		}
	}
	s.events.Eventf(object, nil, kind, ready.Reason, "Load", "%s", clip(ready.Message, maxNote))
}

// maxNote is what an Event's note may be long.
const maxNote = 1 << 10

func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len("…")], "") + "…"
}

// conditionOf words what became of an object.
func conditionOf(s config.PolicyStatus, now time.Time) metav1.Condition {
	c := metav1.Condition{Type: conditionReady, Status: metav1.ConditionFalse}
	switch {
	case s.State == config.StateContested && len(s.Images) == 0:
		c.Reason, c.Message = reasonPatternTaken, "it decides about no image: "+shown(s.Problems)
	case s.State == config.StateContested:
		c.Reason, c.Message = reasonPatternTaken, "its other patterns are in force: "+shown(s.Problems)
	case s.State == config.StateLastGood:
		c.Reason, c.Message = reasonLastGood, "an earlier version is in force: "+shown(s.Problems)
	case s.Boundless && s.Kind == api.KindTrustPolicy:
		c.Reason, c.Message = reasonInvalid, "which images it is about cannot be read, so that every image of its namespace is undecided: "+shown(s.Problems)
	case s.Boundless:
		c.Reason, c.Message = reasonInvalid, "which images it is about cannot be read, so that every image where it applies is undecided: "+shown(s.Problems)
	case s.State != config.StateReady && s.Problems[0].Reason == verifier.ReasonKeysUnavailable:
		c.Reason, c.Message = reasonKeysUnavailable, "its images are undecided: "+shown(s.Problems)
	case s.State != config.StateReady && s.Kind == api.KindExemption:
		c.Reason, c.Message = reasonInvalid, "nothing is exempt: "+shown(s.Problems)
	case s.State != config.StateReady:
		c.Reason, c.Message = reasonInvalid, "its images are undecided: "+shown(s.Problems)
	case s.Phase(now) == config.PhaseEnded:
		c.Reason, c.Message = reasonEnded, s.Reminder(now)
	case s.Phase(now) == config.PhaseEnding:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reasonEnding, s.Reminder(now)
	case s.Phase(now) == config.PhaseActive:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reasonExempting, "exempts until "+s.ExpiresAt.UTC().Format(time.RFC3339)
	case s.Audits:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reasonAuditing, "in force, and only audits"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reasonInForce, "in force as it is written"
	}
	return c
}

// shown lists problems, each with its remedy.
func shown(problems []config.Problem) string {
	var lines []string
	for i, p := range problems {
		if i == maxShownProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		p.Policy = "" // it is this one's status
		lines = append(lines, p.String())
	}
	return clip(strings.Join(lines, "; "), maxConditionMessage)
}

func conditionsOf(object *unstructured.Unstructured) []metav1.Condition {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	var conditions []metav1.Condition
	for _, entry := range list {
		var c metav1.Condition
		if fields, ok := entry.(map[string]any); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &c) == nil {
			conditions = append(conditions, c)
		}
	}
	return conditions
}

func encodeConditions(conditions []metav1.Condition) ([]any, error) {
	list := make([]any, len(conditions))
	for i := range conditions {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&conditions[i])
		if err != nil {
			return nil, err
		}
		list[i] = fields
	}
	return list, nil
}
