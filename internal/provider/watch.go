package provider

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the files must be quiet before they are read: a
	// certificate and its key are two files, and not everybody swaps a symlink.
	settle = 100 * time.Millisecond
	// reread is how often the files are read without having been told of a
	// change: inotify has limits, and some volumes do not tell.
	reread = 10 * time.Second
)

// Watch follows the files until ctx ends.
func (c *Certificates) Watch(ctx context.Context) {
	var events <-chan fsnotify.Event
	var errs <-chan error
	if watcher, err := fsnotify.NewWatcher(); err != nil {
		c.log.Warn("certificate files are read every 10 s only", slog.Any("error", err))
	} else {
		defer func() { _ = watcher.Close() }()
		// Kubernetes swaps a symlink beside the files, so their directories are
		// watched. Errors are of one directory: the ticker is there for it.
		for _, file := range []string{c.options.CertFile, c.options.KeyFile, c.options.ClientCAFile} {
			if file == "" {
				continue
			}
			if err := watcher.Add(filepath.Dir(file)); err != nil {
				c.log.Warn("certificate file is read every 10 s only", slog.String("file", file), slog.Any("error", err))
			}
		}
		events, errs = watcher.Events, watcher.Errors
	}
	ticker := time.NewTicker(reread)
	defer ticker.Stop()
	quiet := time.NewTimer(reread)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			quiet.Reset(settle)
		case err := <-errs:
			c.log.Warn("watching the certificate files failed; they are still read every 10 s", slog.Any("error", err))
		case <-quiet.C:
			_ = c.Reload() // it logs what is broken
		case <-ticker.C:
			_ = c.Reload()
		}
	}
}
