package verifier

import (
	"cmp"
	"slices"
	"strings"

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

// signersOf are the signers that count: the most to whom distinct parties can be
// matched, where no holder and no key counts twice and signatures that meet the same
// entries are one signer's.
//
// These rules are one flow: from holders by way of keys and sets of entries to entries,
// each of which lets one unit pass. Another signature never makes it less.
func signersOf(signatures []*signature) []Signer {
	const source, sink = 0, 1
	f := flow{edges: make([][]int, 2)}
	nodes, linked := map[string]int{}, map[[2]int]bool{}
	link := func(from, to int) {
		if !linked[[2]int{from, to}] {
			linked[[2]int{from, to}] = true
			f.link(from, to)
		}
	}
	node := func(name string) int {
		if _, known := nodes[name]; !known {
			nodes[name] = f.node()
		}
		return nodes[name]
	}
	holders := map[int]Signer{}
	for _, s := range signatures {
		if len(s.proved) == 0 {
			continue
		}
		slices.Sort(s.met)
		set := strings.Join(s.met, "\n")
		holder, into, key := node("holder "+s.signer.ID), node("into "+s.signer.key()), node("key "+s.signer.key())
		in, out := node("one of "+set), node("entries "+set)
		if _, known := holders[holder]; !known {
			holders[holder] = s.signer
		}
		link(source, holder)
		link(holder, into)
		link(into, key)
		link(key, in)
		link(in, out)
		for _, party := range s.proved {
			entry := node("party " + party)
			link(out, entry)
			link(entry, sink)
		}
	}
	for f.augment(source, sink, map[int]bool{}) {
	}
	var counted []Signer
	for _, edge := range f.edges[source] {
		if f.used[edge] {
			counted = append(counted, holders[f.to[edge]])
		}
	}
	return counted
}

// flow is a network of edges that each let one unit pass. Edge e and its way back are
// e and e^1.
type flow struct {
	edges [][]int // by node
	to    []int   // by edge
	used  []bool  // by edge; the way back of an edge that is not used is
}

func (f *flow) node() int {
	f.edges = append(f.edges, nil)
	return len(f.edges) - 1
}

func (f *flow) link(from, to int) {
	f.edges[from] = append(f.edges[from], len(f.to))
	f.edges[to] = append(f.edges[to], len(f.to)+1)
	f.to = append(f.to, to, from)
	f.used = append(f.used, false, true)
}

// augment lets one more unit pass, if that can be.
func (f *flow) augment(at, sink int, seen map[int]bool) bool {
	if at == sink {
		return true
	}
	seen[at] = true
	for _, edge := range f.edges[at] {
		if f.used[edge] || seen[f.to[edge]] || !f.augment(f.to[edge], sink, seen) {
			continue
		}
		f.used[edge], f.used[edge^1] = true, false
		return true
	}
	return false
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
