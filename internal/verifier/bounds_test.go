package verifier

import (
	"context"
	"fmt"
	"testing"
)

// entered is how many of the decisions may begin at once.
func entered(s *shares, n int, of func(i int) (host, namespace string)) int {
	gaveUp, stop := context.WithCancel(context.Background())
	stop()
	begun := 0
	for i := range n {
		host, namespace := of(i)
		if leave, refused := s.enter(gaveUp, host, namespace); refused == nil && leave != nil {
			begun++
		}
	}
	return begun
}

// TestL48_NoHostOrNamespaceTakesMoreThanItsShare, whoever asks.
func TestL48_NoHostOrNamespaceTakesMoreThanItsShare(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(i int) (host, namespace string)
		most int
	}{
		"one host, each from another namespace": {func(i int) (string, string) { return "a", fmt.Sprint(i) }, maxDecisionsOfHost},
		"one host, one namespace":               {func(int) (string, string) { return "a", "shop" }, unreservedOfHost},
		"one namespace, each at another host":   {func(i int) (string, string) { return fmt.Sprint(i), "shop" }, maxDecisionsOfNamespace},
		"each from another, at another":         {func(i int) (string, string) { return fmt.Sprint(i), fmt.Sprint(i) }, maxDecisions},
	} {
		if got := entered(newShares(), 2*maxDecisions, c.of); got != c.most {
			t.Errorf("%s: %d at once, want %d", name, got, c.most)
		}
	}
}
