package provider_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
)

// TestATraceHasTheAnswersID, and says what became of each key.
func TestATraceHasTheAnswersID(t *testing.T) {
	var mu sync.Mutex
	var sent bytes.Buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = io.Copy(&sent, r.Body) // not compressed, unless somebody asks for it
	}))
	t.Cleanup(collector.Close)
	traces, err := telemetry.NewTraces(t.Context(), telemetry.TraceOptions{Endpoint: collector.URL, Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	d := open(t, provider.Options{Select: stocked().Select, Traces: traces})
	answer := value(t, d.ask(t, "shop.example.com/unsigned:1"), "shop.example.com/unsigned:1")
	if err := traces.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	id, err := hex.DecodeString(answer["traceID"].(string))
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range [][]byte{id, []byte("SIGNATURE_NOT_FOUND"), []byte("shop.example.com/unsigned:1")} {
		if !bytes.Contains(sent.Bytes(), want) {
			t.Errorf("%q is in no span", want)
		}
	}
}
