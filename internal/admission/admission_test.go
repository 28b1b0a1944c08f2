package admission

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// replicas are those of a provider, by host; one that is nil does not answer.
type replicas struct {
	t       *testing.T
	records map[string]*Record
}

// watched is a Watcher of them.
func (r *replicas) watched(kept Memory) *Watcher {
	r.t.Helper()
	w, err := NewWatcher("http://provider.example.com:8888", kept, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Fatal(err)
	}
	w.resolve = func(context.Context, string) ([]string, error) {
		var hosts []string
		for host := range r.records {
			hosts = append(hosts, host)
		}
		return hosts, nil
	}
	w.ask = func(_ context.Context, host string, from uint64) (Page, error) {
		record := r.records[host]
		if record == nil {
			return Page{}, errors.New("connection refused")
		}
		return record.page(from), nil
	}
	return w
}

func digestOf(n int) digest.Digest { return digest.FromString(fmt.Sprint(n)) }

// TestWhatAdmissionWasNeverAskedAbout is told of what can be known only: not of a time
// before the first look, after the last, or in which a replica has ended.
func TestWhatAdmissionWasNeverAskedAbout(t *testing.T) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	r := &replicas{t, map[string]*Record{"a": NewRecord(), "b": NewRecord()}}
	kept := &memory{}
	w := r.watched(kept)
	look := func(s int) {
		t.Helper()
		if err := w.look(t.Context(), at(s)); err != nil {
			t.Fatal(err)
		}
	}
	never := func(what string, s, n int, want bool) {
		t.Helper()
		if got := w.Never(at(s), digestOf(n)); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	never("before anything is known", 60, 1, false)
	look(0)
	r.records["a"].Add(digestOf(1))
	r.records["b"].Add(digestOf(2))
	never("before the look after it", 60, 3, false)
	look(30)
	look(90)
	never("asked of one", 60, 1, false)
	never("asked of the other", 60, 2, false)
	never("asked of nobody", 60, 3, true)
	never("before the first look", 5, 3, false)
	never("not yet looked at", 85, 3, false)
	if w.Never(at(60), digestOf(3), digestOf(1)) {
		t.Error("it is known by another digest")
	}
	if w.Never(at(60)) {
		t.Error("nobody knows by which digest")
	}

	r.records["c"] = NewRecord() // one more is no loss
	look(120)
	never("with one more", 105, 3, true)
	delete(r.records, "a") // one that ends may have answered after the last look
	look(150)
	look(180)
	look(210)
	never("while one ended", 140, 3, false)
	never("after one has ended", 190, 3, true)
	never("before one has ended", 60, 3, true)

	w = r.watched(kept) // restarted: what was known is
	if err := w.remember(); err != nil {
		t.Fatal(err)
	}
	look(240)
	look(270)
	never("asked of one that has ended, before a restart", 225, 1, false)
	never("asked of nobody, over a restart", 225, 3, true)

	r.records["b"] = nil // one that does not answer may have been asked anything
	if err := w.look(t.Context(), at(300)); err == nil {
		t.Error("nothing is the matter")
	}
	never("while one does not answer", 290, 3, false)
}

// TestARecordIsBounded: the oldest goes, and whoever has not read it knows.
func TestARecordIsBounded(t *testing.T) {
	r := &replicas{t, map[string]*Record{"a": NewRecord()}}
	w := r.watched(nil)
	now := time.Now()
	if err := w.look(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	for n := range maxRecorded + 1 {
		r.records["a"].Add(digestOf(n))
		r.records["a"].Add(digestOf(n))
	}
	page := r.records["a"].page(0)
	if page.First != maxRecorded/4 || page.Next != maxRecorded+1 || len(page.Digests) != maxRecorded*3/4+1 {
		t.Errorf("%d to %d, %d digests", page.First, page.Next, len(page.Digests))
	}
	for s := range 3 {
		if err := w.look(t.Context(), now.Add(time.Duration(s+1)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if w.Never(now.Add(30*time.Second), digestOf(-1)) {
		t.Error("what was lost is taken for what was not asked")
	}
	if !w.Never(now.Add(90*time.Second), digestOf(-1)) || w.Never(now.Add(90*time.Second), digestOf(maxRecorded)) {
		t.Error("what is known is not")
	}
}

// TestARecordIsReadOverHTTP from where the last reading ended.
func TestARecordIsReadOverHTTP(t *testing.T) {
	record := NewRecord()
	server := httptest.NewServer(record)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWatcher("http://127.0.0.1:"+at.Port(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for s, want := range []int{0, 2, 3} {
		if err := w.look(t.Context(), now.Add(time.Duration(s)*time.Minute)); err != nil || len(w.known) != want {
			t.Errorf("%d known, %v", len(w.known), err)
		}
		record.Add(digestOf(10 * s))
		record.Add(digestOf(10*s + 1 - s))
	}
	for _, wrong := range []string{"provider:8888", "", "ftp://provider"} {
		if _, err := NewWatcher(wrong, nil, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

// memory implements Memory.
type memory struct {
	state   State
	digests []uint64
}

func (m *memory) LoadAdmission() (State, []uint64, error) { return m.state, m.digests, nil }

func (m *memory) SaveAdmission(state State, digests []uint64) error {
	m.state, m.digests = state, append(m.digests, digests...)
	return nil
}
