package notation

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	notationverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	gocose "github.com/veraison/go-cose"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxEnvelope bounds a signature in bytes. One with a chain of four
	// certificates and a timestamp token has about 20 KiB; the rest is room for
	// user metadata. notation reads up to 32 MiB, which is our whole decision's
	// budget, and the cost of what is in an envelope grows with it.
	maxEnvelope = 1 << 20
	// maxChain bounds the certificates of a chain: each costs a verification
	// before anyone knows whether it is trusted. Real chains have two to four.
	maxChain = 16
	// maxRSABits bounds the keys in a chain: verifying costs the square of the
	// size, and crypto/x509 sets no limit. The Notary Project stops at 4096.
	maxRSABits = 8192
)

// envelopeLayer gives the descriptor of the envelope after the checks that
// need no bytes: the manifest is about the subject and holds one envelope of a
// kind and size that is verified.
func envelopeLayer(e verifier.Evidence) (ocispec.Descriptor, *verifier.Error) {
	manifest := e.Candidate.Manifest
	if manifest.Subject == nil || manifest.Subject.Digest != e.Subject.Digest || e.Subject.Digest == "" {
		return ocispec.Descriptor{}, &verifier.Error{
			Reason: verifier.ReasonSubjectMismatch, Message: "the signature's manifest is attached to another image", Remedy: remedySign,
		}
	}
	if n := len(manifest.Layers); n != 1 {
		return ocispec.Descriptor{}, unsupported(fmt.Sprintf("the signature's manifest has %d layers where one envelope belongs", n))
	}
	layer := manifest.Layers[0]
	if layer.MediaType != jws.MediaTypeEnvelope && layer.MediaType != cose.MediaTypeEnvelope {
		return ocispec.Descriptor{}, unsupported(fmt.Sprintf("the signature envelope is a %q; %s and %s are known",
			clip(layer.MediaType), jws.MediaTypeEnvelope, cose.MediaTypeEnvelope))
	}
	if layer.Size <= 0 || layer.Size > maxEnvelope {
		return ocispec.Descriptor{}, unsupported(fmt.Sprintf("the signature envelope has %d bytes; up to %d are verified", layer.Size, maxEnvelope))
	}
	return layer, nil
}

// glance reads the outline of an envelope before any cryptography: which image
// it claims to be for and what verifying it would cost. Nothing it reads is
// proved, so it can only refuse.
func (s *statement) glance(mediaType string, blob []byte, subject digest.Digest) *verifier.Error {
	o, err := readOutline(mediaType, blob)
	if err != nil {
		return &verifier.Error{Reason: verifier.ReasonSignatureInvalid, Message: "the signature envelope cannot be read", Remedy: remedySign, Err: err}
	}
	if len(o.chain) > maxChain {
		return unsupported(fmt.Sprintf("the certificate chain has %d certificates; up to %d are verified", len(o.chain), maxChain))
	}
	certificates, err := parseChain(o.chain)
	if err != nil {
		return &verifier.Error{Reason: verifier.ReasonSignatureInvalid, Message: "a certificate in the signature envelope cannot be read", Remedy: remedySign, Err: err}
	}
	if err := boundedKeys(certificates); err != nil {
		return err
	}
	if len(o.token) > 0 && len(s.ofType(TypeTSA)) > 0 {
		if _, err := parseToken(o.token); err != nil {
			return badTimestamp("the timestamp cannot be read", err)
		}
	}
	if claimed := subjectOf(o.payload); claimed != "" && claimed != subject {
		return &verifier.Error{
			Reason: verifier.ReasonSubjectMismatch, Message: "the signature is for another image, " + shorten(claimed), Remedy: remedySign,
		}
	}
	return nil
}

// outline is what an envelope says before anything in it is proved.
type outline struct {
	payload []byte
	chain   [][]byte
	token   []byte
}

func readOutline(mediaType string, blob []byte) (outline, error) {
	if mediaType == cose.MediaTypeEnvelope {
		var message gocose.Sign1Message
		if err := message.UnmarshalCBOR(blob); err != nil {
			return outline{}, err
		}
		o := outline{payload: message.Payload}
		certificates, _ := message.Headers.Unprotected[gocose.HeaderLabelX5Chain].([]any)
		for _, c := range certificates {
			der, _ := c.([]byte)
			o.chain = append(o.chain, der)
		}
		o.token, _ = message.Headers.Unprotected["io.cncf.notary.timestampSignature"].([]byte)
		return o, nil
	}
	var envelope struct {
		Payload string `json:"payload"`
		Header  struct {
			Chain [][]byte `json:"x5c"`
			Token []byte   `json:"io.cncf.notary.timestampSignature"`
		} `json:"header"`
	}
	if err := json.Unmarshal(blob, &envelope); err != nil {
		return outline{}, err
	}
	payload, err := base64.RawURLEncoding.DecodeString(envelope.Payload)
	return outline{payload, envelope.Header.Chain, envelope.Header.Token}, err
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	certificates := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		var err error
		if certificates[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i, err)
		}
	}
	return certificates, nil
}

// boundedKeys refuses keys that are made to be expensive.
func boundedKeys(certificates []*x509.Certificate) *verifier.Error {
	for _, c := range certificates {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return unsupported(fmt.Sprintf("a certificate has an RSA key of %d bits; up to %d are verified", key.N.BitLen(), maxRSABits))
		}
	}
	return nil
}

// payloadV1 is what the Notary Project signs.
type payloadV1 struct {
	TargetArtifact ocispec.Descriptor `json:"targetArtifact"`
}

func subjectOf(payload []byte) digest.Digest {
	var p payloadV1
	if json.Unmarshal(payload, &p) != nil {
		return ""
	}
	return p.TargetArtifact.Digest
}

// samePayload holds the signed payload to the subject. notation-go compares it
// too, last and without a cause of its own.
func samePayload(payload []byte, target ocispec.Descriptor) *verifier.Error {
	var p payloadV1
	if err := json.Unmarshal(payload, &p); err != nil {
		e := unsupported("what is signed is not a Notary Project payload")
		e.Err = err
		return e
	}
	signed := p.TargetArtifact
	switch {
	case signed.Digest == "":
		return unsupported("what is signed names no image")
	case signed.Digest != target.Digest:
		return &verifier.Error{
			Reason: verifier.ReasonSubjectMismatch, Message: "the signature is for another image, " + shorten(signed.Digest), Remedy: remedySign,
		}
	case signed.MediaType != target.MediaType || signed.Size != target.Size:
		return &verifier.Error{
			Reason: verifier.ReasonSubjectMismatch,
			Message: fmt.Sprintf("signed was a %q of %d bytes, and the signature's manifest is attached to a %q of %d",
				clip(signed.MediaType), signed.Size, clip(target.MediaType), target.Size),
			Remedy: remedySign,
		}
	}
	return nil
}

// uncritical refuses signatures that demand to be judged by rules that are
// not ours. notation-go lets unknown critical attributes pass.
func uncritical(signer *signature.SignerInfo) *verifier.Error {
	attributes := slices.Clone(signer.SignedAttributes.ExtendedAttributes)
	slices.SortFunc(attributes, func(a, b signature.Attribute) int { return strings.Compare(fmt.Sprint(a.Key), fmt.Sprint(b.Key)) })
	for _, a := range attributes {
		if a.Key == notationverifier.HeaderVerificationPlugin {
			return &verifier.Error{
				Reason:  verifier.ReasonFormatUnsupported,
				Message: fmt.Sprintf("the signature demands the verification plug-in %q, and none are run here", clip(fmt.Sprint(a.Value))),
				Remedy:  "Sign without a plug-in that demands one for verification",
			}
		}
	}
	for _, a := range attributes {
		if a.Critical {
			return &verifier.Error{
				Reason:  verifier.ReasonFormatUnsupported,
				Message: fmt.Sprintf("the signature has the critical attribute %q, which is not known here", clip(fmt.Sprint(a.Key))),
				Remedy:  "Sign without critical attributes of your own",
			}
		}
	}
	return nil
}

// unverified is the finding where the Notary trust policy skips verification:
// an intact signature of this subject, with a note that this is all.
func (s *statement) unverified(f verifier.Finding, mediaType string, blob []byte, target ocispec.Descriptor) verifier.Finding {
	content, err := open(mediaType, blob)
	if err != nil {
		f.Err = brokenEnvelope(mediaType, blob, err)
		return f
	}
	if f.Err = uncritical(&content.SignerInfo); f.Err != nil {
		return f
	}
	if f.Err = samePayload(content.Payload.Content, target); f.Err != nil {
		return f
	}
	f.Claims = verifier.Claims{
		SubjectDigest: target.Digest, Kind: verifier.KindSignature, Signer: signerOf(&content.SignerInfo), Parties: s.parties(&content.SignerInfo),
		SignedAt: content.SignerInfo.SignedAttributes.SigningTime,
		Logged: []*verifier.Error{{
			Reason: verifier.ReasonSkipped, Message: fmt.Sprintf("statement %q of the Notary trust policy skips verification", clip(s.name)),
		}},
	}
	return f
}

// open verifies an envelope's integrity and nothing else.
func open(mediaType string, blob []byte) (*signature.EnvelopeContent, error) {
	envelope, err := signature.ParseEnvelope(mediaType, blob)
	if err != nil {
		return nil, err
	}
	return envelope.Verify()
}

// signerOf names the signer. A certificate that is issued anew, by another
// intermediate or with another key, keeps the ID. Neither the issuer nor the trust
// store is part of it; two holders of one subject count once, which can only deny.
// Alternative names stand in for a subject that is empty. That a holder can have
// several subjects is what parties are for.
func signerOf(info *signature.SignerInfo) verifier.Signer {
	leaf := info.CertificateChain[0]
	name := leaf.Subject.String()
	if name == "" {
		var names []string
		names = append(append(names, leaf.DNSNames...), leaf.EmailAddresses...)
		for _, uri := range leaf.URIs {
			names = append(names, uri.String())
		}
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		slices.Sort(names)
		name = "SAN=" + strings.Join(names, ",")
	}
	sum := sha256.Sum256([]byte(strings.ToLower(name)))
	return verifier.Signer{ID: "x509:" + hex.EncodeToString(sum[:]), Key: keyID(leaf), Name: clip(name), Issuer: clip(leaf.Issuer.String())}
}
