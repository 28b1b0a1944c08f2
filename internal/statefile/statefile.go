// Package statefile keeps what one process knows for the next one: a file that is
// there whole or is not there, whatever the machine or the process did while it
// was written, and that tells when it was damaged later.
package statefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrDamaged is that a file is not what was written.
var ErrDamaged = errors.New("damaged")

// Read gives the content of a file that Write wrote, of at most limit bytes. The
// error wraps fs.ErrNotExist or ErrDamaged where it is one of these.
func Read(path string, limit int64) ([]byte, error) {
	data, err := read(path, limit)
	if err != nil {
		return nil, err
	}
	head, content, _ := bytes.Cut(data, []byte("\n"))
	if string(head) != sum(content) {
		return nil, fmt.Errorf("%s: %w", path, ErrDamaged)
	}
	return content, nil
}

// read refuses what is no file, which could be endless or never end.
func read(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrInvalid)
	}
	file, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	limit += sha256.Size*2 + 1
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: %w: it is larger than any that was written", path, ErrDamaged)
	}
	return data, err
}

// Write replaces the file at once, for its owner's eyes only.
func Write(path string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.WriteString(sum(content) + "\n")
	if err == nil {
		_, err = file.Write(content)
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func sum(content []byte) string {
	of := sha256.Sum256(content)
	return hex.EncodeToString(of[:])
}
