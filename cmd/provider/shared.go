package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/countersign-dev/countersign/internal/store"
)

// openShared reads what a Secret has of the server that replicas share.
func openShared(dir string, log *slog.Logger) (*store.Shared, error) {
	read := func(name string) (string, error) {
		data, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // G304: the operator names the directory
		return strings.TrimSpace(string(data)), err
	}
	url, err := read("url")
	if err != nil {
		return nil, fmt.Errorf("shared cache: %w", err)
	}
	secret, err := read("secret")
	if err != nil {
		return nil, fmt.Errorf("shared cache: %w", err)
	}
	ca, err := read("ca.crt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("shared cache: %w", err)
	}
	shared, err := store.NewShared(store.SharedOptions{URL: url, CAs: []byte(ca), Secret: []byte(secret), Log: log})
	if err != nil {
		return nil, fmt.Errorf("shared cache: %s: %w", dir, err)
	}
	return shared, nil
}
