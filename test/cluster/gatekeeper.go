package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/pki"
)

// gatekeeperNamespace is where Gatekeeper keeps what it says of itself.
const gatekeeperNamespace = "gatekeeper-system"

// GatekeeperOptions are what differs between one installation and another.
type GatekeeperOptions struct {
	// Authority signs the certificate that Gatekeeper serves with and offers to
	// providers.
	Authority *pki.Authority
	// ResponseCacheTTL is how long an answer of a provider is believed.
	ResponseCacheTTL time.Duration
	// AuditInterval is in whole seconds.
	AuditInterval time.Duration
	// Threads is how many admissions are reviewed at once; 0: as many as there are
	// cores.
	Threads int
}

// gatekeeper is how it is reached.
type gatekeeper struct {
	port, health int
	certs        string // directory
	options      GatekeeperOptions
}

// StartGatekeeper runs Gatekeeper's manager with its CRDs, and registers its
// webhooks as its chart does, but with failurePolicy Fail.
func (c *Cluster) StartGatekeeper(ctx context.Context, o GatekeeperOptions) error {
	if err := c.installGatekeeper(ctx); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	c.gatekeeper = gatekeeper{port: ports[0], health: ports[1], certs: filepath.Join(c.dir, "gatekeeper"), options: o}
	if err := c.RotateGatekeeper(o.Authority); err != nil {
		return err
	}
	cache := filepath.Join(c.dir, "audit")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	env := []string{"KUBECONFIG=" + filepath.Join(c.dir, "kubeconfig"), "POD_NAMESPACE=" + gatekeeperNamespace, "POD_NAME=gatekeeper"}
	threads := o.Threads
	if threads == 0 {
		threads = -1
	}
	c.guardian, err = start(c.dir, "gatekeeper", c.tools.Gatekeeper, env,
		"--debug-use-fake-pod", fmt.Sprintf("--max-serving-threads=%d", threads), "--disable-cert-rotation", "--cert-dir="+c.gatekeeper.certs,
		"--host=127.0.0.1", fmt.Sprintf("--port=%d", c.gatekeeper.port),
		fmt.Sprintf("--health-addr=127.0.0.1:%d", c.gatekeeper.health), fmt.Sprintf("--prometheus-port=%d", ports[2]),
		"--operation=webhook", "--operation=mutation-webhook", "--operation=audit", "--operation=status",
		"--operation=mutation-status", "--operation=generate",
		"--enable-external-data=true", fmt.Sprintf("--external-data-provider-response-cache-ttl=%v", o.ResponseCacheTTL),
		fmt.Sprintf("--audit-interval=%d", int(o.AuditInterval.Seconds())), "--audit-match-kind-only=true", "--api-cache-dir="+cache,
		"--disable-opa-builtin={http.send}", "--exempt-namespace="+gatekeeperNamespace, "--shutdown-delay=0",
		"--default-create-vap-for-templates=false", "--default-create-vap-binding-for-constraints=false")
	if err != nil {
		return err
	}
	if err := c.guardian.ready(ctx, c.gatekeeperReady); err != nil {
		return err
	}
	return c.Webhooks(ctx, "Fail", o.Authority)
}

// StopGatekeeper ends the manager; its webhooks stay registered.
func (c *Cluster) StopGatekeeper() { c.guardian.stop() }

// RestartGatekeeper runs the manager again as it was.
func (c *Cluster) RestartGatekeeper(ctx context.Context) error {
	return c.StartGatekeeper(ctx, c.gatekeeper.options)
}

// RotateGatekeeper gives the manager, which watches the files, a certificate of
// an authority.
func (c *Cluster) RotateGatekeeper(authority *pki.Authority) error {
	pair, err := authority.Issue(pki.GatekeeperName)
	if err != nil {
		return err
	}
	c.gatekeeper.options.Authority = authority
	_, _, err = pair.Write(c.gatekeeper.certs)
	return err
}

// GatekeeperAddress is host:port of its webhooks.
func (c *Cluster) GatekeeperAddress() string { return fmt.Sprintf("127.0.0.1:%d", c.gatekeeper.port) }

func (c *Cluster) gatekeeperReady(ctx context.Context) error {
	return answers(http.DefaultClient, fmt.Sprintf("http://127.0.0.1:%d/readyz", c.gatekeeper.health))(ctx)
}

// installGatekeeper applies the CRDs of the module's chart.
func (c *Cluster) installGatekeeper(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/gatekeeper/v3").Output()
	if err != nil {
		return fmt.Errorf("where gatekeeper's module is: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "charts", "gatekeeper", "crds", "*.yaml"))
	if err != nil || len(files) == 0 {
		return errors.Join(errors.New("gatekeeper's module has no CRDs"), err)
	}
	for _, file := range files {
		if err := c.ApplyFile(ctx, file); err != nil {
			return err
		}
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: gatekeeperNamespace}}
	if err := c.Client.Create(ctx, namespace); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// Webhooks registers Gatekeeper's webhooks with a failure policy, trusting
// certificates of any of the authorities.
func (c *Cluster) Webhooks(ctx context.Context, failurePolicy string, trusted ...*pki.Authority) error {
	for _, hook := range []struct {
		kind, name, path string
		timeout          int64
	}{
		{"ValidatingWebhookConfiguration", "validation.gatekeeper.sh", "admit", 3},
		{"MutatingWebhookConfiguration", "mutation.gatekeeper.sh", "mutate", 2},
	} {
		configuration := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "admissionregistration.k8s.io/v1",
			"kind":       hook.kind,
			"metadata":   map[string]any{"name": "gatekeeper-" + hook.path},
			"webhooks": []any{map[string]any{
				"name":                    hook.name,
				"admissionReviewVersions": []any{"v1"},
				"sideEffects":             "None",
				"timeoutSeconds":          hook.timeout,
				"failurePolicy":           failurePolicy,
				"matchPolicy":             "Exact",
				"clientConfig": map[string]any{
					"url":      fmt.Sprintf("https://%s/v1/%s", c.GatekeeperAddress(), hook.path),
					"caBundle": base64Text(authorities(trusted...)),
				},
				"namespaceSelector": map[string]any{"matchExpressions": []any{
					map[string]any{"key": "admission.gatekeeper.sh/ignore", "operator": "DoesNotExist"},
					map[string]any{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": []any{gatekeeperNamespace}},
				}},
				"rules": []any{map[string]any{
					"apiGroups": []any{"*"}, "apiVersions": []any{"*"},
					"operations": []any{"CREATE", "UPDATE"},
					"resources":  []any{"*", "pods/ephemeralcontainers", "deployments/scale", "replicasets/scale"},
					"scope":      "*",
				}},
			}},
		}}
		if err := c.Apply(ctx, configuration); err != nil {
			return err
		}
	}
	return nil
}

// Enforced is nil when Gatekeeper says of a constraint, or of a mutator, that it
// is in force as it is now.
func (c *Cluster) Enforced(ctx context.Context, object *unstructured.Unstructured) error {
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(object.GroupVersionKind())
	if err := c.Client.Get(ctx, client.ObjectKeyFromObject(object), now); err != nil {
		return err
	}
	pods, _, err := unstructured.NestedSlice(now.Object, "status", "byPod")
	if err != nil || len(pods) == 0 {
		return errors.Join(fmt.Errorf("%s %s has no status", now.GetKind(), now.GetName()), err)
	}
	for _, pod := range pods {
		status := pod.(map[string]any)
		if status["enforced"] != true || status["observedGeneration"] != now.GetGeneration() {
			return fmt.Errorf("%s %s: %v", now.GetKind(), now.GetName(), status)
		}
	}
	return nil
}
