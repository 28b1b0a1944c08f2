package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// row is what the API says of an image in a namespace.
type row struct {
	Namespace, Image, Digest, Status, Reason, Message, Trouble string
	Containers                                                 []struct{ Pod, Container, Use, Workload string }
}

type results struct {
	Items []row
	Total int
}

// reader lets a ServiceAccount list pods in a namespace, or with none in all.
func (s *scene) reader(t *testing.T, of, namespace string) string {
	t.Helper()
	token := s.token(t, "default", of)
	kind, binding := "RoleBinding", &unstructured.Unstructured{}
	if namespace == "" {
		kind = "ClusterRoleBinding"
	}
	binding.Object = map[string]any{
		"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": kind, "metadata": map[string]any{"name": of},
		"roleRef":  map[string]any{"apiGroup": rbacv1.GroupName, "kind": "ClusterRole", "name": "view"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": of, "namespace": "default"}},
	}
	binding.SetNamespace(namespace)
	must(t, s.Apply(t.Context(), binding))
	return token
}

// statuses are those that the API gives for a namespace, by pod and container.
func (s *scene) statuses(ctx context.Context, token, namespace string) (map[string]string, error) {
	var r results
	code, _, err := s.get(ctx, token, "/api/v1/results?limit=1000&namespace="+namespace, &r)
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("%d: %w", code, err)
	}
	all := map[string]string{}
	for _, row := range r.Items {
		for _, c := range row.Containers {
			all[c.Pod+"/"+c.Container] = row.Status
		}
	}
	return all, nil
}

func (s *scene) become(t *testing.T, token, namespace string, want map[string]string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		got, err := s.statuses(ctx, token, namespace)
		if err == nil && !maps.Equal(got, want) {
			err = fmt.Errorf("%v, want %v", got, want)
		}
		return err
	})
}

// TestWhatRunsIsVerified: every container, whatever it is called and however its image
// is named, and a change of policy asks no registry.
func TestWhatRunsIsVerified(t *testing.T) {
	s := in(t, "my-kube-system")
	all := s.reader(t, "coverage", "")
	s.push(t, "watch/cart:1.4", true)
	s.push(t, "watch/unsigned:1", false)
	always := corev1.ContainerRestartPolicyAlways
	s.pod(t, "my-kube-system", "x-kube-notary", "watch/cart:1.4", func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{
			{Name: "schema", Image: s.Name("watch/unsigned:1")},
			{Name: "proxy", Image: s.Name("watch/cart:1.4"), RestartPolicy: &always},
		}
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{
			{Name: "schema", ImageID: s.imageID("watch/unsigned:1")},
			{Name: "proxy", ImageID: "docker-pullable://" + s.imageID("watch/cart:1.4")},
		}
	})
	s.pod(t, "my-kube-system", "crashing", "watch/cart:1.4", func(p *corev1.Pod) {
		p.Status.Phase = corev1.PodPending
		p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
		p.Annotations = map[string]string{"kubernetes.io/config.mirror": "static"}
	})
	s.pod(t, "my-kube-system", "elsewhere", "watch/cart:1.4", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image = "registry.example.com/other:1"
		p.Status.ContainerStatuses[0].ImageID = "registry.example.com/other@" + s.Digest("watch/cart:1.4").String()
	})
	s.pod(t, "my-kube-system", "strange", "watch/cart:1.4", func(p *corev1.Pod) { p.Status.ContainerStatuses[0].ImageID = "<img onerror=alert(1)>" })
	want := map[string]string{
		"x-kube-notary/main": "TRUSTED", "x-kube-notary/schema": "UNKNOWN", "x-kube-notary/proxy": "TRUSTED",
		"crashing/main": "TRUSTED", "elsewhere/main": "REFUSED", "strange/main": "ERROR",
	}
	s.become(t, all, "my-kube-system", want)

	_, err := s.Signer("mallory")
	must(t, err)
	t.Cleanup(func() { must(t, s.Policy("production.yaml", policy)) })
	// What is not trusted any more might be by the image's other digests, so that the
	// registry is asked for those, once.
	for i, most := range []int{2, 0, 0, 0} {
		document, status := policy, "TRUSTED"
		if i%2 == 0 {
			document, status = strings.Replace(policy, "wabbit.crt", "mallory.crt", 1), "UNTRUSTED"
		}
		s.registry.Reset()
		must(t, s.Policy("production.yaml", document))
		for _, name := range []string{"x-kube-notary/main", "x-kube-notary/proxy", "crashing/main"} {
			want[name] = status
		}
		s.become(t, all, "my-kube-system", want)
		asked := 0
		for _, request := range s.registry.Requests() { // others run too
			if strings.HasPrefix(request.Path, "/v2/watch/") {
				asked++
			}
		}
		if asked > most {
			t.Errorf("change %d of the policy asked the registry %d times: %v", i, asked, s.registry.Requests())
		}
	}
}

// TestWhatCannotBeVerifiedIsListed, and comes back by itself.
func TestWhatCannotBeVerifiedIsListed(t *testing.T) {
	s := in(t, "errors")
	all := s.reader(t, "errors", "")
	s.push(t, "errors/cart:1", true)
	s.registry.SetFault(registrytest.Status(http.StatusServiceUnavailable))
	t.Cleanup(func() { s.registry.SetFault(nil) })
	s.pod(t, "errors", "cart", "errors/cart:1")
	s.become(t, all, "errors", map[string]string{"cart/main": "ERROR"})
	var r results
	_, _, err := s.get(t.Context(), all, "/api/v1/results?namespace=errors", &r)
	must(t, err)
	if r.Items[0].Reason != "REGISTRY_UNREACHABLE" || r.Items[0].Message == "" {
		t.Errorf("%+v", r.Items[0])
	}
	t.Log(r.Items[0].Message)
	s.registry.SetFault(nil)
	s.become(t, all, "errors", map[string]string{"cart/main": "TRUSTED"})
}

// TestWhoMaySeeWhat: the namespaces in which one may list pods, counts included.
func TestWhoMaySeeWhat(t *testing.T) {
	s := in(t, "tenant-a", "tenant-b")
	a, all, nobody := s.reader(t, "tenant-a-viewer", "tenant-a"), s.reader(t, "everywhere", ""), s.token(t, "default", "nobody")
	s.push(t, "access/unsigned:1", false)
	s.pod(t, "tenant-a", "cart", "access/unsigned:1")
	s.pod(t, "tenant-b", "cart", "access/unsigned:1")
	s.become(t, all, "tenant-b", map[string]string{"cart/main": "UNKNOWN"})
	s.become(t, a, "tenant-a", map[string]string{"cart/main": "UNKNOWN"})

	var summary struct {
		Containers map[string]int
		Namespaces map[string]map[string]int
		Images     int
	}
	for who, token := range map[string]string{"tenant-a": a, "nobody": nobody} {
		code, _, err := s.get(t.Context(), token, "/api/v1/summary", &summary)
		must(t, err)
		names := slices.Sorted(maps.Keys(summary.Namespaces))
		if who == "tenant-a" && (code != http.StatusOK || !slices.Equal(names, []string{"tenant-a"}) || summary.Containers["UNKNOWN"] != 1 || summary.Images != 1) ||
			who == "nobody" && (code != http.StatusOK || len(names) > 0 || summary.Images > 0) {
			t.Errorf("%s sees %d %+v", who, code, summary)
		}
		clear(summary.Namespaces)
	}
	digest := s.Digest("access/unsigned:1").String()
	for _, path := range []string{"/api/v1/results", "/results", "/bulk_sign", "/api/v1/images/" + digest} {
		for who, token := range map[string]string{"tenant-a": a, "nobody": nobody} {
			var text string
			_, _, err := s.get(t.Context(), token, path, &text)
			must(t, err)
			if strings.Contains(text, "tenant-b") || who == "nobody" && strings.Contains(text, "tenant-a") {
				t.Errorf("%s sees %s: %s", who, path, text)
			}
		}
	}
	for _, path := range []string{"/api/v1/summary", "/api/v1/results", "/results", "/bulk_sign", "/api/v1/images/" + digest} {
		for name, token := range map[string]string{"no token": "", "a token of nobody's": "eyJhbGciOiJub25lIn0.e30.", "two lines": "a\tb"} {
			code, header, err := s.get(t.Context(), token, path, nil)
			must(t, err)
			if code != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: %s answered %d", name, path, code)
			}
		}
	}
	_, header, err := s.get(t.Context(), all, "/api/v1/summary", nil)
	must(t, err)
	if csp := header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", header)
	}
	for _, token := range []string{a, all, nobody} {
		if strings.Contains(s.watcher.Log(), token) {
			t.Error("a token is in the log")
		}
	}
}

// TestFiguresFollowWhatRuns: what is gone is counted as none, and has no series.
func TestFiguresFollowWhatRuns(t *testing.T) {
	s := in(t, "figures")
	s.push(t, "figures/unsigned:1", false)
	series := func(ctx context.Context, pattern string) []string {
		resp, err := http.Get("http://" + s.watcher.Metrics + "/metrics") //nolint:noctx // it is our own
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		return regexp.MustCompile(`(?m)^`+pattern+`.*$`).FindAllString(readAll(t, resp), -1)
	}
	counted := func(n string) func(context.Context) error {
		return func(ctx context.Context) error {
			got := series(ctx, `countersign_watch_containers\{namespace="figures",status="UNKNOWN"\}`)
			if len(got) != 1 || !strings.HasSuffix(got[0], " "+n) {
				return fmt.Errorf("%v, want %s", got, n)
			}
			return nil
		}
	}
	stays := s.pod(t, "figures", "stays", "figures/unsigned:1")
	for i := range 20 {
		p := s.pod(t, "figures", fmt.Sprint("goes-", i), "figures/unsigned:1")
		if i == 0 {
			eventually(t, counted("2"))
		}
		s.remove(t, p)
	}
	eventually(t, counted("1"))
	if got := series(t.Context(), `countersign_watch_violation_info\{.*namespace="figures"`); len(got) != 1 || !strings.Contains(got[0], `workload="Pod/stays"`) {
		t.Errorf("%v", got)
	}
	s.remove(t, stays)
	eventually(t, func(ctx context.Context) error {
		if got := series(ctx, `countersign_watch_violation_info\{.*namespace="figures"`); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// TestTheStatusQuoIsSigned by the script: what has no signature, and nothing else.
func TestTheStatusQuoIsSigned(t *testing.T) {
	s := in(t, "quo")
	viewer := s.reader(t, "quo-viewer", "quo")
	s.push(t, "quo/unsigned:1", false)
	s.push(t, "quo/trusted:1", true)
	s.push(t, "quo/strange:1", false)
	_, err := s.Signer("stranger")
	must(t, err)
	must(t, s.Sign(t.Context(), "quo/strange:1", "stranger", signOptions))
	for _, image := range []string{"quo/unsigned:1", "quo/trusted:1", "quo/strange:1"} {
		s.pod(t, "quo", strings.NewReplacer("quo/", "", ":1", "").Replace(image), image)
	}
	s.become(t, viewer, "quo", map[string]string{"unsigned/main": "UNKNOWN", "trusted/main": "TRUSTED", "strange/main": "UNTRUSTED"})
	var script string
	code, _, err := s.get(t.Context(), viewer, "/bulk_sign?format=cosign", &script)
	must(t, err)
	want := "sign '" + s.imageID("quo/unsigned:1") + "'\n"
	if code != http.StatusOK || strings.Count(script, "\nsign '") != 1 || !strings.HasSuffix(script, want) {
		t.Fatalf("%d\n%s", code, script)
	}
	path := filepath.Join(t.TempDir(), "sign.sh")
	must(t, os.WriteFile(path, []byte(script), 0o600))
	out, err := exec.CommandContext(t.Context(), "sh", path).CombinedOutput()
	must(t, err)
	if string(out) != "would sign "+s.imageID("quo/unsigned:1")+"\n" {
		t.Errorf("%s", out)
	}
	var list []struct {
		Hash         string
		Verification *struct {
			Level, Status int
			Trusted       bool
		}
		Containers []struct{ Namespace, Pod, Container, ContainerID, Image, ImageID string }
	}
	_, _, err = s.get(t.Context(), viewer, "/results", &list)
	must(t, err)
	got := map[string]string{}
	for _, r := range list {
		got[r.Containers[0].Pod] = fmt.Sprint(r.Verification.Status, r.Verification.Level, r.Verification.Trusted, r.Hash == s.Digest("quo/"+r.Containers[0].Pod+":1").Encoded())
	}
	if !maps.Equal(got, map[string]string{"unsigned": "2 0 false true", "trusted": "0 98 true true", "strange": "1 0 false true"}) {
		t.Errorf("%v", got)
	}
}

// TestARestartForgetsNothing: what was known is there, and nothing is told again.
func TestARestartForgetsNothing(t *testing.T) {
	s := in(t, "restart")
	viewer := s.reader(t, "restart-viewer", "restart")
	s.push(t, "restart/unsigned:1", false)
	s.pod(t, "restart", "cart", "restart/unsigned:1")
	s.become(t, viewer, "restart", map[string]string{"cart/main": "UNKNOWN"})
	told := func() int {
		var d struct {
			History []struct{ Namespace, To string }
		}
		_, _, err := s.get(t.Context(), viewer, "/api/v1/images/"+s.Digest("restart/unsigned:1").String(), &d)
		must(t, err)
		return len(d.History)
	}
	eventually(t, func(context.Context) error {
		if n := told(); n != 1 {
			return fmt.Errorf("%d transitions", n)
		}
		return nil
	})
	must(t, s.watcher.Stop())
	s.registry.SetFault(registrytest.Status(http.StatusServiceUnavailable))
	t.Cleanup(func() { s.registry.SetFault(nil) })
	must(t, s.startWatcher(t.Context()))
	s.registry.SetFault(nil)
	s.become(t, viewer, "restart", map[string]string{"cart/main": "UNKNOWN"})
	if n := told(); n != 1 || strings.Contains(s.watcher.Log(), `"msg":"became","namespace":"restart"`) {
		t.Errorf("it was told again: %d transitions", n)
	}
}

// TestAnIndexRunsAsItsPlatformsManifest: of an index of which one platform is signed,
// only that one's pods are trusted.
func TestAnIndexRunsAsItsPlatformsManifest(t *testing.T) {
	s := in(t, "platforms")
	viewer := s.reader(t, "platforms-viewer", "platforms")
	s.push(t, "platforms/cart:amd64", true)
	s.push(t, "platforms/cart:arm64", false)
	s.Platform("platforms/cart:amd64", "linux", "amd64")
	s.Platform("platforms/cart:arm64", "linux", "arm64")
	must(t, s.PushIndex(t.Context(), "platforms/cart:1", "platforms/cart:amd64", "platforms/cart:arm64"))
	on := func(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	s.pod(t, "platforms", "amd", "platforms/cart:1", on("node"))
	s.pod(t, "platforms", "arm", "platforms/cart:1", on("arm"))
	s.become(t, viewer, "platforms", map[string]string{"amd/main": "TRUSTED", "arm/main": "UNKNOWN"})
}

// TestPeopleAreToldOnce of an image that nobody trusts, in all namespaces that run it.
func TestPeopleAreToldOnce(t *testing.T) {
	s := in(t, "told-a", "told-b")
	viewer := s.reader(t, "told", "")
	s.push(t, "told/unsigned:1", false)
	for _, namespace := range []string{"told-a", "told-b"} {
		for i := range 5 {
			s.pod(t, namespace, fmt.Sprint("cart-", i), "told/unsigned:1")
		}
		s.become(t, viewer, namespace, map[string]string{"cart-0/main": "UNKNOWN", "cart-1/main": "UNKNOWN", "cart-2/main": "UNKNOWN", "cart-3/main": "UNKNOWN", "cart-4/main": "UNKNOWN"})
	}
	eventually(t, func(context.Context) error {
		if n := len(s.told.of(s.Name("told/unsigned:1"))); n == 0 {
			return fmt.Errorf("nobody was told")
		}
		return nil
	})
	got := s.told.of(s.Name("told/unsigned:1"))
	if len(got) != 1 || got[0].Status != "UNKNOWN" || got[0].Resolved || len(got[0].Where) != 2 {
		t.Errorf("%+v", got)
	}
}

// TestAPolicyIsPreviewed: what it would refuse of what runs, before it is enforced.
func TestAPolicyIsPreviewed(t *testing.T) {
	s := in(t, "preview")
	s.push(t, "preview/cart:1", true)
	s.push(t, "preview/unsigned:1", false)
	s.pod(t, "preview", "cart", "preview/cart:1")
	s.pod(t, "preview", "unsigned", "preview/unsigned:1")
	s.pod(t, "preview", "another", "told/unsigned:1", func(p *corev1.Pod) {
		p.Spec.Containers[0].Image, p.Status.ContainerStatuses[0].ImageID = "registry.example.com/other:1", ""
	})
	dir := t.TempDir()
	root, err := os.ReadFile(filepath.Join(s.dir, "wabbit.crt"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "wabbit.crt"), root, 0o600))
	file := filepath.Join(dir, "new.yaml")
	must(t, os.WriteFile(file, []byte(strings.ReplaceAll(strings.Replace(policy, "../wabbit.crt", "wabbit.crt", 1), "$REGISTRY", s.Host)), 0o600))
	command := exec.CommandContext(t.Context(), s.executable, "preview", "--policy", file, "--kubeconfig", s.AdminKubeconfig(), "--namespaces", "preview", "--allow-loopback")
	out, err := command.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	text := string(out)
	if !strings.Contains(text, "of 2 images that run and that it matches, 1 would be refused and 0 could not be looked at") ||
		!strings.Contains(text, "Pod/unsigned") || strings.Contains(text, "Pod/another") || strings.Contains(text, "Pod/cart ") {
		t.Errorf("%s", text)
	}
}
