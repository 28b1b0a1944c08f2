package main

import (
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/telemetry"
)

// TestTheWebhooksFiguresAreOfOneState, and the page about metrics names each of them.
func TestTheWebhooksFiguresAreOfOneState(t *testing.T) {
	page := pages(t)["../../docs/metrics.md"]
	state, timeout := cluster.WebhookUnknown, int64(0)
	metrics := telemetry.NewMetrics(telemetry.Build{})
	showWebhook(metrics, func() (cluster.WebhookState, int64) { return state, timeout })
	for i, one := range cluster.WebhookStates() {
		state, timeout = one, int64(i)
		recorder := httptest.NewRecorder()
		metrics.Handler().ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
		shown := regexp.MustCompile(`(?m)^countersign_gatekeeper_webhook\{state="(\w+)"\} 1$`).FindAllStringSubmatch(recorder.Body.String(), -1)
		if len(shown) != 1 || shown[0][1] != one.String() {
			t.Errorf("%s: %v", one, shown)
		}
		if want := "countersign_gatekeeper_webhook_timeout_seconds " + string(rune('0'+i)) + "\n"; !strings.Contains(recorder.Body.String(), want) {
			t.Errorf("%s: no %q", one, want)
		}
		if !strings.Contains(page, "`"+one.String()+"`") {
			t.Errorf("docs/metrics.md does not name the state %s", one)
		}
	}
	for _, name := range []string{"countersign_gatekeeper_webhook", "countersign_gatekeeper_webhook_timeout_seconds"} {
		if !strings.Contains(page, "| `"+name+"` |") {
			t.Errorf("docs/metrics.md does not name %s", name)
		}
	}
}

// TestEveryLineThatInstallsGatekeeperSetsFail: its chart ignores failures by default.
func TestEveryLineThatInstallsGatekeeperSetsFail(t *testing.T) {
	texts := pages(t)
	for _, file := range []string{"../../charts/countersign/README.md", "../../library/README.md", "../../azure-policy/README.md", "../../SECURITY.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	found := 0
	for file, page := range texts {
		for line := range strings.Lines(page) {
			if !strings.Contains(line, "helm install gatekeeper ") && !strings.Contains(line, "helm upgrade gatekeeper ") {
				continue
			}
			found++
			if !strings.Contains(line, " --set validatingWebhookFailurePolicy=Fail") {
				t.Errorf("%s: %s", file, line)
			}
		}
	}
	if found < 2 {
		t.Errorf("%d lines", found)
	}
}
