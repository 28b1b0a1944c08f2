package verifier

import (
	"slices"
	"strings"
)

// place is one of the places where candidates of a subject may be. The zero
// place is the referrers in its own repository.
type place struct {
	repository Reference // its registry and path; zero: the subject's own
	suffix     string    // of the tag; none: referrers
	leftovers  bool      // see Wanted
}

// merge puts together what verifiers want, by the repository in which they want
// it, the subject's own first.
func merge(all []Wanted) []Wanted {
	merged := []Wanted{{}}
	for _, w := range all {
		i := slices.IndexFunc(merged, func(m Wanted) bool { return m.Repository == w.Repository })
		if i < 0 {
			i = len(merged)
			merged = append(merged, Wanted{Repository: w.Repository})
		}
		merged[i].ArtifactTypes = appendNew(merged[i].ArtifactTypes, w.ArtifactTypes)
		merged[i].TagSuffixes = appendNew(merged[i].TagSuffixes, w.TagSuffixes)
	}
	return merged
}

func appendNew[T comparable](list, more []T) []T {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// places are all in which something is wanted, in the order in which people are
// told of what was found there.
func places(wanted []Wanted) []place {
	var list []place
	for _, w := range wanted {
		if len(w.ArtifactTypes) > 0 {
			list = append(list, place{repository: w.Repository})
		}
		for _, suffix := range w.TagSuffixes {
			list = append(list, place{repository: w.Repository, suffix: suffix})
		}
		if len(w.ArtifactTypes) > 0 {
			list = append(list, place{repository: w.Repository, leftovers: true})
		}
	}
	return list
}

// wantedKey is equal for chains that look for the same.
func wantedKey(wanted []Wanted) string {
	var b strings.Builder
	for _, w := range wanted {
		b.WriteString(w.Repository.Name() + " " + strings.Join(w.ArtifactTypes, ",") + " " + strings.Join(w.TagSuffixes, ",") + "\n")
	}
	return b.String()
}

// ask is what is wanted in some places, by repository. Leftovers are asked for
// alone.
func ask(wanted []Wanted, places []place) []Wanted {
	var asks []Wanted
	for _, w := range wanted {
		only := Wanted{Repository: w.Repository}
		for _, p := range places {
			switch {
			case p.repository != w.Repository:
			case p.suffix != "":
				only.TagSuffixes = append(only.TagSuffixes, p.suffix)
			default:
				only.ArtifactTypes, only.Leftovers = w.ArtifactTypes, p.leftovers
			}
		}
		if len(only.ArtifactTypes)+len(only.TagSuffixes) > 0 {
			asks = append(asks, only)
		}
	}
	return asks
}

// stages is in which order the places are asked; those of one stage are asked
// together. First comes where proof came from before, when that is known: it
// saves requests, and decides nothing, because without proof all are asked.
// Last comes what hardly ever is there.
func (c *Chain) stages(subject Subject, exhaustive bool) [][]place {
	var likely []place
	if !exhaustive {
		likely = c.memory.likely(c.store.ID(), subject, c.wantedKey)
	}
	var stages [][]place
	add := func(want func(place) bool) {
		if stage := where(c.places, want); len(stage) > 0 {
			stages = append(stages, stage)
		}
	}
	add(func(p place) bool { return !p.leftovers && slices.Contains(likely, p) })
	add(func(p place) bool { return !p.leftovers && !slices.Contains(likely, p) })
	add(func(p place) bool { return p.leftovers })
	return stages
}

func where(places []place, want func(place) bool) []place {
	return slices.DeleteFunc(slices.Clone(places), func(p place) bool { return !want(p) })
}

// at is the subject as a repository other than its own would have it.
func (s Subject) at(repository Reference) Subject {
	if repository == (Reference{}) {
		return s
	}
	return Subject{Reference: repository, Digest: s.Digest}
}
