package world

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// CosignOptions say how a signature of Cosign's is made and attached. The zero
// value is Cosign's own format at its tag.
type CosignOptions struct {
	// Bundle makes a Sigstore bundle, and Referrer attaches Cosign's own format as
	// a referrer.
	Bundle, Referrer bool
	// Of is another image of the world, which is the one that is signed.
	Of string
	// Attestation signs provenance in a bundle, instead of a signature.
	Attestation bool
	// Tamper changes what was signed after it was.
	Tamper bool
	// Simple is how Cosign's own format is signed.
	Simple sigstoretest.SimpleOptions
}

// Key gives the key of the signer called name, whose public part is beside the
// policies as ../NAME.pub.
func (w *World) Key(name string) (*sigstoretest.Key, error) {
	if key, ok := w.keys[name]; ok {
		return key, nil
	}
	w.keys[name] = sigstoretest.NewKey(sigstoretest.P256)
	return w.keys[name], os.WriteFile(filepath.Join(filepath.Dir(w.Policies), name+".pub"), w.keys[name].PEM(), 0o600)
}

// SetKey gives a signer another key.
func (w *World) SetKey(name string, key *sigstoretest.Key) error {
	w.keys[name] = key
	return os.WriteFile(filepath.Join(filepath.Dir(w.Policies), name+".pub"), key.PEM(), 0o600)
}

// CosignSign has a signer's key sign an image, and attaches the signature.
func (w *World) CosignSign(ctx context.Context, image, signer string, o CosignOptions) error {
	key, err := w.Key(signer)
	if err != nil {
		return err
	}
	subject, signed := w.images[image], w.images[image]
	if o.Of != "" {
		signed = w.images[o.Of]
	}
	artifact := cosignArtifact(key, subject, signed, o)
	repository, _, err := w.repository(image)
	if err != nil {
		return err
	}
	for _, d := range append([]ocispec.Descriptor{artifact.Manifest.Config}, artifact.Manifest.Layers...) {
		if err := repository.Push(ctx, d, bytes.NewReader(artifact.Blobs[d.Digest])); err != nil {
			return fmt.Errorf("attach to %s: %w", image, err)
		}
	}
	if artifact.Manifest.Subject == nil {
		err = repository.PushReference(ctx, artifact.Descriptor, bytes.NewReader(artifact.Bytes), sigstoretest.Tag(subject.Digest))
	} else {
		err = repository.Push(ctx, artifact.Descriptor, bytes.NewReader(artifact.Bytes))
	}
	if err != nil {
		return fmt.Errorf("attach to %s: %w", image, err)
	}
	return nil
}

func cosignArtifact(key *sigstoretest.Key, subject, signed ocispec.Descriptor, o CosignOptions) sigstoretest.Artifact {
	if o.Bundle {
		bundle := sigstoretest.BundleOptions{}
		if o.Attestation {
			bundle.PredicateType = "https://slsa.dev/provenance/v1"
		}
		if o.Tamper {
			bundle.Change = func(b map[string]any) {
				b["dsseEnvelope"].(map[string]any)["payload"] = sigstoretest.Statement(signed.Digest, sigstoretest.StatementType, "https://example.com/tampered")
			}
		}
		return sigstoretest.PackBundle(subject, "", key.SignBundle(signed, bundle))
	}
	layer := key.SignSimple(signed, o.Simple)
	if o.Tamper {
		layer.Data = bytes.Replace(layer.Data, []byte("cosign container image signature"), []byte("cosign container image tampered!"), 1)
	}
	if o.Referrer {
		return sigstoretest.PackReferrer(subject, layer)
	}
	return sigstoretest.PackTag(layer)
}
