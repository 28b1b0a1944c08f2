package telemetry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

// scrape gives the exposed text and how many series it has.
func scrape(t *testing.T, m *telemetry.Metrics) (text string, count int) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			count++
		}
	}
	return w.Body.String(), count
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}

func TestL34_LabelsComeFromClosedSets(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1"})
	reasons := telemetry.Label{Name: "reason", Values: []string{"TRUSTED", "TIMEOUT"}}
	counter := m.Counter("keys_total", "Keys.", reasons)
	histogram := m.Histogram("seconds", "Time.", []float64{1}, reasons)
	observe := func(reason string) {
		counter.Inc(reason)
		histogram.Observe(0.5, reason)
	}
	for _, reason := range []string{"TRUSTED", "TIMEOUT", "anything"} {
		observe(reason)
	}
	_, before := scrape(t, m)
	for i := range 100_000 {
		observe(fmt.Sprintf("error %d of shop.example.com/image-%d", i, i))
	}
	text, after := scrape(t, m)
	if before != after {
		t.Errorf("%d series became %d", before, after)
	}
	expect(t, text, `keys_total{reason="TRUSTED"} 1`, `keys_total{reason="other"} 100001`)
}

func TestMissingLabelIsOther(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{})
	m.Counter("keys_total", "Keys.", telemetry.Label{Name: "reason", Values: []string{"TRUSTED"}}).Inc()
	text, _ := scrape(t, m)
	expect(t, text, `keys_total{reason="other"} 1`)
}

func TestFiguresAreReadWhenScraped(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{Version: "v1.2.3", Revision: "abc"})
	stats := telemetry.CacheStats{}
	m.Cache("blobs", func() telemetry.CacheStats { return stats })
	m.Cache("tokens", func() telemetry.CacheStats { return telemetry.CacheStats{Entries: 2} })
	stats = telemetry.CacheStats{Hits: 7, Misses: 3, Evictions: 1, Bytes: 2048, Entries: 4}
	text, _ := scrape(t, m)
	expect(t, text,
		`countersign_cache_hits_total{cache="blobs"} 7`,
		`countersign_cache_misses_total{cache="blobs"} 3`,
		`countersign_cache_evictions_total{cache="blobs"} 1`,
		`countersign_cache_bytes{cache="blobs"} 2048`,
		`countersign_cache_entries{cache="blobs"} 4`,
		`countersign_cache_entries{cache="tokens"} 2`)
	if !strings.Contains(text, `countersign_build_info{goversion="go`) || !strings.Contains(text, `revision="abc",version="v1.2.3"} 1`) {
		t.Error("no build_info")
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := telemetry.NewMetrics(telemetry.Build{})
	set := telemetry.Label{Name: "reason", Values: []string{"TRUSTED", "TIMEOUT"}}
	counter, gauge := m.Counter("a_total", "A.", set), m.Gauge("b", "B.", set)
	histogram := m.Histogram("c", "C.", []float64{1}, set)
	if n := testing.AllocsPerRun(100, func() {
		counter.Inc("TRUSTED")
		gauge.Add(1, "TIMEOUT")
		histogram.Observe(1, "TRUSTED")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
