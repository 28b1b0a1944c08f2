package registrytest

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// Request is one request as it arrived, and the status it got.
type Request struct {
	Method, Path, Query string
	// Authorization is the header as sent.
	Authorization string
	Status        int
	// begun and answered are read from a counter that all requests advance, an
	// order without a clock. answered is 0 until the first byte of the body goes
	// out, or the request ends: a client may go on before the server has returned.
	begun, answered int
	done            bool
}

// String is the request as a test says it: "GET /v2/app/manifests/v1 200".
func (q Request) String() string { return fmt.Sprintf("%s %s %d", q.Method, q.Path, q.Status) }

type journal struct {
	mu          sync.Mutex // guards all below
	requests    []*Request
	clock       int
	inFlight    int
	maxInFlight int
}

func (l *journal) begin(req *http.Request) *Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	q := &Request{Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery, Authorization: req.Header.Get("Authorization"), begun: l.clock}
	l.requests = append(l.requests, q)
	l.inFlight++
	l.maxInFlight = max(l.maxInFlight, l.inFlight)
	return q
}

func (l *journal) answered(q *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q.answered == 0 {
		l.clock++
		q.answered = l.clock
	}
}

func (l *journal) end(q *Request, status int) {
	l.answered(q)
	l.mu.Lock()
	defer l.mu.Unlock()
	q.Status, q.done = status, true
	l.inFlight--
}

// Requests gives all requests since the start or the last Reset, in the order
// of their arrival, token requests included.
func (r *Registry) Requests() []Request {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	list := make([]Request, len(r.journal.requests))
	for i, q := range r.journal.requests {
		list[i] = *q
	}
	return list
}

// MaxInFlight tells how many requests were under way at once, at most.
func (r *Registry) MaxInFlight() int {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	return r.journal.maxInFlight
}

// InFlight tells how many requests are under way.
func (r *Registry) InFlight() int {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	return r.journal.inFlight
}

// RoundTrips tells how many of the requests waited for one another: the
// longest chain in which each began after the one before was answered.
func (r *Registry) RoundTrips() int {
	list := slices.DeleteFunc(r.Requests(), func(q Request) bool { return q.answered == 0 })
	slices.SortFunc(list, func(a, b Request) int { return a.answered - b.answered })
	chain, end := 0, 0
	for _, q := range list {
		if q.begun > end {
			chain, end = chain+1, q.answered
		}
	}
	return chain
}

// Reset forgets the requests that were recorded; those under way are kept.
func (r *Registry) Reset() {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	r.journal.requests = slices.DeleteFunc(r.journal.requests, func(q *Request) bool { return q.done })
	r.journal.maxInFlight = r.journal.inFlight
}

// statusWriter tells the record when and with what the request was answered.
type statusWriter struct {
	http.ResponseWriter
	status   int
	answered func()
}

func (w *statusWriter) Write(data []byte) (int, error) {
	w.answered()
	return w.ResponseWriter.Write(data)
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find Flush and Hijack.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
