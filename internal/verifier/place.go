package verifier

import (
	"slices"
	"strings"
)

// place is one of the places where candidates of a subject may be. The zero
// place is the referrers.
type place struct {
	suffix    string // of the tag; none: referrers
	leftovers bool   // see Wanted
}

// places are all that a chain may have to ask, in the order in which people
// are told of what was found there.
func (w Wanted) places() []place {
	var list []place
	if len(w.ArtifactTypes) > 0 {
		list = append(list, place{})
	}
	for _, suffix := range w.TagSuffixes {
		list = append(list, place{suffix: suffix})
	}
	if len(w.ArtifactTypes) > 0 {
		list = append(list, place{leftovers: true})
	}
	return list
}

// key is equal for chains that look for the same.
func (w Wanted) key() string {
	return strings.Join(w.ArtifactTypes, ",") + " " + strings.Join(w.TagSuffixes, ",")
}

// at is what is wanted in some of its places. Leftovers are asked for alone.
func (w Wanted) at(places []place) Wanted {
	var only Wanted
	for _, p := range places {
		switch {
		case p.suffix != "":
			only.TagSuffixes = append(only.TagSuffixes, p.suffix)
		default:
			only.ArtifactTypes, only.Leftovers = w.ArtifactTypes, p.leftovers
		}
	}
	return only
}

// stages is in which order the places are asked; those of one stage are asked
// together. First comes where proof came from before, when that is known: it
// saves requests, and decides nothing, because without proof all are asked.
// Last comes what hardly ever is there.
func (c *Chain) stages(subject Subject, exhaustive bool) [][]place {
	all := c.wanted.places()
	var likely []place
	if !exhaustive {
		likely = c.memory.likely(subject, c.wanted)
	}
	var stages [][]place
	add := func(stage []place, want func(place) bool) {
		if stage = slices.DeleteFunc(slices.Clone(stage), func(p place) bool { return !want(p) }); len(stage) > 0 {
			stages = append(stages, stage)
		}
	}
	add(all, func(p place) bool { return !p.leftovers && slices.Contains(likely, p) })
	add(all, func(p place) bool { return !p.leftovers && !slices.Contains(likely, p) })
	add(all, func(p place) bool { return p.leftovers })
	return stages
}
