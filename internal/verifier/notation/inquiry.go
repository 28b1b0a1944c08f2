package notation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/crl"
	"golang.org/x/crypto/ocsp"
)

// inquiry is one check of one chain. notation-core-go asks through it, for
// CRLs as its Fetcher and for OCSP as its HTTP transport, and it answers from
// what the Revocation remembers. Only what its issuer signed is remembered:
// the answers come over plain HTTP.
type inquiry struct {
	revocation *Revocation
	chain      []*x509.Certificate
	questions  map[string]int // an OCSP request to the certificate it is about

	mu      sync.Mutex // guards all below; certificates are asked about in parallel
	until   time.Time
	private string // a host that was not called, because nobody has listed it
}

type revocationList struct {
	bundle *crl.Bundle
	until  time.Time
}

type ocspAnswer struct {
	body  []byte
	until time.Time // zero: not to be remembered
}

func (q *inquiry) bound(t time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.until.IsZero() || t.Before(q.until) {
		q.until = t
	}
}

func (q *inquiry) earliest() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.until
}

// failed notes an error that says which host was not called.
func (q *inquiry) failed(err error) error {
	var private interface{ PrivateHost() string }
	if errors.As(err, &private) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.private = private.PrivateHost()
	}
	return err
}

func (q *inquiry) privateHost() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.private
}

// Fetch gives a CRL, as crl.Fetcher promises.
func (q *inquiry) Fetch(ctx context.Context, address string) (*crl.Bundle, error) {
	issuers := q.issuersBehind(address)
	if len(issuers) == 0 {
		return nil, errors.New("not a CRL of this chain")
	}
	key := q.revocation.reach + "\n" + address
	for _, issuer := range issuers {
		key += fmt.Sprintf("\n%x", sha256.Sum256(issuer.Raw))
	}
	list, ok := q.revocation.crls.Get(key)
	if !ok {
		var err error
		list, err = q.revocation.crlFlight.Do(ctx, key, crlTimeout, func(ctx context.Context) (revocationList, error) {
			return q.revocation.fetchCRL(ctx, key, address, issuers)
		})
		if err != nil {
			return nil, q.failed(err)
		}
	}
	q.bound(list.until)
	return list.bundle, nil
}

// issuersBehind are those whose CRL is at the address, one but in odd chains.
func (q *inquiry) issuersBehind(address string) []*x509.Certificate {
	var issuers []*x509.Certificate
	for i, c := range q.chain[:len(q.chain)-1] {
		if slices.Contains(c.CRLDistributionPoints, address) {
			issuers = append(issuers, q.chain[i+1])
		}
	}
	return issuers
}

func (r *Revocation) fetchCRL(ctx context.Context, key, address string, issuers []*x509.Certificate) (revocationList, error) {
	fetcher, err := crl.NewHTTPFetcher(r.client)
	if err != nil {
		return revocationList{}, err
	}
	ctx, done := r.withListBytes(ctx)
	defer done()
	bundle, err := fetcher.Fetch(ctx, address)
	if err != nil {
		return revocationList{}, err
	}
	list := revocationList{bundle: bundle, until: bundle.BaseCRL.NextUpdate}
	size := crlSize(bundle.BaseCRL)
	if bundle.DeltaCRL != nil {
		size += crlSize(bundle.DeltaCRL)
		if bundle.DeltaCRL.NextUpdate.Before(list.until) {
			list.until = bundle.DeltaCRL.NextUpdate
		}
	}
	for _, issuer := range issuers {
		if bundle.BaseCRL.CheckSignatureFrom(issuer) != nil || bundle.DeltaCRL != nil && bundle.DeltaCRL.CheckSignatureFrom(issuer) != nil {
			return list, nil // notation-core-go says what is wrong with it
		}
	}
	r.crls.Put(key, list, size, list.until)
	return list, nil
}

func crlSize(list *x509.RevocationList) int64 {
	return int64(len(list.Raw)) + int64(len(list.RevokedCertificateEntries))*crlEntryBytes
}

// questionsOf spells the OCSP requests that notation-core-go may send for a
// chain, so that each answer is held to the certificate it was asked for.
func questionsOf(chain []*x509.Certificate) map[string]int {
	questions := map[string]int{}
	for i, c := range chain[:len(chain)-1] {
		if len(c.OCSPServer) == 0 {
			continue
		}
		der, err := ocsp.CreateRequest(c, chain[i+1], &ocsp.RequestOptions{Hash: crypto.SHA1}) // as notation-core-go asks, and all responders understand
		if err != nil {
			continue // notation-core-go fails on it too
		}
		for _, server := range c.OCSPServer {
			questions[question(http.MethodPost, server, der)] = i
			if get, err := url.JoinPath(server, url.QueryEscape(base64.StdEncoding.EncodeToString(der))); err == nil {
				questions[question(http.MethodGet, get, nil)] = i
			}
		}
	}
	return questions
}

func question(method, address string, body []byte) string {
	if u, err := url.Parse(address); err == nil {
		address = u.String()
	}
	return method + " " + address + " " + string(body)
}

// RoundTrip answers an OCSP request, as http.RoundTripper promises.
func (q *inquiry) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		defer func() { _ = request.Body.Close() }()
		var err error
		if body, err = io.ReadAll(io.LimitReader(request.Body, maxOCSPBytes)); err != nil {
			return nil, err
		}
	}
	asked := question(request.Method, request.URL.String(), body)
	i, ok := q.questions[asked]
	if !ok {
		return nil, errors.New("not a question about this chain")
	}
	certificate, issuer := q.chain[i], q.chain[i+1]
	key := fmt.Sprintf("%s\n%s\n%x\n%x", q.revocation.reach, asked, sha256.Sum256(certificate.Raw), sha256.Sum256(issuer.Raw))
	answer, ok := q.revocation.ocsps.Get(key)
	if !ok {
		var err error
		answer, err = q.revocation.ocspFlight.Do(request.Context(), key, ocspTimeout, func(ctx context.Context) (ocspAnswer, error) {
			answer, err := q.revocation.askOCSP(ctx, request, body, certificate, issuer)
			if err == nil && !answer.until.IsZero() {
				q.revocation.ocsps.Put(key, answer, int64(len(answer.body)), answer.until)
			}
			return answer, err
		})
		if err != nil {
			return nil, q.failed(err)
		}
	}
	if !answer.until.IsZero() {
		q.bound(answer.until)
	}
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(answer.body)), ContentLength: int64(len(answer.body)), Request: request,
	}, nil
}

func (r *Revocation) askOCSP(ctx context.Context, original *http.Request, body []byte, certificate, issuer *x509.Certificate) (ocspAnswer, error) {
	//nolint:gosec // a trusted certificate names the address, and the transport refuses what must not be called
	request, err := http.NewRequestWithContext(ctx, original.Method, original.URL.String(), bytes.NewReader(body))
	if err != nil {
		return ocspAnswer{}, err
	}
	request.Header = original.Header.Clone()
	response, err := r.client.Do(request) //nolint:gosec // as above
	if err != nil {
		return ocspAnswer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return ocspAnswer{}, fmt.Errorf("status %d", response.StatusCode)
	}
	der, err := io.ReadAll(io.LimitReader(response.Body, maxOCSPBytes+1))
	if err != nil {
		return ocspAnswer{}, err
	}
	if len(der) > maxOCSPBytes {
		return ocspAnswer{}, fmt.Errorf("the answer is larger than %d bytes", maxOCSPBytes)
	}
	return readOCSP(der, certificate, issuer)
}

// readOCSP holds an answer to what neither notation-core-go nor its OCSP
// parser looks at: who may answer. A responder's certificate must be made for
// it, or whoever holds any certificate of the issuer, a revoked one too, could
// answer for it (RFC 6960 section 4.2.2.2).
func readOCSP(der []byte, certificate, issuer *x509.Certificate) (ocspAnswer, error) {
	answer, err := ocsp.ParseResponseForCert(der, certificate, issuer)
	if err != nil {
		return ocspAnswer{}, err
	}
	now := time.Now()
	if responder := answer.Certificate; responder != nil && !responder.Equal(issuer) {
		if !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return ocspAnswer{}, fmt.Errorf("answered by %q, whose certificate is not for OCSP", nameOf(responder))
		}
		if now.Before(responder.NotBefore) || now.After(responder.NotAfter) {
			return ocspAnswer{}, fmt.Errorf("answered by %q, whose certificate is not valid now", nameOf(responder))
		}
	}
	a := ocspAnswer{body: der}
	if answer.Status == ocsp.Good || answer.Status == ocsp.Revoked {
		a.until = now.Add(maxOCSPAge)
		if answer.NextUpdate.Before(a.until) {
			a.until = answer.NextUpdate
		}
	}
	return a, nil
}
