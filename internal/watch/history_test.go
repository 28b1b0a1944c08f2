package watch

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"
)

func openHistory(t *testing.T, path string) *History {
	t.Helper()
	h, err := OpenHistory(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHistoryOutlivesTheProcess, in its order, and one process has it at a time.
func TestHistoryOutlivesTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, path)
	now := time.Now().Round(0)
	known := Known{Status: "UNTRUSTED", Reason: "SIGNATURE_INVALID", Since: now, At: now}
	h.Keep("a", known)
	for i := range 5 {
		h.Add(Transition{Time: now.Add(time.Duration(i) * time.Second), Image: fmt.Sprint(i), To: "UNKNOWN"})
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	h.Add(Transition{Time: now.Add(time.Minute), Image: "5"})
	if _, err := OpenHistory(path, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two processes have it")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Fatal(err)
	}
	h = openHistory(t, path)
	if got := h.Known("a"); !got.At.Equal(known.At) || got.Status != known.Status {
		t.Errorf("%+v", got)
	}
	if got := h.Known("b"); got != (Known{}) {
		t.Errorf("%+v", got)
	}
	h.Add(Transition{Time: now.Add(time.Hour), Image: "6"})
	list, err := h.Transitions(4, func(tr Transition) bool { return tr.Image != "4" })
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, tr := range list {
		got += tr.Image
	}
	if got != "6532" {
		t.Errorf("%s", got)
	}
}

// TestHistoryIsKeptFor90Days.
func TestHistoryIsKeptFor90Days(t *testing.T) {
	h := openHistory(t, filepath.Join(t.TempDir(), "history"))
	now := time.Now()
	h.Keep("old", Known{Status: "TRUSTED", At: now.AddDate(0, 0, -91)})
	h.Keep("new", Known{Status: "TRUSTED", At: now})
	for _, days := range []int{100, 91, 89, 0} {
		h.Add(Transition{Time: now.AddDate(0, 0, -days), Image: fmt.Sprint(days)})
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	if err := h.prune(now); err != nil {
		t.Fatal(err)
	}
	list, err := h.Transitions(10, func(Transition) bool { return true })
	if err != nil || len(list) != 2 || list[1].Image != "89" {
		t.Errorf("%+v, %v", list, err)
	}
	if h.Known("old") != (Known{}) || h.Known("new").Status != "TRUSTED" {
		t.Error("what was known")
	}
}
