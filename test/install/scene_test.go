// Package install holds the chart to what it promises: Helm installs it on a real
// API server with a real Gatekeeper, and the replicas run as processes of this
// machine, with the flags of the Deployment and the rights of its ServiceAccount.
package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/tools"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	chartDir  = "../../charts/countersign"
	namespace = "countersign-system"
	release   = "countersign"
	// patience is how long a condition may take to come true.
	patience = 60 * time.Second
	// replicas is how many there are, as the chart has it.
	replicas = 2
)

// scene is all that takes part.
type scene struct {
	*cluster.Cluster
	*world.World
	registry      *registrytest.Registry
	gatekeeperCA  *pki.Authority
	balancer      *balancer
	replicas      []*replica
	azure         *azureWorld
	executable    string
	helm, kubectl string
	dir           string
}

// replica is a pod of the Deployment, as a process.
type replica struct {
	*binary.Server
	args []string
	port int
}

// shared is the scene, which TestMain starts.
var shared = &scene{}

func TestMain(m *testing.M) { cluster.Main(m, "install", shared.start, shared.stop) }

func (s *scene) start(ctx context.Context, dir string) (err error) {
	s.dir = dir
	if s.executable, err = binary.Find(ctx, "../..", s.dir, os.Stderr); err != nil {
		return err
	}
	if s.helm, err = tools.Build(ctx, tools.Helm(), os.Stderr); err != nil {
		return err
	}
	if s.kubectl, err = tools.Build(ctx, tools.Kubectl(), os.Stderr); err != nil {
		return err
	}
	if s.registry, err = registrytest.New(registrytest.Options{}); err != nil {
		return err
	}
	if s.World, err = world.New(s.dir, s.registry.Host()); err != nil {
		return err
	}
	if s.gatekeeperCA, err = pki.NewAuthority("gatekeeper-ca"); err != nil {
		return err
	}
	if s.balancer, err = newBalancer(); err != nil {
		return err
	}
	if s.azure, err = newAzureWorld(s.dir, s.registry.Host()); err != nil {
		return err
	}
	if err := s.startCluster(ctx); err != nil {
		return err
	}
	return s.install(ctx)
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
		Authority: s.gatekeeperCA, ResponseCacheTTL: time.Second, AuditInterval: 5 * time.Second,
	})
}

// values are what an installation here differs in from others.
func (s *scene) values() []string {
	return []string{
		"provider.serviceUrl=https://" + s.balancer.address(),
		"gatekeeper.webhookConfiguration=gatekeeper-admit",
		"allowLoopback=true", "drainDelay=0s", "logLevel=debug", "compatibility.ratify=true",
		"rbac.podPullSecrets={" + pulling + "}",
	}
}

// render is `helm template` with values.
func (s *scene) render(ctx context.Context, values ...string) ([]byte, error) {
	args := []string{"template", release, chartDir, "--namespace", namespace, "--kube-version", "1.36"}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	var said strings.Builder
	command := exec.CommandContext(ctx, s.helm, args...)
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out, nil
}

// run runs a line of a page, in the project's directory and as administrator.
func (s *scene) run(ctx context.Context, line string) ([]byte, error) {
	bin := filepath.Join(s.dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return nil, err
	}
	for name, path := range map[string]string{"helm": s.helm, "kubectl": s.kubectl, "countersign": s.executable} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	command := exec.CommandContext(ctx, "sh", "-c", line)
	command.Dir = "../.."
	command.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+s.AdminKubeconfig(), "HOME="+s.dir)
	return command.CombinedOutput()
}

// install is `helm install` as the page has it, with our values, and runs what it
// deploys.
func (s *scene) install(ctx context.Context) error {
	if err := s.Namespace(ctx, pulling, nil); err != nil { // its Role is in the chart
		return err
	}
	line := "helm install " + release + " charts/countersign --namespace " + namespace + " --create-namespace"
	for _, value := range s.values() {
		line += " --set " + value
	}
	if out, err := s.run(ctx, line); err != nil {
		return fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	rendered, err := s.render(ctx, s.values()...)
	if err != nil {
		return err
	}
	objects, err := kubeyaml.Parse(rendered)
	if err != nil {
		return err
	}
	var deployment *unstructured.Unstructured
	for _, object := range objects {
		if object.GetKind() == "Deployment" {
			deployment = object
		}
	}
	if deployment == nil {
		return errors.New("the chart has no Deployment")
	}
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return err
	}
	args, _, err := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	if err != nil {
		return err
	}
	for i := range replicas {
		if err := s.startReplica(ctx, i, args); err != nil {
			return err
		}
	}
	return s.publish(ctx)
}

// startReplica runs a replica with the Deployment's flags, and with the few that
// differ because it is no pod.
func (s *scene) startReplica(ctx context.Context, i int, args []string) error {
	name := fmt.Sprintf("replica-%d", i)
	kubeconfig := filepath.Join(s.dir, name+".kubeconfig")
	if err := s.Kubeconfig(ctx, namespace, release, kubeconfig); err != nil {
		return err
	}
	run, state := filepath.Join(s.dir, name, "run"), filepath.Join(s.dir, name, "state")
	if err := errors.Join(os.MkdirAll(run, 0o700), os.MkdirAll(state, 0o700)); err != nil {
		return err
	}
	r := &replica{args: append(slices.Clone(args),
		"--listen=0.0.0.0:0", "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0",
		"--certificate-directory="+run, "--last-good="+filepath.Join(state, "last-good"), "--vault-cache="+filepath.Join(state, "vaults"), "--content-cache="+filepath.Join(state, "content"),
		"--kubeconfig="+kubeconfig, "--pod-namespace="+namespace)}
	s.replicas = append(s.replicas, r)
	return s.restartReplica(ctx, i)
}

// restartReplica runs a replica that has ended.
func (s *scene) restartReplica(ctx context.Context, i int) (err error) {
	r := s.replicas[i]
	if r.Server, err = binary.RunIn(ctx, s.azure.variables, s.executable, r.args...); err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(r.Provider)
	if err != nil {
		return err
	}
	if r.port, err = strconv.Atoi(port); err != nil {
		return err
	}
	if err := r.Ready(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, r.Log())
	}
	s.balancer.set(s.addresses())
	return nil
}

func (s *scene) addresses() []string {
	var list []string
	for _, r := range s.replicas {
		if r.Server != nil {
			list = append(list, "127.0.0.1:"+strconv.Itoa(r.port))
		}
	}
	return list
}

// publish says where the replicas are, as the endpoints controller would if they
// were pods. An EndpointSlice has no loopback addresses, so it is the machine's.
func (s *scene) publish(ctx context.Context) error {
	host, err := machineAddress()
	if err != nil {
		return err
	}
	for i, r := range s.replicas {
		port, name := int32(r.port), "provider"
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Name: fmt.Sprintf("replica-%d", i), Namespace: namespace,
				Labels: map[string]string{discoveryv1.LabelServiceName: release, discoveryv1.LabelManagedBy: "test"},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{host}}},
			Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		}
		err := s.Client.Create(ctx, slice)
		if client.IgnoreAlreadyExists(err) != nil {
			return err
		}
		if err != nil {
			if err := s.Client.Update(ctx, slice); err != nil {
				return err
			}
		}
	}
	return nil
}

// machineAddress is an address of this machine that is not loopback.
func machineAddress() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String(), nil
		}
	}
	return "", errors.New("this machine has no address but loopback")
}

func (s *scene) stop() {
	for _, r := range s.replicas {
		if r.Server != nil {
			_ = r.Stop()
		}
	}
	if s.Cluster != nil {
		s.Stop()
	}
	if s.balancer != nil {
		s.balancer.close()
	}
	if s.registry != nil {
		s.registry.Close()
	}
}

// in gives the scene with a namespace for the test.
func in(t *testing.T, name string) *scene {
	t.Helper()
	if err := shared.Namespace(t.Context(), name, nil); !apierrors.IsAlreadyExists(err) { // another test's
		must(t, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(shared.Logs())
			for i, r := range shared.replicas {
				if r.Server != nil {
					t.Logf("--- replica %d\n%s", i, tail(r.Log()))
				}
			}
		}
	})
	return shared
}

func tail(text string) string { return text[max(0, len(text)-8000):] }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
