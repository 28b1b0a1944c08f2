package store

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// mediaTypeDockerManifest is the one other form of a manifest; early versions
// of Cosign wrote their signatures in it.
const mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// mediaTypeDockerIndex is Docker's form of an index.
const mediaTypeDockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json"

// acceptManifests is what a tag may lead to.
var acceptManifests = strings.Join([]string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerIndex,
}, ", ")

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == mediaTypeDockerManifest
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == mediaTypeDockerIndex
}

// manifest is a candidate's manifest, decoded once and shared: not to be changed.
type manifest struct {
	content      ocispec.Manifest
	artifactType string // effective
	// malformed says what is wrong with it, if it is not a manifest that a
	// signature or attestation could be in.
	malformed *verifier.Error
	size      int64
}

// decodeManifest reads bytes that match their digest, so whatever is wrong
// with them is the doing of whoever pushed them, for ever.
func decodeManifest(mediaType string, data []byte) *manifest {
	m := &manifest{size: int64(len(data))}
	malformed := func(message string, cause error) *manifest {
		m.malformed = &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: message, Err: cause}
		return m
	}
	switch values, objects := shape(data); { // before decoding, which is where it would cost
	case padded(len(data), values, objects):
		return malformed("a manifest is not of the expected form: it has more parts than its length explains", nil)
	case values > maxManifestValues:
		m.malformed = &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: "a manifest has more parts than are read"}
		return m
	}
	var form struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &form); err != nil {
		return malformed("a manifest is not JSON of the expected form", err)
	}
	m.content = form.Manifest
	m.artifactType = form.ArtifactType
	if m.artifactType == "" {
		m.artifactType = form.Config.MediaType
	}
	if len(m.artifactType) > maxName {
		m.artifactType = ""
		return malformed("a manifest's artifact type is longer than 255 characters", nil)
	}
	switch {
	case form.Manifests != nil || isIndex(form.MediaType):
		return malformed("a candidate is an index, not a manifest", nil)
	case form.MediaType != "" && form.MediaType != mediaType:
		return malformed("a manifest calls itself another media type than its list does", nil)
	case form.Config.MediaType == "" || form.Config.Digest == "":
		return malformed("a manifest has no config", nil)
	case len(form.Layers) == 0:
		return malformed("a manifest has no layers", nil)
	}
	return m
}

// padded reports whether a manifest takes many times its bytes once decoded, which no
// real one does.
func padded(bytes, values, objects int) bool {
	return values > freeValues+bytes/valueBytes || objects > freeObjects+bytes/objectBytes
}

// shape counts what is in JSON, outside its strings.
func shape(data []byte) (values, objects int) {
	inString := false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == ',':
			values++
		case c == '{' || c == '[':
			objects++
		}
	}
	return values, objects
}

// cost is about what the decoded manifest takes in memory.
func (m *manifest) cost() int64 {
	return 3*m.size + 256*int64(1+len(m.content.Layers))
}

// about checks that a referrer's subject is the subject.
func (m *manifest) about(subject digest.Digest) *verifier.Error {
	if m.content.Subject != nil && m.content.Subject.Digest == subject {
		return nil
	}
	return &verifier.Error{
		Reason:  verifier.ReasonSubjectMismatch,
		Message: "a referrer is about another image",
		Remedy:  "Attach it to the image again; the registry lists it wrongly",
	}
}

// selects reports whether an artifact type is wanted.
func selects(wanted verifier.Wanted, artifactType string) bool {
	return slices.Contains(wanted.ArtifactTypes, artifactType) || slices.Contains(wanted.ArtifactTypes, verifier.AnyArtifactType)
}

// undetermined reports whether a descriptor leaves its artifact type open:
// registries that predate artifactType list the config's media type, which is
// the empty one for artifacts that have no config.
func undetermined(artifactType string) bool {
	return artifactType == "" || artifactType == ocispec.MediaTypeEmptyJSON
}
