// Package world is what the provider looks at: images in a registry, their
// signatures, the signers' certificates, and policies in a directory. Images
// are pushed over the network as docker and notation push them, so any registry
// will do. It decides nothing.
package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// World is one registry with its images. It is not safe for concurrent use.
type World struct {
	// Host of the registry, as images name it.
	Host string
	// Policies is the directory that the provider reads.
	Policies string

	signers map[string]*notationtest.Certificate
	keys    map[string]*sigstoretest.Key
	images  map[string]ocispec.Descriptor
}

// New makes a world without images around a registry that speaks plain HTTP.
// Roots go to dir as NAME.crt, policies to a directory of their own there.
func New(dir, host string) (*World, error) {
	w := &World{
		Host: host, Policies: filepath.Join(dir, "policies"),
		signers: map[string]*notationtest.Certificate{}, keys: map[string]*sigstoretest.Key{}, images: map[string]ocispec.Descriptor{},
	}
	return w, os.MkdirAll(w.Policies, 0o700)
}

// Name is an image of the world as a Pod names it.
func (w *World) Name(image string) string { return w.Host + "/" + image }

// Policy writes a document into the provider's directory, with $REGISTRY for the
// registry's host. A relative file in it starts at the directory.
func (w *World) Policy(file, document string) error {
	document = strings.ReplaceAll(document, "$REGISTRY", w.Host)
	// The provider watches the directory: never let it see half a document.
	path := filepath.Join(w.Policies, file)
	if err := os.WriteFile(path+".tmp", []byte(document), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// Signer gives the signer called name, with an authority of its own whose root
// is beside the policies as ../NAME.crt.
func (w *World) Signer(name string) (*notationtest.Certificate, error) {
	if signer, ok := w.signers[name]; ok {
		return signer, nil
	}
	root := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name(name + " root")})
	w.signers[name] = root.NewSigner(notationtest.CertificateOptions{Subject: notationtest.Name(name)})
	return w.signers[name], os.WriteFile(filepath.Join(filepath.Dir(w.Policies), name+".crt"), root.PEM(), 0o600)
}

// Digest of an image that was pushed.
func (w *World) Digest(image string) digest.Digest { return w.images[image].Digest }

// Descriptor of an image that was pushed.
func (w *World) Descriptor(image string) ocispec.Descriptor { return w.images[image] }

// Push makes an image that differs from all others, as repository:tag.
func (w *World) Push(ctx context.Context, image string) error {
	repository, tag, err := w.repository(image)
	if err != nil {
		return err
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Labels":{"n":"%d"}},"rootfs":{"type":"layers","diff_ids":[]}}`, len(w.images))
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    content.NewDescriptorFromBytes(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{},
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d := content.NewDescriptorFromBytes(manifest.MediaType, body)
	if err := repository.Push(ctx, manifest.Config, bytes.NewReader(config)); err != nil {
		return fmt.Errorf("push %s: %w", image, err)
	}
	if err := repository.PushReference(ctx, d, bytes.NewReader(body), tag); err != nil {
		return fmt.Errorf("push %s: %w", image, err)
	}
	w.images[image] = d
	return nil
}

// Platform says what platform an image is for, to an index of it.
func (w *World) Platform(image, os, architecture string) {
	d := w.images[image]
	d.Platform = &ocispec.Platform{OS: os, Architecture: architecture}
	w.images[image] = d
}

// PushIndex makes an index of images of one repository, as repository:tag.
func (w *World) PushIndex(ctx context.Context, image string, of ...string) error {
	repository, tag, err := w.repository(image)
	if err != nil {
		return err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, each := range of {
		index.Manifests = append(index.Manifests, w.images[each])
	}
	body, err := json.Marshal(index)
	if err != nil {
		return err
	}
	w.images[image] = content.NewDescriptorFromBytes(index.MediaType, body)
	if err := repository.PushReference(ctx, w.images[image], bytes.NewReader(body), tag); err != nil {
		return fmt.Errorf("push %s: %w", image, err)
	}
	return nil
}

// Move lets an image's tag name what another one's tag names, in one repository.
func (w *World) Move(ctx context.Context, image, to string) error {
	repository, tag, err := w.repository(image)
	if err != nil {
		return err
	}
	if err := repository.Tag(ctx, w.images[to], tag); err != nil {
		return fmt.Errorf("tag %s: %w", image, err)
	}
	w.images[image] = w.images[to]
	return nil
}

// Sign has a signer sign an image and attaches the signature.
func (w *World) Sign(ctx context.Context, image, signer string, options notationtest.SignOptions) error {
	envelope, err := w.Envelope(image, signer, options)
	if err != nil {
		return err
	}
	return w.Attach(ctx, image, options.Envelope, envelope)
}

// Envelope is a signer's signature of an image, attached to nothing.
func (w *World) Envelope(image, signer string, options notationtest.SignOptions) ([]byte, error) {
	by, err := w.Signer(signer)
	if err != nil {
		return nil, err
	}
	return by.Sign(w.images[image], options), nil
}

// Attach makes an envelope a referrer of an image, whatever it signs. The media
// type is JWS when empty.
func (w *World) Attach(ctx context.Context, image, mediaType string, envelope []byte) error {
	repository, _, err := w.repository(image)
	if err != nil {
		return err
	}
	if mediaType == "" {
		mediaType = notationtest.JWS
	}
	artifact := notationtest.Pack(w.images[image], mediaType, envelope)
	for _, blob := range []struct {
		descriptor ocispec.Descriptor
		content    []byte
	}{{artifact.Manifest.Config, artifact.Config}, {artifact.Manifest.Layers[0], artifact.Envelope}, {artifact.Descriptor, artifact.Bytes}} {
		if err := repository.Push(ctx, blob.descriptor, bytes.NewReader(blob.content)); err != nil {
			return fmt.Errorf("attach to %s: %w", image, err)
		}
	}
	return nil
}

func (w *World) repository(image string) (*remote.Repository, string, error) {
	name, tag, _ := strings.Cut(image, ":")
	repository, err := remote.NewRepository(w.Name(name))
	if err != nil {
		return nil, "", err
	}
	repository.PlainHTTP = true
	repository.SkipReferrersGC = true // what is attached stays
	return repository, tag, nil
}
