package config

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestTheMostSignersAreCounted compares with trying to give each entry a set of groups of
// its own, in which it is.
func TestTheMostSignersAreCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 6), 0, 4).Draw(t, "sizes")
		var parties []verifier.Party
		var entries []int // the group of each
		for group, size := range sizes {
			for i := range size {
				parties = append(parties, verifier.Party{ID: fmt.Sprint(group, " ", i), Signers: fmt.Sprint(group)})
				entries = append(entries, group)
			}
		}
		setOf := make([]int, 1<<len(sizes)) // by set of groups, the entry that has it, from 1 on
		var assign func(entry int, tried []bool) bool
		assign = func(entry int, tried []bool) bool {
			for set := range setOf {
				if set&(1<<entries[entry]) == 0 || tried[set] {
					continue
				}
				tried[set] = true
				if setOf[set] == 0 || assign(setOf[set]-1, tried) {
					setOf[set] = entry + 1
					return true
				}
			}
			return false
		}
		want := 0
		for entry := range entries {
			if assign(entry, make([]bool, len(setOf))) {
				want++
			}
		}
		if got := mostSigners(append(parties, slices.Clone(parties)...)); got != want {
			t.Fatalf("groups of %v: %d, want %d", sizes, got, want)
		}
	})
}
