package main

import (
	"bufio"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// world is a registry with images and the signers who sign them, made from the
// few words that vectors and scripts are written in:
//
//	registry [no-referrers-api] [token]      first, where the plain one will not do
//	image cart:1.4                           an image of its own
//	same cart:2 cart:1.4                     another tag of it
//	sign cart:1.4 by=wabbit [format=cose] [expired] [tampered] [authority]
//	transplant cart:1.4 other:1 [format=cose] cart's signature, byte for byte, on other
//	junk cart:1.4 n=60 [format=cose]         that many garbage signatures
//	cosign cart:1.4 by=ci [as=tag|referrer|bundle|message] [version=0.1] [of=other:1]
//	       [log[=unknown]] [tampered] [garbage] [attestation] [n=60] [in=other/repository]
//	empty cart:1.4 | null-config cart:1.4 | index cart:1.4    what is no signature manifest
//	fault /referrers/ 503                    answer that from now on
//	heal
//
// Signers are wabbit, ci, alice, bob and mallory, each with an authority of its
// own whose root is in NAME.crt, and each with a key for Cosign whose public part
// is in NAME.pub; the log's is in log.pub. cosign adds to the manifest at
// Cosign's tag; of= signs another image. wabbit-crl's certificate names a CRL and
// revoked-crl's is on that list; late has a certificate that has expired. alice's root
// has also issued certificates for alice-too, another name; alice-ops, alice with a unit
// in her name; and alice-again, alice with another key.
type world struct {
	registry *registrytest.Registry
	signers  map[string]*notationtest.Certificate
	images   map[string]ocispec.Descriptor
	crl      *httptest.Server
	cosign   cosignWorld
}

// signerNames is every signer, in the order in which they are made.
var signerNames = []string{"wabbit", "ci", "alice", "bob", "mallory", "late", "wabbit-crl", "revoked-crl", "alice-too", "alice-ops", "alice-again"}

// newWorld makes the signers and writes their roots to dir.
func newWorld(t testing.TB, dir string, options registrytest.Options) *world {
	t.Helper()
	w := &world{
		registry: registrytest.Start(t, options), signers: map[string]*notationtest.Certificate{}, images: map[string]ocispec.Descriptor{},
	}
	w.cosign = newCosignWorld(t, dir)
	crlRoot := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name("crl root")})
	responder := &notationtest.Responder{Issuer: crlRoot}
	w.crl = httptest.NewServer(responder)
	t.Cleanup(w.crl.Close)
	for _, name := range signerNames {
		root := notationtest.NewRoot(notationtest.CertificateOptions{Subject: notationtest.Name(name + " root")})
		leaf := notationtest.CertificateOptions{Subject: notationtest.Name(name)}
		switch name {
		case "wabbit":
			leaf.Subject = notationtest.Name("wabbit-networks.io")
		case "late":
			leaf.NotBefore, leaf.NotAfter = time.Now().Add(-30*time.Minute), time.Now().Add(-10*time.Minute)
		case "alice-too":
			root = w.signers["alice"].Root()
		case "alice-ops", "alice-again":
			root, leaf.Subject = w.signers["alice"].Root(), notationtest.Name("alice")
			if name == "alice-ops" {
				leaf.Subject.OrganizationalUnit = []string{"ops"}
			}
		case "wabbit-crl", "revoked-crl":
			root, leaf.CRL = crlRoot, []string{w.crl.URL + "/list.crl"}
		}
		w.signers[name] = root.NewSigner(leaf)
		if name == "revoked-crl" {
			responder.Revoke(w.signers[name].Certificate)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".crt"), root.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// build carries out the lines.
func (w *world) build(lines string) error {
	for scanner := bufio.NewScanner(strings.NewReader(lines)); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := w.do(fields[0], fields[1:]); err != nil {
			return fmt.Errorf("%s: %w", scanner.Text(), err)
		}
	}
	return nil
}

func (w *world) do(verb string, args []string) error {
	if verb == "heal" {
		w.registry.SetFault(nil)
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("which image")
	}
	repo, tag, _ := strings.Cut(args[0], ":")
	subject := w.images[args[0]]
	if subject.Digest == "" && verb != "image" && verb != "same" && verb != "fault" {
		return fmt.Errorf("no image %s", args[0])
	}
	options := map[string]string{}
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		options[name] = value
	}
	switch verb {
	case "image":
		w.images[args[0]] = w.registry.PushImage(repo, tag)
	case "same":
		w.images[args[0]] = w.images[args[1]]
		w.registry.Tag(repo, tag, w.images[args[1]].Digest)
	case "sign":
		return w.sign(repo, subject, options)
	case "transplant":
		to := w.images[args[1]]
		envelope := envelopeOf(options)
		toRepo, _, _ := strings.Cut(args[1], ":")
		w.attach(toRepo, to, envelope, w.signers["wabbit"].Sign(subject, notationtest.SignOptions{Envelope: envelope}))
	case "junk":
		n, err := strconv.Atoi(options["n"])
		if err != nil {
			return err
		}
		for i := range n {
			w.attach(repo, subject, envelopeOf(options), fmt.Appendf(nil, "junk %d", i))
		}
	case "empty":
		w.attachManifest(repo, subject, func(m *ocispec.Manifest) { m.Layers = nil })
	case "null-config":
		w.attachRaw(repo, subject, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":null,"layers":null,"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
			ocispec.MediaTypeImageManifest, notationtest.ArtifactType, subject.MediaType, subject.Digest, subject.Size))
	case "index":
		w.attachRaw(repo, subject, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
			ocispec.MediaTypeImageIndex, notationtest.ArtifactType, subject.MediaType, subject.Digest, subject.Size))
	case "cosign":
		return w.cosignSign(args[0], subject, options)
	case "fault":
		status, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		w.registry.SetFault(registrytest.On(args[0], registrytest.Status(status)))
	default:
		return fmt.Errorf("unknown word %s", verb)
	}
	return nil
}

func (w *world) sign(repo string, subject ocispec.Descriptor, options map[string]string) error {
	signer := w.signers[options["by"]]
	if signer == nil {
		return fmt.Errorf("no signer %s", options["by"])
	}
	sign := notationtest.SignOptions{Envelope: envelopeOf(options)}
	if _, ok := options["authority"]; ok {
		sign.SigningAuthority = true
	}
	if _, ok := options["expired"]; ok {
		sign.Time, sign.Expiry = time.Now().Add(-20*time.Minute), time.Now().Add(-10*time.Minute)
	}
	if options["by"] == "late" {
		sign.Time = time.Now().Add(-20 * time.Minute)
	}
	envelope := signer.Sign(subject, sign)
	if _, ok := options["tampered"]; ok {
		envelope[len(envelope)/3] ^= 1
	}
	w.attach(repo, subject, sign.Envelope, envelope)
	return nil
}

func envelopeOf(options map[string]string) string {
	if options["format"] == "cose" {
		return notationtest.COSE
	}
	return notationtest.JWS
}

// attach makes the envelope a referrer of the subject, as notation does.
func (w *world) attach(repo string, subject ocispec.Descriptor, mediaType string, envelope []byte) {
	w.registry.AttachReferrer(repo, subject, registrytest.Artifact{
		ConfigMediaType: notationtest.ArtifactType,
		Layers:          []registrytest.Layer{{MediaType: mediaType, Data: envelope}},
	})
}

func (w *world) attachManifest(repo string, subject ocispec.Descriptor, mutate func(*ocispec.Manifest)) {
	m := w.registry.Build(repo, registrytest.Artifact{ConfigMediaType: notationtest.ArtifactType})
	m.Subject = &subject
	mutate(&m)
	d := w.registry.PushArtifact(repo, "", m)
	d.ArtifactType = notationtest.ArtifactType
	w.registry.ListReferrer(repo, subject.Digest, d)
}

// attachRaw lists bytes as a signature manifest, whatever they are.
func (w *world) attachRaw(repo string, subject ocispec.Descriptor, body []byte) {
	d := w.registry.PushManifest(repo, "", ocispec.MediaTypeImageManifest, body)
	d.ArtifactType = notationtest.ArtifactType
	w.registry.ListReferrer(repo, subject.Digest, d)
}

// registryOptions reads the first line of a content section.
func registryOptions(content string) (registrytest.Options, string) {
	first, rest, _ := strings.Cut(strings.TrimLeft(content, "\n"), "\n")
	fields := strings.Fields(first)
	var o registrytest.Options
	if len(fields) == 0 || fields[0] != "registry" {
		return o, content
	}
	for _, word := range fields[1:] {
		switch word {
		case "no-referrers-api":
			o.NoReferrersAPI = true
		case "token":
			o.Auth = registrytest.Auth{Scheme: "Bearer"}
		}
	}
	return o, rest
}
