package config

import (
	"fmt"
	"maps"
	"slices"
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
		var parties []verifier.Party
		names := make([]string, len(r.Of))
		for i, check := range r.Of {
			names[i] = check.Name
			v, known := check.Verifier.(schemeVerifier)
			if !known {
				return nil
			}
			parties = append(parties, v.Parties()...)
		}
		if most := mostSigners(parties); most < r.Count {
			list = append(list, fmt.Sprintf("atLeast of %s wants %d signers, and names %d that count apart: write each trusted identity or key as an entry of its own",
				strings.Join(names, ", "), r.Count, most))
		}
	}
	return list
}

// mostSigners is how many signers such entries can count, whoever signs: each stands for
// one entry, and no two of them meet the same entries. Of entries that the same signers
// meet, a signer meets all or none, so that g groups of them make 2^g sets to meet. By
// Hall's theorem the entries that get a signer of their own are as many as the sets allow,
// for whichever groups allow the fewest.
func mostSigners(parties []verifier.Party) int {
	groupOf, sizeOf := map[string]string{}, map[string]int{}
	for _, party := range parties {
		if _, known := groupOf[party.ID]; !known {
			groupOf[party.ID] = party.Signers
			sizeOf[party.Signers]++
		}
	}
	sizes := slices.Sorted(maps.Values(sizeOf))
	most := len(groupOf)
	rest, groups := len(groupOf), min(len(sizes), 30) // whose sets are more than there can be entries
	for k := range groups {
		rest -= sizes[len(sizes)-1-k]
		most = min(most, rest+1<<groups-1<<(groups-k-1))
	}
	return most
}
