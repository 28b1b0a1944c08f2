package provider_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
)

// TestDecisionsAreRecorded: what is fresh, some of what is repeated, and no
// mutation. What Gatekeeper waits for is sent before.
func TestDecisionsAreRecorded(t *testing.T) {
	var written safeBuffer
	d := open(t, provider.Options{
		Select: stocked().Select, Decisions: slog.New(slog.NewJSONHandler(&written, nil)), DecisionRepeats: 3,
	})
	for range 7 {
		d.ask(t, "[shop;sa=till]shop.example.com/signed:1")
	}
	d.ask(t, "shop.example.com/stranger:1", "::")
	d.mutate(t, "shop.example.com/signed:1")
	var lines []map[string]any
	for deadline := time.Now().Add(10 * time.Second); len(lines) != 1+2+2; {
		if time.Now().After(deadline) {
			t.Fatalf("%d lines: %s", len(lines), written.String())
		}
		runtime.Gosched()
		lines = nil
		for _, text := range strings.Split(strings.TrimSpace(written.String()), "\n") {
			var line map[string]any
			if json.Unmarshal([]byte(text), &line) == nil {
				lines = append(lines, line)
			}
		}
	}
	first := lines[0]
	for field, want := range map[string]any{
		"namespace": "shop", "serviceAccount": "till", "image": "shop.example.com/signed:1", "status": "TRUSTED", "reason": "TRUSTED", "repeat": false,
		"policy": "production", "endpoint": "verify", "audited": "",
	} {
		if first[field] != want {
			t.Errorf("%s is %v, want %v", field, first[field], want)
		}
	}
	if first["signers"] == "" || first["digest"] == "" || first["traceID"] == "" {
		t.Error(first)
	}
	if lines[1]["repeat"] != true || lines[3]["status"] != "UNTRUSTED" || lines[4]["reason"] != "REFERENCE_INVALID" {
		t.Error(lines)
	}
}

type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
