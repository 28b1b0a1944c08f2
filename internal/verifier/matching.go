package verifier

import (
	"slices"
	"strings"
)

// maxMatchingSteps bounds the search of one group, which takes a few milliseconds then.
// Only dozens of trusted certificates that share holders, keys and overlapping entries
// need as many. The count may be too low for those, never too high.
const maxMatchingSteps = 1 << 13

// choice counts a signature for one of the entries that it proves.
type choice struct {
	signer Signer
	// order is the signature's place in the list.
	order int
	// uses are the holder, the key, the set of entries met and the entry: no two choices
	// that count have one of them in common.
	uses [4]string
}

// entry is the entry that the signature is counted for.
func (c choice) entry() string { return c.uses[3] }

// choicesOf are those of all signatures, each once.
func choicesOf(signatures []*signature) []choice {
	var list []choice
	known := map[[4]string]bool{}
	for i, s := range signatures {
		slices.Sort(s.met)
		set := strings.Join(s.met, "\n")
		for _, entry := range s.proved {
			c := choice{s.signer, i, [4]string{"holder " + s.signer.ID, "key " + s.signer.key(), "entries " + set, "entry " + entry}}
			if !known[c.uses] {
				known[c.uses] = true
				list = append(list, c)
			}
		}
	}
	return list
}

// groupsOf parts choices into groups that have nothing in common, so that each is
// searched by itself.
func groupsOf(choices []choice) [][]choice {
	groupOf := map[string]int{}
	var groups [][]choice
	for _, c := range choices {
		into := len(groups)
		groups = append(groups, []choice{c})
		for _, use := range c.uses {
			other, known := groupOf[use]
			if known && other != into {
				for _, moved := range groups[other] {
					for _, its := range moved.uses {
						groupOf[its] = into
					}
				}
				groups[into], groups[other] = append(groups[into], groups[other]...), nil
			}
			groupOf[use] = into
		}
	}
	return slices.DeleteFunc(groups, func(g []choice) bool { return len(g) == 0 })
}

// matching is the search for the most choices of a group that have nothing in common:
// holder, key, entries and entry make it a matching in four dimensions, for which there
// is no quicker way that is exact.
type matching struct {
	byEntry [][]choice
	taken   map[string]bool
	best    []choice
	// most is what no matching can exceed.
	most  int
	steps int
}

func newMatching(group []choice) *matching {
	m := &matching{taken: map[string]bool{}, most: len(group), steps: maxMatchingSteps}
	for i := range len(group[0].uses) {
		distinct := map[string]bool{}
		for _, c := range group {
			distinct[c.uses[i]] = true
		}
		m.most = min(m.most, len(distinct))
	}
	at := map[string]int{}
	for _, c := range group {
		if _, known := at[c.entry()]; !known {
			at[c.entry()] = len(m.byEntry)
			m.byEntry = append(m.byEntry, nil)
		}
		m.byEntry[at[c.entry()]] = append(m.byEntry[at[c.entry()]], c)
	}
	// The entries of the fewest choices first: there the search is narrowest.
	slices.SortStableFunc(m.byEntry, func(a, b []choice) int { return len(a) - len(b) })
	return m
}

// extend tries all choices for the entries from the given one on, with those picked
// for the ones before.
func (m *matching) extend(from int, picked []choice) {
	if len(picked) > len(m.best) {
		m.best = slices.Clone(picked)
	}
	if m.steps--; m.steps < 0 || len(m.best) == m.most || len(picked)+len(m.byEntry)-from <= len(m.best) {
		return
	}
	for _, c := range m.byEntry[from] {
		if m.take(c) {
			m.extend(from+1, append(picked, c))
			m.release(c)
		}
	}
	m.extend(from+1, picked) // the entry counts for nobody
}

func (m *matching) take(c choice) bool {
	for _, use := range c.uses {
		if m.taken[use] {
			return false
		}
	}
	for _, use := range c.uses {
		m.taken[use] = true
	}
	return true
}

func (m *matching) release(c choice) {
	for _, use := range c.uses {
		delete(m.taken, use)
	}
}
