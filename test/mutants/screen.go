package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// screen writes a line for each mutant, and what is still to come where a person
// reads it. Safe for concurrent use.
type screen struct {
	start    time.Time
	terminal bool
	total    int

	mu             sync.Mutex
	passed, failed int
}

// show writes how one mutant fared.
func (s *screen) show(m mutant, took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	if err == nil {
		s.passed++
		_, _ = fmt.Printf("ok    %-34s %5.1f s  %s\n", m.id, took.Seconds(), m.test)
	} else {
		s.failed++
		_, _ = fmt.Printf("FAIL  %-34s %5.1f s  %s: %s\n      table line %d, %s: %v\n", m.id, took.Seconds(), m.file, m.guards, m.line, m.pkg, err)
	}
	if s.terminal {
		_, _ = fmt.Printf("%d of %d, %.0f s", s.passed+s.failed, s.total, time.Since(s.start).Seconds())
	}
}

// broken writes that the mutants of a package could not be tried.
func (s *screen) broken(pkg string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.failed++
	_, _ = fmt.Printf("FAIL  %s: %v\n", pkg, err)
}

// say writes a line of its own.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	_, _ = fmt.Printf(format+"\n", args...)
}

// close writes the sum.
func (s *screen) close() {
	s.say("%d passed, %d failed in %.0f s", s.passed, s.failed, time.Since(s.start).Seconds())
}

// wipe deletes the line of progress.
func (s *screen) wipe() {
	if s.terminal {
		_, _ = fmt.Print("\r\x1b[K")
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
