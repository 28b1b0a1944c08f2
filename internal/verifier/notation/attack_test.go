package notation_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// A valid signature of image A, byte for byte, at image B: by the manifest as
// it was, by one that names B, and by one that names B in all it can.
func TestL05bTransplantedSignature(t *testing.T) {
	c := newCast()
	other := notationtest.NewSubject("no image") // of the same size
	for name, envelope := range map[string]string{"JWS": notationtest.JWS, "COSE": notationtest.COSE} {
		for level, change := range map[string]func(*notation.Options){
			"strict": nil,
			"audit":  func(o *notation.Options) { o.Level = "audit" },
			"skipping policy": func(o *notation.Options) {
				o.TrustPolicyDoc = []byte(`{"version":"1.0","trustPolicies":[{"name":"a","registryScopes":["*"],"signatureVerification":{"level":"skip"}}]}`)
			},
		} {
			t.Run(name+", "+level, func(t *testing.T) {
				v := c.trusting(t, change)
				a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{Envelope: envelope})
				wantReason(t, verify(t, v, evidence(c.subject, a)), "")
				wantReason(t, verify(t, v, evidence(other, a)), verifier.ReasonSubjectMismatch)
				moved := notationtest.Pack(other, envelope, a.Envelope)
				wantReason(t, verify(t, v, evidence(other, moved)), verifier.ReasonSubjectMismatch)
			})
		}
	}
}

// Sizes that a descriptor claims cost nothing and reach nothing.
func TestL09LyingSizes(t *testing.T) {
	c := newCast()
	v := c.trusting(t, nil)
	for _, size := range []int64{-1, 0, 1 << 21, 1 << 62, -1 << 63} {
		a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{})
		a.Manifest.Layers[0].Size = size
		e := evidence(c.subject, a.Repack())
		fetched := false
		e.Fetch = func(context.Context, ocispec.Descriptor) ([]byte, error) { fetched = true; return nil, nil }
		wantReason(t, verify(t, v, e), verifier.ReasonFormatUnsupported)
		if fetched {
			t.Errorf("fetched for a size of %d", size)
		}
	}
}

// Each envelope with everything that is not a good signature of this image by
// someone who is trusted.
func TestL13NegativeMatrix(t *testing.T) {
	c := newCast()
	revoked := c.root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://crl.example.test/root.crl"}})
	responder := &notationtest.Responder{Issuer: c.root}
	responder.Revoke(revoked.Certificate)
	v := newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", c.root)}}, notationtest.Network{"crl.example.test": responder})
	for name, envelope := range map[string]string{"JWS": notationtest.JWS, "COSE": notationtest.COSE} {
		good := notationtest.SignOptions{Envelope: envelope}
		expired := notationtest.SignOptions{Envelope: envelope, Time: time.Now().Add(-30 * time.Minute), Expiry: time.Now().Add(-time.Minute)}
		wantReason(t, verify(t, v, evidence(c.subject, c.leaf.SignArtifact(c.subject, good))), "")
		for bad, test := range map[string]struct {
			a    notationtest.Artifact
			want verifier.Reason
		}{
			"garbage":       {notationtest.Pack(c.subject, envelope, []byte("garbage")), verifier.ReasonSignatureInvalid},
			"wrong key":     {c.stranger.SignArtifact(c.subject, good), verifier.ReasonCertificateNotTrusted},
			"wrong subject": {notationtest.Pack(c.subject, envelope, c.leaf.Sign(notationtest.NewSubject("no image"), good)), verifier.ReasonSubjectMismatch},
			"expired":       {c.leaf.SignArtifact(c.subject, expired), verifier.ReasonSignatureExpired},
			"revoked":       {revoked.SignArtifact(c.subject, good), verifier.ReasonCertificateRevoked},
		} {
			t.Run(name+", "+bad, func(t *testing.T) { wantReason(t, verify(t, v, evidence(c.subject, test.a)), test.want) })
		}
	}
}

// Alice's certificate is issued anew, with another key, by another
// intermediate, found through another trust store: she is one signer. Bob is
// another.
func TestL16ReissuedCertificateIsOneSigner(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	first := root.NewIntermediate(notationtest.CertificateOptions{Subject: notationtest.Name("intermediate 1")})
	second := root.NewIntermediate(notationtest.CertificateOptions{Subject: notationtest.Name("intermediate 2")})
	alice := first.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("alice.example.test")})
	reissued := alice.Reissue(notationtest.CertificateOptions{})
	elsewhere := second.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("alice.example.test"), KeyType: notationtest.ECDSA384})
	bob := first.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("bob.example.test")})

	subject := notationtest.NewSubject("an image")
	byRoot := newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "roots", root)}}, notationtest.Network{})
	byIntermediate := newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "others", first, second)}}, notationtest.Network{})
	id := func(v *notation.Verifier, by *notationtest.Certificate, envelope string) string {
		f := verify(t, v, evidence(subject, by.SignArtifact(subject, notationtest.SignOptions{Envelope: envelope})))
		wantReason(t, f, "")
		return f.Claims.Signer.ID
	}
	want := id(byRoot, alice, notationtest.JWS)
	for name, got := range map[string]string{
		"COSE":                 id(byRoot, alice, notationtest.COSE),
		"another trust store":  id(byIntermediate, alice, notationtest.JWS),
		"issued anew":          id(byRoot, reissued, notationtest.JWS),
		"another intermediate": id(byRoot, elsewhere, notationtest.JWS),
	} {
		if got != want {
			t.Errorf("%s: another signer", name)
		}
	}
	if id(byRoot, bob, notationtest.JWS) == want {
		t.Error("bob is alice")
	}
}

// day is the unit of the fake clock's table: certificates that are to expire
// do so on day 10, signing is before that or after, judgement on day 20.
const day = 24 * time.Hour

func TestL18ExpiryAndRevocationByTime(t *testing.T) {
	roles := []string{"leaf", "intermediate", "root", "TSA leaf", "TSA root"}
	for _, role := range roles {
		for _, expires := range []bool{false, true} {
			for _, signedAfter := range []bool{false, true} {
				for _, stamped := range []bool{false, true} {
					for _, revoked := range []bool{false, true} {
						if signedAfter && !expires {
							continue // after what?
						}
						if want, ok := wantL18(role, expires, signedAfter, stamped, revoked); ok {
							name := fmt.Sprintf("%s, expires %v, signed after that %v, timestamp %v, revoked %v", role, expires, signedAfter, stamped, revoked)
							t.Run(name, func(t *testing.T) {
								synctest.Test(t, func(t *testing.T) { testL18(t, role, expires, signedAfter, stamped, revoked, want) })
							})
						}
					}
				}
			}
		}
	}
}

// wantL18 is the table in rules: a timestamp saves what was valid when it was
// made, nothing saves what was revoked, and a root cannot be revoked.
func wantL18(role string, expires, signedAfter, stamped, revoked bool) (verifier.Reason, bool) {
	ofTSA := role == "TSA leaf" || role == "TSA root"
	isRoot := role == "root" || role == "TSA root"
	switch {
	case ofTSA && !stamped:
		return "", false // it plays no part
	case !ofTSA && expires && (!stamped || signedAfter):
		return verifier.ReasonCertificateExpired, true
	case ofTSA && expires && signedAfter:
		return verifier.ReasonTimestampInvalid, true
	case revoked && !isRoot:
		return verifier.ReasonCertificateRevoked, true
	}
	return "", true
}

func testL18(t *testing.T, role string, expires, signedAfter, stamped, revoked bool, want verifier.Reason) {
	start := time.Now()
	network := notationtest.Network{}
	options := func(name, issuer string) notationtest.CertificateOptions {
		o := notationtest.CertificateOptions{Subject: notationtest.Name(name), NotBefore: start, NotAfter: start.Add(1000 * day)}
		if name == role && expires {
			o.NotAfter = start.Add(10 * day)
		}
		if issuer != "" {
			o.CRL = []string{"http://" + issuer + "/list.crl"}
		}
		return o
	}
	root := notationtest.NewRoot(options("root", ""))
	intermediate := root.NewIntermediate(options("intermediate", "crl-root"))
	leaf := intermediate.NewSigner(options("leaf", "crl-intermediate"))
	tsaRoot := notationtest.NewRoot(options("TSA root", ""))
	tsaLeaf := tsaRoot.NewTSA(options("TSA leaf", "crl-tsa"))
	for host, issuer := range map[string]*notationtest.Certificate{"crl-root": root, "crl-intermediate": intermediate, "crl-tsa": tsaRoot} {
		responder := &notationtest.Responder{Issuer: issuer}
		if revoked {
			for name, c := range map[string]*notationtest.Certificate{"root": root, "intermediate": intermediate, "leaf": leaf, "TSA root": tsaRoot, "TSA leaf": tsaLeaf} {
				if name == role {
					responder.Revoke(c.Certificate)
				}
			}
		}
		network[host] = responder
	}

	sign := notationtest.SignOptions{Time: start.Add(5 * day)} // what it claims; only a timestamp counts
	o := notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", root)}}
	if stamped {
		o.TrustStores = append(o.TrustStores, store("tsa", "a", tsaRoot))
		sign.TSA = &notationtest.TSA{Certificate: tsaLeaf, Time: start.Add(5 * day)}
		if signedAfter {
			sign.TSA.Time = start.Add(15 * day)
		}
	}
	subject := notationtest.NewSubject("an image")
	a := leaf.SignArtifact(subject, sign)
	time.Sleep(20 * day)
	f := verify(t, newVerifier(t, o, network), evidence(subject, a))
	wantReason(t, f, want)
	if f.Err == nil && stamped && !f.Claims.SignedAt.Equal(sign.TSA.Time) {
		t.Errorf("signed at %v", f.Claims.SignedAt)
	}
	synctest.Wait()
}

// What a level lets through is said, one by one, and is no plain yes.
func TestL33LevelsThatOnlyLogSaySo(t *testing.T) {
	c := newCast()
	now := time.Now()
	revoked := c.root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://crl.example.test/root.crl"}})
	unknown := c.root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://away.example.test/root.crl"}})
	responder := &notationtest.Responder{Issuer: c.root}
	responder.Revoke(revoked.Certificate)
	network := notationtest.Network{"crl.example.test": responder}
	old := notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.AddDate(0, -3, 0), NotAfter: now.AddDate(1, 0, 0)})
	expiredLeaf := old.NewSigner(notationtest.CertificateOptions{NotBefore: now.AddDate(0, -3, 0), NotAfter: now.AddDate(0, -1, 0)})
	expired := notationtest.SignOptions{Time: now.Add(-30 * time.Minute), Expiry: now.Add(-time.Minute)}
	wanted := []string{"x509.subject: CN=other,O=Notary,ST=WA,C=US"}

	for _, test := range []struct {
		name       string
		by         *notationtest.Certificate
		sign       notationtest.SignOptions
		identities []string
		level      string
		override   map[string]string
		want       verifier.Reason
		logged     []verifier.Reason
	}{
		{name: "permissive, nothing fails", level: "permissive"},
		{name: "audit, nothing fails", level: "audit"},
		{name: "permissive, expired", level: "permissive", sign: expired, logged: []verifier.Reason{verifier.ReasonSignatureExpired}},
		{name: "permissive, certificate expired", level: "permissive", by: expiredLeaf, sign: notationtest.SignOptions{Time: now.AddDate(0, -2, 0)},
			logged: []verifier.Reason{verifier.ReasonCertificateExpired}},
		{name: "permissive, revoked", level: "permissive", by: revoked, logged: []verifier.Reason{verifier.ReasonCertificateRevoked}},
		{name: "permissive, revocation unknown", level: "permissive", by: unknown, logged: []verifier.Reason{verifier.ReasonRevocationUnavailable}},
		{name: "permissive, stranger", level: "permissive", by: c.stranger, want: verifier.ReasonCertificateNotTrusted},
		{name: "permissive, expired and revoked", level: "permissive", by: revoked, sign: expired,
			logged: []verifier.Reason{verifier.ReasonSignatureExpired, verifier.ReasonCertificateRevoked}},
		{name: "audit, stranger", level: "audit", by: c.stranger, logged: []verifier.Reason{verifier.ReasonCertificateNotTrusted}},
		{name: "audit, another identity", level: "audit", identities: wanted, logged: []verifier.Reason{verifier.ReasonIdentityNotTrusted}},
		{name: "audit, stranger of another identity", level: "audit", by: c.stranger, identities: wanted,
			logged: []verifier.Reason{verifier.ReasonCertificateNotTrusted, verifier.ReasonIdentityNotTrusted}},
		{name: "strict, expiry logged", level: "strict", override: map[string]string{"expiry": "log"}, sign: expired, logged: []verifier.Reason{verifier.ReasonSignatureExpired}},
		{name: "strict, revocation logged", level: "strict", override: map[string]string{"revocation": "log"}, by: revoked, logged: []verifier.Reason{verifier.ReasonCertificateRevoked}},
		{name: "strict, revocation skipped", level: "strict", override: map[string]string{"revocation": "skip"}, by: revoked},
		{name: "permissive, expiry enforced", level: "permissive", override: map[string]string{"expiry": "enforce"}, sign: expired, want: verifier.ReasonSignatureExpired},
		{name: "audit, authenticity enforced", level: "audit", override: map[string]string{"authenticity": "enforce"}, by: c.stranger, want: verifier.ReasonCertificateNotTrusted},
	} {
		t.Run(test.name, func(t *testing.T) {
			by := test.by
			if by == nil {
				by = c.leaf
			}
			v := newVerifier(t, notation.Options{
				TrustStores: []notation.TrustStore{store("ca", "a", c.root, old)}, TrustedIdentities: test.identities, Level: test.level, Override: test.override,
			}, network)
			f := verify(t, v, evidence(c.subject, by.SignArtifact(c.subject, test.sign)))
			wantReason(t, f, test.want)
			var logged []verifier.Reason
			for _, err := range f.Claims.Logged {
				logged = append(logged, err.Reason)
			}
			if fmt.Sprint(logged) != fmt.Sprint(test.logged) {
				t.Errorf("logged %v, want %v", logged, test.logged)
			}
			if f.Err == nil && !f.ValidUntil.After(time.Now()) {
				t.Error("proof that has ended")
			}
			for _, err := range f.Claims.Logged {
				if err.Reason.Undecided() && f.ValidUntil.After(time.Now().Add(time.Minute)) {
					t.Error("what may soon be known is remembered for long")
				}
			}
		})
	}
}

// A certificate says whom to ask about it. Nobody is asked about chains that
// are not trusted, not where that is only logged either.
func TestStrangersDoNotChooseWhomWeCall(t *testing.T) {
	c := newCast()
	urls := notationtest.CertificateOptions{
		CRL: []string{"http://169.254.169.254/latest.crl"}, OCSP: []string{"http://intranet.example.test/ocsp"},
	}
	strangers := notationtest.NewRoot(notationtest.CertificateOptions{})
	strangerTSA := strangers.NewTSA(urls)
	stranger := strangers.NewIntermediate(urls).NewSigner(urls)
	unwanted := c.root.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name("unwanted"), CRL: urls.CRL, OCSP: urls.OCSP})
	var mu sync.Mutex
	var called []string
	record := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		called = append(called, r.URL.String())
	})
	network := notationtest.Network{"169.254.169.254": record, "intranet.example.test": record}
	identity := []string{"x509.subject: CN=wabbit-networks.io,O=Notary,ST=WA,C=US"}
	for _, level := range []string{"strict", "permissive", "audit"} {
		v := newVerifier(t, notation.Options{
			TrustStores: []notation.TrustStore{store("ca", "a", c.root), store("tsa", "a", c.tsaRoot)}, TrustedIdentities: identity, Level: level,
		}, network)
		for name, a := range map[string]notationtest.Artifact{
			"stranger":                 stranger.SignArtifact(c.subject, notationtest.SignOptions{TSA: c.tsa}),
			"another identity":         unwanted.SignArtifact(c.subject, notationtest.SignOptions{TSA: c.tsa}),
			"timestamp by a stranger":  c.leaf.SignArtifact(c.subject, notationtest.SignOptions{TSA: &notationtest.TSA{Certificate: strangerTSA}}),
			"stranger, own time, COSE": stranger.SignArtifact(c.subject, notationtest.SignOptions{Envelope: notationtest.COSE, TSA: &notationtest.TSA{Certificate: strangerTSA}}),
		} {
			f := verify(t, v, evidence(c.subject, a))
			if f.Err == nil && len(f.Claims.Logged) == 0 {
				t.Errorf("%s, %s: trusted", level, name)
			}
			if len(called) > 0 {
				t.Errorf("%s, %s: called %v", level, name, called)
				called = nil
			}
		}
	}
	// The same addresses in a chain that is trusted are called: the test would
	// notice.
	v := newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", c.root)}}, network)
	wantReason(t, verify(t, v, evidence(c.subject, unwanted.SignArtifact(c.subject, notationtest.SignOptions{}))), verifier.ReasonRevocationUnavailable)
	if len(called) == 0 {
		t.Error("nobody was called at all")
	}
}
