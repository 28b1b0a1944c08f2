package statefile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if _, err := Read(path, 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	for _, content := range [][]byte{nil, []byte("one\ntwo"), bytes.Repeat([]byte("x"), 100)} {
		if err := Write(path, content); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 100); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: others may read it", info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v are left", files, err)
	}
}

// TestWhatIsDamagedIsNotRead: each byte changed, each length cut, and more than fits.
func TestWhatIsDamagedIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := Write(path, []byte("some content")); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, i int, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if content, err := Read(path, 100); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s %d: %q, %v", what, i, content, err)
		}
	}
	for i := range whole {
		changed := bytes.Clone(whole)
		changed[i] ^= 1
		refused("byte changed", i, changed)
		refused("cut to", i, whole[:i])
	}
	refused("longer by", 1, append(bytes.Clone(whole), 'x'))
	if err := Write(path, make([]byte, 101)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, 100); !errors.Is(err, ErrDamaged) {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := Read(t.TempDir(), 100); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}
