package notation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/revocation/result"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// chainTimeout bounds the questions about one chain, of which a certificate
	// may name many, one asked after the other.
	chainTimeout = 6 * time.Second
	// ocspTimeout and crlTimeout bound one question. They are notation's own,
	// and above an admission's deadline: what comes too late for the one that
	// asked is there for the next.
	ocspTimeout = 2 * time.Second
	crlTimeout  = 5 * time.Second
	// maxOCSPAge is how long an answer is believed, whatever it says itself: it
	// is why one asks instead of reading a list.
	maxOCSPAge = 10 * time.Minute
	// maxOCSPBytes bounds an OCSP answer; with a certificate it has 2 KiB.
	maxOCSPBytes = 20 << 10
	// maxCRLBytes bounds a CRL. The largest of public authorities have less;
	// one takes about ten times its size while it is read.
	maxCRLBytes = 16 << 20
	// defaultRevocationBytes is what CRLs and OCSP answers may take in memory.
	defaultRevocationBytes = 64 << 20
	// ocspShare is the part of it that OCSP answers may take.
	ocspShare = 8
	// crlEntryBytes is what one revoked certificate takes in memory once read.
	crlEntryBytes = 320
	// maxRedirects bounds those of one question.
	maxRedirects = 3
)

// Revocation asks which certificates were revoked, and remembers. There is one
// in a process, with its Bounded ones: what it knows outlives all Verifiers and is
// shared by them. Safe for concurrent use.
type Revocation struct {
	client *http.Client
	// reach is the same for those that reach the same hosts; empty: all.
	reach string
	*answers
}

// answers are what is remembered, and what is being asked. Each key begins with the
// reach, so that none is read by who could not have asked for it.
type answers struct {
	count   func(ctx context.Context, host string, bytes int64) (release func(), err error)
	large   chan struct{} // has room for one: a large CRL is parsed
	bounded func(hosts []string) http.RoundTripper

	crls       *cache.Cache[revocationList]
	crlFlight  flight.Group[revocationList]
	ocsps      *cache.Cache[ocspAnswer]
	ocspFlight flight.Group[ocspAnswer]
}

// RevocationOptions are what a Revocation is made of.
type RevocationOptions struct {
	// Transport reaches CRL and OCSP servers. Certificates say where those are,
	// so it must refuse addresses that nobody outside may have us call.
	Transport http.RoundTripper
	// Bounded makes the transport for certificates that a tenant trusts: it must call
	// no private address but those of the hosts. Nil: none is called for them.
	Bounded func(hosts []string) http.RoundTripper
	// Count waits until so many bytes of a host may be held in memory, and gives the
	// func that ends that; nil: as many as there are.
	Count func(ctx context.Context, host string, bytes int64) (release func(), err error)
	// CacheBytes bounds what is remembered; zero is 64 MiB.
	CacheBytes int64
}

// NewRevocation makes a Revocation.
func NewRevocation(o RevocationOptions) (*Revocation, error) {
	if o.Transport == nil {
		return nil, errors.New("revocation needs a transport that is safe to call what certificates name")
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultRevocationBytes
	}
	if o.Count == nil {
		o.Count = func(context.Context, string, int64) (func(), error) { return func() {}, nil }
	}
	if o.Bounded == nil {
		o.Bounded = func([]string) http.RoundTripper { return notCalled{} }
	}
	return &Revocation{client: client(o.Transport), answers: &answers{
		count: o.Count, large: make(chan struct{}, 1),
		bounded: o.Bounded,
		crls:    cache.New[revocationList](o.CacheBytes - o.CacheBytes/ocspShare),
		ocsps:   cache.New[ocspAnswer](o.CacheBytes / ocspShare),
	}}, nil
}

func client(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: limitedTransport{transport}, CheckRedirect: fewRedirects}
}

// Bounded gives a Revocation for certificates that a tenant trusts, who so has it call
// what they name: it calls public addresses, and private ones of the hosts alone. It
// shares memory with this one, and no answers.
func (r *Revocation) Bounded(hosts []string) *Revocation {
	hosts = slices.Compact(slices.Sorted(slices.Values(hosts)))
	return &Revocation{client: client(r.bounded(hosts)), reach: "bounded " + strings.Join(hosts, " "), answers: r.answers}
}

// fingerprint tells reaches apart; empty: all.
func (r *Revocation) fingerprint() string {
	if r == nil || r.reach == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(r.reach))
	return " " + hex.EncodeToString(sum[:])
}

// notCalled calls nobody.
type notCalled struct{}

func (notCalled) RoundTrip(request *http.Request) (*http.Response, error) {
	return nil, fmt.Errorf("%s is not called for a tenant's certificates", request.URL.Host)
}

func fewRedirects(_ *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// check asks about each certificate of the chain and says until when the
// answers hold, zero for ever. signedAt, where it is authentic, lets pass what
// was revoked for the time after it.
func (r *Revocation) check(ctx context.Context, p purpose.Purpose, chain []*x509.Certificate, signedAt time.Time) (time.Time, *verifier.Error) {
	ctx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	q := &inquiry{revocation: r, chain: chain, questions: questionsOf(chain)}
	validator, err := revocation.NewWithOptions(revocation.Options{
		OCSPHTTPClient: &http.Client{Transport: q}, CRLFetcher: q, CertChainPurpose: p,
	})
	if err != nil {
		return time.Time{}, unexplained(err)
	}
	results, err := validator.ValidateContext(ctx, revocation.ValidateContextOptions{CertChain: chain, AuthenticSigningTime: signedAt})
	if err != nil {
		return time.Time{}, unexplained(err)
	}
	cause := revocationCause(ctx, p, chain, results)
	if host := q.privateHost(); host != "" && cause != nil && cause.Reason == verifier.ReasonRevocationUnavailable {
		cause.Remedy = "Have " + clip(host) + " listed in privateHosts of the ClusterTrustPolicy: it is at a private address, and a TrustPolicy alone reaches none"
	}
	return q.earliest(), cause
}

// revocationCause is the answer that counts: one revoked certificate, or else
// one of which nothing could be learnt.
func revocationCause(ctx context.Context, p purpose.Purpose, chain []*x509.Certificate, results []*result.CertRevocationResult) *verifier.Error {
	whose, remedy := "the signer's certificate", "Sign this digest with a certificate that is not revoked"
	if p == purpose.Timestamping {
		whose, remedy = "the timestamp's certificate", "Sign this digest again with a timestamp of another authority"
	}
	var unknown *verifier.Error
	for i, r := range results {
		switch r.Result {
		case result.ResultOK, result.ResultNonRevokable:
		case result.ResultRevoked:
			return &verifier.Error{
				Reason: verifier.ReasonCertificateRevoked, Message: fmt.Sprintf("%s %q is revoked", whose, briefly(chain[i])), Remedy: remedy,
			}
		default:
			if unknown != nil {
				continue
			}
			server, cause := lastFailure(r)
			unknown = &verifier.Error{
				Reason:  verifier.ReasonRevocationUnavailable,
				Message: fmt.Sprintf("%s gave no good answer on whether %s %q is revoked", server, whose, briefly(chain[i])),
				Remedy:  "Check that it answers and can be reached from here, then try again",
				Err:     cause,
			}
			if ctx.Err() != nil {
				unknown.Err = errors.Join(context.Cause(ctx), cause)
			}
		}
	}
	return unknown
}

// lastFailure says who did not answer well, and how.
func lastFailure(r *result.CertRevocationResult) (server string, cause error) {
	server = "the authority"
	for _, s := range r.ServerResults {
		if s == nil || s.Error == nil {
			continue
		}
		cause = redact.Error(s.Error) // a certificate may name a URL with a secret in it
		if u, err := url.Parse(s.Server); err == nil && u.Host != "" {
			server = clip(u.Host)
		}
	}
	return server, cause
}

// notAsked is the answer to notation-go's own questions about revocation: we
// ask them ourselves, later.
type notAsked struct{}

func (notAsked) ValidateContext(_ context.Context, o revocation.ValidateContextOptions) ([]*result.CertRevocationResult, error) {
	results := make([]*result.CertRevocationResult, len(o.CertChain))
	for i := range results {
		results[i] = &result.CertRevocationResult{Result: result.ResultNonRevokable}
	}
	return results, nil
}

var (
	_ crl.Fetcher       = (*inquiry)(nil)
	_ http.RoundTripper = (*inquiry)(nil)
)
