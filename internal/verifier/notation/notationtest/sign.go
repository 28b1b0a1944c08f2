package notationtest

import (
	"crypto/x509"
	"encoding/json"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	gocose "github.com/veraison/go-cose"
)

// The envelopes of the Notary Project.
const (
	JWS  = jws.MediaTypeEnvelope
	COSE = cose.MediaTypeEnvelope
)

// MediaTypePayload is what the Notary Project signs.
const MediaTypePayload = "application/vnd.cncf.notary.payload.v1+json"

// Attribute is an extended signed attribute.
type Attribute = signature.Attribute

// SignOptions say how a signature is made. The zero value is what `notation
// sign` does: JWS, scheme notary.x509, now, no expiry, no timestamp.
type SignOptions struct {
	// Envelope is JWS or COSE.
	Envelope string
	// SigningAuthority takes the scheme notary.x509.signingAuthority, in which
	// the signing time is authentic.
	SigningAuthority bool
	// Time is the signing time that is claimed. The chain must be valid then.
	Time time.Time
	// Expiry is the signature's own.
	Expiry time.Time
	// Attributes are extended signed attributes; notation-core-go sorts out
	// which are critical.
	Attributes []Attribute
	// Annotations are user metadata, signed with the subject.
	Annotations map[string]string

	// TSA stamps the signature.
	TSA *TSA
	// Token, where it is set, is put in as the timestamp instead.
	Token []byte
	// Chain, where it is set, is put in instead of the signer's: neither it nor
	// the token is protected by the signature.
	Chain []*x509.Certificate
	// Payload and PayloadType, where set, are signed instead of the subject's
	// descriptor.
	Payload     []byte
	PayloadType string
}

// Sign signs the subject and gives the envelope.
func (c *Certificate) Sign(subject ocispec.Descriptor, o SignOptions) []byte {
	if o.Envelope == "" {
		o.Envelope = JWS
	}
	if o.Time.IsZero() {
		o.Time = time.Now()
	}
	if o.Payload == nil {
		o.Payload = must(json.Marshal(map[string]any{"targetArtifact": ocispec.Descriptor{
			MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size, Annotations: o.Annotations,
		}}))
	}
	if o.PayloadType == "" {
		o.PayloadType = MediaTypePayload
	}
	scheme := signature.SigningSchemeX509
	if o.SigningAuthority {
		scheme = signature.SigningSchemeX509SigningAuthority
	}
	envelope := must(signature.NewEnvelope(o.Envelope))
	signed := must(envelope.Sign(&signature.SignRequest{
		Payload:                  signature.Payload{ContentType: o.PayloadType, Content: o.Payload},
		Signer:                   must(signature.NewLocalSigner(c.Chain(), c.Key)),
		SigningTime:              o.Time,
		Expiry:                   o.Expiry,
		ExtendedSignedAttributes: o.Attributes,
		SigningAgent:             "notationtest",
		SigningScheme:            scheme,
	}))
	// notation-core-go stamps only what is valid today, so a token of another
	// day is put in by hand; the bytes that it stamps are the same.
	if o.TSA != nil && o.Token == nil {
		o.Token = o.TSA.Token(must(envelope.Content()).SignerInfo.Signature)
	}
	return replaceUnprotected(o, signed)
}

// replaceUnprotected writes the parts of an envelope that no signature covers.
func replaceUnprotected(o SignOptions, envelope []byte) []byte {
	if o.Token == nil && o.Chain == nil {
		return envelope
	}
	chain := make([][]byte, len(o.Chain))
	for i, c := range o.Chain {
		chain[i] = c.Raw
	}
	if o.Envelope == COSE {
		var message gocose.Sign1Message
		if err := message.UnmarshalCBOR(envelope); err != nil {
			panic(err)
		}
		if o.Token != nil {
			message.Headers.Unprotected["io.cncf.notary.timestampSignature"] = o.Token
		}
		if o.Chain != nil {
			header := make([]any, len(chain))
			for i, der := range chain {
				header[i] = der
			}
			message.Headers.Unprotected[gocose.HeaderLabelX5Chain] = header
		}
		message.Headers.RawUnprotected = nil
		return must(message.MarshalCBOR())
	}
	var document map[string]any
	if err := json.Unmarshal(envelope, &document); err != nil {
		panic(err)
	}
	header := document["header"].(map[string]any)
	if o.Token != nil {
		header["io.cncf.notary.timestampSignature"] = o.Token
	}
	if o.Chain != nil {
		header["x5c"] = chain
	}
	return must(json.Marshal(document))
}
