package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/test/binary"
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "countersign-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		path, err := binary.Find(context.Background(), "../..", dir, os.Stderr)
		if err != nil {
			panic(err)
		}
		if err := os.Setenv(binary.Variable, path); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// TestOnce: the run ends by itself, each row has its decision, and in a pipe
// nothing but text is written.
func TestOnce(t *testing.T) {
	out := &buffer{}
	d := &demo{out: &screen{to: out, width: plainWidth}, progress: os.Stderr, root: "../..", once: true}
	if err := d.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		`(?m)^signed +cart:1\.4 +admitted +[0-9.]+ +[0-9.]+  runs as 127\.0\.0\.1:\d+/cart:1\.4@sha256:[0-9a-f]{64}$`,
		`(?m)^unsigned +unsigned:1 +refused .*\[trusted-images\] .*no signature found; policy production wants wabbit, ci or release\. .*ask platform@example\.com$`,
		`(?m)^tampered +tampered:1 +refused `,
		`(?m)^no-finalizer .* admitted `,
		`(?m)^All 18 decisions are right$`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line %s in\n%s", want, out)
		}
	}
	if strings.ContainsAny(out.String(), "\x1b\r") {
		t.Errorf("control characters in a pipe:\n%q", out)
	}
}

// TestStays: until it is stopped, what it prints to try works.
func TestStays(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl here")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &buffer{}
	d := &demo{out: &screen{to: out, width: plainWidth}, progress: os.Stderr, root: "../.."}
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()

	line := regexp.MustCompile(`(?m)^  (curl .*)\n\nOr change`)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var found []string
	for found == nil {
		select {
		case err := <-ended:
			t.Fatalf("ended: %v\n%s", err, out)
		case <-tick.C:
			found = line.FindStringSubmatch(out.String())
		}
	}
	answer, err := exec.CommandContext(ctx, "sh", "-c", found[1]).CombinedOutput()
	if err != nil || !bytes.Contains(answer, []byte(`"status":"TRUSTED"`)) {
		t.Errorf("%s\n%v\n%s", found[1], err, answer)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWrongDecisionIsAnError: with a constraint that only watches, everything is
// admitted, and the demo says so.
func TestWrongDecisionIsAnError(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(filepath.Join(root, "library"), os.DirFS("../../library")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "library", "trusted-images", "samples", "pods.yaml")
	constraint, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	constraint = bytes.Replace(constraint, []byte("  enforcementAction: deny"), []byte("  enforcementAction: dryrun"), 1)
	if err := os.WriteFile(path, constraint, 0o600); err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	d := &demo{out: &screen{to: out, width: plainWidth}, progress: os.Stderr, root: root, once: true}
	if err := d.run(t.Context()); err == nil || !strings.Contains(out.String(), "of 18 decisions are wrong") || !strings.Contains(out.String(), `WRONG: wanted refused with "expired"`) {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestWrap: no line is longer than the screen, unless a word is.
func TestWrap(t *testing.T) {
	got := wrap("one two three fourteencharact five", 9)
	if want := []string{"one two", "three", "fourteencharact", "five"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
