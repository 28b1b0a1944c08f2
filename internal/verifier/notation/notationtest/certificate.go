package notationtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"time"
)

// KeyType says what key a certificate is for. Zero is ECDSA P-256, because it
// is made a hundred times faster than RSA.
type KeyType int

// The key types.
const (
	ECDSA256 KeyType = iota
	ECDSA384
	RSA2048
)

// Certificate is a certificate with its key and the chain up to its root.
type Certificate struct {
	*x509.Certificate
	Key crypto.Signer
	// Issuer is nil for what is self-signed.
	Issuer *Certificate
}

// CertificateOptions say how a certificate is made. The zero value makes one
// that is valid from an hour ago for a year, or as long as its issuer.
type CertificateOptions struct {
	// Subject; where it is empty, Name gives one.
	Subject pkix.Name
	KeyType KeyType
	// Key, where it is set, is used again instead of making one.
	Key                 crypto.Signer
	NotBefore, NotAfter time.Time
	// CRL and OCSP are where the certificate says it can be asked about.
	CRL, OCSP []string
	// EmailAddresses are subject alternative names.
	EmailAddresses []string
	// Mutate has the last word before the certificate is signed.
	Mutate func(*x509.Certificate)
}

// Name is a subject with all that the Notary Project demands of one.
func Name(commonName string) pkix.Name {
	return pkix.Name{
		CommonName:   commonName,
		Organization: []string{"Notary"},
		Locality:     []string{"Seattle"},
		Province:     []string{"WA"},
		Country:      []string{"US"},
	}
}

// NewRoot makes a self-signed certificate authority.
func NewRoot(o CertificateOptions) *Certificate {
	return issue(nil, o, "root.example.test", authority)
}

// NewIntermediate makes a certificate authority below c.
func (c *Certificate) NewIntermediate(o CertificateOptions) *Certificate {
	return issue(c, o, "intermediate.example.test", authority)
}

// NewSigner makes a code-signing certificate below c.
func (c *Certificate) NewSigner(o CertificateOptions) *Certificate {
	return issue(c, o, "wabbit-networks.io", codeSigning)
}

// NewTSA makes a timestamping certificate below c.
func (c *Certificate) NewTSA(o CertificateOptions) *Certificate {
	return issue(c, o, "tsa.example.test", timestamping)
}

// NewOCSPSigner makes a certificate below c that may answer OCSP in its place.
func (c *Certificate) NewOCSPSigner(o CertificateOptions) *Certificate {
	return issue(c, o, "ocsp.example.test", func(t *x509.Certificate) {
		t.KeyUsage = x509.KeyUsageDigitalSignature
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
}

// NewSelfSigned makes a code-signing certificate that is its own root.
func NewSelfSigned(o CertificateOptions) *Certificate {
	return issue(nil, o, "wabbit-networks.io", codeSigning)
}

// Reissue makes the certificate anew, as an authority does before one runs
// out: same issuer, same subject and names; another key, serial and validity.
func (c *Certificate) Reissue(o CertificateOptions) *Certificate {
	o.Subject = c.Subject
	o.EmailAddresses = c.EmailAddresses
	if o.CRL == nil {
		o.CRL = c.CRLDistributionPoints
	}
	if o.OCSP == nil {
		o.OCSP = c.OCSPServer
	}
	return issue(c.Issuer, o, "", func(t *x509.Certificate) {
		t.KeyUsage, t.ExtKeyUsage = c.KeyUsage, c.ExtKeyUsage
		t.BasicConstraintsValid, t.IsCA = c.BasicConstraintsValid, c.IsCA
	})
}

// NewHeavy makes a certificate below c whose RSA key has so many bits. Nobody
// has the private key: it is there to be expensive, not to sign.
func (c *Certificate) NewHeavy(bits uint) *Certificate {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	public := &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: 65537}
	return issue(c, CertificateOptions{Key: keyless{public}}, "heavy.example.test", authority)
}

type keyless struct{ public crypto.PublicKey }

func (k keyless) Public() crypto.PublicKey { return k.public }

func (keyless) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("there is no private key")
}

func authority(t *x509.Certificate) {
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

func codeSigning(t *x509.Certificate) {
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
}

// timestamping: RFC 3161 section 2.3 wants this one extended key usage, and it
// critical, which crypto/x509 does not offer.
func timestamping(t *x509.Certificate) {
	t.KeyUsage = x509.KeyUsageDigitalSignature
	usage := must(asn1.Marshal([]asn1.ObjectIdentifier{oid(idTimestamping)}))
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{
		Id: oid(idExtKeyUsage), Critical: true, Value: usage,
	})
}

func issue(issuer *Certificate, o CertificateOptions, commonName string, shape func(*x509.Certificate)) *Certificate {
	if o.Key == nil {
		o.Key = newKey(o.KeyType)
	}
	if o.Subject.String() == "" {
		o.Subject = Name(commonName)
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-time.Hour)
		if issuer != nil && issuer.NotBefore.After(o.NotBefore) {
			o.NotBefore = issuer.NotBefore
		}
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.NotBefore.AddDate(1, 0, 0)
		if issuer != nil && issuer.NotAfter.Before(o.NotAfter) {
			o.NotAfter = issuer.NotAfter
		}
	}
	template := &x509.Certificate{
		SerialNumber:          must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))),
		Subject:               o.Subject,
		NotBefore:             o.NotBefore,
		NotAfter:              o.NotAfter,
		CRLDistributionPoints: o.CRL,
		OCSPServer:            o.OCSP,
		EmailAddresses:        o.EmailAddresses,
	}
	shape(template)
	if o.Mutate != nil {
		o.Mutate(template)
	}
	parent, key := template, o.Key
	if issuer != nil {
		parent, key = issuer.Certificate, issuer.Key
	}
	der := must(x509.CreateCertificate(rand.Reader, template, parent, o.Key.Public(), key))
	return &Certificate{Certificate: must(x509.ParseCertificate(der)), Key: o.Key, Issuer: issuer}
}

func newKey(t KeyType) crypto.Signer {
	switch t {
	case RSA2048:
		return must(rsa.GenerateKey(rand.Reader, 2048))
	case ECDSA384:
		return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	default:
		return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	}
}

// Chain is the certificate, its issuer and so on, the root last.
func (c *Certificate) Chain() []*x509.Certificate {
	var chain []*x509.Certificate
	for ; c != nil; c = c.Issuer {
		chain = append(chain, c.Certificate)
	}
	return chain
}

// Root is the last of the chain.
func (c *Certificate) Root() *Certificate {
	for c.Issuer != nil {
		c = c.Issuer
	}
	return c
}

// PEM is the certificate as a file holds it.
func (c *Certificate) PEM() []byte { return EncodePEM(c.Certificate) }

// KeyPEM is the private key in PKCS #8, as a file holds it.
func (c *Certificate) KeyPEM() []byte {
	der := must(x509.MarshalPKCS8PrivateKey(c.Key))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// EncodePEM is the certificates as one file holds them.
func EncodePEM(certificates ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
