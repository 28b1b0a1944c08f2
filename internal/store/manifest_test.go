package store

import (
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestL07_AManifestOfManyPartsIsNotDecoded: decoding is where they would cost.
func TestL07_AManifestOfManyPartsIsNotDecoded(t *testing.T) {
	of := func(layers int) string { // each of the length that its parts explain
		return `{"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"a/b","digest":"sha256:00"},"layers":[` + strings.TrimSuffix(strings.Repeat(`{"mediaType":"`+strings.Repeat("a", 64)+`"},`, layers), ",") + `]}`
	}
	if m := decodeManifest(ocispec.MediaTypeImageManifest, []byte(of(maxManifestValues/2))); m.malformed != nil {
		t.Errorf("as many as are read: %v", m.malformed)
	}
	m := decodeManifest(ocispec.MediaTypeImageManifest, []byte(of(maxManifestValues+1)))
	if m.malformed == nil || m.malformed.Reason != verifier.ReasonLimitExceeded || len(m.content.Layers) > 0 {
		t.Errorf("%d layers, %v", len(m.content.Layers), m.malformed)
	}
}
