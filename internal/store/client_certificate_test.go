package store_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
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
