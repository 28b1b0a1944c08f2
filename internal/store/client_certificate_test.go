package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func clientCertificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: parsed}
}

// TestL28_AClientCertificateIsForItsHost: where the registry redirects, its client
// certificate is not shown, although the registry's CA vouches for that host too.
func TestL28_AClientCertificateIsForItsHost(t *testing.T) {
	ours := clientCertificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(ours.Leaf)
	r := registrytest.Start(t, registrytest.Options{TLS: true, Clients: pool})
	blob := r.PushBlob(repo, "text/plain", []byte("envelope"))
	var asked, shown atomic.Int64
	elsewhere := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		asked.Add(1)
		shown.Add(int64(len(q.TLS.PeerCertificates)))
		_, _ = w.Write([]byte("envelope"))
	}))
	elsewhere.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	elsewhere.StartTLS()
	t.Cleanup(elsewhere.Close)
	r.SetFault(registrytest.On("/blobs/", registrytest.Redirect(elsewhere.URL, 307)))
	cas := append(slices.Clone(r.CA()), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: elsewhere.Certificate().Raw})...)
	s := store.New(quick())
	t.Cleanup(s.CloseIdleConnections)
	v, err := s.View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), CAs: cas, ClientCertificate: ours}}})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := v.Fetch(t.Context(), subjectOf(r, blob), blob); err != nil || string(data) != "envelope" {
		t.Errorf("%q, %v", data, err)
	}
	if asked.Load() == 0 || shown.Load() != 0 {
		t.Errorf("asked %d times, and shown %d certificates", asked.Load(), shown.Load())
	}
}

// TestAClientCertificateOpens the registry that wants one to the policy that has it,
// and to no other, whoever has a connection there already.
func TestAClientCertificateOpens(t *testing.T) {
	ours := clientCertificate(t)
	pool := x509.NewCertPool()
	pool.AddCert(ours.Leaf)
	r := registrytest.Start(t, registrytest.Options{TLS: true, Clients: pool})
	image := r.PushImage(repo, "v1")
	s := store.New(quick())
	t.Cleanup(s.CloseIdleConnections)
	with := func(certificate *tls.Certificate) *store.View {
		v, err := s.View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), CAs: r.CA(), ClientCertificate: certificate}}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	opened := with(ours)
	for range 2 {
		if subject, err := opened.Resolve(t.Context(), byTag(r, "v1")); err != nil || subject.Digest != image.Digest {
			t.Errorf("%v, %v", subject, err)
		}
	}
	for name, certificate := range map[string]*tls.Certificate{"none": nil, "a stranger's": clientCertificate(t)} {
		other := with(certificate)
		if other.ID() == opened.ID() {
			t.Errorf("%s: what one has seen the other would", name)
		}
		if subject, err := other.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnreachable {
			t.Errorf("%s: %v, %v", name, subject, err)
		}
	}
}

// TestARefusedCredentialIsSentOnce for each question, so that a wrong password does not
// lock its account.
func TestARefusedCredentialIsSentOnce(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: scheme, Username: "robot", Password: "right"}})
		r.PushImage(repo, "v1")
		if _, err := open(t, store.New(quick()), r, robot("wrong")).Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnauthorized {
			t.Errorf("%s: %v", scheme, err)
		}
		if n := len(carried(r)); n != 1 {
			t.Errorf("%s: the credential was sent %d times", scheme, n)
		}
	}
}
