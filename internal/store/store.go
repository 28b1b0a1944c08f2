// Package store is the cellar: it gives OCI content by descriptor, from any
// registry, through the credential and options of one policy. Limits, retries,
// budgets, caches and shared work are here, once.
//
// It judges nothing. It promises that every byte matches its descriptor, that
// every list is bounded, that a referrer's subject is the subject, and that
// every error says in words what happened and what to do.
//
// oras-go fetches content by digest, for its care with headers. Lists, tags,
// sign-in and retries are ours: its lists are decoded without a bound on
// entries and its memory of the referrers API never expires, its tokens are
// kept until refused and asked for after a refusal, and its retries shorten
// Retry-After.
package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
)

// Options are the process's. A zero field means its default.
type Options struct {
	// Budget ends a piece of shared work, its retries included: 10 s, the time
	// that a decision may go on behind an answer that had to leave.
	Budget time.Duration
	// AttemptTimeout ends one attempt, from dialling to the last byte: 5 s.
	AttemptTimeout time.Duration
	// Attempts is how often a request is tried: 10, so that of 10,000 images none is
	// refused where a fifth of the requests fails. Of a host that fails all requests,
	// half of that.
	Attempts int
	// RetryBase is the pause after the first failure: 25 ms. It doubles with
	// each, with jitter, up to 200 ms, so that ten tries fit in an admission's 1.8 s.
	RetryBase time.Duration
	// ContactWait is how long a request waits for the first one ever to its host,
	// which learns how to sign in for all: 250 ms, some round trips. One that
	// hangs must not take the others with it.
	ContactWait time.Duration
	// HedgeAfter is how long a question stays without an answer before it is asked a
	// second time, over another connection: 700 ms, so that an admission, which has
	// 1.8 s, does not end with one dead connection. Negative: never.
	HedgeAfter time.Duration
	// MaxThrottleWait is the longest that a request waits for a host's
	// Retry-After: 1 s, as nobody who asks about an image waits longer. Beyond
	// it the answer is REGISTRY_THROTTLED at once.
	MaxThrottleWait time.Duration

	// TagTTL is for tag → digest: 10 s.
	TagTTL time.Duration
	// ListTTL is for the candidates of a digest: 60 s. EmptyListTTL is for none
	// found, so that a signature made later is soon seen: 5 s.
	ListTTL, EmptyListTTL time.Duration
	// ReferrersAPITTL is for whether a host has the referrers API: 10 min.
	ReferrersAPITTL time.Duration

	// ContentBytes bounds blobs and manifests in memory: 64 MiB for both.
	// ListBytes bounds lists of candidates: 16 MiB.
	ContentBytes, ListBytes int64
	// InFlightBytes bounds what is read from registries, disks and shared caches, and
	// held while it is judged, at one time beside these caches: 64 MiB, and 16 MiB at
	// least. A host has at most half of it.
	InFlightBytes int64
	// Content keeps blobs and manifests beyond the process; nil: nothing does.
	Content *Directory
	// Shared is evidence that other replicas have read; nil: there are none.
	Shared *Shared

	// AllowLoopback lets the store dial loopback addresses. For development.
	AllowLoopback bool
	// Proxy says which proxy a request goes by; nil: the one of the variables
	// HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	Proxy func(*http.Request) (*url.URL, error)
	// Jitter gives numbers in [0, 1): math/rand.
	Jitter func() float64
	// Observe is told of each exchange when it is over. It must be quick.
	Observe func(Exchange)
	// UserAgent is sent with each request: "countersign".
	UserAgent string
}

// Exchange is one attempt of one request, as metrics want it.
type Exchange struct {
	Host string
	// Kind is what was asked for: "manifest", "tag", "blob", "referrers", "token".
	Kind string
	// Status is 0 where there was no answer.
	Status   int
	Duration time.Duration
	// Attempt counts from 1.
	Attempt int
}

const maxRetryPause = 200 * time.Millisecond

func (o Options) withDefaults() Options {
	set(&o.Budget, 10*time.Second)
	set(&o.AttemptTimeout, 5*time.Second)
	set(&o.Attempts, 10)
	set(&o.RetryBase, 25*time.Millisecond)
	set(&o.ContactWait, 250*time.Millisecond)
	set(&o.HedgeAfter, 700*time.Millisecond)
	set(&o.MaxThrottleWait, time.Second)
	set(&o.TagTTL, 10*time.Second)
	set(&o.ListTTL, time.Minute)
	set(&o.EmptyListTTL, 5*time.Second)
	set(&o.ReferrersAPITTL, 10*time.Minute)
	set(&o.ContentBytes, 64<<20)
	set(&o.ListBytes, 16<<20)
	set(&o.InFlightBytes, defaultInFlight)
	set(&o.UserAgent, "countersign")
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.Jitter == nil {
		o.Jitter = mathrand.Float64
	}
	if o.Observe == nil {
		o.Observe = func(Exchange) {}
	}
	return o
}

func set[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// Store is what all views of a process share: connections, caches and work
// under way. Every key of something that can change holds its view's id;
// content is kept by digest alone, because a view learns a digest only from
// what it may read itself. Safe for concurrent use.
type Store struct {
	options Options
	// idKey makes view ids useless outside this process, and the replicas that it
	// shares with: they are made from credentials.
	idKey [32]byte

	manifests *cache.Cache[*manifest] // by digest
	blobs     *cache.Cache[[]byte]    // by digest
	tags      *cache.Cache[named]     // by view, repository:tag
	subjects  *cache.Cache[struct{}]  // by view, repository@digest: it exists
	lists     *cache.Cache[*part]     // by view, repository@digest, place

	gates        *cache.Cache[gate]          // by view, host
	referrersAPI *cache.Cache[bool]          // by view, host: there is one
	challenges   *cache.Cache[challenge]     // by view, host
	tokens       *cache.Cache[authorization] // by view, host, scope

	manifestFlights flight.Group[*manifest]
	blobFlights     flight.Group[[]byte]
	tagFlights      flight.Group[named]
	subjectFlights  flight.Group[struct{}]
	listFlights     flight.Group[*part]
	tokenFlights    flight.Group[authorization]

	pace         *pace
	availability *availability
	// inFlight bounds the bytes that are read and judged.
	inFlight *inFlight
	proxies  sync.Map // addresses of the proxies in use

	mu         sync.Mutex // guards all below
	transports map[string]*http.Transport
	contacts   map[string]chan struct{} // by view, host: the first request, under way
}

// New makes a store. It starts nothing.
func New(options Options) *Store {
	options = options.withDefaults()
	s := &Store{
		options:      options,
		manifests:    cache.New[*manifest](options.ContentBytes / 2),
		blobs:        cache.New[[]byte](options.ContentBytes / 2),
		tags:         cache.New[named](tagBytes),
		subjects:     cache.New[struct{}](tagBytes),
		lists:        cache.New[*part](options.ListBytes),
		gates:        cache.New[gate](hostBytes),
		referrersAPI: cache.New[bool](hostBytes),
		challenges:   cache.New[challenge](hostBytes),
		tokens:       cache.New[authorization](tokenBytes),
		pace:         newPace(),
		availability: newAvailability(),
		inFlight:     newInFlight(options.InFlightBytes),
		transports:   map[string]*http.Transport{},
		contacts:     map[string]chan struct{}{},
	}
	_, _ = rand.Read(s.idKey[:]) // never fails, says its documentation
	switch {
	case options.Shared != nil:
		s.idKey = options.Shared.viewKey()
	case options.Content != nil: // so that records are found again after a restart
		s.idKey = [sha256.Size]byte(options.Content.recordMAC("view", nil))
	}
	return s
}

// Stats tells how each cache fares, by its name.
func (s *Store) Stats() map[string]cache.Stats {
	stats := map[string]cache.Stats{
		"manifests":  s.manifests.Stats(),
		"blobs":      s.blobs.Stats(),
		"tags":       s.tags.Stats(),
		"candidates": s.lists.Stats(),
		"tokens":     s.tokens.Stats(),
	}
	if s.options.Content != nil {
		stats["disk"] = s.options.Content.Stats()
	}
	if s.options.Shared != nil {
		stats["shared"] = s.options.Shared.Stats()
	}
	return stats
}

// CloseIdleConnections lets go of connections that nobody uses.
func (s *Store) CloseIdleConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, transport := range s.transports {
		transport.CloseIdleConnections()
	}
}

// transport gives the connections for one set of CAs, nil: the system's, and one
// certificate of ours. A connection is never shared between two, so that no view
// talks over a connection whose certificate it would refuse, or as somebody else.
func (s *Store) transport(name string, roots *x509.CertPool, ours *tls.Certificate, private bool) *http.Transport {
	may := addresses{s.options.AllowLoopback, private}
	name = fmt.Sprint(private, " ", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.transports[name]; ok {
		return t
	}
	if len(s.transports) >= maxTransports { // CAs were renewed many times; views in use keep theirs
		for _, t := range s.transports {
			t.CloseIdleConnections()
		}
		clear(s.transports)
	}
	t := &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) { return s.proxy(req, may) },
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return s.dial(ctx, network, address, may)
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    s.options.AttemptTimeout,
		ForceAttemptHTTP2:      true,
		MaxConnsPerHost:        reserve * maxHostInFlight, // views share them; see pace
		MaxIdleConnsPerHost:    lookAhead,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		// A compressed manifest could expand to any size, and the specification
		// compresses nothing.
		DisableCompression: true,
		HTTP2:              &http.HTTP2Config{MaxReceiveBufferPerStream: maxStreamBytes, MaxReceiveBufferPerConnection: maxConnBytes},
	}
	if ours != nil {
		t.TLSClientConfig.Certificates = []tls.Certificate{*ours}
	}
	s.transports[name] = t
	return t
}
