package notation_test

import (
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// TestWhatASignatureSaysOfItsEnd: its expiry, or the first of its certificates, unless a
// timestamp fixes the time at which those are judged.
func TestWhatASignatureSaysOfItsEnd(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	lives := func(d time.Duration) notationtest.CertificateOptions {
		return notationtest.CertificateOptions{NotBefore: now.Add(-day), NotAfter: now.Add(d)}
	}
	root := notationtest.NewRoot(lives(90 * day))
	leaf := root.NewSigner(lives(20 * day))
	tsaRoot := notationtest.NewRoot(lives(90 * day))
	tsa := &notationtest.TSA{Certificate: tsaRoot.NewTSA(lives(60 * day))}
	for name, test := range map[string]struct {
		sign notationtest.SignOptions
		what verifier.EndKind
		in   time.Duration
	}{
		"the certificate":              {notationtest.SignOptions{}, verifier.EndCertificate, 20 * day},
		"the expiry, which is sooner":  {notationtest.SignOptions{Expiry: now.Add(5 * day)}, verifier.EndSignature, 5 * day},
		"the certificate, as well":     {notationtest.SignOptions{Expiry: now.Add(30 * day)}, verifier.EndCertificate, 20 * day},
		"a timestamp: nothing":         {notationtest.SignOptions{TSA: tsa}, "", 0},
		"a timestamp: the expiry only": {notationtest.SignOptions{TSA: tsa, Expiry: now.Add(30 * day)}, verifier.EndSignature, 30 * day},
	} {
		t.Run(name, func(t *testing.T) {
			subject := notationtest.NewSubject("an image")
			a := leaf.SignArtifact(subject, test.sign)
			stores := []notation.TrustStore{store("ca", "a", root)}
			if test.sign.TSA != nil {
				stores = append(stores, store("tsa", "a", tsaRoot))
			}
			f := verify(t, newVerifier(t, notation.Options{TrustStores: stores}, notationtest.Network{}), evidence(subject, a))
			wantReason(t, f, "")
			end := f.Claims.Ends
			if end.What != test.what || test.in > 0 && (end.At.Sub(now.Add(test.in)).Abs() > time.Minute) || test.in == 0 && !end.At.IsZero() {
				t.Errorf("%+v, want %s in %v", end, test.what, test.in)
			}
		})
	}
}
