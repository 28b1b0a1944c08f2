package notationtest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ArtifactType is the type of a signature as a referrer.
const ArtifactType = "application/vnd.cncf.notary.signature"

// Artifact is a signature as `notation sign` pushes it: a manifest with the
// subject, a config that is the empty object, and one layer, the envelope.
type Artifact struct {
	Manifest   ocispec.Manifest
	Bytes      []byte // of the manifest
	Descriptor ocispec.Descriptor
	Config     []byte
	Envelope   []byte
}

// NewSubject is the descriptor of some image manifest, for signing.
func NewSubject(content string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest,
		Digest:    digest.FromString(content),
		Size:      int64(len(content)),
	}
}

// SignArtifact signs the subject and packs the signature.
func (c *Certificate) SignArtifact(subject ocispec.Descriptor, o SignOptions) Artifact {
	envelope := c.Sign(subject, o)
	if o.Envelope == "" {
		o.Envelope = JWS
	}
	return Pack(subject, o.Envelope, envelope)
}

// Pack makes the manifest for an envelope of the media type. The annotations
// that notation derives from the envelope are there if it can be parsed.
func Pack(subject ocispec.Descriptor, mediaType string, envelope []byte) Artifact {
	a := Artifact{Config: []byte("{}"), Envelope: envelope}
	a.Manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: ArtifactType, Digest: digest.FromBytes(a.Config), Size: int64(len(a.Config)),
		},
		Layers: []ocispec.Descriptor{{
			MediaType: mediaType, Digest: digest.FromBytes(envelope), Size: int64(len(envelope)),
		}},
		Subject: &ocispec.Descriptor{
			MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size,
		},
		Annotations: annotations(mediaType, envelope),
	}
	return a.Repack()
}

// Repack writes the manifest anew after it was changed.
func (a Artifact) Repack() Artifact {
	a.Bytes = must(json.Marshal(a.Manifest))
	a.Descriptor = ocispec.Descriptor{
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: ArtifactType,
		Digest:       digest.FromBytes(a.Bytes),
		Size:         int64(len(a.Bytes)),
		Annotations:  a.Manifest.Annotations,
	}
	return a
}

func annotations(mediaType string, envelope []byte) map[string]string {
	parsed, err := signature.ParseEnvelope(mediaType, envelope)
	if err != nil {
		return nil
	}
	content, err := parsed.Content()
	if err != nil {
		return nil
	}
	var thumbprints []string
	for _, c := range content.SignerInfo.CertificateChain {
		sum := sha256.Sum256(c.Raw)
		thumbprints = append(thumbprints, hex.EncodeToString(sum[:]))
	}
	return map[string]string{
		"io.cncf.notary.x509chain.thumbprint#S256": string(must(json.Marshal(thumbprints))),
		ocispec.AnnotationCreated:                  content.SignerInfo.SignedAttributes.SigningTime.UTC().Format(time.RFC3339),
	}
}
