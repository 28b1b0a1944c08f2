package verifier

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// signature is all that the checks of a threshold found about one signature.
type signature struct {
	signer Signer
	// met are the entries that the signer meets, also those whose check refuses the
	// signature: what a signer leaves out never makes two signers of it.
	met []string
	// proved are those of them by which a check fully trusts the signature.
	proved []string
}

// signaturesOf unites the reports of several checks. What is signed by one key in one
// candidate is one signature. It leaves out candidates that are not whole.
func signaturesOf(checks [][]Report, whole func(Candidate) bool) []*signature {
	type key struct {
		candidate digest.Digest
		signer    string
	}
	known := map[key]*signature{}
	var list []*signature
	for _, reports := range checks {
		for _, report := range reports {
			claims := report.Finding.Claims
			if claims.Signer.ID == "" || len(claims.Parties) == 0 {
				continue
			}
			k := key{report.Candidate.Descriptor.Digest, claims.Signer.key()}
			s := known[k]
			if s == nil {
				if !whole(report.Candidate) {
					continue
				}
				s = &signature{signer: claims.Signer}
				known[k] = s
				list = append(list, s)
			}
			s.met = appendNew(s.met, claims.Parties)
			if report.Outcome() == OutcomeTrusted {
				s.proved = appendNew(s.proved, claims.Parties)
			}
		}
	}
	return list
}

// signersOf are the signers that count: the most that can be matched to distinct
// entries, where no holder and no key counts twice and signatures that meet the same
// entries are one signer's. Another signature never makes them fewer.
func signersOf(signatures []*signature) []Signer {
	var counted []choice
	for _, group := range groupsOf(choicesOf(signatures)) {
		search := newMatching(group)
		search.extend(0, nil)
		counted = append(counted, search.best...)
	}
	slices.SortFunc(counted, func(a, b choice) int { return cmp.Compare(a.order, b.order) })
	var signers []Signer
	for _, c := range counted {
		signers = append(signers, c.signer)
	}
	return signers
}

// wholeIn reports whether all checks of a threshold that the candidate is for have said
// what it is to them. Before that it is not known whose it is, and it does not count.
func wholeIn(checks []*Check, seen *observations) func(Candidate) bool {
	type key struct {
		check     *Check
		candidate digest.Digest
	}
	reported := map[key]bool{}
	for _, check := range checks {
		for _, report := range seen.reports[check] {
			reported[key{check, report.Candidate.Descriptor.Digest}] = true
		}
	}
	return func(c Candidate) bool {
		for _, check := range checks {
			if !reported[key{check, c.Descriptor.Digest}] && check.Verifier.Handles(c) {
				return false
			}
		}
		return true
	}
}

// key tells whether two signatures are by one key.
func (s Signer) key() string { return cmp.Or(s.Key, s.ID) }
