// Package signers holds the product to what Cosign's own command signs and
// verifies: each version, format and key that it can write, in a registry with
// the referrers API and in one without.
package signers

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/distribution"
	"github.com/countersign-dev/countersign/test/tools"
	"github.com/countersign-dev/countersign/test/world"
)

// executables are what all tests run.
var executables struct{ countersign, cosign2, cosign3 string }

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("Cosign is built in full runs only")
		return
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "countersign-signers-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		ctx := context.Background()
		if executables.countersign, err = binary.Find(ctx, "../..", dir, os.Stderr); err != nil {
			panic(err)
		}
		if executables.cosign2, err = tools.Build(ctx, tools.Cosign2(), os.Stderr); err != nil {
			panic(err)
		}
		if executables.cosign3, err = tools.Build(ctx, tools.Cosign3(), os.Stderr); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// form is a way to sign with a release of Cosign.
type form struct {
	name, path string
	// sign and verify are flags, beside those that every form has.
	sign, verify []string
	// elsewhere puts the signatures into a repository of their own.
	elsewhere bool
	// every key type is tried, and not just Cosign's own.
	everyKey bool
}

// forms are the formats of each release by the flags that choose them. What all
// have keeps Cosign from Sigstore's public services, a log and its configuration.
func forms() []form {
	v2, v3 := executables.cosign2, executables.cosign3
	own, oci11, bundle := "--new-bundle-format=false", "--registry-referrers-mode=oci-1-1", "--new-bundle-format"
	return []form{
		{name: "cosign 3", path: v3, everyKey: true},
		{name: "cosign 3 -a", path: v3, sign: []string{"-a", "env=prod"}},
		{name: "cosign 3 COSIGN_REPOSITORY", path: v3, elsewhere: true},
		{name: "cosign 3 own format", path: v3, sign: []string{own}, everyKey: true},
		{name: "cosign 3 own format -a", path: v3, sign: []string{own, "-a", "env=prod"}},
		{name: "cosign 3 own format oci-1-1", path: v3, sign: []string{own, oci11}, verify: []string{"--experimental-oci11"}},
		{name: "cosign 3 own format COSIGN_REPOSITORY", path: v3, sign: []string{own}, elsewhere: true},
		{name: "cosign 2", path: v2, everyKey: true},
		{name: "cosign 2 -a", path: v2, sign: []string{"-a", "env=prod"}},
		{name: "cosign 2 --record-creation-timestamp", path: v2, sign: []string{"--record-creation-timestamp"}},
		{name: "cosign 2 --sign-container-identity", path: v2, sign: []string{"--sign-container-identity=shop.example.com/cart"}},
		{name: "cosign 2 oci-1-1", path: v2, sign: []string{oci11}, verify: []string{"--experimental-oci11"}},
		{name: "cosign 2 COSIGN_REPOSITORY", path: v2, elsewhere: true},
		{name: "cosign 2 --new-bundle-format", path: v2, sign: []string{bundle}, verify: []string{bundle, "--trusted-root=trusted-root.json"}},
	}
}

// registries are the two kinds there are.
func registries(t *testing.T) map[string]string {
	t.Helper()
	without := distribution.Start(t.Context())
	t.Cleanup(without.Close)
	return map[string]string{
		"referrers API": registrytest.Start(t, registrytest.Options{}).Host(),
		"tag schema":    strings.TrimPrefix(without.URL, "http://"),
	}
}

// scene is a registry with images, and a directory with keys.
type scene struct {
	*world.World
	dir string
}

func newScene(t *testing.T, host string) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir()}
	var err error
	s.World, err = world.New(s.dir, host)
	must(t, err)
	// Cosign 2 wants one for bundles, whatever is in it.
	must(t, os.WriteFile(filepath.Join(s.dir, "trusted-root.json"), []byte(`{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`), 0o600))
	return s
}

// cosign runs the command in the scene's directory.
func (s *scene) cosign(t *testing.T, path string, env []string, args ...string) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), path, args...)
	command.Dir = s.dir
	// A home of its own: nobody's docker configuration, nobody's TUF root.
	// Oci-1-1 is experimental to Cosign, and nothing beyond this machine is asked.
	command.Env = append([]string{
		"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "COSIGN_PASSWORD=", "COSIGN_EXPERIMENTAL=1", "HTTPS_PROXY=http://127.0.0.1:1",
	}, env...)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Run(); err != nil {
		return fmt.Errorf("cosign %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return nil
}

// keyTypes are those that Cosign imports, its own first.
func keyTypes() []string {
	return []string{"P-256", "P-384", "P-521", "RSA-2048", "RSA-4096", "Ed25519"}
}

// newKey makes NAME.key, in Cosign's form, and NAME.pub.
func (s *scene) newKey(t *testing.T, name, keyType string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(generate(t, keyType))
	must(t, err)
	file := filepath.Join(s.dir, name+".pem")
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	must(t, s.cosign(t, executables.cosign3, nil, "import-key-pair", "--key", file, "--output-key-prefix", name, "--yes"))
}

func generate(t *testing.T, keyType string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch keyType {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "RSA-2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "RSA-4096":
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	must(t, err)
	return key
}

// trust writes the policy that a key is wanted, with more fields of the check.
func (s *scene) trust(t *testing.T, key, more string) {
	t.Helper()
	must(t, s.Policy("policy.yaml", `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: policy}
spec:
  images: ["$REGISTRY/**"]
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    name: key
    cosign: {transparencyLog: ignored, keys: [{file: ../`+key+`.pub}]`+more+`}
`))
}

// countersign gives the status and reason of an image under the policy.
func (s *scene) countersign(t *testing.T, image string) (status, reason string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), executables.countersign, "verify", "--allow-loopback", "--config", s.Policies, "-o", "json", image)
	out, err := command.Output()
	if len(out) == 0 {
		t.Fatalf("countersign verify: %v", err)
	}
	var answers []struct{ Status, Reason string }
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return answers[0].Status, answers[0].Reason
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
