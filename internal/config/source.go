package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFiles bounds a directory of documents.
	maxFiles = 4096
	// defaultCheckInterval is how often everything is read anew although nothing
	// announced a change: network file systems announce none.
	defaultCheckInterval = 10 * time.Second
)

// Options say where the documents are and who hears of them.
type Options struct {
	// Path of a file of documents, or of a directory of which all *.yaml, *.yml
	// and *.json are read, hidden ones left out.
	Path string
	// Environment is what compiled policies use.
	Environment Environment
	// Log hears of what was loaded and what is wrong with it; nil: nobody.
	Log *slog.Logger
	// OnChange is called with each new Snapshot, the first included, when it is
	// in force. It must be quick.
	OnChange func(*Snapshot)
	// CheckInterval is how often everything is read anew although nothing
	// announced a change: 10 s.
	CheckInterval time.Duration
}

// Source keeps a Snapshot of documents in files up to date. Safe for
// concurrent use.
type Source struct {
	options  Options
	snapshot atomic.Pointer[Snapshot]

	mu      sync.Mutex // guards all below, and makes one Snapshot at a time
	builder *builder
	files   map[string]*fileState // by path
	seen    [sha256.Size]byte     // all bytes that the Snapshot was made of
	watched map[string]string     // directories in which changes matter; if only of one file, its name
	reports reporter
}

// fileState is what is known of one file of documents. Not changed once made.
type fileState struct {
	sum    [sha256.Size]byte
	parsed []*Document
	// kept are documents that the file held and does not show any more, while it
	// has an error: a file with an error removes nothing.
	kept []*Document
	// whole is set once the file had no error: then all that it holds is known.
	whole bool
	// first is set where the file was there when the process started.
	first bool
}

// dark reports whether nobody may know what the file holds.
func (f *fileState) dark() bool { return f.first && !f.whole }

// Load reads all documents and makes the first Snapshot. A document that is
// wrong is no error: see Snapshot.Problems. A path that cannot be read is.
func Load(ctx context.Context, options Options) (*Source, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.OnChange == nil {
		options.OnChange = func(*Snapshot) {}
	}
	if options.CheckInterval <= 0 {
		options.CheckInterval = defaultCheckInterval
	}
	if _, err := documentFiles(options.Path); err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	s := &Source{options: options, builder: newBuilder(options.Environment), reports: newReporter(options.Log)}
	s.Reload(ctx)
	return s, nil
}

// Ready says why nothing can be decided, or gives nil.
func (s *Source) Ready() error { return s.Snapshot().Ready() }

// remind tells of Exemptions that end.
func (s *Source) remind(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports.reminders(ctx, s.Snapshot())
}

// Snapshot is the latest. It is never nil.
func (s *Source) Snapshot() *Snapshot { return s.snapshot.Load() }

// Reload reads everything anew, and reports whether that made a new Snapshot.
func (s *Source) Reload(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.files == nil
	r := s.readAll(first)
	if !first && s.sum(r) == s.seen {
		return false
	}
	next := s.builder.build(r)
	s.seen, s.watched = s.sum(r), s.directories(r.sources)
	s.snapshot.Store(next)
	s.reports.snapshot(ctx, next)
	s.options.OnChange(next)
	return true
}

// directories lists where changes matter: beside each file, and where links
// lead, because what a ConfigMap mounts changes by a link being replaced.
func (s *Source) directories(files *sources) map[string]string {
	// A directory of documents may itself be replaced; what else is beside it
	// does not matter.
	watched := map[string]string{filepath.Dir(filepath.Clean(s.options.Path)): filepath.Base(s.options.Path)}
	add := func(path string) {
		watched[filepath.Dir(path)] = ""
		if real, err := filepath.EvalSymlinks(path); err == nil {
			watched[filepath.Dir(real)] = ""
		}
	}
	if info, err := os.Stat(s.options.Path); err == nil && info.IsDir() {
		add(filepath.Join(s.options.Path, "any"))
		if real, err := filepath.EvalSymlinks(s.options.Path); err == nil {
			watched[real] = ""
		}
	}
	for path := range s.files {
		add(path)
	}
	for path := range files.read {
		add(path)
	}
	for path := range files.lists {
		add(path)
		add(filepath.Join(path, "any"))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			watched[real] = ""
		}
	}
	return watched
}
