package sigstore

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// mediaTypeBundlePrefix begins every version's media type.
	mediaTypeBundlePrefix = "application/vnd.dev.sigstore.bundle"

	// payloadTypeInToto, statementType and predicateTypeSign are what a
	// signature of an image is in an envelope. An attestation differs from it in
	// the last alone, which sigstore-go does not look at.
	payloadTypeInToto = "application/vnd.in-toto+json"
	statementType     = "https://in-toto.io/Statement/v1"
	predicateTypeSign = "https://sigstore.dev/cosign/sign/v1"

	// annotationPredicateType is Cosign's note, on a bundle's manifest, of what
	// is inside.
	annotationPredicateType = "dev.sigstore.bundle.predicateType"

	// maxBundle bounds a bundle in bytes, so that a stranger's many do not use up
	// what one decision may read. A signature with a log's proof has about 8 KiB;
	// what is larger is an attestation.
	maxBundle = 256 << 10
)

// openBundle reads a Sigstore bundle.
func openBundle(data []byte, subject digest.Digest) (*envelope, *verifier.Error) {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(data); err != nil {
		if errors.Is(err, bundle.ErrUnsupportedMediaType) {
			e := unsupported("a bundle of the media type %q; the versions 0.1 to 0.3 are verified", clip(b.GetMediaType()))
			e.Err = err
			return nil, e
		}
		return nil, invalid(err, "the bundle cannot be read")
	}
	e := &envelope{entity: b, hint: b.GetVerificationMaterial().GetPublicKey().GetHint()}
	if len(b.GetVerificationMaterial().GetTlogEntries()) > 0 {
		e.proof = func() (*bundle.Bundle, error) { return b, nil }
	}
	raw, err := hex.DecodeString(subject.Encoded())
	if err != nil {
		return nil, invalid(err, "the image's digest cannot be read")
	}
	e.artifact = verify.WithArtifactDigest(subject.Algorithm().String(), raw)
	var refusal *verifier.Error
	if envelope := b.GetDsseEnvelope(); envelope != nil {
		refusal = e.openDSSE(envelope, subject)
	} else {
		refusal = e.openMessage(b.GetMessageSignature(), subject)
	}
	if refusal == nil && b.GetVerificationMaterial().GetPublicKey() == nil {
		refusal = keyless()
	}
	return e, refusal
}

// openDSSE reads an envelope with a statement.
func (e *envelope) openDSSE(envelope *protodsse.Envelope, subject digest.Digest) *verifier.Error {
	if n := len(envelope.GetSignatures()); n != 1 {
		return unsupported("the envelope has %d signatures where one belongs", n)
	}
	if t := envelope.GetPayloadType(); t != payloadTypeInToto {
		return unsupported("what is signed is a %q and not an in-toto statement", clip(t))
	}
	said, err := readStatement(envelope.GetPayload(), subject)
	if err != nil {
		return invalid(err, "what is signed cannot be read")
	}
	// Before any cryptography: images have many attestations, and nothing that
	// is read here can do more than refuse.
	switch {
	case said.predicateType == "":
		return unsupported("what is signed is not an in-toto statement")
	case said.predicateType != predicateTypeSign:
		return anAttestation(said.predicateType)
	case said.statementType != statementType:
		return unsupported("what is signed is a %q and not a %q", clip(said.statementType), statementType)
	}
	e.signature, e.message = envelope.GetSignatures()[0].GetSig(), dsse.PAE(payloadTypeInToto, envelope.GetPayload())
	e.subject = said.subject
	return nil
}

// statement is what an in-toto statement says.
type statement struct {
	statementType, predicateType string
	// digest is the subject's that we look for where it is among those of the
	// statement, else the first.
	digest string
}

func readStatement(payload []byte, subject digest.Digest) (statement, error) {
	var s statement
	err := readObject(payload, func(path []string, value any) {
		text, _ := value.(string)
		switch {
		case slices.Equal(path, []string{"_type"}):
			s.statementType = text
		case slices.Equal(path, []string{"predicateType"}):
			s.predicateType = text
		case len(path) == 4 && slices.Equal(path[:3], []string{"subject", element, "digest"}):
			if found := path[3] + ":" + text; s.digest == "" || found == subject.String() {
				s.digest = found
			}
		}
	})
	return s, err
}

func (s statement) subject() (string, *verifier.Error) {
	if s.digest == "" {
		return "", unsupported("what is signed names no image")
	}
	return s.digest, nil
}

// openMessage reads a signature over the bytes of the image's manifest, as
// cosign sign-blob makes it. The digest beside it stands for those bytes, so
// only what signs that very digest can be verified.
func (e *envelope) openMessage(message *protocommon.MessageSignature, subject digest.Digest) *verifier.Error {
	algorithm := map[protocommon.HashAlgorithm]string{
		protocommon.HashAlgorithm_SHA2_256: "sha256", protocommon.HashAlgorithm_SHA2_512: "sha512",
	}[message.GetMessageDigest().GetAlgorithm()]
	if algorithm != subject.Algorithm().String() {
		return unsupported("the message was signed by its %s digest, and the image is known by its %s; keys of P-256 and RSA sign so, or sign without sign-blob",
			strings.ToLower(message.GetMessageDigest().GetAlgorithm().String()), subject.Algorithm())
	}
	e.signature, e.digest = message.GetSignature(), message.GetMessageDigest().GetDigest()
	claimed := algorithm + ":" + hex.EncodeToString(e.digest)
	e.subject = func() (string, *verifier.Error) { return claimed, nil }
	return nil
}
