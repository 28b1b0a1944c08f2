// Package admission knows which digests admission was asked about: the provider records
// them, and whoever watches what runs reads the records of all replicas.
package admission

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxRecorded is how many digests are remembered, 150 bytes each.
const maxRecorded = 20_000

// Record remembers the digests that verdicts were given about, in the order in which
// they were first, so that whoever watches can tell what runs that admission was never
// asked about. Safe for concurrent use.
type Record struct {
	instance string

	mu      sync.Mutex // guards all below
	first   uint64     // the sequence number of digests[0]
	digests []digest.Digest
	known   map[digest.Digest]struct{}
}

// NewRecord remembers nothing yet.
func NewRecord() *Record {
	return &Record{instance: rand.Text(), known: map[digest.Digest]struct{}{}}
}

// Add remembers a digest; where there are too many a quarter goes, the oldest.
func (a *Record) Add(d digest.Digest) {
	if a == nil || d == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.known[d]; known {
		return
	}
	if len(a.digests) == maxRecorded {
		for _, old := range a.digests[:maxRecorded/4] {
			delete(a.known, old)
		}
		a.digests = append([]digest.Digest(nil), a.digests[maxRecorded/4:]...)
		a.first += maxRecorded / 4
	}
	a.known[d] = struct{}{}
	a.digests = append(a.digests, d)
}

// Page is what a Record shows: the digests from a sequence number on.
type Page struct {
	// Instance is another one after a restart, of which nothing is known.
	Instance string `json:"instance"`
	// First is the number of the oldest that is remembered, and Next what to ask from
	// the next time.
	First   uint64          `json:"first"`
	Next    uint64          `json:"next"`
	Digests []digest.Digest `json:"digests"`
}

// ServeHTTP shows the digests from the number ?from on.
func (a *Record) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		from = 0
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(a.page(from))
}

func (a *Record) page(from uint64) Page {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := a.first + uint64(len(a.digests))
	page := Page{Instance: a.instance, First: a.first, Next: next, Digests: []digest.Digest{}}
	if from < next {
		page.Digests = append(page.Digests, a.digests[max(from, a.first)-a.first:]...)
	}
	return page
}
