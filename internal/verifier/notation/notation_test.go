package notation_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	gocose "github.com/veraison/go-cose"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

func newVerifier(t testing.TB, o notation.Options, network http.RoundTripper) *notation.Verifier {
	t.Helper()
	if o.Revocation == nil {
		revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: network})
		if err != nil {
			t.Fatal(err)
		}
		o.Revocation = revocation
	}
	if o.TrustedIdentities == nil && o.TrustPolicyDoc == nil {
		o.TrustedIdentities = []string{"*"}
	}
	v, err := notation.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func store(kind notation.TrustStoreType, name string, certificates ...*notationtest.Certificate) notation.TrustStore {
	s := notation.TrustStore{Type: kind, Name: name}
	for _, c := range certificates {
		s.Certificates = append(s.Certificates, c.Certificate)
	}
	return s
}

// evidence is the artifact as the Chain would hand it over.
func evidence(subject ocispec.Descriptor, a notationtest.Artifact) verifier.Evidence {
	return verifier.Evidence{
		Subject: verifier.Subject{
			Reference: verifier.Reference{Registry: "registry.example.test", Repository: "shop/cart"}, Digest: subject.Digest,
		},
		Candidate: candidate(a),
		Fetch: func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
			if d.Digest != digest.FromBytes(a.Envelope) {
				return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such blob"}
			}
			return a.Envelope, nil
		},
	}
}

func candidate(a notationtest.Artifact) verifier.Candidate {
	return verifier.Candidate{
		Descriptor: a.Descriptor, Manifest: a.Manifest, ArtifactType: a.Manifest.Config.MediaType, Source: verifier.SourceReferrersAPI,
	}
}

func verify(t testing.TB, v *notation.Verifier, e verifier.Evidence) verifier.Finding {
	t.Helper()
	findings := v.Verify(t.Context(), e)
	if len(findings) != 1 {
		t.Fatalf("%d findings", len(findings))
	}
	return findings[0]
}

// wantReason fails unless the finding says so; the empty reason is a proof.
func wantReason(t testing.TB, f verifier.Finding, want verifier.Reason) {
	t.Helper()
	switch {
	case f.Err == nil && want != "":
		t.Errorf("proved, want %s", want)
	case f.Err != nil && f.Err.Reason != want:
		t.Errorf("got %v, want %q", f.Err, want)
	}
}

func TestContract(t *testing.T) {
	for _, test := range []struct {
		name, envelope string
		keyType        notationtest.KeyType
	}{
		{"JWS, RSA", notationtest.JWS, notationtest.RSA2048},
		{"COSE, ECDSA", notationtest.COSE, notationtest.ECDSA256},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := notationtest.NewRoot(notationtest.CertificateOptions{KeyType: test.keyType})
			leaf := root.NewIntermediate(notationtest.CertificateOptions{}).NewSigner(notationtest.CertificateOptions{KeyType: test.keyType})
			stranger := notationtest.NewRoot(notationtest.CertificateOptions{}).NewSigner(notationtest.CertificateOptions{})
			sign := func(by *notationtest.Certificate) func(ocispec.Descriptor) verifiertest.Signed {
				return func(subject ocispec.Descriptor) verifiertest.Signed {
					a := by.SignArtifact(subject, notationtest.SignOptions{Envelope: test.envelope})
					return verifiertest.Signed{Candidate: candidate(a), Blobs: map[digest.Digest][]byte{digest.FromBytes(a.Envelope): a.Envelope}}
				}
			}
			verifiertest.Run(t, verifiertest.Scheme{
				Verifier: newVerifier(t, notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", root)}}, notationtest.Network{}),
				Kind:     verifier.KindSignature,
				Sign:     sign(leaf),
				Stranger: sign(stranger),
				Regions:  func(s verifiertest.Signed) []verifiertest.Region { return regions(t, s, test.envelope) },
			})
		})
	}
}

// regions finds payload, protected header, signature and each certificate in
// an envelope.
func regions(t *testing.T, s verifiertest.Signed, mediaType string) []verifiertest.Region {
	blob := s.Blobs[s.Candidate.Manifest.Layers[0].Digest]
	var list []verifiertest.Region
	add := func(name string, part []byte) {
		from := bytes.Index(blob, part)
		if from < 0 || len(part) == 0 {
			t.Fatalf("no %s in the envelope", name)
		}
		list = append(list, verifiertest.LayerRegion(name, s, 0, from, from+len(part)))
	}
	if mediaType == notationtest.COSE {
		var m gocose.Sign1Message
		if err := m.UnmarshalCBOR(blob); err != nil {
			t.Fatal(err)
		}
		add("payload", m.Payload)
		add("protected header", m.Headers.RawProtected)
		add("signature", m.Signature)
		for _, c := range m.Headers.Unprotected[gocose.HeaderLabelX5Chain].([]any) {
			add("certificate", c.([]byte))
		}
		return list
	}
	var e struct {
		Payload, Protected, Signature string
		Header                        struct {
			X5C [][]byte `json:"x5c"`
		}
	}
	if err := json.Unmarshal(blob, &e); err != nil {
		t.Fatal(err)
	}
	// The last digits of base64 may hold bits that mean nothing, so they stay out.
	whole := func(s string) []byte { return []byte(s[:len(s)-4]) }
	add("payload", whole(e.Payload))
	add("protected header", whole(e.Protected))
	add("signature", whole(e.Signature))
	for _, der := range e.Header.X5C {
		add("certificate", whole(base64.StdEncoding.EncodeToString(der)))
	}
	return list
}
