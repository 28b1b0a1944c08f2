package notation_test

import (
	"bytes"
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// town is an authority with a signer and a server that tells of revocation.
type town struct {
	root, leaf *notationtest.Certificate
	responder  *notationtest.Responder
	network    notationtest.Network
	subject    ocispec.Descriptor
	signature  notationtest.Artifact
	revocation *notation.Revocation
}

// newTown makes a signer whose certificate names a CRL, an OCSP server or both.
func newTown(t *testing.T, crl, ocsp bool) *town {
	t.Helper()
	w := &town{root: notationtest.NewRoot(notationtest.CertificateOptions{}), subject: notationtest.NewSubject("an image")}
	w.responder = &notationtest.Responder{Issuer: w.root}
	w.network = notationtest.Network{"crl.example.test": w.responder, "ocsp.example.test": w.responder}
	var o notationtest.CertificateOptions
	if crl {
		o.CRL = []string{"http://crl.example.test/root.crl"}
	}
	if ocsp {
		o.OCSP = []string{"http://ocsp.example.test/ocsp"}
	}
	w.leaf = w.root.NewSigner(o)
	w.signature = w.leaf.SignArtifact(w.subject, notationtest.SignOptions{})
	var err error
	if w.revocation, err = notation.NewRevocation(notation.RevocationOptions{Transport: w.network}); err != nil {
		t.Fatal(err)
	}
	return w
}

// verifier makes another one; what is known of revocation is shared.
func (w *town) verifier(t *testing.T) *notation.Verifier {
	t.Helper()
	return newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", w.root)}, Revocation: w.revocation}, nil)
}

func (w *town) verify(t *testing.T) verifier.Finding {
	t.Helper()
	return verify(t, w.verifier(t), evidence(w.subject, w.signature))
}

func TestRevokedByCRLAndOCSP(t *testing.T) {
	for _, test := range []struct {
		name      string
		crl, ocsp bool
		prepare   func(*town)
		want      verifier.Reason
	}{
		{name: "CRL, good", crl: true},
		{name: "CRL, revoked", crl: true, prepare: func(w *town) { w.responder.Revoke(w.leaf.Certificate) }, want: verifier.ReasonCertificateRevoked},
		{name: "CRL, another is revoked", crl: true, prepare: func(w *town) { w.responder.Revoke(w.root.NewSigner(notationtest.CertificateOptions{}).Certificate) }},
		{name: "CRL, out of order", crl: true, prepare: func(w *town) { w.responder.Status = http.StatusInternalServerError }, want: verifier.ReasonRevocationUnavailable},
		{name: "CRL, no such host", crl: true, prepare: func(w *town) { delete(w.network, "crl.example.test") }, want: verifier.ReasonRevocationUnavailable},
		{name: "CRL, out of date", crl: true, prepare: func(w *town) { w.responder.Age, w.responder.Validity = 3*time.Hour, time.Hour }, want: verifier.ReasonRevocationUnavailable},
		{name: "CRL, of another authority", crl: true, prepare: func(w *town) { w.responder.Issuer = notationtest.NewRoot(notationtest.CertificateOptions{}) }, want: verifier.ReasonRevocationUnavailable},
		{name: "CRL, endless", crl: true, prepare: func(w *town) { w.network["crl.example.test"] = endless{} }, want: verifier.ReasonRevocationUnavailable},
		{name: "CRL, endless redirects", crl: true, prepare: func(w *town) {
			w.network["crl.example.test"] = http.RedirectHandler("http://crl.example.test/root.crl", http.StatusFound)
		}, want: verifier.ReasonRevocationUnavailable},
		{name: "OCSP, good", ocsp: true},
		{name: "OCSP, revoked", ocsp: true, prepare: func(w *town) { w.responder.Revoke(w.leaf.Certificate) }, want: verifier.ReasonCertificateRevoked},
		{name: "OCSP, not known there", ocsp: true, prepare: func(w *town) { w.responder.Forget(w.leaf.Certificate) }, want: verifier.ReasonRevocationUnavailable},
		{name: "OCSP, out of date", ocsp: true, prepare: func(w *town) { w.responder.Age, w.responder.Validity = 3*time.Hour, time.Hour }, want: verifier.ReasonRevocationUnavailable},
		{name: "OCSP, by a delegate", ocsp: true, prepare: func(w *town) { w.responder.OCSPSigner = w.root.NewOCSPSigner(notationtest.CertificateOptions{}) }},
		{name: "OCSP, by a delegate, revoked", ocsp: true, prepare: func(w *town) {
			w.responder.OCSPSigner = w.root.NewOCSPSigner(notationtest.CertificateOptions{})
			w.responder.Revoke(w.leaf.Certificate)
		}, want: verifier.ReasonCertificateRevoked},
		{name: "OCSP, by a signer for himself", ocsp: true, prepare: func(w *town) { w.responder.OCSPSigner = w.leaf }, want: verifier.ReasonRevocationUnavailable},
		{name: "OCSP, by a delegate whose time is over", ocsp: true, prepare: func(w *town) {
			w.responder.OCSPSigner = w.root.NewOCSPSigner(notationtest.CertificateOptions{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
		}, want: verifier.ReasonRevocationUnavailable},
		{name: "OCSP, endless", ocsp: true, prepare: func(w *town) { w.network["ocsp.example.test"] = endless{} }, want: verifier.ReasonRevocationUnavailable},
		{name: "both, OCSP away", crl: true, ocsp: true, prepare: func(w *town) { delete(w.network, "ocsp.example.test") }},
		{name: "both, OCSP away, revoked", crl: true, ocsp: true, prepare: func(w *town) {
			delete(w.network, "ocsp.example.test")
			w.responder.Revoke(w.leaf.Certificate)
		}, want: verifier.ReasonCertificateRevoked},
		{name: "both away", crl: true, ocsp: true, prepare: func(w *town) { clear(w.network) }, want: verifier.ReasonRevocationUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newTown(t, test.crl, test.ocsp)
			if test.prepare != nil {
				test.prepare(w)
			}
			f := w.verify(t)
			wantReason(t, f, test.want)
			if f.Err != nil {
				t.Logf("%s. %s (%v)", f.Err.Message, f.Err.Remedy, f.Err.Err)
			}
		})
	}
}

// endless answers for ever.
type endless struct{}

func (endless) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	chunk := bytes.Repeat([]byte{0x30}, 1<<20)
	for range 17 { // one more than is read
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// One list is fetched once, however many ask at once and whoever asks next,
// and again when its time is over.
func TestCRLIsFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, true, false)
		w.responder.Age, w.responder.Validity = time.Second, time.Hour
		w.responder.Delay = func(context.Context) { time.Sleep(100 * time.Millisecond) }
		crowd(t, w)
		if n := w.responder.CRLs(); n != 1 {
			t.Errorf("fetched %d times by a crowd", n)
		}
		wantReason(t, w.verify(t), "")
		if n := w.responder.CRLs(); n != 1 {
			t.Errorf("fetched %d times after that", n)
		}
		time.Sleep(time.Hour)
		w.responder.Revoke(w.leaf.Certificate)
		wantReason(t, w.verify(t), verifier.ReasonCertificateRevoked)
		if n := w.responder.CRLs(); n != 2 {
			t.Errorf("fetched %d times when the first had run out", n)
		}
	})
}

// An OCSP answer that says it holds for a day is believed for ten minutes.
func TestOCSPIsAskedOnceInTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, false, true)
		w.responder.Validity = 24 * time.Hour
		w.responder.Delay = func(context.Context) { time.Sleep(100 * time.Millisecond) }
		crowd(t, w)
		wantReason(t, w.verify(t), "")
		if n := w.responder.OCSPs(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		w.responder.Revoke(w.leaf.Certificate)
		time.Sleep(10 * time.Minute)
		wantReason(t, w.verify(t), verifier.ReasonCertificateRevoked)
		if n := w.responder.OCSPs(); n != 2 {
			t.Errorf("asked %d times after ten minutes", n)
		}
	})
}

func crowd(t *testing.T, w *town) {
	t.Helper()
	v, e := w.verifier(t), evidence(w.subject, w.signature)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { wantReason(t, verify(t, v, e), "") })
	}
	wg.Wait()
}

// A list that its issuer did not sign may come over plain HTTP from anyone. It
// proves nothing, and it does not stay.
func TestForgedListsAreNotRemembered(t *testing.T) {
	for _, test := range []struct {
		name      string
		crl, ocsp bool
	}{{"CRL", true, false}, {"OCSP", false, true}} {
		t.Run(test.name, func(t *testing.T) {
			w := newTown(t, test.crl, test.ocsp)
			w.responder.Issuer = notationtest.NewRoot(notationtest.CertificateOptions{})
			wantReason(t, w.verify(t), verifier.ReasonRevocationUnavailable)
			w.responder.Issuer = w.root
			wantReason(t, w.verify(t), "")
			w.responder.Issuer = notationtest.NewRoot(notationtest.CertificateOptions{})
			wantReason(t, w.verify(t), "")
		})
	}
}

// A server that hangs costs its limit and no more, and the caller's patience
// if that is less.
func TestSilentServers(t *testing.T) {
	for _, test := range []struct {
		name      string
		crl, ocsp bool
		patience  time.Duration
		within    time.Duration
	}{
		{"CRL", true, false, time.Minute, 5 * time.Second},
		{"OCSP", false, true, time.Minute, 2 * time.Second},
		{"both", true, true, time.Minute, 6 * time.Second},
		{"impatient", true, true, time.Second, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, test.crl, test.ocsp)
				w.responder.Delay = func(ctx context.Context) { <-ctx.Done() }
				ctx, cancel := context.WithTimeout(t.Context(), test.patience)
				defer cancel()
				began := time.Now()
				f := w.verifier(t).Verify(ctx, evidence(w.subject, w.signature))[0]
				wantReason(t, f, verifier.ReasonRevocationUnavailable)
				if took := time.Since(began); took > test.within {
					t.Errorf("took %v", took)
				}
				time.Sleep(time.Minute) // what goes on behind ends by itself
			})
		})
	}
}

// What one caller did not wait for is there for the next (L41).
func TestL41ImpatientCallerSpoilsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, true, false)
		w.responder.Delay = func(context.Context) { time.Sleep(3 * time.Second) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		v, e := w.verifier(t), evidence(w.subject, w.signature)
		wantReason(t, v.Verify(ctx, e)[0], verifier.ReasonRevocationUnavailable)
		wantReason(t, verify(t, v, e), "")
		if n := w.responder.CRLs(); n != 1 {
			t.Errorf("fetched %d times", n)
		}
	})
}

// A finding holds as long as all it rests on.
func TestFindingsEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		c := newCast()
		shortLeaf := c.root.NewSigner(notationtest.CertificateOptions{NotAfter: now.Add(30 * time.Minute)})
		shortRoot := notationtest.NewRoot(notationtest.CertificateOptions{NotAfter: now.Add(20 * time.Minute)})
		longLived := func(o notationtest.CertificateOptions) notationtest.CertificateOptions {
			o.NotAfter = now.AddDate(1, 0, 0)
			return o
		}
		list := &notationtest.Responder{Issuer: c.root, Age: time.Second, Validity: 40 * time.Minute}
		network := notationtest.Network{"crl.example.test": list, "ocsp.example.test": list}
		onList := c.root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://crl.example.test/root.crl"}})
		asked := c.root.NewSigner(notationtest.CertificateOptions{OCSP: []string{"http://ocsp.example.test"}})
		revoked := c.root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://crl.example.test/root.crl"}})
		list.Revoke(revoked.Certificate)
		future := c.root.NewSigner(notationtest.CertificateOptions{NotBefore: now.Add(15 * time.Minute)})
		for _, test := range []struct {
			name string
			by   *notationtest.Certificate
			sign notationtest.SignOptions
			tsa  bool
			want time.Duration
			err  verifier.Reason
		}{
			{name: "nothing ends", by: c.leaf, want: time.Hour},
			{name: "the signature's expiry", by: c.leaf, sign: notationtest.SignOptions{Expiry: now.Add(10 * time.Minute)}, want: 10 * time.Minute},
			{name: "the leaf", by: shortLeaf, want: 30 * time.Minute},
			{name: "the leaf, with a timestamp", by: shortLeaf, sign: notationtest.SignOptions{TSA: c.tsa}, tsa: true, want: time.Hour},
			{name: "the root", by: shortRoot.NewSigner(longLived(notationtest.CertificateOptions{})), want: 20 * time.Minute},
			{name: "the CRL", by: onList, want: 40*time.Minute - time.Second},
			{name: "OCSP", by: asked, want: 10 * time.Minute},
			{name: "revoked until the next list", by: revoked, want: 40*time.Minute - time.Second, err: verifier.ReasonCertificateRevoked},
			{name: "not valid yet", by: future, sign: notationtest.SignOptions{Time: now.Add(time.Hour)}, want: 15 * time.Minute, err: verifier.ReasonCertificateExpired},
			{name: "stranger", by: c.stranger, want: time.Hour, err: verifier.ReasonCertificateNotTrusted},
		} {
			o := notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", c.root, shortRoot)}}
			if test.tsa {
				o.TrustStores = append(o.TrustStores, store("tsa", "a", c.tsaRoot))
			}
			f := verify(t, newVerifier(t, o, network), evidence(c.subject, test.by.SignArtifact(c.subject, test.sign)))
			wantReason(t, f, test.err)
			if got := f.ValidUntil.Sub(now); got != test.want {
				t.Errorf("%s: holds for %v, want %v", test.name, got, test.want)
			}
		}
	})
}

// The timestamping authority's chain is asked about as well, unless revocation
// is skipped: then nobody is.
func TestTimestampingChainIsAskedAbout(t *testing.T) {
	c := newCast()
	responder := &notationtest.Responder{Issuer: c.tsaRoot}
	tsa := &notationtest.TSA{Certificate: c.tsaRoot.NewTSA(notationtest.CertificateOptions{CRL: []string{"http://crl.example.test/tsa.crl"}})}
	responder.Revoke(tsa.Certificate.Certificate)
	network := notationtest.Network{"crl.example.test": responder}
	a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{TSA: tsa})
	for name, test := range map[string]struct {
		override map[string]string
		want     verifier.Reason
		asked    bool
	}{
		"strict":             {nil, verifier.ReasonCertificateRevoked, true},
		"revocation logged":  {map[string]string{"revocation": "log"}, verifier.ReasonCertificateRevoked, true},
		"timestamp logged":   {map[string]string{"authenticTimestamp": "log"}, "", true},
		"revocation skipped": {map[string]string{"revocation": "skip"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			before := responder.CRLs()
			v := newVerifier(t, notation.Options{
				TrustStores: []notation.TrustStore{store("ca", "a", c.root), store("tsa", "a", c.tsaRoot)}, Override: test.override,
			}, network)
			f := verify(t, v, evidence(c.subject, a))
			wantReason(t, f, test.want)
			if f.Err == nil && test.asked && len(f.Claims.Logged) != 1 {
				t.Errorf("logged %v", f.Claims.Logged)
			}
			if asked := responder.CRLs() > before; asked != test.asked {
				t.Errorf("asked: %v", asked)
			}
		})
	}
}

func TestRevocationNeedsATransport(t *testing.T) {
	if _, err := notation.NewRevocation(notation.RevocationOptions{}); err == nil || !strings.Contains(err.Error(), "transport") {
		t.Errorf("got %v", err)
	}
}

// TestOnlyAProvedTimeOutdatesARevocation: a list may say since when a key was not
// safe. Who has the key may write any time of signing, so that only the time of a
// signing authority counts.
func TestOnlyAProvedTimeOutdatesARevocation(t *testing.T) {
	now := time.Now()
	root := notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.AddDate(0, -2, 0)})
	leaf := root.NewSigner(notationtest.CertificateOptions{NotBefore: now.AddDate(0, -1, 0), CRL: []string{"http://crl.example.test/root.crl"}})
	subject := notationtest.NewSubject("an image")
	for name, test := range map[string]struct {
		authority bool
		signed    time.Time
		want      verifier.Reason
	}{
		"the signer's, before it":    {false, now.AddDate(0, 0, -9), verifier.ReasonCertificateRevoked},
		"the signer's, after it":     {false, now.AddDate(0, 0, -3), verifier.ReasonCertificateRevoked},
		"an authority's, before it":  {true, now.AddDate(0, 0, -9), ""},
		"an authority's, afterwards": {true, now.AddDate(0, 0, -3), verifier.ReasonCertificateRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			responder := &notationtest.Responder{Issuer: root, Invalid: now.AddDate(0, 0, -6)}
			responder.Revoke(leaf.Certificate)
			of := notation.TypeCA
			if test.authority {
				of = notation.TypeSigningAuthority
			}
			v := newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store(of, "a", root)}}, notationtest.Network{"crl.example.test": responder})
			a := leaf.SignArtifact(subject, notationtest.SignOptions{SigningAuthority: test.authority, Time: test.signed})
			wantReason(t, verify(t, v, evidence(subject, a)), test.want)
		})
	}
}

// TestRedirectsOfARevocationServerAreFew, so that one certificate does not have us
// call the whole world.
func TestRedirectsOfARevocationServerAreFew(t *testing.T) {
	w := newTown(t, true, false)
	var asked atomic.Int64
	w.network["crl.example.test"] = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(out, r, "http://crl.example.test/root.crl", http.StatusFound)
	})
	wantReason(t, w.verify(t), verifier.ReasonRevocationUnavailable)
	if n := asked.Load(); n == 0 || n > 4 {
		t.Errorf("asked %d times", n)
	}
}

// TestL47_RevocationListsAreCounted: a tenant's authority may name lists of 16 MiB, and
// each takes ten times as much while it is read.
func TestL47_RevocationListsAreCounted(t *testing.T) {
	const size = 4 << 20 // of zeros: they are read, and are no list
	var mu sync.Mutex
	var counted, held, most int64
	count := func(_ context.Context, host string, bytes int64) (func(), error) {
		mu.Lock()
		defer mu.Unlock()
		if host != "crl.example.test" {
			t.Errorf("counted for %s", host)
		}
		counted++
		held += bytes
		most = max(most, held)
		return func() {
			mu.Lock()
			defer mu.Unlock()
			held -= bytes
		}, nil
	}
	for name, c := range map[string]struct {
		length string
		want   int64
	}{"with its length": {strconv.Itoa(size), 10 * size}, "without": {"", 10 * 16 << 20}} {
		t.Run(name, func(t *testing.T) {
			w := newTown(t, true, false)
			w.network["crl.example.test"] = http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) {
				if c.length != "" {
					out.Header().Set("Content-Length", c.length)
				}
				_, _ = out.Write(make([]byte, size))
			})
			var err error
			w.revocation, err = notation.NewRevocation(notation.RevocationOptions{Transport: w.network, Count: count})
			if err != nil {
				t.Fatal(err)
			}
			counted, held, most = 0, 0, 0
			wantReason(t, w.verify(t), verifier.ReasonRevocationUnavailable)
			if counted == 0 || most != c.want || held != 0 {
				t.Errorf("counted %d times, %d bytes at most, want %d; %d are left", counted, most, c.want, held)
			}
		})
	}
	t.Run("as many as there are", func(t *testing.T) {
		w := newTown(t, true, false)
		var err error
		w.revocation, err = notation.NewRevocation(notation.RevocationOptions{Transport: w.network, Count: func(context.Context, string, int64) (func(), error) {
			return nil, &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: "too much is read at once"}
		}})
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, w.verify(t), verifier.ReasonRevocationUnavailable)
	})
}

// TestL55_RevocationTellsNoURL: a certificate, or a server's redirect, may name a URL
// that has a secret in its query.
func TestL55_RevocationTellsNoURL(t *testing.T) {
	const secret = "?sig=S3CR3T"
	gone := failing{}
	for name, network := range map[string]notationtest.Network{
		"the server is away": {},
		"it redirects away":  {"crl.example.test": http.RedirectHandler("http://elsewhere.example.test/list.crl"+secret, http.StatusFound), "ocsp.example.test": http.RedirectHandler("http://elsewhere.example.test/"+secret, http.StatusFound)},
		"it answers badly":   {"crl.example.test": gone, "ocsp.example.test": gone},
	} {
		for _, o := range []notationtest.CertificateOptions{
			{CRL: []string{"http://crl.example.test/root.crl" + secret}}, {OCSP: []string{"http://ocsp.example.test/ocsp" + secret}},
			{CRL: []string{"http://user:S3CR3T@crl.example.test/root.crl"}},
		} {
			w := newTown(t, true, true)
			for host := range w.network {
				delete(w.network, host)
			}
			for host, handler := range network {
				w.network[host] = handler
			}
			w.leaf = w.root.NewSigner(o)
			w.signature = w.leaf.SignArtifact(w.subject, notationtest.SignOptions{})
			f := w.verify(t)
			wantReason(t, f, verifier.ReasonRevocationUnavailable)
			if f.Err != nil && strings.Contains(f.Err.Error(), "S3CR3T") {
				t.Errorf("%s: %v", name, f.Err)
			}
		}
	}
}

// failing answers with an error.
type failing struct{}

func (failing) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "gone", http.StatusGone)
}
