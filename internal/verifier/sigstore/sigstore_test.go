package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// trusting makes a Verifier that trusts the keys by the names key-0, key-1 …
// and looks at no log.
func trusting(t testing.TB, keys ...*sigstoretest.Key) *sigstore.Verifier {
	t.Helper()
	return newVerifier(t, sigstore.Options{Keys: named(keys...), TransparencyLog: sigstore.LogIgnored})
}

func named(keys ...*sigstoretest.Key) []sigstore.PublicKey {
	var list []sigstore.PublicKey
	for i, k := range keys {
		list = append(list, sigstore.PublicKey{Name: "key-" + string(rune('0'+i)), Key: k.Public()})
	}
	return list
}

func newVerifier(t testing.TB, o sigstore.Options) *sigstore.Verifier {
	t.Helper()
	v, err := sigstore.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// evidence is the artifact as the Chain would hand it over.
func evidence(subject ocispec.Descriptor, a sigstoretest.Artifact) verifier.Evidence {
	return verifier.Evidence{
		Subject: verifier.Subject{
			Reference: verifier.Reference{Registry: "registry.example.test", Repository: "shop/cart"}, Digest: subject.Digest,
		},
		Candidate: a.Candidate(),
		Fetch: func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
			blob, ok := a.Blobs[d.Digest]
			if !ok || int64(len(blob)) != d.Size {
				return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such blob"}
			}
			return blob, nil
		},
	}
}

func verify(t testing.TB, v *sigstore.Verifier, e verifier.Evidence) verifier.Finding {
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

// form is a way in which a signature can be written and found.
type form struct {
	name string
	// make signs the subject; every option of either kind is honoured where
	// the form knows it.
	make func(by *sigstoretest.Key, subject ocispec.Descriptor, o options) sigstoretest.Artifact
	// regions are the parts of it that the signature covers.
	regions func(t *testing.T, s verifiertest.Signed) []verifiertest.Region
	message bool // the image's manifest is what is signed
}

// options are those that all forms have.
type options struct {
	algorithm sigstoretest.Algorithm
	log       *sigstoretest.Log
	// at is where it is attached, when it is not the subject.
	at *ocispec.Descriptor
}

func (o options) where(subject ocispec.Descriptor) ocispec.Descriptor {
	if o.at != nil {
		return *o.at
	}
	return subject
}

// forms is every format by every way to find it.
func forms() []form {
	simple := func(by *sigstoretest.Key, subject ocispec.Descriptor, o options) sigstoretest.Layer {
		return by.SignSimple(subject, sigstoretest.SimpleOptions{Algorithm: o.algorithm, Log: o.log})
	}
	list := []form{
		{name: "simple signing, tag", regions: simpleRegions, make: func(by *sigstoretest.Key, subject ocispec.Descriptor, o options) sigstoretest.Artifact {
			return sigstoretest.PackTag(simple(by, subject, o))
		}},
		{name: "simple signing, referrer", regions: simpleRegions, make: func(by *sigstoretest.Key, subject ocispec.Descriptor, o options) sigstoretest.Artifact {
			return sigstoretest.PackReferrer(o.where(subject), simple(by, subject, o))
		}},
	}
	for _, version := range []string{"0.1", "0.2", "0.3"} {
		for _, message := range []bool{false, true} {
			name := "bundle " + version + ", statement"
			if message {
				name = "bundle " + version + ", message"
			}
			list = append(list, form{name: name, message: message, regions: bundleRegions,
				make: func(by *sigstoretest.Key, subject ocispec.Descriptor, o options) sigstoretest.Artifact {
					return sigstoretest.PackBundle(o.where(subject), sigstoretest.Versions[version], by.SignBundle(subject, sigstoretest.BundleOptions{
						Version: version, Message: message, Algorithm: o.algorithm, Log: o.log,
					}))
				}})
		}
	}
	return list
}

func signed(a sigstoretest.Artifact) verifiertest.Signed {
	return verifiertest.Signed{Candidate: a.Candidate(), Blobs: a.Blobs}
}

func TestContract(t *testing.T) {
	log := sigstoretest.NewLog()
	key, stranger := sigstoretest.NewKey(sigstoretest.P256), sigstoretest.NewKey(sigstoretest.P256)
	for _, form := range forms() {
		for _, test := range []struct {
			name string
			o    sigstore.Options
			log  *sigstoretest.Log
		}{
			{"ignored", sigstore.Options{TransparencyLog: sigstore.LogIgnored}, nil},
			{"required", sigstore.Options{TransparencyLog: sigstore.LogRequired, LogKeys: []crypto.PublicKey{log.Key.Public()}}, log},
		} {
			t.Run(form.name+", log "+test.name, func(t *testing.T) {
				t.Parallel()
				test.o.Keys = named(sigstoretest.NewKey(sigstoretest.Ed25519), key)
				sign := func(by *sigstoretest.Key) func(ocispec.Descriptor) verifiertest.Signed {
					return func(subject ocispec.Descriptor) verifiertest.Signed {
						return signed(form.make(by, subject, options{log: test.log}))
					}
				}
				verifiertest.Run(t, verifiertest.Scheme{
					Verifier: newVerifier(t, test.o),
					Kind:     verifier.KindSignature,
					Sign:     sign(key),
					Stranger: sign(stranger),
					Regions:  func(s verifiertest.Signed) []verifiertest.Region { return form.regions(t, s) },
				})
			})
		}
	}
}

func blobOf(s verifiertest.Signed) []byte { return s.Blobs[s.Candidate.Manifest.Layers[0].Digest] }

// simpleRegions are the payload and the signature in its annotation.
func simpleRegions(_ *testing.T, s verifiertest.Signed) []verifiertest.Region {
	return []verifiertest.Region{
		verifiertest.LayerRegion("payload", s, 0, 0, len(blobOf(s))),
		annotationRegion("signature", s, sigstoretest.AnnotationSignature),
	}
}

// annotationRegion is the base64 in a layer's annotation, its last digits left
// out, which may hold bits that mean nothing.
func annotationRegion(name string, s verifiertest.Signed, annotation string) verifiertest.Region {
	value := s.Candidate.Manifest.Layers[0].Annotations[annotation]
	return verifiertest.Region{Name: name, Size: len(value) - 4, Flip: func(position int) verifiertest.Signed {
		return s.WithManifest(func(m *ocispec.Manifest) {
			flipped := []byte(value)
			flipped[position] ^= 1
			m.Layers = []ocispec.Descriptor{m.Layers[0]}
			m.Layers[0].Annotations = map[string]string{annotation: string(flipped)}
		})
	}}
}

// bundleRegions are what is signed and the signature, wherever the bundle has
// them.
func bundleRegions(t *testing.T, s verifiertest.Signed) []verifiertest.Region {
	var b struct {
		DSSEEnvelope struct {
			Payload     []byte
			PayloadType string
			Signatures  []struct{ Sig []byte }
		}
		MessageSignature struct {
			MessageDigest struct{ Digest []byte }
			Signature     []byte
		}
	}
	if err := json.Unmarshal(blobOf(s), &b); err != nil {
		t.Fatal(err)
	}
	var list []verifiertest.Region
	add := func(name string, part []byte) {
		// The last digits of base64 may hold bits that mean nothing.
		text := base64.StdEncoding.EncodeToString(part)
		from := bytes.Index(blobOf(s), []byte(text))
		if from < 0 || len(part) == 0 {
			t.Fatalf("no %s in the bundle", name)
		}
		list = append(list, verifiertest.LayerRegion(name, s, 0, from, from+len(text)-4))
	}
	if len(b.DSSEEnvelope.Payload) > 0 {
		add("payload", b.DSSEEnvelope.Payload)
		add("signature", b.DSSEEnvelope.Signatures[0].Sig)
		from := bytes.Index(blobOf(s), []byte(sigstoretest.PayloadTypeInToto))
		return append(list, verifiertest.LayerRegion("payload type", s, 0, from, from+len(sigstoretest.PayloadTypeInToto)))
	}
	add("message digest", b.MessageSignature.MessageDigest.Digest)
	add("signature", b.MessageSignature.Signature)
	return list
}

// Halves of a vault's RSA signature that begin with zeros, which the numbers that
// they are written as have lost; and what is no signature in halves.
func TestHalvesWithLeadingZeros(t *testing.T) {
	subject := sigstoretest.NewSubject("an image")
	key := sigstoretest.NewKey(sigstoretest.RSA2048)
	v := newVerifier(t, sigstore.Options{Keys: []sigstore.PublicKey{{Name: "a", Key: key.Public()}}, TransparencyLog: sigstore.LogIgnored})
	for _, at := range []int{0, 128} {
		o := sigstoretest.SimpleOptions{Algorithm: sigstoretest.Algorithm{Hash: crypto.SHA256}}
		for n := 0; ; n++ {
			o.Annotations = map[string]any{"n": n}
			if key.Sign(sigstoretest.Payload(subject.Digest, o.Annotations), o.Algorithm)[at] == 0 {
				break
			}
		}
		o.Algorithm.Halves = true
		wantReason(t, verify(t, v, evidence(subject, sigstoretest.PackTag(key.SignSimple(subject, o)))), "")
	}
	layer := key.SignSimple(subject, sigstoretest.SimpleOptions{Algorithm: sigstoretest.Algorithm{Hash: crypto.SHA256, Halves: true}})
	for name, broken := range map[string]func([]byte) []byte{
		"cut short":  func(s []byte) []byte { return s[:len(s)-1] },
		"with more":  func(s []byte) []byte { return append(s, 0) },
		"a bit else": func(s []byte) []byte { s[len(s)-1] ^= 1; return s },
		"negative":   func([]byte) []byte { return []byte{0x30, 6, 2, 1, 0xff, 2, 1, 1} },
		"too large": func([]byte) []byte {
			return append([]byte{0x30, 0x81, 0x88, 2, 0x81, 0x82, 1}, append(make([]byte, 129), 2, 1, 1)...)
		},
	} {
		sig, err := base64.StdEncoding.DecodeString(layer.Annotations[sigstoretest.AnnotationSignature])
		if err != nil {
			t.Fatal(err)
		}
		spoiled := layer.With(sigstoretest.AnnotationSignature, base64.StdEncoding.EncodeToString(broken(sig)))
		if f := verify(t, v, evidence(subject, sigstoretest.PackTag(spoiled))); f.Err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

// Every key that Cosign and key vaults have, with every hash that they sign
// with, in every form that can hold it.
func TestKeysAndHashes(t *testing.T) {
	type way struct {
		name      string
		algorithm sigstoretest.Algorithm
		message   bool // a message's digest is SHA-256, and so the hash must be
	}
	sha := map[crypto.Hash]string{crypto.SHA256: "SHA-256", crypto.SHA384: "SHA-384", crypto.SHA512: "SHA-512"}
	rsa := []way{}
	for hash, name := range sha {
		rsa = append(rsa, way{name, sigstoretest.Algorithm{Hash: hash}, hash == crypto.SHA256},
			way{name + ", PSS", sigstoretest.Algorithm{Hash: hash, PSS: true}, hash == crypto.SHA256},
			way{name + ", in halves", sigstoretest.Algorithm{Hash: hash, Halves: true}, hash == crypto.SHA256})
	}
	subject := sigstoretest.NewSubject("an image")
	for keyType, ways := range map[sigstoretest.KeyType][]way{
		sigstoretest.P256: {{"as Cosign does", sigstoretest.Algorithm{}, true}, {"as a vault does", sigstoretest.Algorithm{P1363: true}, true}},
		sigstoretest.P384: {{"as Cosign does", sigstoretest.Algorithm{}, false}, {"as a vault does", sigstoretest.Algorithm{P1363: true}, false},
			{"SHA-256", sigstoretest.Algorithm{Hash: crypto.SHA256}, true}},
		sigstoretest.P521: {{"as Cosign does", sigstoretest.Algorithm{}, false}, {"as a vault does", sigstoretest.Algorithm{P1363: true}, false},
			{"SHA-256", sigstoretest.Algorithm{Hash: crypto.SHA256}, true}},
		sigstoretest.Ed25519: {{"as Cosign does", sigstoretest.Algorithm{}, false}, {"pure", sigstoretest.Algorithm{Pure: true}, false}},
		sigstoretest.RSA2048: rsa, sigstoretest.RSA3072: rsa, sigstoretest.RSA4096: rsa,
	} {
		t.Run(string(keyType), func(t *testing.T) {
			t.Parallel()
			key := sigstoretest.NewKey(keyType)
			parsed, err := sigstore.ParsePublicKey(key.PEM())
			if err != nil {
				t.Fatal(err)
			}
			v := newVerifier(t, sigstore.Options{
				Keys: []sigstore.PublicKey{{Name: "a", Key: parsed}}, TransparencyLog: sigstore.LogIgnored,
			})
			for _, way := range ways {
				for _, form := range forms() {
					if form.message && way.algorithm.Pure {
						continue // it signs no digest
					}
					t.Run(way.name+", "+form.name, func(t *testing.T) {
						f := verify(t, v, evidence(subject, form.make(key, subject, options{algorithm: way.algorithm})))
						if form.message && !way.message {
							wantReason(t, f, verifier.ReasonFormatUnsupported)
							return
						}
						wantReason(t, f, "")
						if want := "key:" + key.ID(); f.Claims.Signer.ID != want || f.Claims.Signer.Name != "a" {
							t.Errorf("signed by %+v, want %s", f.Claims.Signer, want)
						}
					})
				}
			}
		})
	}
}

// An image may be known by its SHA-512, and then that is what is signed.
func TestImagesOfAnotherDigestAlgorithm(t *testing.T) {
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.SHA512.FromString("an image"), Size: 8}
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) {
			key := sigstoretest.NewKey(sigstoretest.P521)
			wantReason(t, verify(t, trusting(t, key), evidence(subject, form.make(key, subject, options{}))), "")
			other := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.SHA512.FromString("other"), Size: 8}
			f := verify(t, trusting(t, key), evidence(other, form.make(key, subject, options{at: &other})))
			wantReason(t, f, verifier.ReasonSubjectMismatch)
		})
	}
}

func TestRefusedKeys(t *testing.T) {
	small := sigstoretest.NewKey(sigstoretest.P256)
	good := string(small.PEM())
	for name, test := range map[string]struct{ data, want string }{
		"empty":         {"", "neither PEM"},
		"text":          {"hello", "neither PEM"},
		"private key":   {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "consider it disclosed"},
		"Cosign's own":  {"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "consider it disclosed"},
		"certificate":   {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "openssl x509 -pubkey"},
		"several":       {good + good, "several PEM blocks"},
		"cut short":     {good[:len(good)-10], "PEM block cannot be read"},
		"another block": {"-----BEGIN SSH KEY-----\nAAAA\n-----END SSH KEY-----\n", `"SSH KEY"`},
		"too long":      {strings.Repeat("A", 1<<17), "are read"},
		"small RSA":     {rsa1024, "RSA key of 1024 bits"},
		"P-224":         {p224, "P-256, P-384 and P-521"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sigstore.ParsePublicKey([]byte(test.data))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

const rsa1024 = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCb7r2ebMd95vAopzEBP7y0ryXa
TD7Ahm9rK0+x06admGYwMAV9eqYxVNfiNRf45a68lpK4P2RhUgfk5PqF1be8JCnr
/2UrzYGEAUR2+RUrQd5w8POW65iieyIf3wC5QG5SnvY+tEe5E/+oAQGxUnn5enRh
AotXcBLQd33UUWgUtQIDAQAB
-----END PUBLIC KEY-----
`

const p224 = `-----BEGIN PUBLIC KEY-----
ME4wEAYHKoZIzj0CAQYFK4EEACEDOgAEKZCp6nMQBI6pgqKWBs8vgnssysMgTIX9
pSz/3XAKsry+sZjdwJWz5MrnV1v555kx7nuPpGdQhv8=
-----END PUBLIC KEY-----
`
