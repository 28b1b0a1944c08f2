package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

const (
	// authorityAge and servingAge are how long the certificates are valid that we
	// make ourselves. They are renewed when a third of that is left.
	authorityAge = 365 * 24 * time.Hour
	servingAge   = 90 * 24 * time.Hour
	// skewed is how far clocks may differ.
	skewed = 5 * time.Minute
)

// The keys of the Secret that has our certificate. The first three are those of
// a kubernetes.io/tls Secret as cert-manager fills it.
const (
	keyServing      = "tls.crt"
	keyServingKey   = "tls.key"
	keyAuthority    = "ca.crt"
	keyAuthorityKey = "ca.key"
	keyClient       = "client.crt"
	keyClientKey    = "client.key"
)

// identity is our serving certificate with its authority, as the Secret has them.
type identity struct {
	serving, servingKey     []byte
	authority, authorityKey []byte // the key only where we made it
	// client is a certificate with which to ask the provider, as Gatekeeper does;
	// only where we made it.
	client, clientKey []byte
}

func identityOf(data map[string][]byte) identity {
	return identity{
		serving: data[keyServing], servingKey: data[keyServingKey],
		authority: data[keyAuthority], authorityKey: data[keyAuthorityKey],
		client: data[keyClient], clientKey: data[keyClientKey],
	}
}

func (i identity) data() map[string][]byte {
	return map[string][]byte{
		keyServing: i.serving, keyServingKey: i.servingKey, keyAuthority: i.authority, keyAuthorityKey: i.authorityKey,
		keyClient: i.client, keyClientKey: i.clientKey,
	}
}

// leaf checks that the certificate can be served, and gives it.
func (i identity) leaf() (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(i.serving, i.servingKey)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(i.authority) {
		return nil, errors.New("there is no authority beside the certificate")
	}
	options := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: pair.Leaf.NotBefore.Add(time.Second)}
	for _, der := range pair.Certificate[1:] {
		if certificate, err := x509.ParseCertificate(der); err == nil {
			options.Intermediates.AddCert(certificate)
		}
	}
	if _, err := pair.Leaf.Verify(options); err != nil {
		return nil, fmt.Errorf("the authority beside the certificate is another's: %w", err)
	}
	return pair.Leaf, nil
}

// renew gives the identity that should be served for these names now: the same,
// one with a new certificate of the same authority, or a new one. Anew asks for
// a new authority whatever the old one is like.
func (i identity) renew(names []string, now time.Time, anew bool) (identity, bool, error) {
	authority, key, err := i.issuer()
	if err != nil || anew || expires(authority, now) {
		authority, key, err = newAuthority(now)
		if err != nil {
			return identity{}, false, err
		}
		next, err := issue(authority, key, names, now)
		return next, true, err
	}
	leaf, err := i.leaf()
	if err == nil && !expires(leaf, now) && slices.Equal(namesOf(leaf), names) {
		return i, false, nil
	}
	next, err := issue(authority, key, names, now)
	return next, true, err
}

// issuer reads the authority that we made.
func (i identity) issuer() (*x509.Certificate, *ecdsa.PrivateKey, error) {
	pair, err := tls.X509KeyPair(i.authority, i.authorityKey)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, nil, errors.New("not an authority of ours")
	}
	return pair.Leaf, key, nil
}

// expires reports whether less than a third of a certificate's time is left.
func expires(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore) / 3))
}

func newAuthority(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template, err := template("countersign CA", now, authorityAge)
	if err != nil {
		return nil, nil, err
	}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}

// issue makes certificates for serving and for asking, by names that are sorted
// as namesOf has them.
func issue(authority *x509.Certificate, by *ecdsa.PrivateKey, names []string, now time.Time) (identity, error) {
	next := identity{authority: encodeCertificate(authority.Raw)}
	var err error
	if next.authorityKey, err = encodeKey(by); err != nil {
		return identity{}, err
	}
	serving, err := template(names[0], now, servingAge)
	if err != nil {
		return identity{}, err
	}
	serving.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			serving.IPAddresses = append(serving.IPAddresses, ip)
		} else {
			serving.DNSNames = append(serving.DNSNames, name)
		}
	}
	if next.serving, next.servingKey, err = sign(serving, authority, by); err != nil {
		return identity{}, err
	}
	asking, err := template("countersign test", now, servingAge)
	if err != nil {
		return identity{}, err
	}
	asking.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	next.client, next.clientKey, err = sign(asking, authority, by)
	return next, err
}

// sign makes a certificate and its key.
func sign(template, authority *x509.Certificate, by *ecdsa.PrivateKey) (certificate, key []byte, err error) {
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, authority, made.Public(), by)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(made)
	return encodeCertificate(der), key, err
}

func template(name string, now time.Time, age time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	// RFC 5280 bounds a common name to 64 characters; nobody reads it for a name.
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: clip(name, 64), Organization: []string{"countersign"}},
		NotBefore: now.Add(-skewed), NotAfter: now.Add(age),
	}, nil
}

// namesOf lists the names of a certificate: DNS names and addresses, each sorted.
func namesOf(c *x509.Certificate) []string {
	names := slices.Sorted(slices.Values(c.DNSNames))
	var addresses []string
	for _, ip := range c.IPAddresses {
		addresses = append(addresses, ip.String())
	}
	slices.Sort(addresses)
	return append(names, addresses...)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// bundle is certificates without doubles, in their order.
type bundle []*x509.Certificate

// parseBundle reads the certificates of PEM, leaving out what is none.
func parseBundle(data []byte) bundle {
	var b bundle
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			b = b.with(c)
		}
	}
	return b
}

func (b bundle) with(more ...*x509.Certificate) bundle {
	for _, c := range more {
		if !slices.ContainsFunc(b, c.Equal) {
			b = append(b, c)
		}
	}
	return b
}

func (b bundle) pem() []byte {
	var out bytes.Buffer
	for _, c := range b {
		out.Write(encodeCertificate(c.Raw))
	}
	return out.Bytes()
}

// vouches reports whether one of the certificates vouches for a chain, leaf first.
func (b bundle) vouches(chain []*x509.Certificate, now time.Time) bool {
	if len(chain) == 0 {
		return false
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range b {
		options.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(options)
	return err == nil
}
