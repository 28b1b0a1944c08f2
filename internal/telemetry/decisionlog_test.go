package telemetry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

// decided opens a log, lets use write to it, and gives its files, newest first.
func decided(t *testing.T, options telemetry.DecisionLogOptions, use func(*slog.Logger)) []string {
	t.Helper()
	options.Path = filepath.Join(t.TempDir(), "decisions.jsonl")
	d, err := telemetry.OpenDecisionLog(options)
	if err != nil {
		t.Fatal(err)
	}
	use(d.Logger())
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what waits is written none the less
	if err := d.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var files []string
	for n := 0; ; n++ {
		path := options.Path
		if n > 0 {
			path = fmt.Sprintf("%s.%d", path, n)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return files
		}
		files = append(files, string(content))
	}
}

func TestADecisionIsALine(t *testing.T) {
	files := decided(t, telemetry.DecisionLogOptions{Redact: []string{"image", "message"}}, func(l *slog.Logger) {
		l.Info("", slog.String("image", "shop.example.com/cart:1.4"), slog.String("status", "TRUSTED"), slog.String("message", ""), slog.Bool("repeat", false))
		l.Info("", slog.String("image", "shop.example.com/cart:1.4"), slog.String("status", "UNKNOWN"), slog.String("message", "a message"))
	})
	var lines []map[string]any
	for _, text := range strings.Split(strings.TrimSpace(files[0]), "\n") {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, line)
	}
	if len(lines) != 2 || lines[0]["image"] != lines[1]["image"] || !strings.HasPrefix(lines[0]["image"].(string), "redacted:") ||
		lines[0]["message"] != "" || lines[0]["status"] != "TRUSTED" || lines[0]["time"] == nil || lines[0]["level"] != nil || lines[0]["msg"] != nil {
		t.Error(lines)
	}
	if strings.Contains(files[0], "shop.example.com") || strings.Contains(files[0], "a message") {
		t.Error("tells what is redacted")
	}
}

// TestDecisionsAreRotated: no file is larger than it may be, and there are no more
// of them than may be.
func TestDecisionsAreRotated(t *testing.T) {
	files := decided(t, telemetry.DecisionLogOptions{MaxBytes: 1000, MaxFiles: 3}, func(l *slog.Logger) {
		for n := range 100 {
			l.Info("", slog.Int("n", n))
		}
	})
	if len(files) != 3 || !strings.Contains(files[0], `"n":99`) {
		t.Fatalf("%d files: %s", len(files), files)
	}
	for i, file := range files {
		if len(file) > 1000 || len(file) == 0 || !strings.HasSuffix(file, "}\n") {
			t.Errorf("file %d has %d bytes", i, len(file))
		}
	}
}

// TestNobodyWaitsForTheDisk: what is too much is dropped and counted.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	metrics := telemetry.NewMetrics(telemetry.Build{})
	files := decided(t, telemetry.DecisionLogOptions{Metrics: metrics}, func(l *slog.Logger) {
		for n := range 5000 {
			l.Info("", slog.Int("n", n))
		}
	})
	if lines := strings.Count(files[0], "\n"); lines != 4096 {
		t.Errorf("%d lines", lines)
	}
	if got, _ := scrape(t, metrics); !strings.Contains(got, "countersign_decision_log_dropped_total 904") {
		t.Error(got)
	}
}

func TestDecisionLogOptionsThatAreWrong(t *testing.T) {
	for _, options := range []telemetry.DecisionLogOptions{
		{Path: filepath.Join(t.TempDir(), "nowhere", "x")}, {Path: filepath.Join(t.TempDir(), "x"), Redact: []string{"images"}},
	} {
		if _, err := telemetry.OpenDecisionLog(options); err == nil {
			t.Errorf("%+v is taken", options)
		}
	}
}
