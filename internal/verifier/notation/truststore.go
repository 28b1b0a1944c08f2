package notation

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/notaryproject/notation-go/verifier/truststore"
)

const (
	// maxBundleBytes and maxBundleCertificates bound a file of certificates: the
	// bundle of all public roots has 150 certificates in 220 KiB, and nobody
	// should trust all of them to sign code.
	maxBundleBytes        = 1 << 20
	maxBundleCertificates = 100
)

// TrustStoreType says what a trust store's certificates vouch for, in the
// words of the Notary Project.
type TrustStoreType = truststore.Type

// The types of trust stores.
const (
	TypeCA               TrustStoreType = truststore.TypeCA               // signers of the scheme notary.x509
	TypeSigningAuthority TrustStoreType = truststore.TypeSigningAuthority // signers of the scheme notary.x509.signingAuthority
	TypeTSA              TrustStoreType = truststore.TypeTSA              // timestamping authorities
)

// TrustStore is a named set of certificates. One without certificates is
// known and empty: what would need it is undecided, KEYS_UNAVAILABLE.
type TrustStore struct {
	Type         TrustStoreType
	Name         string
	Certificates []*x509.Certificate
	// Objects of vaults that some of the certificates are from, each without its
	// version, by certificate. Two stores with versions of one object are one party.
	Objects map[*x509.Certificate]string
}

// String is the store's name as Notary trust policies write it: "ca:acme".
func (s TrustStore) String() string { return string(s.Type) + ":" + s.Name }

// validate holds a store to the rules that notation applies to a directory of
// certificates: it vouches for signers, so it holds authorities, or signers
// that vouch for themselves.
func (s TrustStore) validate() error {
	switch s.Type {
	case TypeCA, TypeSigningAuthority, TypeTSA:
	default:
		return fmt.Errorf("trust store %q: the type %q is not one of ca, signingAuthority, tsa", s, s.Type)
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`).MatchString(s.Name) {
		return fmt.Errorf("trust store %q: a name has letters, digits and _ . - only", s)
	}
	for _, c := range s.Certificates {
		if err := truststore.ValidateCertificates([]*x509.Certificate{c}); err != nil {
			return fmt.Errorf("trust store %q: the certificate %q is neither an authority nor self-signed; put in the certificate of who issued it",
				s, nameOf(c))
		}
		// A token's chain is built from what the token brings along, so the store
		// must hold its end.
		if s.Type == TypeTSA && (!bytes.Equal(c.RawSubject, c.RawIssuer) || c.CheckSignatureFrom(c) != nil) {
			return fmt.Errorf("trust store %q: the certificate %q is not a root; put in the root of its chain", s, nameOf(c))
		}
	}
	return nil
}

// ParseCertificates reads the certificates of a PEM file, or one in DER. What
// it cannot read it refuses, rather than trusting the rest of the file.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxBundleBytes {
		return nil, fmt.Errorf("certificates: %d bytes are more than the %d that are read", len(data), maxBundleBytes)
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		certificate, err := x509.ParseCertificate(data)
		if err != nil {
			return nil, errors.New("certificates: neither PEM (-----BEGIN CERTIFICATE-----) nor one certificate in DER")
		}
		return []*x509.Certificate{certificate}, nil
	}
	blocks := bytes.Count(data, []byte("-----BEGIN"))
	if blocks > maxBundleCertificates {
		return nil, fmt.Errorf("certificates: %d are more than the %d that are read; trust only who signs your images", blocks, maxBundleCertificates)
	}
	var certificates []*x509.Certificate
	for range blocks {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("certificates: only %d of %d PEM blocks can be read; mend the others or take them out", len(certificates), blocks)
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("certificates: this holds a private key; a verifier needs none, take it out and consider it disclosed")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificates: PEM block %d is a %q and not a CERTIFICATE", len(certificates)+1, clip(block.Type))
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificates: PEM block %d: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

// trustStores gives notation-go the stores of one statement.
type trustStores map[string]TrustStore

// GetCertificates never fails: what is missing is empty, and what is empty is
// told apart where the cause is found.
func (s trustStores) GetCertificates(_ context.Context, t truststore.Type, name string) ([]*x509.Certificate, error) {
	return s[TrustStore{Type: t, Name: name}.String()].Certificates, nil
}

// nameOf is a certificate's subject for people.
func nameOf(c *x509.Certificate) string { return clip(c.Subject.String()) }

// briefly names a certificate by its common name where it has one: a denial
// has one line.
func briefly(c *x509.Certificate) string {
	if c.Subject.CommonName == "" {
		return nameOf(c)
	}
	return clip("CN=" + c.Subject.CommonName)
}

// clip keeps a text of a stranger's length readable.
func clip(s string) string {
	const limit = 160 // a subject with all usual parts has about 100
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
