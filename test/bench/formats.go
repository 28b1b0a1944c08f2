package main

import (
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// format is a way to sign images, with the policy that trusts them.
type format struct {
	name string
	// require is the policy's rule in YAML.
	require string
	// sign attaches a signature, and gives the paths that lead to it one after
	// another when the digest is known.
	sign func(r *registrytest.Registry, repository string, subject ocispec.Descriptor) []string
	// requests of one cold image by digest, at most.
	requests int
}

const (
	nameNotation = "notation"
	nameTag      = "cosign .sig"
	nameBundle   = "cosign bundle"
	nameBoth     = "notation and .sig"
	nameUnsigned = "unsigned"
)

// signers are who signs, and the files that trust them.
type signers struct {
	notation *notationtest.Certificate
	cosign   *sigstoretest.Key
}

// newSigners makes the signers. Notation has what Ratify's figures were
// measured with, RSA-2048 for the authority and the leaf; Cosign has what it
// makes itself.
func newSigners() signers {
	root := notationtest.NewRoot(notationtest.CertificateOptions{KeyType: notationtest.RSA2048})
	return signers{
		notation: root.NewSigner(notationtest.CertificateOptions{KeyType: notationtest.RSA2048}),
		cosign:   sigstoretest.NewKey(sigstoretest.P256),
	}
}

// formats are all that is measured, in the tables' order.
func (s signers) formats() []*format {
	notation := `notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=wabbit-networks.io"]}`
	cosign := `cosign: {transparencyLog: ignored, keys: [{file: ../cosign.pub}]}`
	return []*format{
		{name: nameNotation, require: "{name: wabbit, " + notation + "}", sign: s.byNotation, requests: 3},
		{name: nameTag, require: "{name: ci, " + cosign + "}", sign: s.byTag, requests: 2},
		{name: nameBundle, require: "{name: ci, " + cosign + "}", sign: s.byBundle, requests: 3},
		{
			name: nameBoth, require: "{all: [{name: wabbit, " + notation + "}, {name: ci, " + cosign + "}]}", requests: 5,
			sign: func(r *registrytest.Registry, repository string, subject ocispec.Descriptor) []string {
				s.byTag(r, repository, subject)
				return s.byNotation(r, repository, subject)
			},
		},
		{name: nameUnsigned, require: "{name: wabbit, " + notation + "}"},
	}
}

func (s signers) byNotation(r *registrytest.Registry, repository string, subject ocispec.Descriptor) []string {
	a := s.notation.SignArtifact(subject, notationtest.SignOptions{})
	r.PushBlob(repository, a.Manifest.Config.MediaType, a.Config)
	envelope := r.PushBlob(repository, a.Manifest.Layers[0].MediaType, a.Envelope)
	manifest := r.PushManifest(repository, "", a.Descriptor.MediaType, a.Bytes)
	r.ListReferrer(repository, subject.Digest, a.Descriptor)
	return byReferrer(repository, subject, manifest, envelope)
}

func (s signers) byTag(r *registrytest.Registry, repository string, subject ocispec.Descriptor) []string {
	a := sigstoretest.PackTag(s.cosign.SignSimple(subject, sigstoretest.SimpleOptions{}))
	push(r, repository, sigstoretest.Tag(subject.Digest), a)
	return []string{
		fmt.Sprintf("/v2/%s/manifests/%s", repository, sigstoretest.Tag(subject.Digest)),
		fmt.Sprintf("/v2/%s/blobs/%s", repository, a.Manifest.Layers[0].Digest),
	}
}

func (s signers) byBundle(r *registrytest.Registry, repository string, subject ocispec.Descriptor) []string {
	a := sigstoretest.PackBundle(subject, "", s.cosign.SignBundle(subject, sigstoretest.BundleOptions{}))
	push(r, repository, "", a)
	r.ListReferrer(repository, subject.Digest, a.Descriptor)
	return byReferrer(repository, subject, a.Descriptor, a.Manifest.Layers[0])
}

func push(r *registrytest.Registry, repository, tag string, a sigstoretest.Artifact) {
	for _, blob := range a.Blobs {
		r.PushBlob(repository, "", blob)
	}
	r.PushManifest(repository, tag, a.Descriptor.MediaType, a.Bytes)
}

func byReferrer(repository string, subject, manifest, blob ocispec.Descriptor) []string {
	return []string{
		fmt.Sprintf("/v2/%s/referrers/%s", repository, subject.Digest),
		fmt.Sprintf("/v2/%s/manifests/%s", repository, manifest.Digest),
		fmt.Sprintf("/v2/%s/blobs/%s", repository, blob.Digest),
	}
}
