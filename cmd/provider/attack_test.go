package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// trusting is a policy for the world's registry that trusts the signers.
func trusting(signers ...string) string {
	var leaves strings.Builder
	for _, signer := range signers {
		fmt.Fprintf(&leaves, "      - {name: %s, notation: {level: strict, trustStores: {ca: [{file: %s.crt}]}, trustedIdentities: [\"*\"]}}\n", signer, signer)
	}
	return `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  owner: platform@example.com
  registries: [{host: $REGISTRY, plainHTTP: true}]
  require:
    any:
` + leaves.String()
}

// scene is a world under a policy, with the wired program over it.
type scene struct {
	*world
	app     *app
	policy  string // path of the policy file
	content string // path of what is kept on disk; empty: nothing is
	shared  string // path of how a server is reached; empty: there is none
	// proofAge is how long proofs are kept on disk; 0: they are not.
	proofAge time.Duration
}

func newScene(t *testing.T, options registrytest.Options, policy string) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{world: newWorld(t, dir, options), policy: filepath.Join(dir, "policy.yaml")}
	s.caches(t, dir)
	s.write(t, policy)
	s.start(t)
	return s
}

// caches are on where test/shared, which runs the attack list with them, says so: on
// disk, and where it gives a URL through a server.
func (s *scene) caches(t *testing.T, dir string) {
	t.Helper()
	url := os.Getenv("COUNTERSIGN_CACHES")
	if url == "" {
		return
	}
	s.content = filepath.Join(dir, "content")
	if url == "disk" {
		return
	}
	s.shared = filepath.Join(dir, "shared")
	if err := errors.Join(os.MkdirAll(s.shared, 0o700), os.WriteFile(filepath.Join(s.shared, "url"), []byte(url), 0o600),
		os.WriteFile(filepath.Join(s.shared, "secret"), []byte(rand.Text()+rand.Text()), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// start wires the program anew: what it remembers is what is on disk.
func (s *scene) start(t *testing.T) {
	t.Helper()
	options := appOptions{config: s.policy, allowLoopback: true, contentCache: s.content, contentCacheSize: 64, sharedCache: s.shared, log: slog.New(slog.DiscardHandler)}
	if s.proofAge > 0 {
		options.proofAge = &s.proofAge
	}
	app, err := newApp(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	s.app = app
}

func (s *scene) write(t *testing.T, policy string) {
	t.Helper()
	policy = strings.ReplaceAll(policy, "$REGISTRY", s.registry.Host())
	if err := os.WriteFile(s.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *scene) run(t *testing.T, lines string) {
	t.Helper()
	if err := s.build(lines); err != nil {
		t.Fatal(err)
	}
}

// verify asks about an image of the world's registry, as the door would.
func (s *scene) verify(t *testing.T, image string) answer {
	t.Helper()
	return s.app.verify(t.Context(), s.registry.Host()+"/"+image, "", (*verifier.Chain).Verify)
}

func (a answer) word() string { return a.Status + "/" + a.Reason }

func expect(t *testing.T, a answer, want string) {
	t.Helper()
	if a.word() != want {
		t.Errorf("%s: got %s (%s), want %s", a.Image, a.word(), a.Message, want)
	}
}

// schemes are a policy for each scheme and format, and how its signer signs.
var schemes = map[string]struct{ policy, sign string }{
	"Notation":      {trusting("wabbit"), "sign cart:1.4 by=wabbit"},
	"Cosign's tag":  {trustingKeys("ignored", "ci"), "cosign cart:1.4 by=ci as=tag"},
	"Cosign bundle": {trustingKeys("ignored", "ci"), "cosign cart:1.4 by=ci as=bundle"},
}

func TestL01_OneResolutionADecision(t *testing.T) {
	for name, scheme := range schemes {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, scheme.policy)
			s.run(t, "image cart:1.4\nimage evil:1\n"+scheme.sign)
			signed, evil := s.images["cart:1.4"], s.images["evil:1"]
			s.registry.PushManifest("cart", "", evil.MediaType, []byte(`{"schemaVersion":2}`))
			var lookups atomic.Int32
			s.registry.SetFault(func(_ http.ResponseWriter, r *http.Request) bool {
				switch {
				case strings.HasSuffix(r.URL.Path, "/manifests/1.4"):
					lookups.Add(1)
				case strings.Contains(r.URL.Path, "/referrers/"), strings.HasSuffix(r.URL.Path, ".sig"):
					s.registry.Tag("cart", "1.4", evil.Digest) // between look-up and verification
				}
				return false
			})
			a := s.verify(t, "cart:1.4")
			expect(t, a, "TRUSTED/TRUSTED")
			if lookups.Load() != 1 {
				t.Errorf("the tag was looked up %d times", lookups.Load())
			}
			if a.Digest != signed.Digest.String() || !strings.HasSuffix(a.Pinned, "cart:1.4@"+signed.Digest.String()) {
				t.Errorf("the answer names %s, %s; verified was %s", a.Digest, a.Pinned, signed.Digest)
			}
			for _, request := range s.registry.Requests() {
				if strings.Contains(request.Path, evil.Digest.Encoded()) {
					t.Error("asked about the other digest:", request.Path)
				}
			}
		})
	}
}

func TestL03_TagMovesWithinTTL(t *testing.T) {
	for name, scheme := range schemes {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, scheme.policy)
			s.run(t, "image cart:1.4\nimage cart:unsigned\n"+scheme.sign)
			signed := s.images["cart:1.4"].Digest.String()
			expect(t, s.verify(t, "cart:1.4"), "TRUSTED/TRUSTED")
			s.run(t, "same cart:1.4 cart:unsigned")
			if a := s.verify(t, "cart:1.4"); a.Success && a.Digest != signed {
				t.Errorf("admitted %s, which nobody signed", a.Digest)
			}
			expect(t, s.verify(t, "cart@"+s.images["cart:unsigned"].Digest.String()), "UNKNOWN/SIGNATURE_NOT_FOUND")
		})
	}
}

// TestL04_WhatLiesBesideIsNoEvidence: annotations of the image, of the signature's
// manifest and of the list that leads to it say what their author likes.
func TestL04_WhatLiesBesideIsNoEvidence(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trusting("wabbit")+
		"      - {name: ci, cosign: {transparencyLog: ignored, keys: [{name: ci, file: ci.pub}]}}\n")
	s.run(t, "image cart:1.4")
	image := s.images["cart:1.4"]
	forged := map[string]string{
		"countersign.dev/status": "TRUSTED", "countersign.dev/verified": "true", "io.cncf.notary.x509chain.thumbprint#S256": `["00"]`,
		"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": sigstoretest.PredicateTypeSign,
	}
	for _, artifactType := range []string{notationtest.ArtifactType, sigstoretest.ArtifactTypeBundle, sigstoretest.ArtifactTypeSignature} {
		d := s.registry.AttachReferrer("cart", image, registrytest.Artifact{
			ArtifactType: artifactType, ConfigMediaType: artifactType, Annotations: forged,
			Layers: []registrytest.Layer{{MediaType: notationtest.JWS, Data: []byte("{}"), Annotations: forged}},
		})
		if len(d.Annotations) != len(forged) {
			t.Fatalf("the list has %v", d.Annotations)
		}
	}
	if a := s.verify(t, "cart:1.4"); a.Success || a.Status != "UNTRUSTED" {
		t.Errorf("%s: %s", a.word(), a.Message)
	}
}

func TestL05_CachedDecisionFollowsAChangedPolicy(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trusting("wabbit"))
	go func() { _ = s.app.policies.(files).Run(t.Context()) }()
	s.run(t, "image cart:1.4\nsign cart:1.4 by=wabbit")
	expect(t, s.verify(t, "cart:1.4"), "TRUSTED/TRUSTED")
	s.registry.Reset()
	start := time.Now()
	s.write(t, trusting("ci"))
	for s.verify(t, "cart:1.4").Success {
		if time.Since(start) > 10*time.Second {
			t.Fatal("the withdrawn signer is still trusted after 10 s")
		}
	}
	expect(t, s.verify(t, "cart:1.4"), "UNTRUSTED/CERTIFICATE_NOT_TRUSTED")
	t.Logf("effective after %v", time.Since(start))
	for _, request := range s.registry.Requests() {
		if !strings.Contains(request.Path, "/manifests/1.4") { // the tag's own ten seconds may run out
			t.Error("a policy edit cost a request:", request.Method, request.Path)
		}
	}
}

func TestL05b_TransplantedSignature(t *testing.T) {
	for _, options := range []registrytest.Options{{}, {NoReferrersAPI: true}} {
		s := newScene(t, options, trusting("wabbit"))
		s.run(t, "image good:1\nimage cart:1.4\nsign good:1 by=wabbit\ntransplant good:1 cart:1.4")
		expect(t, s.verify(t, "good:1"), "TRUSTED/TRUSTED")
		expect(t, s.verify(t, "cart:1.4"), "UNTRUSTED/SUBJECT_MISMATCH")
		// And the whole manifest, which says whose it is.
		s.run(t, "image pay:1")
		artifact := s.signers["wabbit"].SignArtifact(s.images["good:1"], notationtest.SignOptions{})
		d := s.registry.PushManifest("pay", "", artifact.Descriptor.MediaType, artifact.Bytes)
		s.registry.PushBlob("pay", notationtest.JWS, artifact.Envelope)
		d.ArtifactType = notationtest.ArtifactType
		if options.NoReferrersAPI {
			s.registry.PushReferrersTag("pay", s.images["pay:1"].Digest, d)
		} else {
			s.registry.ListReferrer("pay", s.images["pay:1"].Digest, d)
		}
		expect(t, s.verify(t, "pay:1"), "UNTRUSTED/SUBJECT_MISMATCH")
	}
}

func TestL41_TheFirstRequestAfterARecoveryIsAdmitted(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trusting("wabbit"))
	s.run(t, "image cart:1.4\nsign cart:1.4 by=wabbit\nfault / 500")
	if a := s.verify(t, "cart:1.4"); a.Status != undecidedStatus {
		t.Errorf("while the registry answers 500: %s", a.word())
	}
	s.run(t, "heal")
	expect(t, s.verify(t, "cart:1.4"), "TRUSTED/TRUSTED")
}
