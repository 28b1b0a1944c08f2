package watch

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/tools"
)

// TestTheCommandsOfThePage run as docs/watch.md has them, at the watcher's address.
func TestTheCommandsOfThePage(t *testing.T) {
	s := in(t, "shop")
	viewer := s.token(t, "shop", "viewer")
	binding := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": "RoleBinding", "metadata": map[string]any{"name": "viewer", "namespace": "shop"},
		"roleRef":  map[string]any{"apiGroup": rbacv1.GroupName, "kind": "ClusterRole", "name": "view"},
		"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": "viewer", "namespace": "shop"}},
	}}
	must(t, s.Apply(t.Context(), binding))
	s.push(t, "shop/cart:1", false)
	s.pod(t, "shop", "cart", "shop/cart:1")
	s.become(t, viewer, "shop", map[string]string{"cart/main": "UNKNOWN"})
	s.define(t, openReports, "config/crd/openreports.io_reports.yaml")
	eventually(t, func(ctx context.Context) error {
		_, err := s.report(ctx, "openreports.io/v1alpha1", "Report", "shop")
		return err
	})

	bin := t.TempDir()
	kubectl, err := tools.Build(t.Context(), tools.Kubectl(), t.Output())
	must(t, err)
	must(t, os.Symlink(kubectl, filepath.Join(bin, "kubectl")))
	must(t, os.Symlink(s.executable, filepath.Join(bin, "countersign")))
	page, err := os.ReadFile("../../docs/watch.md")
	must(t, err)
	elsewhere := map[string]string{ // by how the command begins
		"kubectl port-forward ": "no kubelet runs the pod",
		"countersign preview ":  "TestAPolicyIsPreviewed",
		"APPLY=yes ":            "test/signers sign with Cosign",
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	run := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
	lines:
		for line := range strings.SplitSeq(strings.TrimSpace(block[1]), "\n") {
			for prefix := range elsewhere {
				if strings.HasPrefix(line, prefix) {
					continue lines
				}
			}
			line = strings.ReplaceAll(line, "http://127.0.0.1:8080", "http://"+s.watcher.Provider)
			line = strings.ReplaceAll(line, "countersign export unsigned ", "countersign export unsigned --url http://"+s.watcher.Provider+" ")
			line = strings.ReplaceAll(line, "curl ", "curl --fail --silent --show-error ")
			script.WriteString(line + "\n")
			run++
		}
	}
	if run < 7 {
		t.Errorf("the page has %d commands", run)
	}
	command := exec.CommandContext(t.Context(), "bash", "-c", script.String())
	command.Dir = t.TempDir()
	command.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+s.AdminKubeconfig())
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script.String(), out)
	}
	for _, said := range []string{`"UNKNOWN": 1`, s.Name("shop/cart:1"), "secret/countersign-notify created", "countersign", "would sign " + s.imageID("shop/cart:1")} {
		if !strings.Contains(string(out), said) {
			t.Errorf("nothing said %q:\n%s", said, out)
		}
	}
}
