package verifier

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestL43_OnePartyCountsOnce(t *testing.T) {
	sig := func(holder, key string, parties ...string) *signature {
		return &signature{signer: Signer{ID: holder, Key: key, Name: holder}, met: parties, proved: parties}
	}
	for name, test := range map[string]struct {
		signatures []*signature
		want       int
	}{
		"nobody":                                {nil, 0},
		"no party":                              {[]*signature{sig("a", "1")}, 0},
		"two parties":                           {[]*signature{sig("a", "1", "A"), sig("b", "2", "B")}, 2},
		"two names under one entry":             {[]*signature{sig("a", "1", "A"), sig("a too", "2", "A")}, 1},
		"one key meets two entries":             {[]*signature{sig("a", "1", "A", "B")}, 1},
		"one key, two names, two entries":       {[]*signature{sig("a", "1", "A"), sig("b", "1", "B")}, 1},
		"two certificates meet the same":        {[]*signature{sig("a", "1", "A", "B"), sig("a too", "2", "A", "B")}, 1},
		"overlap, each stands for another":      {[]*signature{sig("a", "1", "A", "B"), sig("b", "2", "B")}, 2},
		"overlap needs another assignment":      {[]*signature{sig("a", "1", "A", "B"), sig("b", "2", "A"), sig("c", "3", "B", "C")}, 3},
		"one entry of two sets, of two holders": {[]*signature{{signer: Signer{ID: "a", Key: "1"}, met: []string{"A", "B"}, proved: []string{"A"}}, sig("b", "2", "A")}, 1},
		"one holder, two keys, two entries":     {[]*signature{sig("a", "1", "A"), sig("a", "2", "B")}, 1},
		"a key of two holders, who has another": {[]*signature{sig("a", "1", "A"), sig("b", "1", "A", "B"), sig("b", "2", "A")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(signersOf(test.signatures)); got != test.want {
				t.Errorf("%d signers, want %d", got, test.want)
			}
		})
	}
}

// TestWhatCountsIsTheLargestMatching compares the count with all subsets of signatures
// and all entries that each could be counted for.
func TestWhatCountsIsTheLargestMatching(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := func(list []string, label string) []string {
			return slices.DeleteFunc(slices.Clone(list), func(string) bool { return !rapid.Bool().Draw(t, label) })
		}
		var signatures []*signature
		for range rapid.IntRange(0, 7).Draw(t, "signatures") {
			met := some([]string{"A", "B", "C", "D"}, "met")
			signatures = append(signatures, &signature{
				signer: Signer{ID: rapid.SampledFrom([]string{"ann", "bob", "cy", "dee"}).Draw(t, "holder"), Key: rapid.SampledFrom([]string{"1", "2", "3", "4", "5"}).Draw(t, "key")},
				met:    met, proved: some(met, "proved"),
			})
		}
		want := mostByTrying(signatures, map[string]bool{})
		if got := len(signersOf(signatures)); got != want {
			var list []string
			for _, s := range signatures {
				list = append(list, fmt.Sprintf("%s %s meets %v proves %v", s.signer.ID, s.signer.Key, s.met, s.proved))
			}
			t.Fatalf("%d, want %d:\n%s", got, want, strings.Join(list, "\n"))
		}
		if n := rapid.IntRange(0, len(signatures)).Draw(t, "fewer"); len(signersOf(signatures[:n])) > want {
			t.Fatal("another signature makes the signers fewer")
		}
	})
}

// mostByTrying leaves each signature out, and counts it for each of its entries.
func mostByTrying(signatures []*signature, taken map[string]bool) int {
	if len(signatures) == 0 {
		return 0
	}
	s, rest := signatures[0], signatures[1:]
	most := mostByTrying(rest, taken)
	for _, entry := range s.proved {
		uses := []string{"h" + s.signer.ID, "k" + s.signer.Key, "m" + fmt.Sprint(s.met), "e" + entry}
		if slices.ContainsFunc(uses, func(use string) bool { return taken[use] }) {
			continue
		}
		for _, use := range uses {
			taken[use] = true
		}
		most = max(most, 1+mostByTrying(rest, taken))
		for _, use := range uses {
			delete(taken, use)
		}
	}
	return most
}

// TestAWorstCaseOfAThresholdEnds: 64 certificates of few holders and keys, whose many
// entries overlap, are searched within the bound, and the count is not less than a
// first pick gives.
func TestAWorstCaseOfAThresholdEnds(t *testing.T) {
	var signatures []*signature
	for i := range 64 {
		var met []string
		for entry := range 16 {
			if (i*7+entry*entry*3)%5 < 2 {
				met = append(met, fmt.Sprintf("entry %d", entry))
			}
		}
		signatures = append(signatures, &signature{signer: Signer{ID: fmt.Sprint(i * i % 11), Key: fmt.Sprint(i * 5 % 13)}, met: met, proved: met})
	}
	if got := len(signersOf(signatures)); got < 4 || got > 11 {
		t.Errorf("%d signers", got)
	}
}
