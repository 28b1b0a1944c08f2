package provider

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// The documented defaults. Gatekeeper waits 2 s for a verify answer and 1 s
// for a mutate answer, as our Provider objects say; the rest of it is for the
// network and for writing.
const (
	DefaultVerifyTimeout = 1800 * time.Millisecond
	DefaultMutateTimeout = 800 * time.Millisecond
	// DefaultDrainDelay is how long after Shutdown new connections are still
	// served: endpoints take some seconds to leave every node's tables.
	DefaultDrainDelay = 5 * time.Second
)

const (
	// headerTimeout bounds TLS handshake and headers.
	headerTimeout = 5 * time.Second
	// transferTimeout bounds the reading of a body, and the writing of an
	// answer, beyond the deadline. It must not be less than a deadline: net/http
	// would take its end for the client's leaving.
	transferTimeout = 5 * time.Second
	// maxHeaders bounds the headers; Gatekeeper sends five short ones.
	maxHeaders = 16 << 10
)

// Options are what a Server is made of. Select is required; the zero value of
// the others is the documented default.
type Options struct {
	// Select gives the Chain that judges a request, or no Chain and a verdict:
	// REFUSED or EXEMPT. No I/O. Snapshot.For of the Snapshot that holds now.
	Select func(verifier.Request) (*verifier.Chain, verifier.Verdict)
	// Snapshot is the identity of what Select answers from now: while it is the same,
	// and the verdict holds, a key is answered with what was said before. Nothing is
	// remembered when it is nil.
	Snapshot func() any
	// AnswerBytes bounds what is remembered of answers: 64 MiB, some 20,000.
	AnswerBytes int64
	// Ready says why the provider is not ready yet; nil means it is. When the
	// func itself is nil the provider is ready at once.
	Ready func() error
	// Logger; none when nil.
	Logger *slog.Logger
	// RatifyMetrics counts by Ratify's names as well.
	RatifyMetrics bool
	// Traces takes a span for each request and each of its keys; nil: nobody does.
	Traces *telemetry.Traces
	// Decisions takes a line for each verification that is fresh, and for one in
	// DecisionRepeats of the others; nil: nobody does. 0 of DecisionRepeats is none.
	Decisions       *slog.Logger
	DecisionRepeats uint64
	// Answered is told of each digest that a verdict was given about; nil: nobody is. Safe
	// for concurrent use.
	Answered func(digest.Digest)
	// Metrics to add the door's to; its own when nil.
	Metrics *telemetry.Metrics
	// Random makes trace ids; crypto/rand when nil. Safe for concurrent use.
	Random io.Reader
	// VerifyTimeout and MutateTimeout are measured from the end of the headers.
	VerifyTimeout, MutateTimeout time.Duration
	// DrainDelay is how long Shutdown goes on serving; negative means not at all.
	DrainDelay time.Duration
}

// Server answers Gatekeeper. Safe for concurrent use.
type Server struct {
	options   Options
	log       *slog.Logger
	metrics   metrics
	repeats   repeats
	requests  requests
	endpoints map[string]*endpoint
	http      *http.Server
	draining  atomic.Bool
	repeated  atomic.Uint64 // decisions that were repeats
	ratify    *ratifyMetrics
	bodies    atomic.Int64 // bytes of request bodies in memory
}

// endpoint is one path: how a key is answered, and how the answers are written.
// Another protocol on other paths is another entry in Server.endpoints.
type endpoint struct {
	name    string
	timeout time.Duration
	answer  func(context.Context, string) answer
	write   func(b []byte, answers []answer, now time.Time, trace string) []byte
	queues  *queues
	// memory of answers, and value, which writes one of them; nil: there is none.
	memory *memory
	value  func(b []byte, a *answer) []byte
	// plain is set where no key may say whose pull secrets count: what asks there
	// sends images as Pods write them, brackets included.
	plain bool
}

// New makes a Server.
func New(options Options) (*Server, error) {
	if options.Select == nil {
		return nil, errors.New("provider: Select is required")
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = telemetry.NewMetrics(telemetry.Build{})
	}
	if options.Random == nil {
		options.Random = rand.Reader
	}
	if options.AnswerBytes <= 0 {
		options.AnswerBytes = 64 << 20
	}
	if options.VerifyTimeout <= 0 {
		options.VerifyTimeout = DefaultVerifyTimeout
	}
	if options.MutateTimeout <= 0 {
		options.MutateTimeout = DefaultMutateTimeout
	}
	if options.DrainDelay == 0 {
		options.DrainDelay = DefaultDrainDelay
	}
	s := &Server{options: options, log: options.Logger, metrics: newMetrics(options.Metrics), repeats: newRepeats()}
	relieved := func() { s.metrics.relieved.Inc() }
	verifying, mutating := newQueues(relieved), newQueues(relieved) // Gatekeeper has threads for each
	if options.RatifyMetrics {
		s.ratify = newRatifyMetrics(options.Metrics)
	}
	answers := func() *memory { return newMemory(options.Snapshot, options.AnswerBytes/2) }
	verify := &endpoint{endpointVerify, options.VerifyTimeout, s.verify, appendVerified, verifying, answers(), appendValue, false}
	verifyV1 := &endpoint{endpointVerify, options.VerifyTimeout, s.verify, appendVerified, verifying, verify.memory, appendValue, true}
	verifyV2 := &endpoint{endpointVerify, options.VerifyTimeout, s.verify, appendVerifiedV2, verifying, answers(), appendValueV2, true}
	mutate := &endpoint{endpointMutate, options.MutateTimeout, s.mutate, appendMutated, mutating, nil, nil, true}
	options.Metrics.Cache("answers", func() telemetry.CacheStats {
		return telemetry.CacheStats(verify.memory.replies.Stats().Plus(verifyV2.memory.replies.Stats()))
	})
	s.endpoints = map[string]*endpoint{
		"/v1/verify": verify, ratifyV1 + "/verify": verifyV1,
		"/v1/mutate": mutate, ratifyV1 + "/mutate": mutate, ratifyV2 + "/mutate": mutate,
		ratifyV2 + "/verify": verifyV2,
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // Gatekeeper speaks nothing else, and the idle rules are HTTP/1.1's
	longest := max(options.VerifyTimeout, options.MutateTimeout)
	s.http = &http.Server{
		Handler:           s,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       longest + transferTimeout,
		WriteTimeout:      longest + transferTimeout,
		IdleTimeout:       idleReused,
		MaxHeaderBytes:    maxHeaders,
		ConnState:         connState,
		ErrorLog:          slog.NewLogLogger(connectionLog{s}, slog.LevelWarn),
	}
	return s, nil
}

// Serve answers on the listener over TLS, until Shutdown; then it returns nil.
func (s *Server) Serve(listener net.Listener, config *tls.Config) error {
	err := s.http.Serve(tls.NewListener(newListener(listener), config))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops gracefully. First the provider says that it is not ready, and
// ends each connection with its next answer; after the drain delay it takes no
// more connections and waits for the answers under way. When ctx ends first,
// the connections are cut.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	if s.options.DrainDelay > 0 {
		delay := time.NewTimer(s.options.DrainDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-ctx.Done():
		}
	}
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}
