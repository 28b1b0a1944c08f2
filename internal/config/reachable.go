package config

import (
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// unreachable says which thresholds of a rule can never be met, because their checks
// name fewer entries than are wanted: what one entry stands for counts once, however
// often it is written and whatever its holder signs with.
func unreachable(r verifier.Rule) []string {
	var list []string
	switch r := r.(type) {
	case verifier.All:
		for _, part := range r {
			list = append(list, unreachable(part)...)
		}
	case verifier.Any:
		for _, part := range r {
			list = append(list, unreachable(part)...)
		}
	case verifier.AtLeast:
		entries := map[string]bool{}
		names := make([]string, len(r.Of))
		for i, check := range r.Of {
			names[i] = check.Name
			v, known := check.Verifier.(schemeVerifier)
			if !known {
				return nil
			}
			for _, entry := range v.Parties() {
				entries[entry] = true
			}
		}
		if len(entries) < r.Count {
			list = append(list, fmt.Sprintf("atLeast of %s wants %d signers, and names %d that count apart: write each trusted identity or key as an entry of its own",
				strings.Join(names, ", "), r.Count, len(entries)))
		}
	}
	return list
}
