// Package watch holds `countersign watch` to what it promises: the binary with the
// rights that the chart gives it, on a real API server, over a registry. Pods are
// created and never run: the tests write their status, as a kubelet would.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/admission"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/tools"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	namespace = "countersign-system"
	account   = "countersign-watch"
	patience  = 60 * time.Second
	policy    = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  owner: platform@example.com
  registries: [{host: $REGISTRY, plainHTTP: true}]
  require: {name: wabbit, notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}}
`
)

// scene is a control plane, a registry, and a watcher.
type scene struct {
	*cluster.Cluster
	*world.World
	registry        *registrytest.Registry
	executable, dir string
	watcher         *binary.Server
	told            told
	// record is what the provider would show of what it was asked.
	record      *admission.Record
	recordShown *httptest.Server
}

// told is a webhook that keeps what it was sent.
type told struct {
	server *httptest.Server

	mu      sync.Mutex // guards all below
	notices []notice
}

type notice struct {
	Image, Status, Previous string
	Resolved                bool
	Where                   []struct{ Namespace string }
}

func (h *told) start() {
	h.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n notice
		if r.Header.Get("X-Countersign-Signature") == "" || json.NewDecoder(r.Body).Decode(&n) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.notices = append(h.notices, n)
	}))
}

// of gives what was told of an image.
func (h *told) of(image string) []notice {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []notice
	for _, n := range h.notices {
		if n.Image == image {
			list = append(list, n)
		}
	}
	return list
}

// shared is the scene, which TestMain starts.
var shared = &scene{}

func TestMain(m *testing.M) { cluster.Main(m, "watch", shared.start, shared.stop) }

func (s *scene) start(ctx context.Context, dir string) (err error) {
	s.dir = dir
	if s.executable, err = binary.Find(ctx, "../..", s.dir, os.Stderr); err != nil {
		return err
	}
	if s.registry, err = registrytest.New(registrytest.Options{}); err != nil {
		return err
	}
	if s.World, err = world.New(s.dir, s.registry.Host()); err != nil {
		return err
	}
	if _, err := s.Signer("wabbit"); err != nil {
		return err
	}
	if err := s.Policy("production.yaml", policy); err != nil {
		return err
	}
	s.told.start()
	s.record = admission.NewRecord()
	s.recordShown = httptest.NewServer(s.record)
	notify := filepath.Join(s.dir, "notify")
	if err := errors.Join(os.Mkdir(notify, 0o700), os.WriteFile(filepath.Join(notify, "test.webhook"), []byte(s.told.server.URL), 0o600),
		os.WriteFile(filepath.Join(notify, "test.secret"), []byte("hunter2"), 0o600)); err != nil {
		return err
	}
	var paths cluster.Tools
	for tool, path := range map[tools.Tool]*string{tools.Etcd(): &paths.Etcd, tools.APIServer(): &paths.APIServer, tools.ControllerManager(): &paths.ControllerManager} {
		if *path, err = tools.Build(ctx, tool, os.Stderr); err != nil {
			return err
		}
	}
	if s.Cluster, err = cluster.Start(ctx, filepath.Join(s.dir, "cluster"), paths); err != nil {
		return err
	}
	if err := s.Namespace(ctx, namespace, nil); err != nil {
		return err
	}
	for name, architecture := range map[string]string{"node": "amd64", "arm": "arm64"} { // without which pods are collected
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err := s.Client.Create(ctx, node); err != nil {
			return err
		}
		created := client.MergeFrom(node.DeepCopy()) // controllers change it meanwhile
		node.Status.NodeInfo = corev1.NodeSystemInfo{OperatingSystem: "linux", Architecture: architecture}
		if err := s.Client.Status().Patch(ctx, node, created); err != nil {
			return err
		}
	}
	if err := s.rights(ctx); err != nil {
		return err
	}
	return s.startWatcher(ctx)
}

// rights are what the chart gives its ServiceAccount.
func (s *scene) rights(ctx context.Context) error {
	objects, err := charted(ctx, "watch.policiesConfigMap=policies", "watch.notifySecret=notify")
	if err != nil {
		return err
	}
	return s.Apply(ctx, objects...)
}

// charted is what the chart has for a watcher with these values, but its Deployment.
func charted(ctx context.Context, values ...string) ([]*unstructured.Unstructured, error) {
	helm, err := tools.Build(ctx, tools.Helm(), os.Stderr)
	if err != nil {
		return nil, err
	}
	arguments := []string{"template", "countersign", "../../charts/countersign", "--namespace", namespace, "--kube-version", "1.36", "--set", "watch.enabled=true", "--show-only", "templates/watch.yaml"}
	for _, value := range values {
		arguments = append(arguments, "--set", value)
	}
	var said strings.Builder
	command := exec.CommandContext(ctx, helm, arguments...)
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("helm template: %w: %s", err, said.String())
	}
	objects, err := kubeyaml.Parse(out)
	return slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Deployment" }), err
}

// startWatcher runs the binary as the Deployment does, but for its addresses.
func (s *scene) startWatcher(ctx context.Context) (err error) {
	kubeconfig, state := filepath.Join(s.dir, "watch.kubeconfig"), filepath.Join(s.dir, "state")
	if err := errors.Join(s.Kubeconfig(ctx, namespace, account, kubeconfig), os.MkdirAll(state, 0o700)); err != nil {
		return err
	}
	if s.watcher, err = binary.Run(ctx, s.executable, "watch", "--config", s.Policies, "--kubeconfig", kubeconfig, "--pod-namespace", namespace,
		"--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--state", state, "--notify", filepath.Join(s.dir, "notify"), "--reports", "--reports-owner", account, "--events", "--admission", s.recordShown.URL, "--allow-loopback", "--log-level=debug"); err != nil {
		return err
	}
	if err := s.watcher.Ready(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, s.watcher.Log())
	}
	return nil
}

func (s *scene) stop() {
	if s.watcher != nil {
		_ = s.watcher.Stop()
	}
	if s.Cluster != nil {
		s.Stop()
	}
	if s.registry != nil {
		s.registry.Close()
	}
	if s.told.server != nil {
		s.told.server.Close()
		s.recordShown.Close()
	}
}

// in gives the scene with namespaces for the test.
func in(t *testing.T, namespaces ...string) *scene {
	t.Helper()
	for _, name := range namespaces {
		if err := shared.Namespace(t.Context(), name, nil); !apierrors.IsAlreadyExists(err) {
			must(t, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := shared.watcher.Log()
			t.Log(log[max(0, len(log)-8000):])
		}
	})
	return shared
}

// push makes an image, signed by wabbit where it is trusted.
func (s *scene) push(t *testing.T, image string, trusted bool) {
	t.Helper()
	must(t, s.Push(t.Context(), image))
	if trusted {
		must(t, s.Sign(t.Context(), image, "wabbit", notationtest.SignOptions{}))
	}
}

// pod creates a pod that runs an image by its digest, with changes.
func (s *scene) pod(t *testing.T, namespace, name, image string, changes ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "main", Image: s.Name(image)}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "main", Image: s.Name(image), ImageID: s.imageID(image), ContainerID: "containerd://" + name},
		}},
	}
	for _, change := range changes {
		change(p)
	}
	status := p.Status
	must(t, s.Client.Create(t.Context(), p))
	created := client.MergeFrom(p.DeepCopy())
	p.Status = status
	must(t, s.Client.Status().Patch(t.Context(), p, created))
	return p
}

func (s *scene) imageID(image string) string {
	repository, _, _ := strings.Cut(image, ":")
	return s.Name(repository) + "@" + s.Digest(image).String()
}

// remove deletes a pod at once.
func (s *scene) remove(t *testing.T, p *corev1.Pod) {
	t.Helper()
	must(t, s.Client.Delete(t.Context(), p, client.GracePeriodSeconds(0)))
}

// token is one of a new ServiceAccount.
func (s *scene) token(t *testing.T, namespace, name string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	must(t, s.Client.Create(t.Context(), account))
	request := &authenticationv1.TokenRequest{}
	must(t, s.Client.SubResource("token").Create(t.Context(), account, request))
	return request.Status.Token
}

// get asks the API with a token.
func (s *scene) get(ctx context.Context, token, path string, into any) (status int, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.watcher.Provider+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && into != nil {
		if text, ok := into.(*string); ok {
			*text = string(body)
		} else {
			err = json.Unmarshal(body, into)
		}
	}
	return resp.StatusCode, resp.Header, err
}

func eventually(t *testing.T, condition func(context.Context) error) {
	t.Helper()
	eventuallyWithin(t, patience, condition)
}

func eventuallyWithin(t *testing.T, patience time.Duration, condition func(context.Context) error) {
	t.Helper()
	must(t, cluster.Eventually(t.Context(), patience, condition))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
