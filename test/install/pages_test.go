package install

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
)

// lines are the commands of the pages about clusters, but those of countersign,
// which have a test beside the binary.
func lines(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, page := range []string{"docs/kubernetes.md", "docs/ratify.md", "charts/countersign/README.md", "README.md"} {
		content, err := os.ReadFile("../../" + page)
		must(t, err)
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(content, -1) {
			for line := range strings.Lines(string(block[1])) {
				line = strings.TrimSpace(line)
				if strings.HasPrefix(line, "helm ") || strings.HasPrefix(line, "kubectl ") {
					list = append(list, line)
				}
			}
		}
	}
	return list
}

// command runs the one command of the pages that begins so.
func (s *scene) command(t *testing.T, prefix string) {
	t.Helper()
	for _, line := range lines(t) {
		if strings.HasPrefix(line, prefix) {
			out, err := s.run(t.Context(), line)
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			return
		}
	}
	t.Fatalf("no page has %s", prefix)
}

// TestTheCommandsOfThePages run, or have run in another test.
func TestTheCommandsOfThePages(t *testing.T) {
	s := in(t, "pages")
	elsewhere := map[string]string{ // by how the command begins
		"helm install gatekeeper ":  "Gatekeeper's chart is not here; its values are those of the test's cluster",
		"helm install countersign ": "this is how the test's cluster was made",
		"helm uninstall ":           "TestZUninstall",
		"kubectl delete crd ":       "TestZUninstall",
		"kubectl patch ":            "TestTheRunbook",
		"kubectl logs ":             "no kubelet runs the pods",
	}
	before := s.secret(t)
	for _, line := range lines(t) {
		t.Run(line, func(t *testing.T) {
			for prefix, why := range elsewhere {
				if strings.HasPrefix(line, prefix) {
					t.Skip(why)
				}
			}
			switch {
			case strings.HasPrefix(line, "helm install ratify "): // two cannot own one definition
				line = strings.Replace(line, "helm install ", "helm template --kube-version 1.36 ", 1)
			case strings.HasPrefix(line, "helm upgrade "):
				line += " --reuse-values"
			}
			line = strings.Replace(line, "> ratify.yaml", "> "+t.TempDir()+"/ratify.yaml", 1)
			if out, err := s.run(t.Context(), line); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	// And the cluster is as it was, but for the authority that a page renews: what
	// comes next finds no rotation under way.
	after := s.rotated(t, before.Data["tls.crt"])
	s.servedEverywhere(t, after.Data["ca.crt"], before.Data["ca.crt"])
	eventually(t, func(ctx context.Context) error {
		_, err := s.constraint(ctx)
		return err
	})
}

// TestExplain: what kubectl explain says is what the types' comments say.
func TestExplain(t *testing.T) {
	for field, words := range map[string]string{
		"clustertrustpolicy": "The most specific pattern wins",
		"ctp.spec.images":    "anchored at both ends",
		"tp.spec.require.notation.trustStores.ca.secret.key": "Key in the object's data",
		"exemption.spec.expiresAt":                           "when the exemption ends",
	} {
		out, err := shared.run(t.Context(), "kubectl explain "+field)
		if err != nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), words) {
			t.Errorf("%s: %v\n%s", field, err, out)
		}
	}
}
