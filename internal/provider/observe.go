package provider

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// The values of the labels "endpoint" and "outcome".
const (
	endpointVerify = "verify"
	endpointMutate = "mutate"
	endpointNone   = "none"

	outcomeAnswered   = "answered"
	outcomeMalformed  = "malformed"
	outcomeTooLarge   = "too_large"
	outcomeOverloaded = "overloaded"
	outcomePanic      = "panic"
)

// metrics are the door's.
type metrics struct {
	requests         *telemetry.Counter
	requestSeconds   *telemetry.Histogram
	inFlight         *telemetry.Gauge
	keys             *telemetry.Counter
	keySeconds       *telemetry.Histogram
	audited          *telemetry.Counter
	panics           *telemetry.Counter
	relieved         *telemetry.Counter
	connectionErrors *telemetry.Counter
}

// seconds are the buckets of durations: from a warm answer to Gatekeeper's patience.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 1.8, 2.5, 5}

// ratifyMetrics are figures by the names that Ratify had, in milliseconds, for
// the dashboards of those who come from there.
type ratifyMetrics struct {
	requests map[string]*telemetry.Histogram // by endpoint
	errors   *telemetry.Counter
}

func newRatifyMetrics(m *telemetry.Metrics) *ratifyMetrics {
	milliseconds := make([]float64, len(seconds))
	for i, s := range seconds {
		milliseconds[i] = s * 1000
	}
	return &ratifyMetrics{
		requests: map[string]*telemetry.Histogram{
			endpointVerify: m.Histogram("ratify_verification_request", "Duration of a verification, in milliseconds.", milliseconds),
			endpointMutate: m.Histogram("ratify_mutation_request", "Duration of a mutation, in milliseconds.", milliseconds),
		},
		errors: m.Counter("ratify_system_error_count", "Keys that could not be decided."),
	}
}

// observe counts a request and what could not be decided of it.
func (r *ratifyMetrics) observe(endpoint string, took time.Duration, answers []answer) {
	if r == nil {
		return
	}
	if h := r.requests[endpoint]; h != nil {
		h.Observe(float64(took.Microseconds()) / 1000)
	}
	for i := range answers {
		if answers[i].undecided != nil {
			r.errors.Inc()
		}
	}
}

func newMetrics(m *telemetry.Metrics) metrics {
	endpoint := telemetry.Label{Name: "endpoint", Values: []string{endpointVerify, endpointMutate, endpointNone}}
	outcome := telemetry.Label{Name: "outcome", Values: []string{
		outcomeAnswered, outcomeMalformed, outcomeTooLarge, outcomeOverloaded, outcomePanic,
	}}
	status := telemetry.Label{Name: "status", Values: []string{statusUndecided, statusPinned, statusUnchanged}}
	for _, s := range statuses {
		status.Values = append(status.Values, string(s))
	}
	reason := telemetry.Label{Name: "reason", Values: []string{reasonNone}}
	for _, r := range reasons {
		reason.Values = append(reason.Values, string(r))
	}
	return metrics{
		requests:         m.Counter("countersign_requests_total", "Requests by what became of them.", endpoint, outcome),
		requestSeconds:   m.Histogram("countersign_request_duration_seconds", "From the end of the headers to the answer.", seconds, endpoint),
		inFlight:         m.Gauge("countersign_requests_in_flight", "Requests being answered.", endpoint),
		keys:             m.Counter("countersign_keys_total", "Keys by status and reason.", endpoint, status, reason),
		keySeconds:       m.Histogram("countersign_key_duration_seconds", "Time spent on one key.", seconds, endpoint),
		audited:          m.Counter("countersign_audited_total", "Keys that were admitted as AUDIT_ONLY, by what the reason would have been.", reason),
		panics:           m.Counter("countersign_panics_total", "Panics caught at the door. Each is a bug: report it."),
		relieved:         m.Counter("countersign_requests_relieved_total", "Requests answered undecided because other admissions waited in Gatekeeper's queue."),
		connectionErrors: m.Counter("countersign_connection_errors_total", "Connections that came to nothing, failed TLS handshakes above all."),
	}
}

var statuses = []verifier.Status{
	verifier.StatusTrusted, verifier.StatusUntrusted, verifier.StatusUnsupported,
	verifier.StatusUnknown, verifier.StatusRefused, verifier.StatusExempt,
}

// reasons is verifier's closed list; a test compares it with its source.
var reasons = []verifier.Reason{
	verifier.ReasonTrusted, verifier.ReasonAuditOnly, verifier.ReasonExempted, verifier.ReasonSkipped,
	verifier.ReasonSignatureNotFound, verifier.ReasonSignatureInvalid, verifier.ReasonSignatureExpired,
	verifier.ReasonSubjectMismatch, verifier.ReasonIdentityNotTrusted, verifier.ReasonCertificateNotTrusted,
	verifier.ReasonCertificateExpired, verifier.ReasonCertificateRevoked, verifier.ReasonTimestampInvalid,
	verifier.ReasonLogProofMissing, verifier.ReasonLogProofInvalid, verifier.ReasonFormatUnsupported,
	verifier.ReasonAttestationNotFound, verifier.ReasonAttestationRuleFailed, verifier.ReasonThresholdNotMet,
	verifier.ReasonLedgerUntrusted, verifier.ReasonLedgerUnsupported, verifier.ReasonEndOfLife,
	verifier.ReasonPolicyNotFound, verifier.ReasonReferenceInvalid, verifier.ReasonDigestRequired,
	verifier.ReasonRegistryAway, verifier.ReasonRegistryUnreachable, verifier.ReasonRegistryUnauthorized, verifier.ReasonRegistryThrottled,
	verifier.ReasonRegistryInvalid, verifier.ReasonImageNotFound, verifier.ReasonKeysUnavailable,
	verifier.ReasonRevocationUnavailable, verifier.ReasonPolicyInvalid, verifier.ReasonLedgerStale,
	verifier.ReasonLimitExceeded, verifier.ReasonTimeout, verifier.ReasonInternal,
}

// fresh counts the answers, and reports whether there are any to log: those
// that are no repeats, or all where repeats are logged too.
func (s *Server) fresh(ctx context.Context, e *endpoint, answers []answer, now time.Time) bool {
	log := len(answers) > 0 && s.log.Enabled(ctx, slog.LevelDebug)
	for i := range answers {
		a := &answers[i]
		status, reason := a.outcome()
		s.metrics.keys.Inc(e.name, status, reason)
		s.metrics.keySeconds.Observe(a.took.Seconds(), e.name)
		if audited := a.verdict.Audited(); audited != "" {
			s.metrics.audited.Inc(string(audited))
		}
		a.fresh = status != statusUnchanged && s.repeats.first(now, e.name, a.key, status, reason, string(a.verdict.Digest()), a.value)
		log = log || a.fresh
	}
	return log
}

// logAnswers logs what is fresh at info, and undecided at warn; repeats at debug.
func (s *Server) logAnswers(ctx context.Context, e *endpoint, answers []answer, trace string) {
	for i := range answers {
		a := &answers[i]
		level := slog.LevelDebug
		switch {
		case a.fresh && a.undecided != nil:
			level = slog.LevelWarn
		case a.fresh:
			level = slog.LevelInfo
		}
		if !s.log.Enabled(ctx, level) {
			continue
		}
		status, reason := a.outcome()
		attrs := make([]slog.Attr, 0, 10)
		attrs = append(attrs,
			slog.String("traceID", trace), slog.String("endpoint", e.name), slog.String("key", elide(a.key, maxText)),
			slog.String("status", status), slog.String("reason", reason), slog.Float64("seconds", a.took.Seconds()))
		switch {
		case a.undecided != nil:
			attrs = append(attrs, slog.String("policy", a.policy), slog.Any("error", a.undecided))
			s.log.LogAttrs(ctx, level, "undecided", attrs...)
		case a.value != "":
			attrs = append(attrs, slog.String("policy", a.policy), slog.String("value", elide(a.value, maxText)))
			s.log.LogAttrs(ctx, level, "mutated", attrs...)
		default:
			attrs = append(attrs, slog.String("policy", a.verdict.Policy()),
				slog.String("digest", string(a.verdict.Digest())), slog.String("message", a.verdict.Message()))
			s.log.LogAttrs(ctx, level, "decided", attrs...)
		}
	}
}

// logFailure logs a request without an answer.
func (s *Server) logFailure(r *http.Request, failure *requestError, trace string) {
	level := slog.LevelDebug
	if s.repeats.first(time.Now(), failure.text) {
		level = slog.LevelWarn
	}
	s.log.LogAttrs(r.Context(), level, "request refused", slog.String("traceID", trace),
		slog.Int("httpStatus", failure.status), slog.String("error", failure.text), slog.String("peer", r.RemoteAddr))
}

const (
	// repeatsWindow is how long an equal answer is a repeat.
	repeatsWindow = 5 * time.Minute
	// repeatsSlots is how many answers are known to have been logged: more than
	// a large cluster has images. 128 KiB.
	repeatsSlots = 16 << 10
)

// repeats knows which answers were logged a short while ago. It forgets where
// two fall on one slot, which costs a line, and holds no text of anyone's.
type repeats struct {
	seed  maphash.Seed
	slots []atomic.Uint64
}

func newRepeats() repeats {
	return repeats{maphash.MakeSeed(), make([]atomic.Uint64, repeatsSlots)}
}

// first reports whether the parts were not seen in this window of time.
func (r *repeats) first(now time.Time, parts ...string) bool {
	const prime = 0x100000001b3 // FNV's, to tell the parts' order
	sum := uint64(now.UnixNano() / int64(repeatsWindow))
	for _, part := range parts {
		sum = sum*prime ^ maphash.String(r.seed, part)
	}
	return r.slots[sum%repeatsSlots].Swap(sum) != sum
}
