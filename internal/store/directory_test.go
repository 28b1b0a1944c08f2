package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/content/oci"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func directory(t *testing.T, name string, maxBytes int64) *store.Directory {
	t.Helper()
	d, err := store.OpenDirectory(name, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// keeping makes a view of a store that has just been started, over the directory.
func keeping(t *testing.T, r *registrytest.Registry, d *store.Directory) *store.View {
	t.Helper()
	options := quick()
	options.Content = d
	return open(t, store.New(options), r, nil)
}

// readAll reads an image's only candidate and its blob.
func readAll(t *testing.T, v *store.View, subject verifier.Subject) {
	t.Helper()
	s := look(t.Context(), v, subject, signatures)
	if len(s.candidates) != 1 {
		t.Fatal(s)
	}
	if _, err := v.Fetch(t.Context(), subject, s.candidates[0].Manifest.Layers[0]); err != nil {
		t.Fatal(err)
	}
}

func settle(t *testing.T, d *store.Directory) {
	t.Helper()
	if err := d.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestARestartAsksForListsOnly: what a digest names is on disk, as an OCI layout.
func TestARestartAsksForListsOnly(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	signed := r.AttachReferrer(repo, image, notation(1))
	name := t.TempDir()
	d := directory(t, name, 1<<20)
	readAll(t, keeping(t, r, d), subjectOf(r, image))
	settle(t, d)
	r.Reset()
	d = directory(t, name, 1<<20)
	readAll(t, keeping(t, r, d), subjectOf(r, image))
	if n := len(r.Requests()); n != 1 {
		t.Errorf("%d requests after a restart:\n%s", n, paths(r))
	}
	if s := d.Stats(); s.Hits != 2 || s.Entries != 2 || s.Bytes == 0 {
		t.Errorf("%+v", s)
	}
	layout, err := oci.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if there, err := layout.Exists(t.Context(), signed); err != nil || !there {
		t.Errorf("others do not find it: %v", err)
	}
}

// TestL02_WhatIsOnDiskIsNotBelieved: whatever somebody, or a crash, has left in its
// place, the registry is asked and the right content comes back, and is mended.
func TestL02_WhatIsOnDiskIsNotBelieved(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"other bytes":    func(path string) error { return os.WriteFile(path, []byte("{}"), 0o600) },
		"empty":          func(path string) error { return os.Truncate(path, 0) },
		"cut short":      func(path string) error { return os.Truncate(path, 5) },
		"endless":        func(path string) error { return os.Truncate(path, 1<<40) },
		"a pipe":         func(path string) error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"a link outside": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"a link to zero": func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
		"a directory":    func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"unreadable":     func(path string) error { return os.Chmod(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			image := r.PushImage(repo, "v1")
			signed := r.AttachReferrer(repo, image, notation(1))
			where := t.TempDir()
			d := directory(t, where, 1<<20)
			readAll(t, keeping(t, r, d), subjectOf(r, image))
			settle(t, d)
			path := filepath.Join(where, "blobs", "sha256", signed.Digest.Encoded())
			if err := harm(path); err != nil {
				t.Fatal(err)
			}
			readAll(t, keeping(t, r, d), subjectOf(r, image))
			settle(t, d)
			r.Reset()
			readAll(t, keeping(t, r, directory(t, where, 1<<20)), subjectOf(r, image))
			if n := len(r.Requests()); n != 1 {
				t.Errorf("it was not mended: %d requests", n)
			}
		})
	}
}

// TestTheDirectoryIsBounded: what was not used for the longest goes first, also by
// the account of a process before, and files that others made count.
func TestTheDirectoryIsBounded(t *testing.T) {
	const size, room = 10 << 10, 64 << 10 // four files with what each costs
	name := t.TempDir()
	d := directory(t, name, room)
	var kept []digest.Digest
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	subject := subjectOf(r, image)
	v := keeping(t, r, d)
	for i := range 10 {
		layer := r.PushBlob(repo, "application/octet-stream", bytes.Repeat([]byte{byte(i)}, size))
		if _, err := v.Fetch(t.Context(), subject, layer); err != nil {
			t.Fatal(err)
		}
		settle(t, d)
		kept = append(kept, layer.Digest)
	}
	if s := d.Stats(); s.Bytes > room || s.Entries != 4 || s.Evictions != 6 {
		t.Errorf("%+v", s)
	}
	there := func(of digest.Digest) bool {
		_, err := os.Stat(filepath.Join(name, "blobs", "sha256", of.Encoded()))
		return err == nil
	}
	// By the next process's account the seventh was used last.
	now := time.Now()
	for i, of := range kept[6:] {
		if err := os.Chtimes(filepath.Join(name, "blobs", "sha256", of.Encoded()), now, now.Add(-time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	d = directory(t, name, room/2)
	if s := d.Stats(); s.Bytes > room/2 || s.Entries != 2 || !there(kept[6]) || !there(kept[7]) || there(kept[9]) {
		t.Errorf("%+v", s)
	}
	big := r.PushBlob(repo, "application/octet-stream", make([]byte, room))
	if _, err := keeping(t, r, d).Fetch(t.Context(), subject, big); err != nil {
		t.Fatal(err)
	}
	settle(t, d)
	if there(big.Digest) {
		t.Error("what is larger than all was kept")
	}
}

// TestAFullDiskHarmsNothing: what cannot be kept is read from the registry.
func TestAFullDiskHarmsNothing(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	name := t.TempDir()
	d := directory(t, name, 1<<20)
	if err := os.RemoveAll(name); err != nil { // so that nothing can be written there
		t.Fatal(err)
	}
	for range 2 {
		readAll(t, keeping(t, r, d), subjectOf(r, image))
		settle(t, d)
	}
}

const writing = "COUNTERSIGN_TEST_WRITING"

// TestL39_KilledInTheMiddleOfAWrite: whenever the process ends, the next start is
// clean, and nothing is read that is not whole.
func TestL39_KilledInTheMiddleOfAWrite(t *testing.T) {
	if name := os.Getenv(writing); name != "" {
		writeWithoutEnd(t, name)
		return
	}
	name := t.TempDir()
	for n := range 5 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), writing+"="+name)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		blobs := filepath.Join(name, "blobs", "sha256")
		for files := 0; files < 20*(n+1); {
			entries, _ := os.ReadDir(blobs)
			files = len(entries)
		}
		_ = child.Process.Signal(syscall.SIGKILL)
		_ = child.Wait()
		// Strays are removed when they are old enough to be nobody's.
		strays := 0
		for _, entry := range list(t, name) {
			if strings.HasPrefix(entry.Name(), ".") {
				strays++
				old := time.Now().Add(-2 * time.Hour)
				if err := os.Chtimes(filepath.Join(name, entry.Name()), old, old); err != nil {
					t.Fatal(err)
				}
			}
		}
		d := directory(t, name, 1<<30)
		for _, entry := range list(t, name) {
			if strings.HasPrefix(entry.Name(), ".") {
				t.Errorf("%s is left, of %d", entry.Name(), strays)
			}
		}
		for _, entry := range list(t, blobs) {
			data, err := os.ReadFile(filepath.Join(blobs, entry.Name()))
			if err != nil || digest.FromBytes(data).Encoded() != entry.Name() {
				t.Errorf("%s is not whole, %v", entry.Name(), err)
			}
		}
		if s := d.Stats(); s.Entries < 20*(n+1) {
			t.Errorf("%+v", s)
		}
	}
}

func list(t *testing.T, name string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(name)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func writeWithoutEnd(t *testing.T, name string) {
	d := directory(t, name, 1<<30)
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	v := keeping(t, r, d)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := 0; ctx.Err() == nil; i++ {
		layer := r.PushBlob(repo, "application/octet-stream", bytes.Repeat(fmt.Appendf(nil, "%d %d", os.Getpid(), i), 10<<10))
		_, _ = v.Fetch(ctx, subjectOf(r, image), layer)
	}
}

// TestTheDirectoryIsShared: what one process has read the other finds, without a
// word between them.
func TestTheDirectoryIsShared(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	layer := r.PushBlob(repo, "application/octet-stream", []byte("shared"))
	name := t.TempDir()
	one, other := directory(t, name, 1<<20), directory(t, name, 1<<20)
	if _, err := keeping(t, r, one).Fetch(t.Context(), subjectOf(r, image), layer); err != nil {
		t.Fatal(err)
	}
	settle(t, one)
	r.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})
	if _, err := keeping(t, r, other).Fetch(t.Context(), subjectOf(r, image), layer); err != nil {
		t.Error(err)
	}

	// What one has evicted the other writes anew.
	file := filepath.Join(name, "blobs", layer.Digest.Algorithm().String(), layer.Digest.Encoded())
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.SetFault(nil)
	if _, err := keeping(t, r, other).Fetch(t.Context(), subjectOf(r, image), layer); err != nil {
		t.Error(err)
	}
	settle(t, other)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
