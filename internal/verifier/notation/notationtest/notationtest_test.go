package notationtest_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	"github.com/notaryproject/notation-core-go/revocation/crl"
	"github.com/notaryproject/notation-core-go/revocation/result"
	notationgo "github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/signer"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/notaryproject/tspclient-go"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

type stores map[truststore.Type][]*x509.Certificate

func (s stores) GetCertificates(_ context.Context, t truststore.Type, _ string) ([]*x509.Certificate, error) {
	return s[t], nil
}

// What is made here is what notation-go, with nothing of ours between, accepts.
func TestNotationGoAcceptsTheFixtures(t *testing.T) {
	for _, keyType := range []notationtest.KeyType{notationtest.RSA2048, notationtest.ECDSA256, notationtest.ECDSA384} {
		root := notationtest.NewRoot(notationtest.CertificateOptions{KeyType: keyType})
		leaf := root.NewIntermediate(notationtest.CertificateOptions{}).NewSigner(notationtest.CertificateOptions{KeyType: keyType})
		tsaRoot := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name("tsa root")})
		tsa := &notationtest.TSA{Certificate: tsaRoot.NewTSA(notationtest.CertificateOptions{KeyType: keyType})}
		subject := notationtest.NewSubject("image")
		for name, o := range map[string]notationtest.SignOptions{
			"JWS":                     {},
			"COSE":                    {Envelope: notationtest.COSE},
			"JWS, timestamp":          {TSA: tsa},
			"COSE, timestamp":         {Envelope: notationtest.COSE, TSA: tsa},
			"JWS, signing authority":  {SigningAuthority: true},
			"COSE, signing authority": {Envelope: notationtest.COSE, SigningAuthority: true},
			"JWS, all the rest":       {Expiry: time.Now().Add(time.Hour), Annotations: map[string]string{"a": "b"}},
		} {
			t.Run(name, func(t *testing.T) {
				trusted := []string{"ca:a", "signingAuthority:a"}
				if o.TSA != nil {
					trusted = append(trusted, "tsa:a")
				}
				v, err := verifier.New(&trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
					Name: "a", RegistryScopes: []string{"*"}, TrustStores: trusted, TrustedIdentities: []string{"*"},
					SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: "strict"},
				}}}, stores{
					truststore.TypeCA:               {root.Certificate},
					truststore.TypeSigningAuthority: {root.Certificate},
					truststore.TypeTSA:              {tsaRoot.Certificate},
				}, nil)
				if err != nil {
					t.Fatal(err)
				}
				a := leaf.SignArtifact(subject, o)
				_, err = v.Verify(t.Context(), subject, a.Envelope, notationgo.VerifierVerifyOptions{
					ArtifactReference:  "registry.example.test/image@" + subject.Digest.String(),
					SignatureMediaType: a.Manifest.Layers[0].MediaType,
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The tokens are good enough for notation's own signer, over HTTP as well.
func TestNotationSignerAcceptsTheTSA(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	leaf := root.NewSigner(notationtest.CertificateOptions{})
	tsa := &notationtest.TSA{Certificate: root.NewTSA(notationtest.CertificateOptions{})}
	server := httptest.NewServer(tsa)
	defer server.Close()
	remote, err := tspclient.NewHTTPTimestamper(nil, server.URL)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.Certificate)
	for name, timestamper := range map[string]tspclient.Timestamper{"in process": tsa, "over HTTP": remote} {
		t.Run(name, func(t *testing.T) {
			s, err := signer.NewGenericSigner(leaf.Key, leaf.Chain())
			if err != nil {
				t.Fatal(err)
			}
			_, info, err := s.Sign(t.Context(), notationtest.NewSubject("image"), notationgo.SignerSignOptions{
				SignatureMediaType: notationtest.JWS, Timestamper: timestamper, TSARootCAs: roots,
			})
			if err != nil || len(info.UnsignedAttributes.TimestampSignature) == 0 {
				t.Errorf("no timestamp: %v", err)
			}
		})
	}
}

func TestResponderIsBelievedByNotation(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	responder := &notationtest.Responder{Issuer: root}
	delegated := &notationtest.Responder{Issuer: root, OCSPSigner: root.NewOCSPSigner(notationtest.CertificateOptions{})}
	client := &http.Client{Transport: notationtest.Network{"crl.example.test": responder, "ocsp.example.test": responder, "delegated.example.test": delegated}}
	fetcher, err := crl.NewHTTPFetcher(client)
	if err != nil {
		t.Fatal(err)
	}
	validator, err := revocation.NewWithOptions(revocation.Options{OCSPHTTPClient: client, CRLFetcher: fetcher})
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]notationtest.CertificateOptions{
		"CRL":            {CRL: []string{"http://crl.example.test/root.crl"}},
		"OCSP":           {OCSP: []string{"http://ocsp.example.test"}},
		"delegated OCSP": {OCSP: []string{"http://delegated.example.test/here"}},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := root.NewSigner(o)
			ask := func() result.Result {
				results, err := validator.ValidateContext(t.Context(), revocation.ValidateContextOptions{CertChain: leaf.Chain()})
				if err != nil {
					t.Fatal(err)
				}
				if err := results[0].ServerResults[0].Error; err != nil && results[0].Result != result.ResultRevoked {
					t.Log(err)
				}
				return results[0].Result
			}
			if got := ask(); got != result.ResultOK {
				t.Errorf("before: %v", got)
			}
			responder.Revoke(leaf.Certificate)
			delegated.Revoke(leaf.Certificate)
			if got := ask(); got != result.ResultRevoked {
				t.Errorf("after: %v", got)
			}
		})
	}
	if responder.CRLs() != 2 || responder.OCSPs() != 2 {
		t.Errorf("counted %d, %d", responder.CRLs(), responder.OCSPs())
	}
}

func TestNetworkGivesUpOnSilentServers(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	client := &http.Client{Transport: notationtest.Network{"crl.example.test": &notationtest.Responder{
		Issuer: root, Delay: func(ctx context.Context) { <-ctx.Done() },
	}}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://crl.example.test/root.crl", nil)
	response, err := client.Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
