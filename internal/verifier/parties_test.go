package verifier

import (
	"testing"
)

func TestL43_OnePartyCountsOnce(t *testing.T) {
	sig := func(holder, key string, parties ...string) *signature {
		return &signature{signer: Signer{ID: holder, Key: key, Name: holder}, met: parties, proved: parties}
	}
	for name, test := range map[string]struct {
		signatures []*signature
		want       int
	}{
		"nobody":                            {nil, 0},
		"no party":                          {[]*signature{sig("a", "1")}, 0},
		"two parties":                       {[]*signature{sig("a", "1", "A"), sig("b", "2", "B")}, 2},
		"two names under one entry":         {[]*signature{sig("a", "1", "A"), sig("a too", "2", "A")}, 1},
		"one key meets two entries":         {[]*signature{sig("a", "1", "A", "B")}, 1},
		"one key, two names, two entries":   {[]*signature{sig("a", "1", "A"), sig("b", "1", "B")}, 1},
		"two certificates meet the same":    {[]*signature{sig("a", "1", "A", "B"), sig("a too", "2", "A", "B")}, 1},
		"overlap, each stands for another":  {[]*signature{sig("a", "1", "A", "B"), sig("b", "2", "B")}, 2},
		"overlap needs another assignment":  {[]*signature{sig("a", "1", "A", "B"), sig("b", "2", "A"), sig("c", "3", "B", "C")}, 3},
		"one holder, two keys, two entries": {[]*signature{sig("a", "1", "A"), sig("a", "2", "B")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(signersOf(test.signatures)); got != test.want {
				t.Errorf("%d signers, want %d", got, test.want)
			}
		})
	}
}
