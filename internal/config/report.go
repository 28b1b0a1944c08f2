package config

import (
	"context"
	"log/slog"
	"time"
)

// reporter logs what is new: what was loaded, each problem once, and Exemptions
// that end.
type reporter struct {
	log    *slog.Logger
	known  map[Problem]bool
	phases map[ID]Phase
}

func newReporter(log *slog.Logger) reporter {
	return reporter{log: log, known: map[Problem]bool{}, phases: map[ID]Phase{}}
}

func (r *reporter) snapshot(ctx context.Context, next *Snapshot) {
	counts := next.Count()
	r.log.InfoContext(ctx, "policies loaded",
		slog.Int("ready", counts[StateReady]), slog.Int("lastGood", counts[StateLastGood]), slog.Int("broken", counts[StateBroken]), slog.Int("contested", counts[StateContested]))
	known := map[Problem]bool{}
	for _, p := range next.problems {
		known[p] = true
		if !r.known[p] {
			r.log.WarnContext(ctx, "policy problem",
				slog.String("file", p.File), slog.Int("line", p.Line), slog.String("policy", p.Policy),
				slog.String("path", p.Path), slog.String("problem", p.Message), slog.String("remedy", p.Remedy))
		}
	}
	r.known = known
	if err := next.Ready(); err != nil {
		r.log.ErrorContext(ctx, "nothing can be decided", slog.Any("error", err))
	}
	r.reminders(ctx, next)
}

// reminders says once what each Exemption's phase calls for.
func (r *reporter) reminders(ctx context.Context, s *Snapshot) {
	phases, now := map[ID]Phase{}, time.Now()
	for _, status := range s.policies {
		phase := status.Phase(now)
		if phase == "" {
			continue
		}
		phases[status.ID] = phase
		if phase != PhaseActive && r.phases[status.ID] != phase {
			r.log.WarnContext(ctx, "an Exemption is at its end", slog.String("exemption", status.Name),
				slog.String("phase", string(phase)), slog.Time("expiresAt", status.ExpiresAt))
		}
	}
	r.phases = phases
}
