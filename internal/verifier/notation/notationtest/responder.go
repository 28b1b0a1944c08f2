package notationtest

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ocsp"
)

// Responder tells which certificates of its issuer are revoked. It serves a
// CRL on every path that ends in .crl, and OCSP on all others. Safe for
// concurrent use once it serves.
type Responder struct {
	Issuer *Certificate
	// OCSPSigner answers in the issuer's place, where it is set.
	OCSPSigner *Certificate
	// Validity is how long a CRL and an OCSP answer hold; zero is an hour.
	Validity time.Duration
	// Age is how long ago they were made; zero is a minute.
	Age time.Duration
	// Delay, where it is set, is run before each answer, with the request's
	// context: a server that hangs.
	Delay func(context.Context)
	// Status, where it is not zero, is answered instead.
	Status int
	// Invalid, where it is set before Revoke, is the time since when the key of what
	// is revoked was not safe (RFC 5280, 5.3.2); a CRL holds it.
	Invalid time.Time

	mu      sync.Mutex // guards all below
	revoked map[string]x509.RevocationListEntry
	unknown map[string]bool
	crls    int
	ocsps   int
	number  int64
}

// Revoke marks the certificate as revoked from now on.
func (r *Responder) Revoke(c *x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.revoked == nil {
		r.revoked = map[string]x509.RevocationListEntry{}
	}
	entry := x509.RevocationListEntry{
		SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Second), ReasonCode: 1, // keyCompromise
	}
	if !r.Invalid.IsZero() {
		entry.ExtraExtensions = []pkix.Extension{{
			Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: must(asn1.MarshalWithParams(r.Invalid.UTC().Truncate(time.Second), "generalized")),
		}}
	}
	r.revoked[c.SerialNumber.String()] = entry
}

// Forget makes OCSP answer "unknown" for the certificate.
func (r *Responder) Forget(c *x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unknown == nil {
		r.unknown = map[string]bool{}
	}
	r.unknown[c.SerialNumber.String()] = true
}

// CRLs is how many CRLs it was asked for.
func (r *Responder) CRLs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.crls
}

// OCSPs is how many OCSP questions it was asked.
func (r *Responder) OCSPs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ocsps
}

// ServeHTTP answers.
func (r *Responder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	crl := strings.HasSuffix(request.URL.Path, ".crl")
	r.mu.Lock()
	if crl {
		r.crls++
	} else {
		r.ocsps++
	}
	r.mu.Unlock()
	if r.Delay != nil {
		r.Delay(request.Context())
	}
	if r.Status != 0 {
		http.Error(w, "out of order", r.Status)
		return
	}
	if crl {
		w.Header().Set("Content-Type", "application/pkix-crl")
		_, _ = w.Write(r.CRL())
		return
	}
	question, err := ocspQuestion(request)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/ocsp-response")
	_, _ = w.Write(r.answer(question))
}

// CRL is the list as it is now.
func (r *Responder) CRL() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.number++
	made, until := r.window()
	list := &x509.RevocationList{Number: big.NewInt(r.number), ThisUpdate: made, NextUpdate: until}
	for _, entry := range r.revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, entry)
	}
	return must(x509.CreateRevocationList(rand.Reader, list, r.Issuer.Certificate, r.Issuer.Key))
}

func (r *Responder) window() (made, until time.Time) {
	age, validity := r.Age, r.Validity
	if age == 0 {
		age = time.Minute
	}
	if validity == 0 {
		validity = time.Hour
	}
	made = time.Now().Add(-age)
	return made, made.Add(validity)
}

// ocspQuestion reads RFC 6960 appendix A: GET with the request in the path, or
// POST with it in the body.
func ocspQuestion(request *http.Request) (*ocsp.Request, error) {
	if request.Method == http.MethodPost {
		body, err := io.ReadAll(io.LimitReader(request.Body, 1<<16))
		if err != nil {
			return nil, err
		}
		return ocsp.ParseRequest(body)
	}
	// Base64 has slashes and the client escapes it once more, so the last
	// segment of the path as it was sent is the question.
	path := request.URL.EscapedPath()
	encoded, err := url.QueryUnescape(path[strings.LastIndex(path, "/")+1:])
	if err != nil {
		return nil, err
	}
	if strings.Contains(encoded, "%") {
		if encoded, err = url.QueryUnescape(encoded); err != nil {
			return nil, err
		}
	}
	der, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	return ocsp.ParseRequest(der)
}

func (r *Responder) answer(question *ocsp.Request) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	made, until := r.window()
	serial := question.SerialNumber.String()
	answer := ocsp.Response{
		Status: ocsp.Good, SerialNumber: question.SerialNumber, ThisUpdate: made, NextUpdate: until, IssuerHash: crypto.SHA1,
	}
	if entry, revoked := r.revoked[serial]; revoked {
		answer.Status, answer.RevokedAt, answer.RevocationReason = ocsp.Revoked, entry.RevocationTime, entry.ReasonCode
	} else if r.unknown[serial] {
		answer.Status = ocsp.Unknown
	}
	signer := r.Issuer
	if r.OCSPSigner != nil {
		signer = r.OCSPSigner
		answer.Certificate = signer.Certificate
	}
	return must(ocsp.CreateResponse(r.Issuer.Certificate, signer.Certificate, answer, signer.Key))
}

// Network is an http.RoundTripper that reaches its handlers by host name and
// nothing else, so that tests need no socket and run on a fake clock.
type Network map[string]http.Handler

// RoundTrip hands the request to the handler of its host.
func (n Network) RoundTrip(request *http.Request) (*http.Response, error) {
	handler, ok := n[request.URL.Host]
	if !ok {
		return nil, fmt.Errorf("no route to %s", request.URL.Host)
	}
	if err := request.Context().Err(); err != nil {
		return nil, err
	}
	if request.Body == nil {
		request.Body = http.NoBody
	}
	recorder := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		handler.ServeHTTP(recorder, request)
	}()
	select {
	case <-done:
		return recorder.Result(), nil
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
}
