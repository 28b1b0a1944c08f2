package notation_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// FuzzEnvelope (L09, L10): whatever is in an envelope, at a level that goes all
// the way, nothing panics, and what is proved is the subject, once and only
// with what was signed.
func FuzzEnvelope(f *testing.F) {
	c := newCast()
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: notationtest.Network{}})
	if err != nil {
		f.Fatal(err)
	}
	v, err := notation.New(notation.Options{
		TrustStores:       []notation.TrustStore{store("ca", "a", c.root), store("signingAuthority", "a", c.root), store("tsa", "a", c.tsaRoot)},
		TrustedIdentities: []string{"x509.subject: O=Notary,ST=WA,C=US"}, Level: "audit", Revocation: revocation,
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range []notationtest.SignOptions{
		{}, {TSA: c.tsa}, {SigningAuthority: true}, {Expiry: time.Now().Add(time.Hour)},
		{Annotations: map[string]string{"a": "b"}}, {Attributes: []notationtest.Attribute{{Key: "a", Critical: true, Value: "b"}}},
		{Token: []byte("garbage")}, {Payload: []byte(`{"targetArtifact":{"digest":7}}`)},
	} {
		f.Add(true, c.leaf.Sign(c.subject, o))
		o.Envelope = notationtest.COSE
		f.Add(false, c.leaf.Sign(c.subject, o))
	}
	f.Fuzz(func(t *testing.T, jws bool, envelope []byte) {
		mediaType := notationtest.COSE
		if jws {
			mediaType = notationtest.JWS
		}
		if len(envelope) > 1<<16 {
			return
		}
		finding := verify(t, v, evidence(c.subject, notationtest.Pack(c.subject, mediaType, envelope)))
		if finding.Err == nil && (finding.Claims.SubjectDigest != c.subject.Digest || finding.Claims.Signer.ID == "") {
			t.Errorf("proved %+v", finding.Claims)
		}
	})
}

// FuzzToken (L10): timestamp tokens come from whoever writes the envelope.
func FuzzToken(f *testing.F) {
	c := newCast()
	v := c.trusting(f, withTSA(c))
	f.Add(c.tsa.Token([]byte("signature")))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, token []byte) {
		a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{Token: append([]byte{}, token...)})
		if finding := verify(t, v, evidence(c.subject, a)); finding.Err == nil {
			t.Error("a token of no signature is believed")
		}
	})
}

// FuzzManifest (L11): layers and subjects of any kind.
func FuzzManifest(f *testing.F) {
	c := newCast()
	v := c.trusting(f, nil)
	a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{})
	f.Add(notationtest.JWS, a.Manifest.Layers[0].Digest.String(), int64(100), 1, c.subject.Digest.String())
	f.Fuzz(func(t *testing.T, mediaType, layer string, size int64, layers int, subject string) {
		b := a
		b.Manifest.Layers = nil
		for range min(max(layers, 0), 3) {
			b.Manifest.Layers = append(b.Manifest.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(layer), Size: size})
		}
		b.Manifest.Subject = &ocispec.Descriptor{MediaType: c.subject.MediaType, Size: c.subject.Size, Digest: digest.Digest(subject)}
		e := evidence(c.subject, b)
		e.Fetch = func(context.Context, ocispec.Descriptor) ([]byte, error) { return a.Envelope, nil }
		if finding := verify(t, v, e); finding.Err == nil && subject != c.subject.Digest.String() {
			t.Error("proved for another subject")
		}
	})
}

// FuzzTrustPolicyDoc (L10): a Notary trust policy is refused or works.
func FuzzTrustPolicyDoc(f *testing.F) {
	c := newCast()
	e := evidence(c.subject, c.stranger.SignArtifact(c.subject, notationtest.SignOptions{}))
	for _, statement := range []string{statementAll, statementCart, statementSkip, statementAudit} {
		f.Add(policyDoc(statement))
	}
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: notationtest.Network{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		v, err := notation.New(notation.Options{
			TrustStores: []notation.TrustStore{store("ca", "acme", c.root), store("ca", "other", c.root)}, TrustPolicyDoc: append([]byte{}, doc...), Revocation: revocation,
		})
		if err != nil {
			return
		}
		if finding := verify(t, v, e); finding.Err == nil && len(finding.Claims.Logged) == 0 {
			t.Error("trusts a stranger")
		}
	})
}

// FuzzTrustedIdentity (L10, CVE-2023-25656): distinguished names.
func FuzzTrustedIdentity(f *testing.F) {
	c := newCast()
	nobody := c.root.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("nobody.example.test")})
	e := evidence(c.subject, nobody.SignArtifact(c.subject, notationtest.SignOptions{}))
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: notationtest.Network{}})
	if err != nil {
		f.Fatal(err)
	}
	for _, dn := range []string{
		"CN=a,O=b,ST=c,C=d", `CN=a\,b,O=b,ST=c,C=d`, "CN=a+OU=b,O=b,ST=c,C=d", "CN=#04024869,O=b,ST=c,C=d", `CN=\00,O=b,S=c,C=d`, "O=b,ST=c,C=d,1.2.3=x",
	} {
		f.Add(dn)
	}
	f.Fuzz(func(t *testing.T, dn string) {
		v, err := notation.New(notation.Options{
			TrustStores: []notation.TrustStore{store("ca", "acme", c.root)}, TrustedIdentities: []string{"x509.subject: " + dn}, Revocation: revocation,
		})
		if err != nil {
			return
		}
		ours := strings.Contains(dn, "Notary") && strings.Contains(dn, "WA") && strings.Contains(dn, "US")
		if finding := verify(t, v, e); finding.Err == nil && !ours {
			t.Errorf("%q is taken for %q", nobody.Subject, dn)
		}
	})
}

// FuzzParseCertificates (L10): files of certificates.
func FuzzParseCertificates(f *testing.F) {
	c := newCast()
	f.Add(c.root.PEM())
	f.Add(c.root.Raw)
	f.Add(append(c.root.PEM(), c.root.KeyPEM()...))
	f.Add([]byte(strings.Repeat("-----BEGIN CERTIFICATE-----\n", 50)))
	f.Fuzz(func(t *testing.T, data []byte) {
		certificates, err := notation.ParseCertificates(data)
		if err == nil && (len(certificates) == 0 || len(certificates) > 100) {
			t.Errorf("%d certificates", len(certificates))
		}
	})
}

// L10: a file of five thousand certificates is refused for what it is.
func TestL10_FiveThousandCertificates(t *testing.T) {
	certificate := newCast().root.PEM()
	if _, err := notation.ParseCertificates(bytes.Repeat(certificate, 5000)); err == nil {
		t.Error("accepted")
	}
	if certificates, err := notation.ParseCertificates(bytes.Repeat(certificate, 10)); err != nil || len(certificates) == 0 {
		t.Errorf("ten: %d, %v", len(certificates), err)
	}
}
