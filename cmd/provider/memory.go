package main

import (
	"bufio"
	"bytes"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// beyondGo is what a process takes of its container beside what Go counts: the
	// executable's pages, sockets, files that are mapped. It is an eighth of a large
	// container, and at most half of a small one.
	beyondGo = 192 << 20
	// evidencePart of what Go may take is for evidence that is read and judged: the rest
	// is for what is remembered, and for garbage.
	evidencePart = 5
	// minEvidence and maxEvidence bound that; more would not make answers faster.
	minEvidence, maxEvidence = 16 << 20, 256 << 20
)

// limitMemory has Go collect garbage before the container's limit is reached, and gives
// the bytes that evidence may take; 0: no limit is known. GOMEMLIMIT, where it is set,
// is heeded in the place of the container's limit.
func limitMemory(log *slog.Logger) (evidence int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		if container := containerMemory(os.DirFS("/")); container > 0 {
			debug.SetMemoryLimit(goMemory(container))
		}
	}
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return 0
	}
	evidence = min(max(limit/evidencePart, minEvidence), maxEvidence)
	log.Info("memory limits", slog.Int64("goMiB", limit>>20), slog.Int64("evidenceMiB", evidence>>20))
	return evidence
}

// goMemory is what of a container's memory Go may take.
func goMemory(container int64) int64 {
	return max(container/2, container-max(container/8, beyondGo))
}

// containerMemory reads the least limit of the control groups that the process is in,
// of either version; 0: there is none.
func containerMemory(root fs.FS) (limit int64) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		// hierarchy:controllers:path; the second version has no controllers.
		fields := strings.SplitN(lines.Text(), ":", 3)
		if len(fields) < 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if fields[1] != "" {
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
			if !strings.Contains(","+fields[1]+",", ",memory,") {
				continue
			}
		}
		// In a container the path may be the host's, and the mount begins at the
		// container's own group: each part of it is tried.
		for at := path.Clean("/" + fields[2]); ; at = path.Dir(at) {
			if data, err := fs.ReadFile(root, path.Join(mount, at, file)); err == nil {
				n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
				if err == nil && n > 0 && n < 1<<50 && (limit == 0 || n < limit) { // version 1 writes a huge figure for none
					limit = n
				}
			}
			if at == "/" {
				break
			}
		}
	}
	return limit
}
