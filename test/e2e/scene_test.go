// Package e2e holds what users live through: Pods and workloads sent to a real
// API server, which asks a real Gatekeeper, which asks the real binary over
// mTLS, which reads a registry. All of it runs as processes of this machine.
package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/tools"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	libraryDir = "../../library"
	// patience is how long a condition may take to come true: more than any cache
	// on the way keeps what can change.
	patience = 45 * time.Second
	// responseTTL is Gatekeeper's response cache, as long as answers are believed
	// that are no longer true.
	responseTTL = 2 * time.Second
	// auditInterval is how often Gatekeeper looks at what runs.
	auditInterval = 5 * time.Second
)

// production trusts wabbit in the whole registry.
const production = `apiVersion: countersign.dev/v1beta1
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

// scene is all that takes part. There is one for all tests: each works in a
// namespace and on repositories of its own, and leaves the rest as it was.
type scene struct {
	*cluster.Cluster
	*world.World
	registry *registrytest.Registry
	server   *binary.Server
	// providerCA signs the provider's serving certificate and gatekeeperCA
	// Gatekeeper's, the one it offers as client.
	providerCA, gatekeeperCA *pki.Authority
	executable, dir          string
}

// shared is the scene, which TestMain starts.
var shared = &scene{}

func TestMain(m *testing.M) { cluster.Main(m, "e2e", shared.start, shared.stop) }

func (s *scene) start(ctx context.Context, dir string) (err error) {
	s.dir = dir
	if s.executable, err = binary.Find(ctx, "../..", s.dir, os.Stderr); err != nil {
		return err
	}
	if err := s.startRegistry(); err != nil {
		return err
	}
	if s.providerCA, err = pki.NewAuthority("countersign-ca"); err != nil {
		return err
	}
	if s.gatekeeperCA, err = pki.NewAuthority("gatekeeper-ca"); err != nil {
		return err
	}
	if err := s.startProvider(ctx, ""); err != nil {
		return err
	}
	if err := s.startCluster(ctx); err != nil {
		return err
	}
	return s.applyLibrary(ctx)
}

func (s *scene) startRegistry() (err error) {
	if s.registry, err = registrytest.New(registrytest.Options{}); err != nil {
		return err
	}
	if s.World, err = world.New(s.dir, s.registry.Host()); err != nil {
		return err
	}
	if _, err := s.Signer("wabbit"); err != nil {
		return err
	}
	return s.Policy("production.yaml", production)
}

// startProvider runs the binary; on the address that it had, when it ran before.
func (s *scene) startProvider(ctx context.Context, listen string) (err error) {
	s.server, err = binary.Start(ctx, binary.Options{
		Path: s.executable, Dir: s.dir, Config: s.Policies,
		Authority: s.providerCA, ClientAuthority: s.gatekeeperCA, Listen: listen,
	})
	if err != nil {
		return err
	}
	return s.server.Ready(ctx)
}

func (s *scene) startCluster(ctx context.Context) error {
	var paths cluster.Tools
	for tool, path := range map[tools.Tool]*string{
		tools.Etcd(): &paths.Etcd, tools.APIServer(): &paths.APIServer,
		tools.ControllerManager(): &paths.ControllerManager, tools.Gatekeeper(): &paths.Gatekeeper,
	} {
		var err error
		if *path, err = tools.Build(ctx, tool, os.Stderr); err != nil {
			return err
		}
	}
	var err error
	if s.Cluster, err = cluster.Start(ctx, filepath.Join(s.dir, "cluster"), paths); err != nil {
		return err
	}
	return s.StartGatekeeper(ctx, cluster.GatekeeperOptions{
		Authority: s.gatekeeperCA, ResponseCacheTTL: responseTTL, AuditInterval: auditInterval, Threads: 2,
	})
}

// applyLibrary applies what the library has, as it is, and waits for it to be in force.
func (s *scene) applyLibrary(ctx context.Context) error {
	if err := s.providers(ctx, s.providerCA.PEM); err != nil {
		return err
	}
	if err := s.ApplyFile(ctx, libraryDir+"/trusted-images/template.yaml"); err != nil {
		return err
	}
	for _, file := range []string{"trusted-images/samples/pods.yaml", "pin-digests/containers.yaml", "pin-digests/init-containers.yaml"} {
		objects, err := kubeyaml.Read(filepath.Join(libraryDir, file))
		if err != nil {
			return err
		}
		if err := s.enforce(ctx, objects...); err != nil {
			return err
		}
	}
	return nil
}

// providers applies the Provider objects of the library with our address.
func (s *scene) providers(ctx context.Context, ca []byte) error {
	for _, provider := range []struct{ policy, url string }{
		{"trusted-images", s.server.VerifyURL()}, {"pin-digests", s.server.MutateURL()},
	} {
		objects, err := kubeyaml.Read(filepath.Join(libraryDir, provider.policy, "samples", "provider.yaml"))
		if err != nil {
			return err
		}
		spec := objects[0].Object["spec"].(map[string]any)
		spec["url"], spec["caBundle"] = provider.url, base64.StdEncoding.EncodeToString(ca)
		if err := s.Apply(ctx, objects...); err != nil {
			return err
		}
	}
	return nil
}

// enforce applies constraints and mutators, whose kinds may have to come first.
func (s *scene) enforce(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, object := range objects {
		err := cluster.Eventually(ctx, patience, func(ctx context.Context) error { return s.Apply(ctx, object) })
		if err != nil {
			return err
		}
		err = cluster.Eventually(ctx, patience, func(ctx context.Context) error { return s.Enforced(ctx, object) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) stop() {
	if s.Cluster != nil {
		s.Stop()
	}
	if s.server != nil {
		_ = s.server.Stop()
	}
	if s.registry != nil {
		s.registry.Close()
	}
}

// in gives the scene with a namespace for the test.
func in(t *testing.T, namespace string, labels map[string]string) *scene {
	t.Helper()
	must(t, shared.Namespace(t.Context(), namespace, labels))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s\n--- countersign\n%s", shared.Logs(), shared.server.Log())
		}
	})
	return shared
}

// signed pushes an image that wabbit signed.
func (s *scene) signed(t *testing.T, image string) string {
	t.Helper()
	must(t, s.Push(t.Context(), image))
	s.sign(t, image)
	return s.Name(image)
}

func (s *scene) sign(t *testing.T, image string) {
	t.Helper()
	must(t, s.Sign(t.Context(), image, "wabbit", notationtest.SignOptions{}))
}

// unsigned pushes an image that nobody signed.
func (s *scene) unsigned(t *testing.T, image string) string {
	t.Helper()
	must(t, s.Push(t.Context(), image))
	return s.Name(image)
}

// distrust lets the test's repositories be trusted only when somebody signed them
// who never does, for the rest of the test, and waits until the probe is refused.
func (s *scene) distrust(t *testing.T, namespace, probe string) {
	t.Helper()
	_, err := s.Signer("nobody")
	must(t, err)
	file := namespace + ".yaml"
	must(t, s.Policy(file, strings.NewReplacer(
		"{name: production}", "{name: "+namespace+"}", "$REGISTRY/**", "$REGISTRY/"+namespace+"/**",
		"wabbit", "nobody").Replace(production)))
	t.Cleanup(func() { _ = os.Remove(filepath.Join(s.Policies, file)) })
	s.eventuallyDenied(t, namespace, probe, "")
}

// pod has one container with the image.
func pod(namespace, name, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "main", Image: image}},
		},
	}
}

// tryPod asks for a Pod without making one.
func (s *scene) tryPod(ctx context.Context, namespace, image string) error {
	return s.Client.Create(ctx, pod(namespace, "probe", image), client.DryRunAll)
}

// wantDenial wants Gatekeeper's refusal of an object, with our message in it.
func wantDenial(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("admitted, want a refusal")
		return
	}
	for _, word := range append([]string{`admission webhook "validation.gatekeeper.sh" denied the request`}, words...) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the refusal lacks %q: %v", word, err)
		}
	}
}

func (s *scene) eventuallyDenied(t *testing.T, namespace, image, word string) {
	t.Helper()
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		if err := s.tryPod(ctx, namespace, image); err == nil || !strings.Contains(err.Error(), word) {
			return fmt.Errorf("a pod of %s is not refused for %q: %v", image, word, err)
		}
		return nil
	}))
}

func (s *scene) eventuallyAdmitted(t *testing.T, namespace, image string) {
	t.Helper()
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error { return s.tryPod(ctx, namespace, image) }))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
