package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/world"
)

const policy = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  owner: platform@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    any:
      - name: wabbit
        notation:
          level: strict
          trustStores: {ca: [{file: ../wabbit.crt}]}
          trustedIdentities: ["x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=wabbit"]
      - name: ci
        notation:
          level: strict
          trustStores: {ca: [{file: ../ci.crt}]}
          trustedIdentities: ["*"]
      - name: release
        cosign: {transparencyLog: ignored, keys: [{name: release, file: ../release.pub}]}
`

// vault wants a signature of each scheme for what is in vault/.
const vault = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: vault}
spec:
  images: ["$REGISTRY/vault/**"]
  owner: platform@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    all:
      - name: wabbit
        notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}
      - name: release
        cosign: {transparencyLog: ignored, keys: [{name: release, file: ../release.pub}]}
`

// cluster is all that takes part: what would be a registry, a Deployment of
// Countersign and one of Gatekeeper.
type cluster struct {
	*world.World
	binary   string // path of the executable
	registry *registrytest.Registry
	server   *binary.Server
	engine   *engine.Engine
	// caFile, certFile and keyFile are what Gatekeeper has to ask with.
	caFile, certFile, keyFile string
}

// start sets everything up in dir and says how far it is.
func (d *demo) start(ctx context.Context, dir string) (*cluster, error) {
	c := &cluster{}
	steps := []struct {
		what string
		do   func() (string, error)
	}{
		{"binary", func() (string, error) { return c.findBinary(ctx, d, dir) }},
		{"registry", func() (string, error) { return c.startRegistry(ctx, dir) }},
		{"provider", func() (string, error) { return c.startProvider(ctx, dir) }},
		{"gatekeeper", func() (string, error) { return c.startGatekeeper(ctx, d.root) }},
	}
	for _, step := range steps {
		d.out.begin(step.what)
		started := time.Now()
		said, err := step.do()
		if err != nil {
			c.stop()
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
		d.out.done(step.what, said, time.Since(started))
	}
	return c, nil
}

func (c *cluster) stop() {
	if c.server != nil {
		_ = c.server.Stop()
	}
	if c.registry != nil {
		c.registry.Close()
	}
}

func (c *cluster) findBinary(ctx context.Context, d *demo, dir string) (path string, err error) {
	c.binary, err = binary.Find(ctx, d.root, dir, d.progress)
	return c.binary, err
}

// startRegistry has an image for each thing that happens to images.
func (c *cluster) startRegistry(ctx context.Context, dir string) (string, error) {
	registry, err := registrytest.New(registrytest.Options{})
	if err != nil {
		return "", err
	}
	c.registry = registry
	if c.World, err = world.New(dir, registry.Host()); err != nil {
		return "", err
	}
	images := []string{
		"cart:1.4", "till:2.0", "stranger:1", "expired:1", "tampered:1", "transplanted:1", "unsigned:1",
		"oven:3", "scale:1", "key:1", "copied:1", "attested:1", "vault/both:1", "vault/one:1",
	}
	for _, image := range images {
		if err := c.Push(ctx, image); err != nil {
			return "", err
		}
	}
	tampered, err := c.Envelope("tampered:1", "wabbit", notationtest.SignOptions{})
	if err != nil {
		return "", err
	}
	transplanted, err := c.Envelope("cart:1.4", "wabbit", notationtest.SignOptions{})
	if err != nil {
		return "", err
	}
	earlier := time.Now().Add(-30 * time.Minute)
	for _, err := range []error{
		c.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}),
		c.Sign(ctx, "till:2.0", "ci", notationtest.SignOptions{Envelope: notationtest.COSE}),
		c.Sign(ctx, "stranger:1", "mallory", notationtest.SignOptions{}),
		c.Sign(ctx, "expired:1", "wabbit", notationtest.SignOptions{Time: earlier, Expiry: earlier.Add(10 * time.Minute)}),
		c.Attach(ctx, "tampered:1", notationtest.JWS, tamper(tampered)),
		c.Attach(ctx, "transplanted:1", notationtest.JWS, transplanted),
		c.CosignSign(ctx, "oven:3", "release", world.CosignOptions{}),
		c.CosignSign(ctx, "scale:1", "release", world.CosignOptions{Bundle: true}),
		c.CosignSign(ctx, "key:1", "mallory", world.CosignOptions{}),
		c.CosignSign(ctx, "copied:1", "release", world.CosignOptions{Bundle: true, Of: "scale:1"}),
		c.CosignSign(ctx, "attested:1", "release", world.CosignOptions{Bundle: true, Attestation: true}),
		c.Sign(ctx, "vault/both:1", "wabbit", notationtest.SignOptions{}),
		c.CosignSign(ctx, "vault/both:1", "release", world.CosignOptions{Bundle: true}),
		c.CosignSign(ctx, "vault/one:1", "release", world.CosignOptions{}),
	} {
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%s, %d images", registry.Host(), len(images)), nil
}

// tamper changes the first character of a JWS's signature to another one that
// base64 has.
func tamper(envelope []byte) []byte {
	const field = `"signature":"`
	if at := bytes.Index(envelope, []byte(field)) + len(field); envelope[at] == 'A' {
		envelope[at] = 'B'
	} else {
		envelope[at] = 'A'
	}
	return envelope
}

// startProvider runs the binary with a policy that trusts wabbit, ci and the key
// release, and one that wants two of them.
func (c *cluster) startProvider(ctx context.Context, dir string) (string, error) {
	if err := c.Policy("production.yaml", policy); err != nil {
		return "", err
	}
	if err := c.Policy("vault.yaml", vault); err != nil {
		return "", err
	}
	authority, err := pki.NewAuthority("gatekeeper-ca")
	if err != nil {
		return "", err
	}
	c.caFile = filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(c.caFile, authority.PEM, 0o600); err != nil {
		return "", err
	}
	pair, err := authority.Issue(pki.GatekeeperName)
	if err != nil {
		return "", err
	}
	if c.certFile, c.keyFile, err = pair.Write(filepath.Join(dir, "gatekeeper")); err != nil {
		return "", err
	}
	c.server, err = binary.Start(ctx, binary.Options{Path: c.binary, Dir: dir, Config: c.Policies, Authority: authority})
	if err != nil {
		return "", err
	}
	if err := c.server.Ready(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("https://%s, mTLS, policies in %s", c.server.Provider, c.Policies), nil
}

// startGatekeeper gives the engine the library's policies, as they are.
func (c *cluster) startGatekeeper(ctx context.Context, root string) (string, error) {
	authority, err := os.ReadFile(c.caFile)
	if err != nil {
		return "", err
	}
	if c.engine, err = engine.New(ctx, engine.Config{CertFile: c.certFile, KeyFile: c.keyFile}); err != nil {
		return "", err
	}
	if err := c.engine.SetProvider("countersign", c.server.VerifyURL(), 2, authority); err != nil {
		return "", err
	}
	if err := c.engine.SetProvider("countersign-mutation", c.server.MutateURL(), 1, authority); err != nil {
		return "", err
	}
	for _, file := range []string{"trusted-images/template.yaml", "trusted-images/samples/pods.yaml", "pin-digests/containers.yaml"} {
		if err := c.engine.ApplyFile(ctx, filepath.Join(root, "library", file)); err != nil {
			return "", err
		}
	}
	return "its engine, with library/trusted-images and library/pin-digests", nil
}
