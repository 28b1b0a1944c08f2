package config

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long nothing must have changed before files are read: who
	// writes one in several steps is given time to end.
	quiet = 100 * time.Millisecond
	// patience is how long changes that do not end are waited for. Together with
	// the reading it stays under the second that a change may take.
	patience = 500 * time.Millisecond
	// blindInterval is how often everything is read anew where changes are not
	// announced at all.
	blindInterval = 500 * time.Millisecond
)

// Run reads the documents anew when they or what they refer to change, until
// ctx ends. Changes are announced by the operating system; at intervals it
// looks without being told.
func (s *Source) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		s.options.Log.WarnContext(ctx, "changes of policies are not announced, looking twice a second", slog.Any("error", err))
		return s.poll(ctx)
	}
	defer func() { _ = watcher.Close() }()
	s.follow(ctx, watcher)
	check := time.NewTicker(s.options.CheckInterval)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-watcher.Events:
			if !open {
				return s.poll(ctx)
			}
			if !s.matters(event.Name) {
				continue
			}
			settle(ctx, watcher)
		case err := <-watcher.Errors:
			s.options.Log.WarnContext(ctx, "some changes of policies were not announced", slog.Any("error", err))
		case <-check.C:
			s.remind(ctx)
		}
		s.Reload(ctx)
		s.follow(ctx, watcher)
	}
}

// settle waits until changes end.
func settle(ctx context.Context, watcher *fsnotify.Watcher) {
	last := time.After(patience)
	for {
		select {
		case <-ctx.Done():
			return
		case <-last:
			return
		case <-time.After(quiet):
			return
		case _, open := <-watcher.Events:
			if !open {
				return
			}
		}
	}
}

// follow watches the directories that matter now. What changed in a new one
// before it was watched is read at once. A directory that is not there is tried
// again at the next look.
func (s *Source) follow(ctx context.Context, watcher *fsnotify.Watcher) {
	for range 3 { // each time new ones are found; the next look does the rest
		old := map[string]bool{}
		for _, directory := range watcher.WatchList() {
			old[directory] = true
		}
		added := false
		for directory := range s.watchedDirectories() {
			if old[directory] {
				delete(old, directory)
			} else if watcher.Add(directory) == nil {
				added = true
			}
		}
		for directory := range old {
			_ = watcher.Remove(directory) // gone already, then
		}
		if !added {
			return
		}
		s.Reload(ctx)
	}
}

func (s *Source) watchedDirectories() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watched
}

// matters reports whether a change of the file may be one of ours.
func (s *Source) matters(path string) bool {
	only, watched := s.watchedDirectories()[filepath.Dir(path)]
	return !watched || only == "" || only == filepath.Base(path)
}

func (s *Source) poll(ctx context.Context) error {
	check := time.NewTicker(min(blindInterval, s.options.CheckInterval))
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
			s.remind(ctx)
			s.Reload(ctx)
		}
	}
}
