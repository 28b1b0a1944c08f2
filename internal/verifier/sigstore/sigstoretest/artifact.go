package sigstoretest

import (
	"encoding/json"
	"maps"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// The types of manifests and layers.
const (
	ArtifactTypeSignature  = "application/vnd.dev.cosign.artifact.sig.v1+json"
	ArtifactTypeBundle     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"
)

// Artifact is a manifest with the blobs that it names: what is pushed.
type Artifact struct {
	Manifest   ocispec.Manifest
	Bytes      []byte // of the manifest
	Descriptor ocispec.Descriptor
	Blobs      map[digest.Digest][]byte
	Source     verifier.Source
}

// NewSubject is the descriptor of an image that is not there.
func NewSubject(content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content))}
}

// Tag is the tag at which Cosign keeps the subject's signatures of its own format.
func Tag(subject digest.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded() + ".sig"
}

// PackTag makes the manifest for the tag of signatures of Cosign's own format.
func PackTag(layers ...Layer) Artifact {
	return pack(verifier.SourceTagSuffix, ocispec.Manifest{}, ocispec.MediaTypeImageConfig, layers)
}

// PackReferrer makes the manifest that Cosign attaches with
// --registry-referrers-mode=oci-1-1.
func PackReferrer(subject ocispec.Descriptor, layers ...Layer) Artifact {
	return pack(verifier.SourceReferrersAPI, ocispec.Manifest{Subject: plain(subject)}, ArtifactTypeSignature, layers)
}

// PackBundle makes the manifest that Cosign attaches since version 3. The
// artifact type is the bundle's media type; empty is ArtifactTypeBundle.
func PackBundle(subject ocispec.Descriptor, artifactType string, bundle []byte) Artifact {
	if artifactType == "" {
		artifactType = ArtifactTypeBundle
	}
	return pack(verifier.SourceReferrersAPI, ocispec.Manifest{ArtifactType: artifactType, Subject: plain(subject)},
		ocispec.MediaTypeEmptyJSON, []Layer{{MediaType: artifactType, Data: bundle}})
}

// plain is the descriptor as a subject has it.
func plain(d ocispec.Descriptor) *ocispec.Descriptor {
	return &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Layer is a layer with its blob.
type Layer struct {
	MediaType   string // empty is MediaTypeSimpleSigning
	Data        []byte
	Annotations map[string]string
}

// With is the layer with one annotation more.
func (l Layer) With(name, value string) Layer {
	l.Annotations = maps.Clone(l.Annotations)
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[name] = value
	return l
}

func pack(source verifier.Source, m ocispec.Manifest, configType string, layers []Layer) Artifact {
	a := Artifact{Blobs: map[digest.Digest][]byte{}, Source: source}
	config := []byte("{}")
	m.Versioned = specs.Versioned{SchemaVersion: 2}
	m.MediaType = ocispec.MediaTypeImageManifest
	m.Config = ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))}
	a.Blobs[m.Config.Digest] = config
	for _, l := range layers {
		if l.MediaType == "" {
			l.MediaType = MediaTypeSimpleSigning
		}
		d := digest.FromBytes(l.Data)
		a.Blobs[d] = l.Data
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: l.MediaType, Digest: d, Size: int64(len(l.Data)), Annotations: l.Annotations})
	}
	a.Manifest = m
	return a.Repack()
}

// Repack writes the manifest anew after it was changed.
func (a Artifact) Repack() Artifact {
	a.Bytes = must(json.Marshal(a.Manifest))
	a.Descriptor = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(a.Bytes), Size: int64(len(a.Bytes)),
	}
	if a.Source != verifier.SourceTagSuffix {
		a.Descriptor.ArtifactType = a.ArtifactType()
	}
	return a
}

// ArtifactType is the effective one.
func (a Artifact) ArtifactType() string {
	if a.Manifest.ArtifactType != "" {
		return a.Manifest.ArtifactType
	}
	return a.Manifest.Config.MediaType
}

// Candidate is the artifact as a store gives it.
func (a Artifact) Candidate() verifier.Candidate {
	return verifier.Candidate{Descriptor: a.Descriptor, Manifest: a.Manifest, ArtifactType: a.ArtifactType(), Source: a.Source}
}
