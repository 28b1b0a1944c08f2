package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// cosignWorld is the part of the world that Cosign is about.
type cosignWorld struct {
	keys         map[string]*sigstoretest.Key
	log, unknown *sigstoretest.Log
	tags         map[string][]sigstoretest.Layer // what is at each image's tag
}

// newCosignWorld makes a key for each signer and writes the public ones to dir.
func newCosignWorld(t testing.TB, dir string) cosignWorld {
	t.Helper()
	c := cosignWorld{
		keys: map[string]*sigstoretest.Key{}, log: sigstoretest.NewLog(), unknown: sigstoretest.NewLog(), tags: map[string][]sigstoretest.Layer{},
	}
	files := map[string][]byte{"log.pub": c.log.PEM(), "trusted-root.json": sigstoretest.TrustedRoot(c.log)}
	for _, name := range signerNames {
		c.keys[name] = sigstoretest.NewKey(sigstoretest.P256)
		files[name+".pub"] = c.keys[name].PEM()
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// cosignSign signs an image as Cosign does, as often as n says.
func (w *world) cosignSign(image string, subject ocispec.Descriptor, options map[string]string) error {
	n := 1
	if text, many := options["n"]; many {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	for i := range n {
		if err := w.cosignOnce(image, subject, options, i); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) cosignOnce(image string, subject ocispec.Descriptor, options map[string]string, n int) error {
	key := w.cosign.keys[options["by"]]
	if key == nil {
		return fmt.Errorf("no signer %s", options["by"])
	}
	signed := subject
	if of, other := options["of"]; other {
		if signed = w.images[of]; signed.Digest == "" {
			return fmt.Errorf("no image %s", of)
		}
	}
	var log *sigstoretest.Log
	switch which, logged := options["log"]; {
	case logged && which == "unknown":
		log = w.cosign.unknown
	case logged:
		log = w.cosign.log
	}
	_, tampered := options["tampered"]
	_, garbage := options["garbage"]
	repo, _, _ := strings.Cut(image, ":")
	if in, elsewhere := options["in"]; elsewhere {
		repo = in
	}
	switch as := options["as"]; as {
	case "", "tag", "referrer":
		simple := sigstoretest.SimpleOptions{Log: log}
		if n > 0 {
			simple.Annotations = map[string]any{"n": n}
		}
		layer := key.SignSimple(signed, simple)
		if tampered {
			layer.Data = []byte(strings.Replace(string(layer.Data), "shop/cart", "shop/crat", 1))
		}
		if garbage {
			layer.Data = fmt.Appendf(nil, "garbage %d", n)
		}
		if as == "referrer" {
			w.push(repo, subject, sigstoretest.PackReferrer(subject, layer))
			return nil
		}
		w.cosign.tags[image] = append(w.cosign.tags[image], layer)
		w.push(repo, subject, sigstoretest.PackTag(w.cosign.tags[image]...))
	case "bundle", "message":
		bundle := sigstoretest.BundleOptions{Message: as == "message", Version: options["version"], Log: log}
		if _, attestation := options["attestation"]; attestation {
			bundle.PredicateType = "https://slsa.dev/provenance/v1"
		}
		if tampered {
			bundle.Change = func(b map[string]any) { tamper(b) }
		}
		data := key.SignBundle(signed, bundle)
		if garbage {
			data = fmt.Appendf(nil, "garbage %d", n)
		}
		w.push(repo, subject, sigstoretest.PackBundle(subject, sigstoretest.Versions[bundle.Version], data))
	default:
		return fmt.Errorf("unknown way %s", as)
	}
	return nil
}

// tamper changes the signature in a bundle.
func tamper(bundle map[string]any) {
	flip := func(signed map[string]any, name string) {
		sig := append([]byte(nil), signed[name].([]byte)...)
		sig[len(sig)-1] ^= 1
		signed[name] = sig
	}
	if message, ok := bundle["messageSignature"].(map[string]any); ok {
		flip(message, "signature")
		return
	}
	flip(bundle["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any), "sig")
}

// push stores the artifact where Cosign would.
func (w *world) push(repo string, subject ocispec.Descriptor, a sigstoretest.Artifact) {
	for d, blob := range maps.All(a.Blobs) {
		if pushed := w.registry.PushBlob(repo, "", blob); pushed.Digest != d {
			panic("another digest")
		}
	}
	if a.Manifest.Subject == nil {
		w.registry.PushManifest(repo, sigstoretest.Tag(subject.Digest), a.Descriptor.MediaType, a.Bytes)
		return
	}
	d := w.registry.PushManifest(repo, "", a.Descriptor.MediaType, a.Bytes)
	d.ArtifactType, d.Annotations = a.ArtifactType(), a.Manifest.Annotations
	w.registry.ListReferrer(repo, subject.Digest, d)
}

// trustingKeys is a policy for the world's registry that trusts the signers'
// keys, each in a check of its own.
func trustingKeys(log string, signers ...string) string {
	var leaves strings.Builder
	for _, signer := range signers {
		logKeys := ""
		if log != "ignored" {
			logKeys = ", logKeys: [{file: log.pub}]"
		}
		fmt.Fprintf(&leaves, "      - {name: %s, cosign: {transparencyLog: %s, keys: [{name: %s, file: %s.pub}]%s}}\n", signer, log, signer, signer, logKeys)
	}
	policy := trusting()
	return policy + leaves.String()
}

// cosignForms are all formats by all ways to find them, in the world's words.
var cosignForms = map[string]string{
	"tag": "as=tag", "referrer": "as=referrer", "bundle 0.1": "as=bundle version=0.1", "bundle 0.2": "as=bundle version=0.2", "bundle 0.3": "as=bundle version=0.3",
	"message 0.1": "as=message version=0.1", "message 0.2": "as=message version=0.2", "message 0.3": "as=message version=0.3",
}

// TestL05b_TransplantedCosignSignature: every way and format, in registries
// with the referrers API and without.
func TestL05b_TransplantedCosignSignature(t *testing.T) {
	for path, options := range map[string]registrytest.Options{"referrers API": {}, "referrers tag": {NoReferrersAPI: true}} {
		s := newScene(t, options, trustingKeys("ignored", "ci"))
		s.run(t, "image good:1")
		for name, form := range cosignForms {
			t.Run(path+"/"+name, func(t *testing.T) {
				image := strings.ReplaceAll(name, " ", "-") + "/cart:1"
				s.run(t, "image "+image+"\ncosign "+image+" by=ci of=good:1 "+form)
				expect(t, s.verify(t, image), "UNTRUSTED/SUBJECT_MISMATCH")
			})
		}
	}
}
