package sigstore_test

import (
	"context"
	"crypto"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// The fuzz targets below hand over what a stranger may push. Nothing of it may
// crash, be undecided, or prove another subject or signer than the good
// signature that it grew from.
func judge(t *testing.T, v *sigstore.Verifier, e verifier.Evidence, key *sigstoretest.Key) {
	for _, f := range v.Verify(t.Context(), e) {
		switch {
		case f.Err != nil && f.Err.Reason.Undecided() && f.Err.Reason != verifier.ReasonLimitExceeded:
			t.Errorf("undecided: %v", f.Err)
		case f.Err == nil && (f.Claims.SubjectDigest != e.Subject.Digest || f.Claims.Signer.ID != "key:"+key.ID()):
			t.Errorf("proves something else: %+v", f.Claims)
		}
	}
}

// given gives the blob whatever the manifest's digest says.
func given(e verifier.Evidence, blob []byte) verifier.Evidence {
	e.Candidate.Manifest.Layers = []ocispec.Descriptor{e.Candidate.Manifest.Layers[0]}
	e.Candidate.Manifest.Layers[0].Size = int64(len(blob))
	e.Fetch = func(context.Context, ocispec.Descriptor) ([]byte, error) { return blob, nil }
	return e
}

func FuzzBundle(f *testing.F) {
	c := newCast()
	second := sigstoretest.NewLog2()
	v := newVerifier(f, sigstore.Options{Keys: named(c.key), TransparencyLog: sigstore.LogOptional,
		LogKeys: []crypto.PublicKey{c.log.Key.Public()}, TrustedRoot: sigstoretest.TrustedRoot(second)})
	for version := range sigstoretest.Versions {
		for _, message := range []bool{false, true} {
			for _, log := range []*sigstoretest.Log{nil, c.log} {
				f.Add(c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Version: version, Message: message, Log: log}))
			}
		}
	}
	f.Add(c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Log: second}))
	f.Add(c.key.SignBundle(c.subject, sigstoretest.BundleOptions{PredicateType: "https://slsa.dev/provenance/v1"}))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{}},"messageSignature":{}}`))
	e := evidence(c.subject, sigstoretest.PackBundle(c.subject, "", []byte("{}")))
	f.Fuzz(func(t *testing.T, data []byte) { judge(t, v, given(e, data), c.key) })
}

// What is signed is a signer's own, so here the signature is always good.
func FuzzSignedPayloads(f *testing.F) {
	c := newCast()
	v := trusting(f, c.key)
	f.Add(sigstoretest.Payload(c.subject.Digest, map[string]any{"a": []int{1}}), true)
	f.Add(sigstoretest.Payload(c.other.Digest, nil), true)
	f.Add([]byte(`{"critical":{"type":"cosign container image signature","image":{"docker-manifest-digest":null}},"optional":{"\u0000":"\ud800"}}`), true)
	f.Add(sigstoretest.Statement(c.subject.Digest, sigstoretest.StatementType, sigstoretest.PredicateTypeSign), false)
	f.Add(sigstoretest.Statement(c.other.Digest, sigstoretest.StatementType, sigstoretest.PredicateTypeSign), false)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":["a"]}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`), false)
	f.Fuzz(func(t *testing.T, payload []byte, simple bool) {
		if simple {
			judge(t, v, evidence(c.subject, sigstoretest.PackTag(c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Payload: payload}))), c.key)
			return
		}
		judge(t, v, evidence(c.subject, sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Payload: payload}))), c.key)
	})
}

func FuzzAnnotations(f *testing.F) {
	c := newCast()
	v := newVerifier(f, sigstore.Options{Keys: named(c.key), TransparencyLog: sigstore.LogOptional, LogKeys: []crypto.PublicKey{c.log.Key.Public()}})
	good := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Log: c.log})
	f.Add(good.Annotations[sigstoretest.AnnotationSignature], good.Annotations[sigstoretest.AnnotationLogBundle])
	f.Add("", "{}")
	f.Add("AAAA", `{"SignedEntryTimestamp":"","Payload":{"body":"e30=","integratedTime":-1,"logIndex":1e9,"logID":""}}`)
	f.Fuzz(func(t *testing.T, signature, promise string) {
		layer := good.With(sigstoretest.AnnotationSignature, signature).With(sigstoretest.AnnotationLogBundle, promise)
		judge(t, v, evidence(c.subject, sigstoretest.PackTag(layer)), c.key)
	})
}

func FuzzPublicKey(f *testing.F) {
	for _, t := range []sigstoretest.KeyType{sigstoretest.P256, sigstoretest.P384, sigstoretest.P521, sigstoretest.RSA2048, sigstoretest.Ed25519} {
		key := sigstoretest.NewKey(t)
		f.Add(key.PEM())
		f.Add(key.DER())
	}
	f.Add([]byte(rsa1024))
	subject := sigstoretest.NewSubject("an image")
	stranger := sigstoretest.NewKey(sigstoretest.P256)
	e := evidence(subject, sigstoretest.PackTag(stranger.SignSimple(subject, sigstoretest.SimpleOptions{})))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := sigstore.ParsePublicKey(data)
		if err != nil {
			return
		}
		v, err := sigstore.New(sigstore.Options{Keys: []sigstore.PublicKey{{Key: key}}, TransparencyLog: sigstore.LogIgnored})
		if err != nil {
			t.Fatalf("parsed and then refused: %v", err)
		}
		judge(t, v, e, stranger)
	})
}
