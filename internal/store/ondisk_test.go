package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestL02_AByteOnDiskThatChanged: a file of the right length is held to its digest too.
func TestL02_AByteOnDiskThatChanged(t *testing.T) {
	name, content := t.TempDir(), []byte("the envelope")
	of := digest.FromBytes(content)
	d, err := OpenDirectory(name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	d.put(of, content)
	if err := d.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, ok := d.get(of, int64(len(content))); !ok || !bytes.Equal(got, content) {
		t.Fatalf("%q, %v", got, ok)
	}
	if err := os.WriteFile(filepath.Join(name, filepath.FromSlash(blobPath(of))), []byte("the attacker"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, ok := d.get(of, int64(len(content))); ok {
		t.Errorf("%q is taken for %q", got, content)
	}
}
