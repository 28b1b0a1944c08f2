package verifier

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
)

const (
	// maxFindingAge bounds what we remember of a proof, whatever it rests on.
	maxFindingAge = time.Hour
	// findingSize is what a remembered finding costs, with names and a reason.
	findingSize = 1 << 10
	// slowImageAge is how long an image that was not decided in time is expected not
	// to be; long enough that a pod's retries find it known.
	slowImageAge = 10 * time.Second
	// slowImagesSize bounds the images that are remembered so.
	slowImagesSize = 1 << 20
	// placesSize bounds what is remembered of where proof was found, and
	// placesAge for how long.
	placesSize = 1 << 20
	placesAge  = 24 * time.Hour
)

// Memory is what outlives a Snapshot: findings, by everything they rest on,
// where proof was found and which candidates it was, and which images were not decided
// in time. Safe for concurrent use.
type Memory struct {
	findings *cache.Cache[findings]
	renewals flight.Group[struct{}]
	places   *cache.Cache[[]place]
	slow     *cache.Cache[*Error] // by image and all that judges it: no image speaks for another
	shares   *shares
	proofs   proofMemory
}

// NewMemory makes a memory that keeps at most findingBytes of findings.
func NewMemory(findingBytes int64) *Memory {
	return &Memory{
		findings: cache.New[findings](findingBytes),
		places:   cache.New[[]place](placesSize),
		slow:     cache.New[*Error](slowImagesSize),
		shares:   newShares(),
		proofs:   proofMemory{age: DefaultProofAge, cache: cache.New[proofs](proofsSize)},
	}
}

// FindingStats tells how the findings fare.
func (m *Memory) FindingStats() cache.Stats { return m.findings.Stats() }

// findingKey names all that a finding rests on: the check with its material,
// the repository, the subject and the candidate. No tag.
func findingKey(c *Check, s Subject, candidate digest.Digest) string {
	return strings.Join([]string{c.Fingerprint, s.Reference.Name(), s.Digest.String(), candidate.String()}, "\n")
}

// findings are what a check made of a candidate.
type findings struct {
	findings []Finding
	// renewAt is when they are made anew, ahead of when the first of them must be;
	// zero: at once. Then they are nobody's but whose they are.
	renewAt time.Time
}

// recall gives findings that were kept and still hold.
func (m *Memory) recall(c *Check, s Subject, candidate digest.Digest) (findings, bool) {
	return m.findings.Get(findingKey(c, s, candidate))
}

// keep remembers findings until the first of them must be made anew. Undecided
// is never kept, nor anything without an end or without a fingerprint.
func (m *Memory) keep(c *Check, s Subject, candidate digest.Digest, found []Finding) findings {
	found = lean(found)
	made := findings{findings: found}
	if c.Fingerprint == "" || len(found) == 0 {
		return made
	}
	now := time.Now()
	until := now.Add(maxFindingAge)
	for _, f := range found {
		if f.Err != nil && f.Err.Reason.Undecided() {
			return made
		}
		until = earlier(until, f.ValidUntil)
	}
	if !until.After(now) {
		return made
	}
	made.renewAt = until.Add(now.Sub(until) / 5)
	m.findings.Put(findingKey(c, s, candidate), made, int64(len(found))*findingSize, until)
	return made
}

// likely gives the places where proof for this repository's images was found by the
// same view of the registry, or else for those of its registry; none when nothing is
// known.
func (m *Memory) likely(view string, s Subject, wanted string) []place {
	if places, ok := m.places.Get(placesKey(view, s.Reference.Name(), wanted)); ok {
		return places
	}
	places, _ := m.places.Get(placesKey(view, s.Reference.Registry, wanted))
	return places
}

// foundAt remembers where proof was found.
func (m *Memory) foundAt(view string, s Subject, wanted string, places []place) {
	until := time.Now().Add(placesAge)
	m.places.Put(placesKey(view, s.Reference.Name(), wanted), places, int64(len(places)), until)
	m.places.Put(placesKey(view, s.Reference.Registry, wanted), places, int64(len(places)), until)
}

func placesKey(view, where, wanted string) string { return view + "\n" + where + "\n" + wanted }
