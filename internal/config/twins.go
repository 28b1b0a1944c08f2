package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// territory is what no two policies may both claim in the same words.
type territory struct{ kind, namespaces, pattern string }

func (p *policy) territory(of pattern) territory {
	scope := p.Namespace
	if p.Kind == api.KindClusterTrustPolicy {
		scope = strings.Join(slices.Sorted(slices.Values(p.namespaces)), " ")
	}
	return territory{p.Kind, scope, of.text}
}

// settleTwins gives each pattern to the oldest of the documents that claim it for
// the same namespaces, because the documents do not say which is meant. The others decide
// what else they claim as they say: were they refused as a whole, a document could
// stop another by claiming what that one has, and a weaker policy could take the
// place of either.
//
// It depends on the documents alone, never on which of them came first to this
// process, so that all replicas agree, before a restart and after.
func settleTwins(all []*standing) {
	owners := map[territory]*standing{}
	for _, s := range slices.SortedFunc(slices.Values(all), older) {
		if s.policy.Kind == api.KindExemption { // any number may exempt the same
			continue
		}
		var rest []pattern
		for _, p := range s.policy.patterns {
			t := s.policy.territory(p)
			switch owner := owners[t]; {
			case p.guessed: // it may be about less, and that another would decide
			case owner == nil:
				owners[t] = s
			default:
				s.problems = append(slices.Clip(s.problems), s.twin(t, owner))
				continue
			}
			rest = append(rest, p)
		}
		if len(rest) < len(s.policy.patterns) {
			s.contest(rest)
		}
	}
}

// contest leaves the document what no older one has.
func (s *standing) contest(rest []pattern) {
	p := *s.policy
	p.patterns = rest
	s.policy = &p
	if s.state == StateReady {
		s.state = StateContested
	}
}

// older puts the document first that has what both claim. Objects go by their
// age; the API server counts it in seconds, and the UID tells those apart that it
// gives the same. Documents of files go by name, and one whose name could not be
// read comes last.
func older(a, b *standing) int {
	unknown := func(s *standing) int { return map[bool]int{true: 1}[s.doc.unknown] }
	return cmp.Or(
		cmp.Compare(unknown(a), unknown(b)),
		a.doc.created.Compare(b.doc.created),
		strings.Compare(a.doc.uid, b.doc.uid),
		compareIDs(a.id, b.id),
		strings.Compare(a.doc.File, b.doc.File), cmp.Compare(a.doc.Line, b.doc.Line),
	)
}

func (s *standing) twin(t territory, owner *standing) Problem {
	path := "spec.images"
	for i, text := range s.doc.images {
		if p, ok := claim(text); ok && p.text == t.pattern {
			path = element(path, i)
			break
		}
	}
	which := "The older one decides"
	if !owner.doc.inCluster {
		which = "The one whose name comes first decides"
	}
	return s.doc.problem(path,
		fmt.Sprintf("%s has the same pattern%s", owner.id, owner.doc.place()),
		which+": write both into one policy, or change a pattern", verifier.ReasonPolicyInvalid)
}
