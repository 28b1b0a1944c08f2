package provider_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// authority is a CA for one test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.certificate = sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template *x509.Certificate, by *authority, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	}
	parent := by.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// issue makes a certificate for both sides, as Gatekeeper's is.
func (a *authority) issue(t testing.TB, name string, notAfter time.Time) (certificate, key []byte) {
	t.Helper()
	private := newKey(t)
	leaf := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, NotAfter: notAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a, private)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("CERTIFICATE", leaf.Raw), pemOf("PRIVATE KEY", der)
}

func (a *authority) pair(t testing.TB, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, name, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (a *authority) pem() []byte { return pemOf("CERTIFICATE", a.certificate.Raw) }

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// lines is a log that a test reads while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// shop is what the provider is asked about in these tests:
//
//	shop.example.com     policy production, which trusts wabbit
//	skip.example.com     policy sandbox, which skips
//	panic.example.com    a bug
//	anything else        no policy
type shop struct {
	store *verifiertest.Store
	chain *verifier.Chain
}

func newShop() *shop {
	store := &verifiertest.Store{}
	return &shop{store, newChain(store)}
}

func newChain(store verifier.Store) *verifier.Chain {
	return verifier.NewChain([]verifier.Policy{{
		Name: "production", Owner: "platform@example.com", Require: verifiertest.Check("wabbit", "CN=wabbit"),
	}}, store, verifier.NewMemory(1<<20))
}

func (s *shop) Select(r verifier.Request) (*verifier.Chain, verifier.Verdict) {
	switch r.Image.Registry {
	case "shop.example.com":
		return s.chain, verifier.Verdict{}
	case "skip.example.com":
		return nil, verifier.Exempt(r.Image, "sandbox", verifier.ReasonSkipped, "nothing of value runs here")
	case "panic.example.com":
		panic("a bug at " + r.Image.String())
	}
	return nil, verifier.Refuse(r.Image.String(), &verifier.Error{
		Reason: verifier.ReasonPolicyNotFound, Message: "no policy is for this image", Remedy: "Write a ClusterTrustPolicy for it",
	})
}

// digestOf is any digest that belongs to the image of that name.
func digestOf(image string) digest.Digest { return digest.FromString(image) }

// add puts an image into the shop, signed by the signers.
func (s *shop) add(image string, signers ...string) {
	subject := s.store.Tag(image, digestOf(image))
	for _, signer := range signers {
		s.store.Sign(subject, signer)
	}
}

// door is a provider that listens, and Gatekeeper in front of it.
type door struct {
	*provider.Server
	url        string
	logs       *lines
	metrics    *telemetry.Metrics
	serverCA   *authority
	clientCA   *authority
	client     tls.Certificate // Gatekeeper's
	dir        string          // where the certificate files are
	certs      *provider.Certificates
	gatekeeper *unversioned.Provider
}

func open(t testing.TB, options provider.Options, edit ...func(*provider.CertificateOptions)) *door {
	t.Helper()
	d := &door{
		logs: &lines{}, metrics: telemetry.NewMetrics(telemetry.Build{}), dir: t.TempDir(),
		serverCA: newAuthority(t, "countersign"), clientCA: newAuthority(t, "gatekeeper-ca"),
	}
	d.client = d.clientCA.pair(t, "gatekeeper-webhook-service.gatekeeper-system.svc")
	d.writeServing(t, d.serverCA)
	d.write(t, "ca.crt", d.clientCA.pem())
	options.Logger = telemetry.NewLogger(d.logs, slog.LevelDebug)
	options.Metrics = d.metrics
	if options.DrainDelay == 0 {
		options.DrainDelay = -1
	}
	if options.VerifyTimeout == 0 { // deadlines are tested by a fake clock, not on a busy machine
		options.VerifyTimeout, options.MutateTimeout = 30*time.Second, 30*time.Second
	}
	files := d.files()
	files.Logger, files.Metrics = options.Logger, d.metrics
	for _, e := range edit {
		e(&files)
	}
	certs, err := provider.LoadCertificates(files)
	if err != nil {
		t.Fatal(err)
	}
	d.certs = certs
	d.Server, err = provider.New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.url = "https://" + listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- d.Serve(listener, certs.TLSConfig()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = d.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	d.gatekeeper = &unversioned.Provider{
		Spec: unversioned.ProviderSpec{
			URL: d.url + "/v1/verify", Timeout: 60, CABundle: base64.StdEncoding.EncodeToString(d.serverCA.pem()),
		},
	}
	d.gatekeeper.Name = t.Name() // Gatekeeper's client is kept by it
	return d
}

func (d *door) files() provider.CertificateOptions {
	return provider.CertificateOptions{
		CertFile: filepath.Join(d.dir, "tls.crt"), KeyFile: filepath.Join(d.dir, "tls.key"), ClientCAFile: filepath.Join(d.dir, "ca.crt"),
	}
}

func (d *door) write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *door) writeServing(t testing.TB, by *authority) {
	t.Helper()
	certificate, key := by.issue(t, "localhost", time.Time{})
	d.write(t, "tls.crt", certificate)
	d.write(t, "tls.key", key)
}

// ask is Gatekeeper's own client with Gatekeeper's own certificate.
func (d *door) ask(t testing.TB, keys ...string) *externaldata.ProviderResponse {
	t.Helper()
	response, _, err := externaldata.DefaultSendRequestToProvider(t.Context(), d.gatekeeper, keys, &d.client)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func (d *door) mutate(t testing.TB, keys ...string) *externaldata.ProviderResponse {
	t.Helper()
	mutation := d.gatekeeper.DeepCopy()
	mutation.Name += "-mutation"
	mutation.Spec.URL = d.url + "/v1/mutate"
	response, _, err := externaldata.DefaultSendRequestToProvider(t.Context(), mutation, keys, &d.client)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// transport is a client with the certificates given, and connections of its own.
func (d *door) transport(t testing.TB, certificates ...tls.Certificate) *http.Transport {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(d.serverCA.certificate)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: certificates},
		MaxIdleConnsPerHost: 64,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// value is the value of the item with the key.
func value(t testing.TB, response *externaldata.ProviderResponse, key string) map[string]any {
	t.Helper()
	for _, item := range response.Response.Items {
		if item.Key == key {
			v, ok := item.Value.(map[string]any)
			if !ok || item.Error != "" {
				t.Fatalf("%q has value %v, error %q", key, item.Value, item.Error)
			}
			return v
		}
	}
	t.Fatalf("no item for %q; systemError %q", key, response.Response.SystemError)
	return nil
}

// decided says status and reason of the item, as "STATUS/REASON".
func decided(t testing.TB, response *externaldata.ProviderResponse, key string) string {
	t.Helper()
	v := value(t, response, key)
	return v["status"].(string) + "/" + v["reason"].(string)
}

// post is a request without a network: for tests in a bubble of fake time.
func post(t testing.TB, handler http.Handler, path string, keys ...string) *externaldata.ProviderResponse {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(requestOf(t, keys...))))
	return readAnswer(t, recorder.Body.Bytes())
}

// poll waits until the condition holds.
func poll(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}
