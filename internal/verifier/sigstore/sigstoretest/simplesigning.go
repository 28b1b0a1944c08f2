package sigstoretest

import (
	"encoding/base64"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The annotations of Cosign's own format.
const (
	AnnotationSignature   = "dev.cosignproject.cosign/signature"
	AnnotationLogBundle   = "dev.sigstore.cosign/bundle"
	AnnotationCertificate = "dev.sigstore.cosign/certificate"
)

// SimpleOptions say how a signature of Cosign's own format is made. The zero
// value is what `cosign sign --key` of version 2 does, without a log.
type SimpleOptions struct {
	Algorithm Algorithm
	// Annotations are the signer's (-a).
	Annotations map[string]any
	// Log writes the signature to the log and keeps its promise.
	Log *Log
	// Payload, where set, is signed instead.
	Payload []byte
}

// Payload is what Cosign signs of an image.
func Payload(subject digest.Digest, annotations map[string]any) []byte {
	return must(json.Marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]string{"docker-reference": "registry.example.test/shop/cart"},
			"image":    map[string]string{"docker-manifest-digest": subject.String()},
			"type":     "cosign container image signature",
		},
		"optional": annotations,
	}))
}

// SignSimple signs the subject and gives the layer.
func (k *Key) SignSimple(subject ocispec.Descriptor, o SimpleOptions) Layer {
	payload := o.Payload
	if payload == nil {
		payload = Payload(subject.Digest, o.Annotations)
	}
	sig := k.Sign(payload, o.Algorithm)
	layer := Layer{Data: payload}.With(AnnotationSignature, base64.StdEncoding.EncodeToString(sig))
	if o.Log != nil {
		hash := k.hash(o.Algorithm)
		if hash == 0 {
			panic("a log takes no signature by pure Ed25519")
		}
		layer = layer.With(AnnotationLogBundle, string(o.Log.Promise(HashedRekord(k, hash, payload, sig))))
	}
	return layer
}
