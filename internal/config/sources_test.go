package config

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestFilesAreBoundedAndRegular: a document may name a file that never ends.
func TestFilesAreBoundedAndRegular(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Repeat([]byte("x"), size), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		path string
		good bool
	}{
		"empty": {write("empty", 0), true}, "as much as is read": {write("most", maxMaterial), true}, "a byte more": {write("more", maxMaterial+1), false},
		"a device that has nothing": {os.DevNull, false}, "a device that never ends": {"/dev/zero", false}, "a directory": {dir, false},
		"gone": {filepath.Join(dir, "gone"), false},
	} {
		if data, err := newSources(nil).file(c.path); (err == nil) != c.good {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
}
