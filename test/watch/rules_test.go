package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/tools"
)

// rendered gives an object of the chart, with the watcher's rules and dashboard on.
func rendered(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	helm, err := tools.Build(t.Context(), tools.Helm(), t.Output())
	must(t, err)
	out, err := exec.CommandContext(t.Context(), helm, "template", "countersign", "../../charts/countersign", "--namespace", namespace, "--kube-version", "1.36",
		"--set", "watch.enabled=true", "--set", "watch.rules.enabled=true", "--set", "watch.dashboard.enabled=true").Output()
	must(t, err)
	objects, err := kubeyaml.Parse(out)
	must(t, err)
	for _, object := range objects {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	t.Fatalf("the chart has no %s %s", kind, name)
	return nil
}

// rules writes the chart's rules to a file, as Prometheus reads them.
func rules(t *testing.T, dir string) (path string, alerts []string) {
	t.Helper()
	spec, _, err := unstructured.NestedMap(rendered(t, "PrometheusRule", "countersign-watch").Object, "spec")
	must(t, err)
	data, err := yaml.Marshal(spec)
	must(t, err)
	path = filepath.Join(dir, "rules.yaml")
	must(t, os.WriteFile(path, data, 0o600))
	for _, found := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(data), -1) {
		alerts = append(alerts, found[1])
	}
	return path, alerts
}

// debian finds a program that .ci/run installs from Debian's packages.
func debian(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("there is no %s here: apt-get install prometheus", program)
	}
	return path
}

// TestTheAlertsFireWhenTheyShould, as promtool judges; none is without a test and
// without a line on the page about them.
func TestTheAlertsFireWhenTheyShould(t *testing.T) {
	promtool, dir := debian(t, "promtool"), t.TempDir()
	path, alerts := rules(t, dir)
	tests, err := os.ReadFile("testdata/rules_test.yaml")
	must(t, err)
	page, err := os.ReadFile("../../docs/watch.md")
	must(t, err)
	for _, alert := range alerts {
		if !strings.Contains(string(tests), "alertname: "+alert+"\n") || !strings.Contains(string(page), "`"+alert+"`") {
			t.Errorf("%s has no test in which it fires, or no line in docs/watch.md", alert)
		}
	}
	file := filepath.Join(dir, "rules_test.yaml")
	must(t, os.WriteFile(file, tests, 0o600))
	for _, arguments := range [][]string{{"check", "rules", path}, {"test", "rules", file}} {
		out, err := exec.CommandContext(t.Context(), promtool, arguments...).CombinedOutput()
		if err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
}

// TestTheDashboardShowsWhatThereIs: a Prometheus that scrapes the watcher has an answer
// for each of its queries.
func TestTheDashboardShowsWhatThereIs(t *testing.T) {
	prometheus, dir := debian(t, "prometheus"), t.TempDir()
	s := in(t, "dashboard")
	viewer := s.reader(t, "dashboard-viewer", "dashboard")
	s.push(t, "dashboard/unsigned:1", false)
	s.pod(t, "dashboard", "cart", "dashboard/unsigned:1")
	s.become(t, viewer, "dashboard", map[string]string{"cart/main": "UNKNOWN"})

	path, _ := rules(t, dir)
	config := filepath.Join(dir, "prometheus.yaml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: watch, honor_labels: true, static_configs: [{targets: ["%s"]}]}]
`, path, s.watcher.Metrics), 0o600))
	var listen net.ListenConfig
	free, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	address := free.Addr().String()
	must(t, free.Close())
	command := exec.CommandContext(t.Context(), prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address, "--log.level=warn")
	command.Stderr = t.Output()
	must(t, command.Start())
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })

	text, _, err := unstructured.NestedString(rendered(t, "ConfigMap", "countersign-watch-dashboard").Object, "data", "countersign-watch.json")
	must(t, err)
	var board struct {
		UID    string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	must(t, json.Unmarshal([]byte(text), &board))
	queries := map[string]string{"kube-notary's status": "kube_notary_aggregate_status", "kube-notary's containers": "kube_notary_vcn_verification_status", "kube-notary's levels": "kube_notary_vcn_verification_level"}
	for _, panel := range board.Panels {
		for i, target := range panel.Targets {
			queries[fmt.Sprint(panel.Title, " ", i)] = target.Expr
		}
	}
	if len(queries) < 12 {
		t.Errorf("the dashboard has %d queries", len(queries))
	}
	for name, query := range queries {
		eventually(t, func(ctx context.Context) error {
			if err := answered(ctx, address, query); err != nil {
				return fmt.Errorf("%s: %s: %w", name, query, err)
			}
			return nil
		})
	}
}

// answered asks a Prometheus something that has an answer.
func answered(ctx context.Context, address, query string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" || len(answer.Data.Result) == 0 {
		return errors.New("no answer: " + answer.Error)
	}
	return nil
}
