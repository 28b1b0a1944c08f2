package provider

import (
	"context"
	"log/slog"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// recordDecisions writes what was verified for whoever collects it: all that is
// fresh, and some of what is repeated.
func (s *Server) recordDecisions(ctx context.Context, e *endpoint, answers []answer, trace string) {
	if s.options.Decisions == nil || e == nil || e.name != endpointVerify {
		return
	}
	for i := range answers {
		a := &answers[i]
		if !a.fresh && !s.sampled() {
			continue
		}
		status, reason := a.outcome()
		message, policy := a.verdict.Message(), a.verdict.Policy()
		if a.undecided != nil {
			message, policy = a.undecided.Message, a.policy
		}
		s.options.Decisions.LogAttrs(ctx, slog.LevelInfo, "",
			slog.String("traceID", trace), slog.String("endpoint", e.name),
			slog.String("namespace", a.request.Namespace), slog.String("serviceAccount", a.request.ServiceAccount),
			slog.String("image", elide(a.image, verifier.MaxReferenceLength)), slog.String("digest", string(a.verdict.Digest())),
			slog.String("status", status), slog.String("reason", reason), slog.String("audited", string(a.verdict.Audited())),
			slog.String("policy", policy), slog.String("signers", signers(a)), slog.String("message", message),
			slog.Float64("seconds", a.took.Seconds()), slog.Bool("repeat", !a.fresh))
	}
}

// sampled reports whether this repeat is one of those that are written.
func (s *Server) sampled() bool {
	every := s.options.DecisionRepeats
	return every > 0 && s.repeated.Add(1)%every == 1%every
}

// signers names whose evidence was good.
func signers(a *answer) string {
	if a.written != "" {
		return a.signers
	}
	var few [8]*verifier.Report
	tree := a.verdict.Tree()
	var names []string
	for _, r := range bounded(gather(few[:0], &tree)) {
		if r.Outcome() == verifier.OutcomeTrusted {
			names = append(names, r.Finding.Claims.Signer.Name)
		}
	}
	return strings.Join(names, "; ")
}
