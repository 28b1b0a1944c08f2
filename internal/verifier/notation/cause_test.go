package notation_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// cast are the people of most tests.
type cast struct {
	root, leaf, stranger *notationtest.Certificate
	tsaRoot              *notationtest.Certificate
	tsa                  *notationtest.TSA
	subject              ocispec.Descriptor
}

func newCast() cast {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	tsaRoot := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name("tsa-root.example.test")})
	strangers := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name("strangers.example.test")})
	return cast{
		root: root, leaf: root.NewSigner(notationtest.CertificateOptions{}),
		stranger: strangers.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("stranger.example.test")}),
		tsaRoot:  tsaRoot, tsa: &notationtest.TSA{Certificate: tsaRoot.NewTSA(notationtest.CertificateOptions{})},
		subject: notationtest.NewSubject("an image"),
	}
}

func (c cast) trusting(t testing.TB, change func(*notation.Options)) *notation.Verifier {
	t.Helper()
	o := notation.Options{TrustStores: []notation.TrustStore{store("ca", "acme", c.root)}}
	if change != nil {
		change(&o)
	}
	return newVerifier(t, o, notationtest.Network{})
}

func withTSA(c cast) func(*notation.Options) {
	return func(o *notation.Options) { o.TrustStores = append(o.TrustStores, store("tsa", "clock", c.tsaRoot)) }
}

// Each cause that libraries may have for a refusal has a reason here, with a
// line that says why and one that says what to do.
func TestEachCauseHasItsReason(t *testing.T) {
	c := newCast()
	now := time.Now()
	old := func(o notationtest.CertificateOptions) notationtest.CertificateOptions {
		o.NotBefore, o.NotAfter = now.AddDate(0, -2, 0), now.AddDate(0, -1, 0)
		return o
	}
	oldRoot := notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.AddDate(0, -3, 0), NotAfter: now.AddDate(1, 0, 0)})
	expiredLeaf := oldRoot.NewSigner(old(notationtest.CertificateOptions{}))
	futureLeaf := oldRoot.NewSigner(notationtest.CertificateOptions{NotBefore: now.Add(20 * time.Minute)})
	whileValid := now.AddDate(0, 0, -45)
	// A timestamping authority that is older than all signers.
	oldClock := newCast()
	oldClock.tsaRoot = notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)})
	oldClock.tsa = &notationtest.TSA{Certificate: oldClock.tsaRoot.NewTSA(notationtest.CertificateOptions{NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0)})}
	wrongTSA := &notationtest.TSA{Certificate: c.root.NewTSA(notationtest.CertificateOptions{})}
	noEKU := c.root.NewSigner(notationtest.CertificateOptions{Mutate: func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }})
	serverLeaf := c.root.NewSigner(notationtest.CertificateOptions{Key: noEKU.Key, Mutate: func(t *x509.Certificate) { t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }})
	trustingOld := func(o *notation.Options) { o.TrustStores = []notation.TrustStore{store("ca", "acme", oldRoot)} }
	identities := func(list ...string) func(*notation.Options) {
		return func(o *notation.Options) { o.TrustedIdentities = list }
	}
	both := func(changes ...func(*notation.Options)) func(*notation.Options) {
		return func(o *notation.Options) {
			for _, change := range changes {
				change(o)
			}
		}
	}

	for _, test := range []struct {
		name    string
		trust   func(*notation.Options)
		by      *notationtest.Certificate
		sign    notationtest.SignOptions
		corrupt func(*notationtest.Artifact)
		want    verifier.Reason
	}{
		{name: "good", want: ""},
		{name: "good, COSE", sign: notationtest.SignOptions{Envelope: notationtest.COSE}},
		{name: "good, trusted identity", trust: identities("x509.subject: CN=wabbit-networks.io,O=Notary,L=Seattle,ST=WA,C=US")},
		{name: "good, part of the identity", trust: identities("x509.subject: O=Notary,ST=WA,C=US")},
		{name: "good, one of two identities", trust: identities("x509.subject: CN=a,O=Other,ST=WA,C=US", "x509.subject: CN=wabbit-networks.io,O=Notary,ST=WA,C=US")},
		{name: "good, with a timestamp", trust: withTSA(c), sign: notationtest.SignOptions{TSA: c.tsa}},
		{name: "good, user metadata", sign: notationtest.SignOptions{Annotations: map[string]string{"build": "17"}}},
		{name: "good, an attribute that is not critical", sign: notationtest.SignOptions{Attributes: []notationtest.Attribute{{Key: "example.com/note", Value: "x"}}}},
		{name: "good, signing authority", sign: notationtest.SignOptions{SigningAuthority: true},
			trust: func(o *notation.Options) {
				o.TrustStores = append(o.TrustStores, store("signingAuthority", "acme", c.root))
			}},
		{name: "good, anchored at an intermediate", by: oldRoot.NewIntermediate(notationtest.CertificateOptions{}).NewSigner(notationtest.CertificateOptions{}), trust: trustingOld},

		{name: "unreadable envelope", corrupt: func(a *notationtest.Artifact) {
			*a = notationtest.Pack(c.subject, notationtest.JWS, []byte("no JSON"))
		}, want: verifier.ReasonSignatureInvalid},
		{name: "COSE said to be JWS", sign: notationtest.SignOptions{Envelope: notationtest.COSE}, corrupt: func(a *notationtest.Artifact) {
			*a = notationtest.Pack(c.subject, notationtest.JWS, a.Envelope)
		}, want: verifier.ReasonSignatureInvalid},
		{name: "unknown envelope", corrupt: func(a *notationtest.Artifact) {
			*a = notationtest.Pack(c.subject, "application/pgp-signature", a.Envelope)
		}, want: verifier.ReasonFormatUnsupported},
		{name: "two layers", corrupt: func(a *notationtest.Artifact) {
			a.Manifest.Layers = append(a.Manifest.Layers, a.Manifest.Layers[0])
		}, want: verifier.ReasonFormatUnsupported},
		{name: "too large", corrupt: func(a *notationtest.Artifact) {
			*a = notationtest.Pack(c.subject, notationtest.JWS, make([]byte, 1<<20+1))
		}, want: verifier.ReasonFormatUnsupported},
		{name: "altered payload", corrupt: func(a *notationtest.Artifact) {
			other := c.leaf.Sign(c.subject, notationtest.SignOptions{Annotations: map[string]string{"a": "b"}})
			*a = notationtest.Pack(c.subject, notationtest.JWS, splice(t, a.Envelope, other, "payload"))
		}, want: verifier.ReasonSignatureInvalid},
		{name: "another signer's chain", sign: notationtest.SignOptions{Chain: c.root.NewSigner(notationtest.CertificateOptions{}).Chain()}, want: verifier.ReasonSignatureInvalid},
		{name: "chain without its root", sign: notationtest.SignOptions{Chain: c.leaf.Chain()[:1]}, want: verifier.ReasonSignatureInvalid},
		{name: "certificate for servers", by: noEKU, sign: notationtest.SignOptions{Chain: serverLeaf.Chain()}, want: verifier.ReasonSignatureInvalid},
		{name: "no chain", sign: notationtest.SignOptions{Chain: []*x509.Certificate{}}, want: verifier.ReasonSignatureInvalid},
		{name: "100 certificates", sign: notationtest.SignOptions{Chain: repeat(c.root.Certificate, 100)}, want: verifier.ReasonFormatUnsupported},
		{name: "a key that is expensive", sign: notationtest.SignOptions{Chain: []*x509.Certificate{c.leaf.Certificate, c.root.NewHeavy(16384).Certificate, c.root.Certificate}}, want: verifier.ReasonFormatUnsupported},
		{name: "payload of another type", sign: notationtest.SignOptions{PayloadType: "application/json"}, want: verifier.ReasonFormatUnsupported},
		{name: "payload is no JSON", sign: notationtest.SignOptions{Envelope: notationtest.COSE, Payload: []byte("sha256:…")}, want: verifier.ReasonFormatUnsupported},
		{name: "payload names no image", sign: notationtest.SignOptions{Payload: []byte(`{"a":1}`)}, want: verifier.ReasonFormatUnsupported},
		{name: "unknown critical attribute, JWS", sign: notationtest.SignOptions{Attributes: []notationtest.Attribute{{Key: "example.com/until", Critical: true, Value: "x"}}}, want: verifier.ReasonFormatUnsupported},
		{name: "unknown critical attribute, COSE", sign: notationtest.SignOptions{Envelope: notationtest.COSE, Attributes: []notationtest.Attribute{{Key: "example.com/until", Critical: true, Value: "x"}}}, want: verifier.ReasonFormatUnsupported},
		{name: "unknown critical attribute, audit", trust: func(o *notation.Options) { o.Level = "audit" },
			sign: notationtest.SignOptions{Attributes: []notationtest.Attribute{{Key: "example.com/until", Critical: true, Value: "x"}}}, want: verifier.ReasonFormatUnsupported},
		{name: "demands a plug-in", sign: notationtest.SignOptions{Attributes: []notationtest.Attribute{{Key: "io.cncf.notary.verificationPlugin", Critical: true, Value: "x"}}}, want: verifier.ReasonFormatUnsupported},
		{name: "demands a plug-in, not critical", sign: notationtest.SignOptions{Attributes: []notationtest.Attribute{{Key: "io.cncf.notary.verificationPlugin", Value: "x"}}}, want: verifier.ReasonFormatUnsupported},

		{name: "attached to another image", corrupt: func(a *notationtest.Artifact) { a.Manifest.Subject.Digest = digest.FromString("other") }, want: verifier.ReasonSubjectMismatch},
		{name: "attached to nothing", corrupt: func(a *notationtest.Artifact) { a.Manifest.Subject = nil }, want: verifier.ReasonSubjectMismatch},
		{name: "signed as another media type", corrupt: func(a *notationtest.Artifact) { a.Manifest.Subject.MediaType = ocispec.MediaTypeImageIndex }, want: verifier.ReasonSubjectMismatch},
		{name: "signed as another size", corrupt: func(a *notationtest.Artifact) { a.Manifest.Subject.Size++ }, want: verifier.ReasonSubjectMismatch},

		{name: "stranger", by: c.stranger, want: verifier.ReasonCertificateNotTrusted},
		{name: "stranger of the same name", by: notationtest.NewRoot(notationtest.CertificateOptions{}).NewSigner(notationtest.CertificateOptions{}), want: verifier.ReasonCertificateNotTrusted},
		{name: "stranger, one store empty", by: c.stranger, trust: func(o *notation.Options) { o.TrustStores = append(o.TrustStores, store("ca", "empty")) }, want: verifier.ReasonKeysUnavailable},
		{name: "all stores empty", trust: func(o *notation.Options) { o.TrustStores = []notation.TrustStore{store("ca", "empty")} }, want: verifier.ReasonKeysUnavailable},
		{name: "good, another store empty", trust: func(o *notation.Options) { o.TrustStores = append(o.TrustStores, store("ca", "empty")) }},
		{name: "signing authority, not trusted for that", sign: notationtest.SignOptions{SigningAuthority: true}, want: verifier.ReasonCertificateNotTrusted},
		{name: "signing authority's store does not vouch for x509", trust: func(o *notation.Options) {
			o.TrustStores = []notation.TrustStore{store("signingAuthority", "acme", c.root)}
		}, want: verifier.ReasonCertificateNotTrusted},
		{name: "timestamping authority's store does not vouch for signers", by: c.tsaRoot.NewSigner(notationtest.CertificateOptions{}), trust: both(withTSA(c)), sign: notationtest.SignOptions{TSA: c.tsa}, want: verifier.ReasonCertificateNotTrusted},
		{name: "another identity", trust: identities("x509.subject: CN=other.example.test,O=Notary,ST=WA,C=US"), want: verifier.ReasonIdentityNotTrusted},
		{name: "identity with one part more", trust: identities("x509.subject: CN=wabbit-networks.io,O=Notary,OU=Release,ST=WA,C=US"), want: verifier.ReasonIdentityNotTrusted},
		{name: "identity of which ours is the beginning", trust: identities("x509.subject: CN=wabbit-networks.io.evil.example,O=Notary,ST=WA,C=US"), want: verifier.ReasonIdentityNotTrusted},
		{name: "subject without what identities need", by: c.root.NewSigner(notationtest.CertificateOptions{Subject: pkix.Name{CommonName: "wabbit-networks.io"}}),
			trust: identities("x509.subject: CN=wabbit-networks.io,O=Notary,ST=WA,C=US"), want: verifier.ReasonIdentityNotTrusted},

		{name: "signature expired", sign: notationtest.SignOptions{Time: now.Add(-30 * time.Minute), Expiry: now.Add(-time.Minute)}, want: verifier.ReasonSignatureExpired},
		{name: "certificate expired", by: expiredLeaf, trust: trustingOld, sign: notationtest.SignOptions{Time: whileValid}, want: verifier.ReasonCertificateExpired},
		{name: "certificate expired, time claimed", by: expiredLeaf, trust: both(trustingOld), sign: notationtest.SignOptions{Time: whileValid}, want: verifier.ReasonCertificateExpired},
		{name: "certificate not yet valid", by: futureLeaf, trust: trustingOld, sign: notationtest.SignOptions{Time: now.Add(time.Hour)}, want: verifier.ReasonCertificateExpired},
		{name: "certificate expired, timestamp from before", by: expiredLeaf, trust: both(trustingOld, withTSA(oldClock)),
			sign: notationtest.SignOptions{Time: whileValid, TSA: at(oldClock, whileValid)}},
		{name: "signing authority, at a time its certificate was not valid", by: expiredLeaf, trust: func(o *notation.Options) {
			o.TrustStores = []notation.TrustStore{store("signingAuthority", "acme", oldRoot)}
		}, sign: notationtest.SignOptions{Time: whileValid, SigningAuthority: true}},

		{name: "no timestamp", trust: withTSA(c), want: verifier.ReasonTimestampInvalid},
		{name: "no timestamp, needed after expiry only", trust: both(withTSA(c), func(o *notation.Options) { o.VerifyTimestamp = "afterCertExpiry" })},
		{name: "timestamp is garbage", trust: withTSA(c), sign: notationtest.SignOptions{Token: []byte("garbage")}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp of 700 certificates", trust: withTSA(c), sign: notationtest.SignOptions{TSA: laden(c, repeat(c.tsaRoot.Certificate, 700))}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp of 700 certificates, not needed", sign: notationtest.SignOptions{TSA: laden(c, repeat(c.tsaRoot.Certificate, 700))}},
		{name: "timestamp with a key that is expensive", trust: withTSA(c), sign: notationtest.SignOptions{TSA: laden(c, []*x509.Certificate{c.tsaRoot.NewHeavy(16384).Certificate})}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp with some certificates more", trust: withTSA(c), sign: notationtest.SignOptions{TSA: laden(c, repeat(c.root.Certificate, 5))}},
		{name: "timestamp of another signature", trust: withTSA(c), sign: notationtest.SignOptions{Token: c.tsa.Token([]byte("another"))}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp by a stranger", trust: withTSA(c), sign: notationtest.SignOptions{TSA: wrongTSA}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp by a signer", trust: func(o *notation.Options) { o.TrustStores = append(o.TrustStores, store("tsa", "clock", c.root)) },
			sign: notationtest.SignOptions{TSA: &notationtest.TSA{Certificate: c.leaf}}, want: verifier.ReasonTimestampInvalid},
		{name: "timestamp from before the certificate", trust: withTSA(oldClock), sign: notationtest.SignOptions{TSA: at(oldClock, now.AddDate(0, 0, -40))}, want: verifier.ReasonCertificateExpired},
		{name: "timestamp's accuracy reaches before the certificate", trust: withTSA(oldClock),
			sign: notationtest.SignOptions{TSA: accurate(at(oldClock, now.Add(-59*time.Minute)), 5*time.Minute)}, want: verifier.ReasonCertificateExpired},
		{name: "timestamping authority's store empty", trust: func(o *notation.Options) { o.TrustStores = append(o.TrustStores, store("tsa", "clock")) },
			sign: notationtest.SignOptions{TSA: c.tsa}, want: verifier.ReasonKeysUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			by := test.by
			if by == nil {
				by = c.leaf
			}
			a := by.SignArtifact(c.subject, test.sign)
			if test.corrupt != nil {
				test.corrupt(&a)
				a = a.Repack()
			}
			f := verify(t, c.trusting(t, test.trust), evidence(c.subject, a))
			wantReason(t, f, test.want)
			if f.Err != nil {
				t.Logf("%s: %s. %s", f.Err.Reason, f.Err.Message, f.Err.Remedy)
				if f.Err.Remedy == "" {
					t.Error("no remedy")
				}
			}
		})
	}
}

// at is the authority with its clock set.
func at(c cast, when time.Time) *notationtest.TSA {
	return &notationtest.TSA{Certificate: c.tsa.Certificate, Time: when}
}

func accurate(tsa *notationtest.TSA, accuracy time.Duration) *notationtest.TSA {
	tsa.Accuracy = accuracy
	return tsa
}

// laden is the authority with certificates in its tokens that nobody needs.
func laden(c cast, extra []*x509.Certificate) *notationtest.TSA {
	return &notationtest.TSA{Certificate: c.tsa.Certificate, Extra: extra}
}

func repeat(c *x509.Certificate, n int) []*x509.Certificate {
	list := make([]*x509.Certificate, n)
	for i := range list {
		list[i] = c
	}
	return list
}

// splice puts a field of one JWS into another.
func splice(t testing.TB, into, from []byte, field string) []byte {
	t.Helper()
	var a, b map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(into, &a), json.Unmarshal(from, &b)); err != nil {
		t.Fatal(err)
	}
	a[field] = b[field]
	spliced, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return spliced
}
