package config_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// effective is how soon a change must count: three times the second that is
// promised, because tests share their machine.
const effective = 3 * time.Second

// running is a Source that watches.
type running struct {
	*config.Source
	t       *testing.T
	changes chan *config.Snapshot
}

// run loads and watches. Nothing is looked at without being announced.
func run(t *testing.T, path string) *running {
	t.Helper()
	r := &running{t: t, changes: make(chan *config.Snapshot, 100)}
	source, err := config.Load(t.Context(), config.Options{
		Path: path, Environment: environment(t), CheckInterval: time.Hour, OnChange: func(s *config.Snapshot) { r.changes <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Source = source
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := source.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

// until waits for a Snapshot that answers so.
func (r *running) until(key, answer string) {
	r.t.Helper()
	last := decision(r.t, r.Snapshot(), "", key)
	for deadline := time.After(effective); last != answer; {
		select {
		case s := <-r.changes:
			last = decision(r.t, s, "", key)
		case <-deadline:
			r.t.Fatalf("%s: %q, want %q", key, last, answer)
		}
	}
}

func TestChangesCountWithinASecond(t *testing.T) {
	dir := directory(t, map[string]string{"a.yaml": cluster("a", `"a.example/**"`)})
	r := run(t, dir)
	r.until("a.example/x", "a")
	write(t, filepath.Join(dir, "a.yaml"), cluster("a2", `"a.example/**"`))
	r.until("a.example/x", "a2")
	write(t, filepath.Join(dir, ".hidden.yaml"), cluster("b", `"b.example/**"`))
	if err := os.Rename(filepath.Join(dir, ".hidden.yaml"), filepath.Join(dir, "b.yml")); err != nil {
		t.Fatal(err)
	}
	r.until("b.example/x", "b")
	write(t, filepath.Join(dir, "a.yaml"), "half")
	write(t, filepath.Join(dir, "b.yml"), cluster("b2", `"b.example/**"`))
	r.until("b.example/x", "b2")
	r.until("a.example/x", "a2")
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	r.until("a.example/x", "REFUSED POLICY_NOT_FOUND")
}

// TestConfigMapIsSwapped changes a directory as the kubelet does: the files are
// links through ..data, which is replaced by renaming.
func TestConfigMapIsSwapped(t *testing.T) {
	dir := t.TempDir()
	ca := string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM())
	swap := func(version, documents string) {
		write(t, filepath.Join(dir, version, "policies.yaml"), documents)
		write(t, filepath.Join(dir, version, "ca.crt"), ca)
		if err := errors.Join(os.Symlink(version, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	swap("..1", cluster("one", `"a.example/**"`))
	for _, name := range []string{"policies.yaml", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "policies.yaml")} {
		r := run(t, path)
		swap("..2", cluster("two", `"a.example/**"`))
		r.until("a.example/x", "two")
		if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
			t.Fatal(err)
		}
		swap("..3", cluster("three", `"a.example/**"`))
		r.until("a.example/x", "three")
		swap("..1", cluster("one", `"a.example/**"`))
		r.until("a.example/x", "one")
	}
}

func TestCertificateFilesAreWatched(t *testing.T) {
	trust := t.TempDir()
	root := func() string { return string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM()) }
	check := func(source string) string {
		return "require: {name: signed, notation: {level: strict, trustStores: {ca: [" + source + "]}, trustedIdentities: ['*']}}"
	}
	dir := directory(t, map[string]string{"p.yaml": cluster("file", `"file.example/**"`, check("{file: certs/a.crt}")) +
		cluster("dir", `"dir.example/**"`, check("{directory: "+trust+"/roots}")) +
		cluster("registry", `"registry.example/**"`, "registries: [{host: registry.example, ca: {file: "+trust+"/registry/ca.crt}}]") +
		cluster("docker", `"docker.example/**"`, "registries: [{host: docker.example, auth: {dockerConfig: {path: "+trust+"/docker/config.json}}}]")})
	r := run(t, dir)
	for _, host := range []string{"file", "dir", "registry", "docker"} {
		r.until(host+".example/x", host+": KEYS_UNAVAILABLE")
	}
	write(t, filepath.Join(dir, "certs", "a.crt"), root())
	write(t, filepath.Join(trust, "roots", "a.crt"), root())
	write(t, filepath.Join(trust, "registry", "ca.crt"), root())
	write(t, filepath.Join(trust, "docker", "config.json"), "{}")
	// The directories were not there to be watched: the next look finds them.
	r.Reload(t.Context())
	for _, host := range []string{"file", "dir", "registry", "docker"} {
		r.until(host+".example/x", host)
	}
	// Make it watch them, then change what is there.
	write(t, filepath.Join(dir, "extra.yaml"), cluster("extra", `"extra.example/**"`))
	r.until("extra.example/x", "extra")
	for _, path := range []string{filepath.Join(dir, "certs", "a.crt"), filepath.Join(trust, "roots", "b.crt"), filepath.Join(trust, "registry", "ca.crt")} {
		drain(r.changes)
		write(t, path, root())
		select {
		case <-r.changes:
		case <-time.After(effective):
			t.Errorf("%s changed, and nobody saw", path)
		}
	}
	// A broken certificate leaves the last good ones in force, and is said.
	write(t, filepath.Join(dir, "certs", "a.crt"), "-----BEGIN")
	for deadline := time.After(effective); len(r.Snapshot().Problems()) == 0; {
		select {
		case <-r.changes:
		case <-deadline:
			t.Fatal("no problem with a broken certificate")
		}
	}
	r.until("file.example/x", "file")
	if p := r.Snapshot().Problems()[0]; p.Line == 0 || !strings.HasSuffix(p.Path, "ca[0].file") || !strings.Contains(p.Message, "a.crt") {
		t.Errorf("%s", p)
	}
}

func drain(changes chan *config.Snapshot) {
	for {
		select {
		case <-changes:
		default:
			return
		}
	}
}

func TestDirectoryIsReplaced(t *testing.T) {
	parent := t.TempDir()
	dir, next := filepath.Join(parent, "policies"), filepath.Join(parent, "next")
	for at, name := range map[string]string{dir: "one", next: "two"} {
		write(t, filepath.Join(at, "p.yaml"), cluster(name, `"a.example/**"`, skip("a test")))
	}
	r := run(t, dir)
	r.until("a.example/x", "EXEMPT SKIPPED one")
	if err := errors.Join(os.Rename(dir, filepath.Join(parent, "old")), os.Rename(next, dir)); err != nil {
		t.Fatal(err)
	}
	r.until("a.example/x", "EXEMPT SKIPPED two")
	write(t, filepath.Join(dir, "p.yaml"), cluster("three", `"a.example/**"`, skip("a test")))
	r.until("a.example/x", "EXEMPT SKIPPED three")
	// Gone for a while, and back.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(effective); len(r.Snapshot().Problems()) == 0; {
		select {
		case <-r.changes:
		case <-deadline:
			t.Fatal("nobody saw that it is gone")
		}
	}
	write(t, filepath.Join(dir, "p.yaml"), cluster("four", `"a.example/**"`, skip("a test")))
	r.until("a.example/x", "EXEMPT SKIPPED four")
}

func TestLooksWithoutBeingTold(t *testing.T) {
	dir := directory(t, nil)
	// A file behind a link to a directory that nobody could know to watch.
	elsewhere := t.TempDir()
	write(t, filepath.Join(elsewhere, "a", "p.yaml"), cluster("one", `"a.example/**"`, skip("a test")))
	if err := errors.Join(os.Symlink("a", filepath.Join(elsewhere, "current")), os.Symlink(filepath.Join(elsewhere, "current", "p.yaml"), filepath.Join(dir, "p.yaml"))); err != nil {
		t.Fatal(err)
	}
	changes := make(chan *config.Snapshot, 10)
	source, err := config.Load(t.Context(), config.Options{
		Path: dir, Environment: environment(t), CheckInterval: 10 * time.Millisecond, OnChange: func(s *config.Snapshot) { changes <- s },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = source.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	write(t, filepath.Join(elsewhere, "b", "p.yaml"), cluster("two", `"a.example/**"`, skip("a test")))
	if err := errors.Join(os.Symlink("b", filepath.Join(elsewhere, "new")), os.Rename(filepath.Join(elsewhere, "new"), filepath.Join(elsewhere, "current"))); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(effective); decision(t, source.Snapshot(), "", "a.example/x") != "EXEMPT SKIPPED two"; {
		select {
		case <-changes:
		case <-deadline:
			t.Fatal("not seen")
		}
	}
}

func TestForWhilePoliciesChange(t *testing.T) {
	e := edit(t, map[string]string{"p.yaml": cluster("p0", `"a.example/**"`)})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s := e.Snapshot()
				if chain, _ := s.For(verifier.Request{Image: verifier.Reference{Registry: "a.example", Repository: "x"}}); chain == nil {
					t.Error("no chain")
					return
				}
				s.Problems()
				s.Policies()
			}
		})
	}
	for i := range 20 {
		e.put(map[string]string{"p.yaml": cluster("p"+string(rune('a'+i%26)), `"a.example/**"`)})
	}
	close(done)
	wg.Wait()
}

func TestProblemsAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	dir := directory(t, map[string]string{"a.yaml": brokenPolicy("a", "a.example/**"), "b.yaml": cluster("b", `"b.example/**"`,
		"registries: [{host: b.example, auth: {static: {username: robot, password: {inline: hunter2}}}}]")})
	source, err := config.Load(t.Context(), config.Options{Path: dir, Environment: environment(t), Log: slog.New(slog.NewJSONHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "c.yaml"), notYAML)
	source.Reload(t.Context())
	source.Reload(t.Context())
	if n := strings.Count(log.String(), "spec.requires"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if n := strings.Count(log.String(), "policies loaded"); n != 2 {
		t.Errorf("loaded %d times", n)
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Error("logs a secret")
	}
}
