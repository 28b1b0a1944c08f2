// Package decisions holds the whole way, pod to registry: Gatekeeper's engine
// with the library's policies asks the real binary over mTLS, which reads a real
// registry. Each test is a line of the attack list, or something a user does.
package decisions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/distribution"
	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	libraryDir = "../../library"
	// patience is how long a condition may take to come true: more than any cache
	// of the provider keeps what can change.
	patience = 30 * time.Second
	// production trusts wabbit in the whole registry.
	production = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  owner: platform@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    name: wabbit
    notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}
`
)

// executable is the binary that all tests run.
var executable string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "countersign-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if executable, err = binary.Find(context.Background(), "../..", dir, os.Stderr); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// scene is a world, the binary that looks at it, and the engine that asks.
type scene struct {
	*world.World
	// registry is nil where it is not ours.
	registry  *registrytest.Registry
	server    *binary.Server
	engine    *engine.Engine
	authority *pki.Authority
	dir       string
}

// options of a scene; the zero value is the usual one.
type options struct {
	registry registrytest.Options
	// distribution takes that registry instead of ours.
	distribution bool
	// policy instead of production, and the keys that it refers to.
	policy string
	keys   []string
	// files beside the policies' directory, by name.
	files map[string][]byte
	// ttl of Gatekeeper's response cache; none when 0.
	ttl time.Duration
	// pin applies pin-digests as well.
	pin bool
}

// newScene starts everything. The engine of an earlier scene can no longer be used.
func newScene(t *testing.T, o options) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir()}
	var host string
	if o.distribution {
		server := distribution.Start(t.Context())
		t.Cleanup(server.Close)
		host = strings.TrimPrefix(server.URL, "http://")
	} else {
		s.registry = registrytest.Start(t, o.registry)
		host = s.registry.Host()
	}
	var err error
	s.World, err = world.New(s.dir, host)
	must(t, err)
	_, err = s.Signer("wabbit")
	must(t, err)
	for _, key := range o.keys {
		_, err = s.Key(key)
		must(t, err)
	}
	for name, content := range o.files {
		must(t, os.WriteFile(filepath.Join(s.dir, name), content, 0o600))
	}
	if o.policy == "" {
		o.policy = production
	}
	must(t, s.Policy("production.yaml", o.policy))

	s.authority, err = pki.NewAuthority("gatekeeper-ca")
	must(t, err)
	s.server, err = binary.Start(t.Context(), binary.Options{
		Path: executable, Dir: s.dir, Config: s.Policies, Authority: s.authority,
	})
	must(t, err)
	t.Cleanup(func() {
		if err := s.server.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("countersign logged:\n%s", s.server.Log())
		}
	})
	must(t, s.server.Ready(t.Context()))
	s.newEngine(t, o)
	return s
}

// newEngine makes an engine with the library's policies, and empty caches.
func (s *scene) newEngine(t *testing.T, o options) {
	t.Helper()
	pair, err := s.authority.Issue(pki.GatekeeperName)
	must(t, err)
	certFile, keyFile, err := pair.Write(t.TempDir())
	must(t, err)
	s.engine, err = engine.New(t.Context(), engine.Config{ResponseCacheTTL: o.ttl, CertFile: certFile, KeyFile: keyFile})
	must(t, err)
	must(t, s.engine.SetProvider("countersign", s.server.VerifyURL(), 2, s.authority.PEM))
	must(t, s.engine.SetProvider("countersign-mutation", s.server.MutateURL(), 1, s.authority.PEM))
	files := []string{"/trusted-images/template.yaml", "/trusted-images/samples/pods.yaml"}
	if o.pin {
		files = append(files, "/pin-digests/containers.yaml", "/pin-digests/init-containers.yaml", "/pin-digests/image-volumes.yaml")
	}
	for _, file := range files {
		must(t, s.engine.ApplyFile(t.Context(), libraryDir+file))
	}
}

// do carries out steps on the world, and stops at the first that fails.
func do(t *testing.T, steps ...error) {
	t.Helper()
	for _, err := range steps {
		must(t, err)
	}
}

// admit creates a Pod with the images in the namespace shop.
func (s *scene) admit(t *testing.T, images ...string) engine.Decision {
	t.Helper()
	return s.admitIn(t, "shop", images...)
}

func (s *scene) admitIn(t *testing.T, namespace string, images ...string) engine.Decision {
	t.Helper()
	decision, err := s.engine.Admit(t.Context(), engine.Create(namespace, pod(images...)))
	must(t, err)
	return decision
}

// wantAdmitted creates a Pod with the images, which has to come through.
func (s *scene) wantAdmitted(t *testing.T, images ...string) {
	t.Helper()
	if decision := s.admit(t, images...); !decision.Allowed {
		t.Errorf("%q refused: %s", images, decision.Text)
	}
}

// wantDenied creates a Pod with the image, which has to be refused with a
// message that begins with it and holds the words.
func (s *scene) wantDenied(t *testing.T, image string, words ...string) {
	t.Helper()
	decision := s.admit(t, image)
	if decision.Allowed {
		t.Errorf("%s admitted", image)
		return
	}
	wantMessage(t, decision, image, words...)
}

// wantMessage wants one message in a decision that begins with the image, whose
// digest is shown in short, and holds the words.
func wantMessage(t *testing.T, decision engine.Decision, image string, words ...string) {
	t.Helper()
	image, _, _ = strings.Cut(image, "@")
	about := slices.DeleteFunc(slices.Clone(decision.Denials), func(message string) bool { return !strings.HasPrefix(message, image) })
	if len(about) != 1 {
		t.Errorf("%d messages about %s in %q, want one", len(about), image, decision.Denials)
		return
	}
	for _, word := range words {
		if !strings.Contains(about[0], word) {
			t.Errorf("the message lacks %q: %s", word, about[0])
		}
	}
}

// mutate gives the images of a new Pod as pin-digests leaves them.
func (s *scene) mutate(t *testing.T, images ...string) []string {
	t.Helper()
	got, _, err := s.engine.Mutate(t.Context(), engine.Create("shop", pod(images...)))
	must(t, err)
	containers, _, err := unstructured.NestedSlice(got.Object, "spec", "containers")
	must(t, err)
	var out []string
	for _, container := range containers {
		out = append(out, fmt.Sprint(container.(map[string]any)["image"]))
	}
	return out
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// pod has one container for each image.
func pod(images ...string) *unstructured.Unstructured {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "pod"},
		"spec":     map[string]any{"containers": containers},
	}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
