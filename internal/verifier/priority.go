package verifier

import "context"

// Priority orders those who wait for the same registry. The zero Priority is an
// admission's, for which somebody waits with a deadline.
type Priority int

// From first to last.
const (
	PriorityAdmission Priority = iota
	// PriorityCommand is somebody's at a terminal.
	PriorityCommand
	// PriorityWatch is nobody's: what runs is looked at again.
	PriorityWatch
)

// Priorities is how many there are.
const Priorities = 3

type priorityKey struct{}

// WithPriority gives work a priority other than an admission's.
func WithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityOf is the priority of the work.
func PriorityOf(ctx context.Context) Priority {
	p, _ := ctx.Value(priorityKey{}).(Priority)
	return min(max(p, PriorityAdmission), PriorityWatch)
}
