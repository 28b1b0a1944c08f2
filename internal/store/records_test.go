package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
)

func openRecords(t *testing.T, dir string) (*store.Records, *store.Directory) {
	t.Helper()
	directory, err := store.OpenDirectory(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return store.NewRecords(directory, nil, time.Hour), directory
}

func TestARecordOutlivesTheProcessUntilItsEnd(t *testing.T) {
	dir := t.TempDir()
	first, directory := openRecords(t, dir)
	now := time.Now()
	first.PutRecord("kept", []byte("a"), now.Add(time.Hour))
	first.PutRecord("ended", []byte("b"), now.Add(-time.Second))
	first.PutRecord("longer than any is kept", []byte("c"), now.Add(2*time.Hour))
	first.PutRecord("too large", make([]byte, 1<<20), now.Add(time.Hour))
	first.PutRecord("forgotten", []byte("d"), now.Add(time.Hour))
	if err := directory.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.PutRecord("forgotten", nil, now)
	second, _ := openRecords(t, dir)
	for key, want := range map[string]string{
		"kept": "a", "ended": "", "longer than any is kept": "", "too large": "", "forgotten": "", "unknown": "",
	} {
		if data, ok := second.Record(t.Context(), key); string(data) != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", key, data, ok)
		}
	}
}

// TestADamagedRecordIsNone: whatever was changed in it.
func TestADamagedRecordIsNone(t *testing.T) {
	dir := t.TempDir()
	records, directory := openRecords(t, dir)
	for i := range 2 {
		records.PutRecord(fmt.Sprint("key ", i), []byte("some evidence"), time.Now().Add(time.Hour))
	}
	if err := directory.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "records", "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := func() (n int) {
		for i := range 2 {
			if _, ok := records.Record(t.Context(), fmt.Sprint("key ", i)); ok {
				n++
			}
		}
		return n
	}
	whole, other := read(files[0]), read(files[1])
	for at := range whole { // the MAC, the end and the data
		changed := bytes.Clone(whole)
		changed[at] ^= 1
		write(files[0], changed)
		if found() != 1 {
			t.Errorf("byte %d was changed, and the record is believed", at)
		}
	}
	for name, data := range map[string][]byte{"empty": nil, "cut short": whole[:len(whole)-1], "longer": append(bytes.Clone(whole), 0), "another's": other} {
		write(files[0], data)
		if found() != 1 {
			t.Error(name, "is believed")
		}
	}
	if write(files[0], whole); found() != 2 {
		t.Error("what was written is not believed")
	}
}

func TestAKeyThatACrashLeftShortIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	openRecords(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "records.key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	records, directory := openRecords(t, dir)
	records.PutRecord("key", []byte("a"), time.Now().Add(time.Minute))
	if err := directory.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := records.Record(t.Context(), "key"); !ok {
		t.Error("nothing is kept")
	}
}
