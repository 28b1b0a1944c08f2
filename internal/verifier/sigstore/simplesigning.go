package sigstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Cosign's own format: the payload is a layer's blob, the signature and the
// log's promise are annotations of the layer.
// https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md
const (
	mediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationLogBundle   = "dev.sigstore.cosign/bundle"
	annotationCertificate = "dev.sigstore.cosign/certificate"

	// simpleSigningType is what a signature of Cosign's says it is.
	simpleSigningType = "cosign container image signature"

	// maxPayload bounds a payload in bytes. Real ones have 300; the rest is room
	// for annotations.
	maxPayload = 128 << 10
	// mediaTypeBundle01 is the first version of a bundle, which holds as much as
	// a signature of this format: a log's promise, and no proof of inclusion.
	mediaTypeBundle01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"
)

// openSimpleSigning reads a layer of Cosign's own format. To sigstore-go it is
// a bundle whose message is the payload.
func openSimpleSigning(layer ocispec.Descriptor, payload []byte) (*envelope, *verifier.Error) {
	encoded, there := layer.Annotations[annotationSignature]
	if !there {
		return nil, unsupported("a signature's layer has no signature, the annotation %s", annotationSignature)
	}
	if len(encoded) > base64.StdEncoding.EncodedLen(maxSignature) {
		return nil, invalid(nil, "the signature has %d characters; the longest that a key makes has %d", len(encoded), base64.StdEncoding.EncodedLen(maxSignature))
	}
	sig, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(sig) == 0 {
		return nil, invalid(err, "the signature is not base64")
	}
	said, err := readSimpleSigning(payload)
	if err != nil {
		return nil, invalid(err, "what is signed cannot be read")
	}
	e := &envelope{
		signature: sig, message: payload, artifact: verify.WithArtifact(bytes.NewReader(payload)), subject: said.subject,
		certificate: layer.Annotations[annotationCertificate] != "",
	}
	sum := sha256.Sum256(payload)
	if e.entity, err = simpleBundle(sig, protocommon.HashAlgorithm_SHA2_256, sum[:]); err != nil {
		return nil, invalid(err, "the signature cannot be read")
	}
	if promise, there := layer.Annotations[annotationLogBundle]; there {
		e.proof = func() (*bundle.Bundle, error) { return promisedBundle(promise, sig, payload) }
	}
	return e, nil
}

// simpleBundle is the signature as a bundle.
func simpleBundle(sig []byte, algorithm protocommon.HashAlgorithm, digest []byte, entries ...*protorekor.TransparencyLogEntry) (*bundle.Bundle, error) {
	return bundle.NewBundle(&protobundle.Bundle{
		MediaType: mediaTypeBundle01,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content:     &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
			TlogEntries: entries,
		},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: algorithm, Digest: digest},
			Signature:     sig,
		}},
	})
}

// simpleSigning is what a payload says.
type simpleSigning struct{ kind, digest string }

func readSimpleSigning(payload []byte) (simpleSigning, error) {
	var s simpleSigning
	err := readObject(payload, func(path []string, value any) {
		text, _ := value.(string)
		switch {
		case slices.Equal(path, []string{"critical", "type"}):
			s.kind = text
		case slices.Equal(path, []string{"critical", "image", "docker-manifest-digest"}):
			s.digest = text
		}
	})
	return s, err
}

func (s simpleSigning) subject() (string, *verifier.Error) {
	if s.kind != simpleSigningType {
		return "", unsupported("what is signed is a %q and not a %q", clip(s.kind), simpleSigningType)
	}
	if s.digest == "" {
		return "", unsupported("what is signed names no image")
	}
	return s.digest, nil
}
