package sigstore_test

import (
	"crypto"
	"encoding/base64"
	"maps"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// What each of the three words makes of a signature without a proof, with a
// good one and with a bad one.
func TestTransparencyLog(t *testing.T) {
	c := newCast()
	logKeys := []crypto.PublicKey{c.log.Key.Public()}
	for mode, want := range map[sigstore.TransparencyLog]struct{ none, good, bad verifier.Reason }{
		sigstore.LogRequired: {verifier.ReasonLogProofMissing, "", verifier.ReasonLogProofInvalid},
		sigstore.LogOptional: {"", "", verifier.ReasonLogProofInvalid},
		sigstore.LogIgnored:  {"", "", ""},
	} {
		o := sigstore.Options{Keys: named(c.key), TransparencyLog: mode}
		if mode != sigstore.LogIgnored {
			o.LogKeys = logKeys
		}
		v := newVerifier(t, o)
		for _, form := range forms() {
			t.Run(string(mode)+", "+form.name, func(t *testing.T) {
				logged := options{log: c.log}
				wantReason(t, verify(t, v, evidence(c.subject, form.make(c.key, c.subject, options{}))), want.none)
				wantReason(t, verify(t, v, evidence(c.subject, form.make(c.key, c.subject, logged))), want.good)
				wantReason(t, verify(t, v, evidence(c.subject, mapProof(form.make(c.key, c.subject, logged), breakProof))), want.bad)
			})
		}
	}
}

// A log may be trusted by its key or by a trusted root, among others.
func TestLogsAreTrustedByKeyOrByRoot(t *testing.T) {
	c := newCast()
	other, second := sigstoretest.NewLog(), sigstoretest.NewLog2()
	for name, o := range map[string]sigstore.Options{
		"key":               {LogKeys: []crypto.PublicKey{other.Key.Public(), c.log.Key.Public()}},
		"trusted root":      {TrustedRoot: sigstoretest.TrustedRoot(other, c.log, second)},
		"key, another root": {LogKeys: []crypto.PublicKey{c.log.Key.Public()}, TrustedRoot: sigstoretest.TrustedRoot(other)},
	} {
		o.Keys, o.TransparencyLog = named(c.key), sigstore.LogRequired
		v := newVerifier(t, o)
		for _, form := range forms() {
			t.Run(name+", "+form.name, func(t *testing.T) {
				wantReason(t, verify(t, v, evidence(c.subject, form.make(c.key, c.subject, options{log: c.log}))), "")
				wantReason(t, verify(t, v, evidence(c.subject, form.make(c.key, c.subject, options{log: sigstoretest.NewLog()}))), verifier.ReasonLogProofInvalid)
			})
		}
	}
}

// The log vouches for the time where it promises it.
func TestTheLogsTimeIsTheSignatures(t *testing.T) {
	c := newCast()
	c.log.Time = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, form := range forms() {
		a := form.make(c.key, c.subject, options{log: c.log})
		if f := verify(t, c.demanding(t), evidence(c.subject, a)); !f.Claims.SignedAt.Equal(c.log.Time) {
			t.Errorf("%s: signed at %v", form.name, f.Claims.SignedAt)
		}
		if f := verify(t, trusting(t, c.key), evidence(c.subject, a)); !f.Claims.SignedAt.IsZero() {
			t.Errorf("%s: signed at %v, says a log that nobody looked at", form.name, f.Claims.SignedAt)
		}
	}
	// A proof of inclusion promises no time.
	a := mapProof(sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Log: c.log})), func(p map[string]any) {
		delete(p, "inclusionPromise")
	})
	f := verify(t, c.demanding(t), evidence(c.subject, a))
	wantReason(t, f, "")
	if !f.Claims.SignedAt.IsZero() {
		t.Errorf("signed at %v, says nobody", f.Claims.SignedAt)
	}
}

// Every key by whose signatures logs have entries.
func TestLoggedKeysAndHashes(t *testing.T) {
	log := sigstoretest.NewLog()
	subject := sigstoretest.NewSubject("an image")
	for _, keyType := range []sigstoretest.KeyType{sigstoretest.P256, sigstoretest.P384, sigstoretest.P521, sigstoretest.RSA2048, sigstoretest.Ed25519} {
		key := sigstoretest.NewKey(keyType)
		v := newVerifier(t, sigstore.Options{
			Keys: named(key), TransparencyLog: sigstore.LogRequired, LogKeys: []crypto.PublicKey{log.Key.Public()},
		})
		for _, form := range forms() {
			if form.message && keyType != sigstoretest.P256 && keyType != sigstoretest.RSA2048 {
				continue
			}
			t.Run(string(keyType)+", "+form.name, func(t *testing.T) {
				wantReason(t, verify(t, v, evidence(subject, form.make(key, subject, options{log: log}))), "")
			})
		}
	}
}

// Rekor 2 has no promises and entries of another form.
func TestSecondVersionOfRekor(t *testing.T) {
	log := sigstoretest.NewLog2()
	subject := sigstoretest.NewSubject("an image")
	for _, keyType := range []sigstoretest.KeyType{sigstoretest.P256, sigstoretest.P384, sigstoretest.RSA2048, sigstoretest.Ed25519} {
		t.Run(string(keyType), func(t *testing.T) {
			key, stranger := sigstoretest.NewKey(keyType), sigstoretest.NewKey(keyType)
			v := newVerifier(t, sigstore.Options{Keys: named(key), TransparencyLog: sigstore.LogRequired, TrustedRoot: sigstoretest.TrustedRoot(log)})
			make := func(by *sigstoretest.Key, at string) sigstoretest.Artifact {
				return sigstoretest.PackBundle(subject, "", by.SignBundle(sigstoretest.NewSubject(at), sigstoretest.BundleOptions{Log: log}))
			}
			good := make(key, "an image")
			wantReason(t, verify(t, v, evidence(subject, good)), "")
			wantReason(t, verify(t, v, evidence(subject, make(stranger, "an image"))), verifier.ReasonSignatureInvalid)
			wantReason(t, verify(t, v, evidence(subject, make(key, "no image"))), verifier.ReasonSubjectMismatch)
			wantReason(t, verify(t, v, evidence(subject, mapProof(make(key, "an image"), func(p map[string]any) { p["logIndex"] = "0" }))), verifier.ReasonLogProofInvalid)
			for name, from := range map[string]sigstoretest.Artifact{"another key's": make(stranger, "an image"), "another image's": make(key, "no image")} {
				f := verify(t, v, evidence(subject, withProofOf(from, make(key, "an image"))))
				if wantReason(t, f, verifier.ReasonLogProofInvalid); t.Failed() {
					t.Error(name)
				}
			}
		})
	}
}

// L17: an entry counts for the signature and the key that it is about.
func TestL17TransplantedLogEntry(t *testing.T) {
	c := newCast()
	bundle := func(by *sigstoretest.Key, o sigstoretest.BundleOptions) sigstoretest.Artifact {
		return sigstoretest.PackBundle(c.subject, "", by.SignBundle(c.subject, o))
	}
	logged := sigstoretest.BundleOptions{Log: c.log}
	field := func(name string, from sigstoretest.Artifact) func(map[string]any) {
		return func(p map[string]any) {
			mapProof(from, func(other map[string]any) { p[name] = other[name] })
		}
	}
	inProof := func(name string, value any) func(map[string]any) {
		return func(p map[string]any) { p["inclusionProof"].(map[string]any)[name] = value }
	}
	second := func(by *sigstoretest.Key, sig []byte) sigstoretest.Artifact {
		a := bundle(c.key, logged)
		if sig == nil {
			sig = signatureOf(a)
		}
		return mapProof(a, func(p map[string]any) {
			clear(p)
			maps.Copy(p, c.log.Entry(sigstoretest.HashedRekord2(by, crypto.SHA256, make([]byte, 32), sig)))
			delete(p, "inclusionPromise")
		})
	}
	for name, a := range map[string]sigstoretest.Artifact{
		"the same key's, another time":  withProofOf(bundle(c.key, sigstoretest.BundleOptions{Log: c.log, Algorithm: sigstoretest.Algorithm{P1363: true}}), bundle(c.key, logged)),
		"a stranger's of this image":    withProofOf(bundle(c.stranger, logged), bundle(c.key, logged)),
		"its body alone":                mapProof(bundle(c.key, logged), field("canonicalizedBody", bundle(c.stranger, logged))),
		"its promise alone":             mapProof(bundle(c.key, logged), field("inclusionPromise", bundle(c.stranger, logged))),
		"its proof alone":               mapProof(bundle(c.key, logged), field("inclusionProof", bundle(c.stranger, logged))),
		"its log alone":                 mapProof(bundle(c.key, logged), field("logId", bundle(c.key, sigstoretest.BundleOptions{Log: sigstoretest.NewLog()}))),
		"another position":              mapProof(bundle(c.key, logged), inProof("logIndex", "1")),
		"another tree":                  mapProof(bundle(c.key, logged), inProof("treeSize", "3")),
		"another root":                  mapProof(bundle(c.key, logged), inProof("rootHash", make([]byte, 32))),
		"no path":                       mapProof(bundle(c.key, logged), inProof("hashes", []any{})),
		"a checkpoint without a signer": mapProof(bundle(c.key, logged), inProof("checkpoint", map[string]any{"envelope": "rekor.example.test - 1\n1\nAAAA\n"})),
		"nobody's":                      mapProof(bundle(c.key, logged), func(p map[string]any) { p["logId"] = map[string]any{"keyId": []byte("nobody")} }),
		"a message's for a statement": withProofOf(
			bundle(c.key, sigstoretest.BundleOptions{Log: c.log, Message: true}), bundle(c.key, logged)),
		// The body is of Rekor 2 and the checkpoint of Rekor 1: sigstore-go takes
		// the one for the other and compares nothing.
		"a second version's in a first's":                   second(c.stranger, []byte("a signature")),
		"a second version's in a first's, of its signature": second(c.stranger, nil),
		"a second version's in a first's, of its key":       second(c.key, []byte("a signature")),
	} {
		t.Run(name, func(t *testing.T) {
			f := verify(t, c.demanding(t), evidence(c.subject, a))
			wantReason(t, f, verifier.ReasonLogProofInvalid)
		})
	}
}

// Entries that are cut short crash nobody.
func TestHollowLogEntries(t *testing.T) {
	c := newCast()
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `{"apiVersion":"0.0.1","kind":"dsse","spec":{}}`,
		`{"apiVersion":"0.0.1","kind":"dsse","spec":{"payloadHash":{"algorithm":"sha256","value":"00"},"signatures":[]}}`,
		`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}`, `{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"signature":{}}}`,
		`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{}}`, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{}}}`,
		`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{}}}`, `{"apiVersion":"0.0.1","kind":"rpm","spec":{}}`,
		`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"x"}},"signature":{"content":"AA==","publicKey":{"content":"AA=="}}}}`,
	} {
		for _, form := range forms() {
			a := mapProof(form.make(c.key, c.subject, options{log: c.log}), func(p map[string]any) {
				if payload, simple := p["Payload"].(map[string]any); simple {
					payload["body"] = []byte(body)
					return
				}
				p["canonicalizedBody"] = []byte(body)
				p["kindVersion"] = map[string]any{}
			})
			if f := verify(t, c.demanding(t), evidence(c.subject, a)); f.Err == nil || f.Err.Reason.Undecided() {
				t.Errorf("%s, %s: %+v", form.name, body, f)
			}
		}
	}
}

// An entry of a log that is not trusted neither helps nor harms beside one of
// a log that is.
func TestEntriesOfTwoLogs(t *testing.T) {
	c := newCast()
	logged := sigstoretest.BundleOptions{Log: c.log}
	unknown := sigstoretest.BundleOptions{Log: sigstoretest.NewLog()}
	both := func(first, second sigstoretest.BundleOptions) sigstoretest.Artifact {
		a := sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, first))
		payload := sigstoretest.Statement(c.subject.Digest, sigstoretest.StatementType, sigstoretest.PredicateTypeSign)
		entry := second.Log.Entry(sigstoretest.DSSE(c.key, payload, signatureOf(a)))
		return mapBundle(a, func(b map[string]any) {
			m := b["verificationMaterial"].(map[string]any)
			m["tlogEntries"] = append(m["tlogEntries"].([]any), entry)
		})
	}
	wantReason(t, verify(t, c.demanding(t), evidence(c.subject, both(logged, unknown))), "")
	wantReason(t, verify(t, c.demanding(t), evidence(c.subject, both(unknown, logged))), "")
	wantReason(t, verify(t, c.demanding(t), evidence(c.subject, both(unknown, unknown))), verifier.ReasonLogProofInvalid)
}

// signatureOf is the signature of an envelope in a bundle.
func signatureOf(a sigstoretest.Artifact) (sig []byte) {
	mapBundle(a, func(b map[string]any) {
		text := b["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any)["sig"].(string)
		sig, _ = base64.StdEncoding.DecodeString(text)
	})
	return sig
}
