package provider

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// maxPooled is the largest buffer that is kept for the next answer.
const maxPooled = 64 << 10

var errNoSuchPath = &requestError{http.StatusNotFound, outcomeMalformed, "bad request: there is no such path; ask /v1/verify or /v1/mutate"}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// ServeHTTP answers one request: parse, ask, write. Whatever happens the
// answer is a ProviderResponse that admits nothing it should not.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	e, known := s.endpoints[r.URL.Path]
	name := endpointNone
	if known {
		name = e.name
	}
	s.metrics.inFlight.Add(1, name)
	defer s.metrics.inFlight.Add(-1, name)
	header := w.Header()
	header["Content-Type"] = []string{"application/json"}
	buffer := buffers.Get().(*[]byte)
	body := (*buffer)[:0]
	trace := s.newTrace()
	if s.options.Traces != nil {
		ctx, span := s.options.Traces.Request(r.Context(), name, trace)
		defer span.End()
		r = r.WithContext(ctx)
	}
	status, outcome := http.StatusOK, outcomeAnswered
	var answers []answer
	var err error = errNoSuchPath
	if known {
		body, answers, err = s.handle(w, r, e, body, start, trace)
	}
	if err != nil {
		failure := failureOf(err)
		status, outcome = failure.status, failure.outcome
		body = appendFailure(body[:0], failure.text)
		s.logFailure(r, failure, trace)
	}
	if s.draining.Load() {
		header["Connection"] = []string{"close"}
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // G705: it is JSON, for a program; and who left reads no error
	fresh := s.fresh(r.Context(), e, answers, start)
	if fresh || s.options.Decisions != nil {
		_ = http.NewResponseController(w).Flush() // Gatekeeper does not wait for our logs
	}
	if fresh {
		s.logAnswers(r.Context(), e, answers, trace)
	}
	s.recordDecisions(r.Context(), e, answers, trace)
	if cap(body) <= maxPooled {
		*buffer = body
		buffers.Put(buffer)
	}
	s.metrics.requests.Inc(name, outcome)
	s.metrics.requestSeconds.Observe(time.Since(start).Seconds(), name)
	s.ratify.observe(name, time.Since(start), answers)
}

// handle appends the answer to a request, or says why there is none. A panic
// is an error of this request only.
func (s *Server) handle(w http.ResponseWriter, r *http.Request, e *endpoint, b []byte, start time.Time, trace string) (_ []byte, _ []answer, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			err = &requestError{http.StatusInternalServerError, outcomePanic, "INTERNAL: answering crashed. Report this with the trace id " + trace}
			s.log.LogAttrs(r.Context(), slog.LevelError, "request crashed",
				slog.String("traceID", trace), slog.String("error", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
		}
	}()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return b, nil, &requestError{http.StatusMethodNotAllowed, outcomeMalformed, "bad request: ask with POST"}
	}
	size := min(max(r.ContentLength, 0), maxBody)
	if r.ContentLength < 0 {
		size = maxBody
	}
	defer s.bodies.Add(-size)
	if s.bodies.Add(size) > maxBodies {
		return b, nil, &requestError{http.StatusServiceUnavailable, outcomeOverloaded, "LIMIT_EXCEEDED: too many requests at once. Try again in a few seconds"}
	}
	body, err := readBody(w, r)
	if err != nil {
		return b, nil, err
	}
	keys, err := parseRequest(body)
	if err != nil {
		return b, nil, err
	}
	answers := s.answerAll(r.Context(), e, r.RemoteAddr, distinct(keys), start.Add(e.timeout))
	return e.write(b, answers, time.Now(), trace), answers, nil
}

func failureOf(err error) *requestError {
	var failure *requestError
	if errors.As(err, &failure) {
		return failure
	}
	return &requestError{http.StatusInternalServerError, outcomePanic, "INTERNAL: an unexpected error"}
}

// newTrace makes a trace id as W3C Trace Context has it: 16 bytes in hex.
func (s *Server) newTrace() string {
	var id [16]byte
	if _, err := io.ReadFull(s.options.Random, id[:]); err != nil {
		return "00000000000000000000000000000000" // no id is worth a denial
	}
	return hex.EncodeToString(id[:])
}
