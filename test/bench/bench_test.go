package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/binary"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "-echo" {
		if err := serveEcho(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
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

var tiny = sizes{"tiny", 11, 5, 20, 20, 1, 10, 1, 50 * time.Millisecond, time.Millisecond, time.Millisecond, 50, time.Second, 10, 2 * time.Second, 1, time.Second}

// TestRun: each measure has its figures, as a table and as JSON, and all that
// is demanded on any machine holds.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("make bench and make e2e run it")
	}
	b := &bench{root: "../..", sizes: tiny, progress: t.Output()}
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err, b.report.Broken)
	}
	var table, list bytes.Buffer
	b.report.print(&table)
	if err := b.report.json(&list); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Figures []struct {
			Measure string
			Values  map[string]float64
		}
	}
	if err := json.Unmarshal(list.Bytes(), &read); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range read.Figures {
		seen[f.Measure] = true
		for name, number := range f.Values {
			if number < 0 {
				t.Errorf("%s of %s is %g", name, f.Measure, number)
			}
		}
	}
	for _, measure := range measures {
		if !seen[measure] || !strings.Contains(table.String(), strings.ToUpper(measure)+"  ") {
			t.Errorf("no figures for %q in\n%s", measure, &table)
		}
	}
}

// TestWrongDecisionEndsTheRun: where the policy trusts somebody else, the first
// answer is wrong, whatever its time.
func TestWrongDecisionEndsTheRun(t *testing.T) {
	dir := t.TempDir()
	b := &bench{root: "../..", sizes: tiny, progress: t.Output(), machine: newMachine()}
	var err error
	if b.stage, err = newStage(t.Context(), b.root, dir, b.sizes, b.progress); err != nil {
		t.Fatal(err)
	}
	defer b.stage.close()
	other := notationtest.NewRoot(notationtest.CertificateOptions{})
	if err := os.WriteFile(filepath.Join(dir, "wabbit.crt"), other.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, step := range map[string]func(context.Context) error{"cold": b.cold, "warm": b.warm, "stampede": b.stampede, "memory": b.memory} {
		if err := step(t.Context()); err == nil || !strings.Contains(err.Error(), "a wrong decision") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.faults(t.Context()); err != nil || len(b.report.Broken) != 2 {
		t.Errorf("refused signed images: %v, %q", err, b.report.Broken)
	}
}

func TestAnswersAreChecked(t *testing.T) {
	signed := &image{host: "shop.example.com", repository: "cart", digest: digest.FromString("signed"), signed: true}
	unsigned := &image{host: "shop.example.com", repository: "cart", digest: digest.FromString("unsigned")}
	item := func(of *image, success, status string, d digest.Digest) string {
		return `{"key":"` + of.key(byDigest) + `","value":{"version":"0.2.0","isSuccess":` + success + `,"succeeded":` + success +
			`,"status":"` + status + `","digest":"` + d.String() + `"}}`
	}
	answer := func(more string, items ...string) []byte {
		return []byte(`{"response":{"items":[` + strings.Join(items, ",") + `]` + more + `}}`)
	}
	good, bad := item(signed, "true", "TRUSTED", signed.digest), item(unsigned, "false", "UNKNOWN", unsigned.digest)
	both := newExchange(byDigest, signed, unsigned)
	for name, c := range map[string]struct {
		answer []byte
		want   []outcome // nil: an error
	}{
		"both right":                 {answer("", good, bad), []outcome{accepted, refused}},
		"unsigned accepted":          {answer("", good, item(unsigned, "true", "TRUSTED", unsigned.digest)), nil},
		"another image's digest":     {answer("", item(signed, "true", "TRUSTED", unsigned.digest), bad), nil},
		"success without trust":      {answer("", item(signed, "true", "UNKNOWN", signed.digest), bad), nil},
		"one missing, nothing said":  {answer("", good), nil},
		"one undecided":              {answer(`,"systemError":"REGISTRY_UNREACHABLE"`, bad), []outcome{undecided, refused}},
		"signed refused":             {answer("", item(signed, "false", "UNTRUSTED", signed.digest), bad), []outcome{refused, refused}},
		"a key that was not asked":   {answer("", good, bad, bad), nil},
		"in another order":           {answer("", bad, good), nil},
		"half of it":                 {answer("", good, bad)[:40], nil},
		"no items, a system error":   {answer(`,"systemError":"INTERNAL"`), []outcome{undecided, undecided}},
		"a system error and success": {answer(`,"systemError":"INTERNAL"`, good, bad), []outcome{accepted, refused}},
	} {
		got, err := both.outcomes(c.answer)
		if (err != nil) != (c.want == nil) || err == nil && !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	one := newExchange(byDigest, signed)
	if err := one.trusts(answer("", good)); err != nil {
		t.Error(err)
	}
	for name, wrong := range map[string][]byte{
		"refused":          answer("", item(signed, "false", "UNTRUSTED", signed.digest)),
		"another key":      answer("", item(unsigned, "true", "TRUSTED", signed.digest)),
		"nothing":          answer(""),
		"a system error":   answer(`,"systemError":"INTERNAL"`, good),
		"success, no word": answer("", item(signed, "true", "UNKNOWN", signed.digest)),
	} {
		if one.trusts(wrong) == nil {
			t.Errorf("%s is taken for trusted", name)
		}
	}
	if err := one.decided(answer(`,"systemError":"TIMEOUT"`)); err == nil {
		t.Error("undecided is taken for decided")
	}
}

func TestQuantile(t *testing.T) {
	list := []time.Duration{5, 1, 4, 2, 3}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 3, 0.95: 5, 1: 5} {
		if got := quantile(list, q); got != want {
			t.Errorf("%g: %d, want %d", q, got, want)
		}
	}
	if quantile(nil, 0.5) != 0 {
		t.Error("of nothing")
	}
}
