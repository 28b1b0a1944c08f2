package sigstoretest

import (
	"crypto"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What Cosign writes into the envelope of a signature.
const (
	PredicateTypeSign = "https://sigstore.dev/cosign/sign/v1"
	StatementType     = "https://in-toto.io/Statement/v1"
	PayloadTypeInToto = "application/vnd.in-toto+json"
)

// Versions are the media types of bundles.
var Versions = map[string]string{
	"0.1": "application/vnd.dev.sigstore.bundle+json;version=0.1",
	"0.2": "application/vnd.dev.sigstore.bundle+json;version=0.2",
	"0.3": ArtifactTypeBundle,
}

// BundleOptions say how a bundle is made. The zero value is what `cosign sign
// --key` of version 3 does, without a log.
type BundleOptions struct {
	Algorithm Algorithm
	// Version is 0.1, 0.2 or 0.3; empty is 0.3.
	Version string
	// Message signs the manifest's bytes as `cosign sign-blob` does, and not a
	// statement.
	Message bool
	// PredicateType and StatementType of the statement, where they are not a
	// signature's.
	PredicateType, StatementType string
	// Payload and PayloadType, where set, are signed instead of a statement.
	Payload     []byte
	PayloadType string
	// Log writes the signature to the log and keeps its proof.
	Log *Log
	// Hint, where set, is written instead of the key's.
	Hint string
	// Change, where set, changes the bundle before it is written.
	Change func(bundle map[string]any)
}

// Statement is what Cosign signs of an image.
func Statement(subject digest.Digest, statementType, predicateType string) []byte {
	return must(json.Marshal(map[string]any{
		"_type":         statementType,
		"subject":       []any{map[string]any{"digest": map[string]string{subject.Algorithm().String(): subject.Encoded()}}},
		"predicateType": predicateType,
		"predicate":     map[string]any{},
	}))
}

// SignBundle signs the subject and gives the bundle.
func (k *Key) SignBundle(subject ocispec.Descriptor, o BundleOptions) []byte {
	if o.Version == "" {
		o.Version = "0.3"
	}
	if o.Hint == "" {
		o.Hint = k.Hint()
	}
	material := map[string]any{"publicKey": map[string]any{"hint": o.Hint}}
	bundle := map[string]any{"mediaType": Versions[o.Version], "verificationMaterial": material}
	if o.Message {
		k.signMessage(bundle, subject.Digest, o)
	} else {
		k.signStatement(bundle, subject.Digest, o)
	}
	if o.Change != nil {
		o.Change(bundle)
	}
	return must(json.Marshal(bundle))
}

func (k *Key) signMessage(bundle map[string]any, subject digest.Digest, o BundleOptions) {
	hash := k.hash(o.Algorithm)
	sum := must(hex.DecodeString(subject.Encoded()))
	algorithm := map[crypto.Hash]string{crypto.SHA256: "SHA2_256", crypto.SHA384: "SHA2_384", crypto.SHA512: "SHA2_512"}[hash]
	if hash.Size() != len(sum) { // the manifest's bytes are not there to be hashed again
		h := hash.New()
		h.Write(sum)
		sum = h.Sum(nil)
	}
	sig := k.SignDigest(sum, hash, o.Algorithm)
	bundle["messageSignature"] = map[string]any{
		"messageDigest": map[string]any{"algorithm": algorithm, "digest": sum},
		"signature":     sig,
	}
	if o.Log != nil {
		o.Log.enter(bundle, o.Version, HashedRekordOf(k, hash, sum, sig))
	}
}

func (k *Key) signStatement(bundle map[string]any, subject digest.Digest, o BundleOptions) {
	if o.PredicateType == "" {
		o.PredicateType = PredicateTypeSign
	}
	if o.StatementType == "" {
		o.StatementType = StatementType
	}
	if o.PayloadType == "" {
		o.PayloadType = PayloadTypeInToto
	}
	if o.Payload == nil {
		o.Payload = Statement(subject, o.StatementType, o.PredicateType)
	}
	message := PAE(o.PayloadType, o.Payload)
	sig := k.Sign(message, o.Algorithm)
	bundle["dsseEnvelope"] = map[string]any{
		"payload": o.Payload, "payloadType": o.PayloadType, "signatures": []any{map[string]any{"sig": sig}},
	}
	switch {
	case o.Log == nil:
	case o.Log.version == 2:
		hash := k.hash(o.Algorithm)
		h := hash.New()
		h.Write(message)
		o.Log.enter(bundle, o.Version, HashedRekord2(k, hash, h.Sum(nil), sig))
	default:
		o.Log.enter(bundle, o.Version, DSSE(k, o.Payload, sig))
	}
}

// PAE is what is signed of an envelope.
// https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}
