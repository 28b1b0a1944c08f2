package config_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

var update = flag.Bool("update", false, "write the golden files and the certificates of testdata")

// TestBadDocuments: what each of the documents in testdata/bad is told.
func TestBadDocuments(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "bad"))
	if *update {
		writeCertificates(t)
	}
	paths, err := filepath.Glob("*.[yj]*")
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d documents, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			var got strings.Builder
			for _, p := range load(t, path).Snapshot().Problems() {
				got.WriteString(p.String() + "\n")
				if p.Message == "" || p.Reason == "" || p.File == "" {
					t.Errorf("incomplete: %+v", p)
				}
			}
			golden := strings.TrimSuffix(path, filepath.Ext(path)) + ".golden"
			if *update {
				write(t, golden, got.String())
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Error(diff)
			}
			if got.Len() == 0 {
				t.Error("nothing is wrong with it")
			}
			if strings.Contains(got.String(), "hunter2") || strings.Contains(got.String(), "20261120") {
				t.Error("tells a secret")
			}
		})
	}
}

// writeCertificates makes what the bad documents refer to. Nobody asks how long
// they are valid.
func writeCertificates(t *testing.T) {
	for name := range map[string]bool{"ca.crt": true, "leaf.crt": true, "broken.crt": true} {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
	root := notationtest.NewRoot(notationtest.CertificateOptions{NotAfter: time.Now().AddDate(50, 0, 0)})
	write(t, "ca.crt", string(root.PEM()))
	write(t, "leaf.crt", string(root.NewSigner(notationtest.CertificateOptions{}).PEM()))
	write(t, "broken.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
}

func canceled(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

func undecided(_ verifier.Verdict, err error) verifier.Reason {
	var u *verifier.Undecided
	if errors.As(err, &u) {
		return u.Reason()
	}
	return ""
}
