package config

import (
	"cmp"
	"slices"
	"strings"
)

// index finds the policies whose patterns match an image, most specific first.
type index struct {
	byName   map[place][]entry // patterns with a literal host
	wildcard []entry           // all others; less specific than any of those
}

// place is a literal host, and the first segment of the path where that is
// literal too.
type place struct{ host, first string }

func (p *pattern) place() place {
	first := p.path.segments[0]
	if first.class != classLiteral {
		return place{host: p.host.literal}
	}
	return place{p.host.literal, first.text}
}

// entry is one pattern of one policy.
type entry struct {
	pattern *pattern
	policy  *policy
}

func newIndex(policies []*policy) *index {
	x := &index{byName: map[place][]entry{}}
	for _, p := range policies {
		for i := range p.patterns {
			e := entry{&p.patterns[i], p}
			if at := e.pattern.place(); at.host != "" {
				x.byName[at] = append(x.byName[at], e)
			} else {
				x.wildcard = append(x.wildcard, e)
			}
		}
	}
	for _, entries := range x.byName {
		slices.SortFunc(entries, moreSpecific)
	}
	slices.SortFunc(x.wildcard, moreSpecific)
	return x
}

// moreSpecific puts the greater rank first, and equals in an order that does
// not depend on how they came.
func moreSpecific(a, b entry) int {
	return cmp.Or(
		strings.Compare(b.pattern.rank, a.pattern.rank),
		compareIDs(a.policy.ID, b.policy.ID),
		strings.Compare(a.pattern.text, b.pattern.text),
	)
}

func compareIDs(a, b ID) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// match lists, most specific first, the patterns that match and whose policy
// applies, until enough says that the rest does not matter.
func (x *index) match(n *name, applies func(*policy) bool, enough func(found []entry, next entry) bool) []entry {
	var found []entry
	// A literal first segment is more specific than any other.
	for _, entries := range [][]entry{x.byName[place{n.host, n.path[0]}], x.byName[place{host: n.host}], x.wildcard} {
		for _, e := range entries {
			if enough(found, e) {
				return found
			}
			if applies(e.policy) && e.pattern.matches(n) {
				found = append(found, e)
			}
		}
	}
	return found
}

// winners are the most specific matches: one, or several that tie.
func (x *index) winners(n *name, applies func(*policy) bool) []entry {
	return x.match(n, applies, func(found []entry, next entry) bool {
		return len(found) > 0 && next.pattern.rank < found[0].pattern.rank
	})
}

func everywhere(*policy) bool { return true }

// policiesOf lists the policies, each once, in their order.
func policiesOf(entries []entry) []*policy {
	var list []*policy
	for _, e := range entries {
		if !slices.Contains(list, e.policy) {
			list = append(list, e.policy)
		}
	}
	return list
}

// appliesIn reports whether a ClusterTrustPolicy applies in the namespace.
func (p *policy) appliesIn(namespace string) bool {
	if len(p.namespaces) == 0 {
		return true
	}
	return slices.ContainsFunc(p.namespaces, func(pattern string) bool { return globText(pattern, namespace) })
}

// appliesEverywhere reports whether it applies in each namespace there may be.
func (p *policy) appliesEverywhere() bool {
	return len(p.namespaces) == 0 || slices.Contains(p.namespaces, "*")
}
