package verifier

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/cache"
)

const (
	// DefaultProofAge is how long it is remembered which candidates proved a digest.
	DefaultProofAge = 12 * time.Hour
	// proofsSize bounds what is remembered so in memory, some 10,000 digests, and
	// proofSize is about what one candidate costs.
	proofsSize = 8 << 20
	proofSize  = 512
	// maxProofs is how many candidates of one digest are remembered; a decision that
	// needs more reads the list again.
	maxProofs = 16
	// awayAnswerAge is how long a verdict is repeated that was made while the registry
	// was away, so that the answer soon says so no more when it is back.
	awayAnswerAge = 10 * time.Second
)

// Records keeps small records beyond the life of the process, under a MAC. What it
// gives is what was put, or nothing. Safe for concurrent use.
type Records interface {
	Record(ctx context.Context, key string) ([]byte, bool)
	PutRecord(key string, data []byte, until time.Time)
}

// proofs are the candidates that proved a digest when its lists were read last. More
// evidence cannot turn that into a no, so that the lists need not be read again. It
// is no verdict: findings are made of the candidates, and the rules are decided over
// those, each time.
type proofs struct {
	candidates []Candidate // without their manifests
	listed     time.Time
}

// record is the form of proofs in Records.
type record struct {
	Listed     time.Time   `json:"listed"`
	Candidates []candidate `json:"candidates"`
}

type candidate struct {
	Descriptor   ocispec.Descriptor `json:"descriptor"`
	ArtifactType string             `json:"artifactType,omitempty"`
	Source       Source             `json:"source"`
	TagSuffix    string             `json:"tagSuffix,omitempty"`
	Repository   Reference          `json:"repository,omitzero"`
}

// proofMemory remembers proofs by view, repository and digest.
type proofMemory struct {
	age     time.Duration
	records Records // nil: they are kept in memory alone
	cache   *cache.Cache[proofs]
}

// KeepProofs sets how long the memory knows which candidates proved a digest, and
// where it keeps that beyond the process; nil: nowhere. It must be called before the
// memory is used.
func (m *Memory) KeepProofs(age time.Duration, records Records) {
	m.proofs.age, m.proofs.records = age, records
}

func proofKey(view string, s Subject) string {
	return "proofs " + view + " " + s.Reference.Name() + "@" + s.Digest.String()
}

// of gives what is remembered of the subject. Records are read where beyond says so.
func (m *proofMemory) of(ctx context.Context, view string, s Subject, beyond bool) (proofs, bool) {
	key := proofKey(view, s)
	known, ok := m.cache.Get(key)
	if ok || !beyond || m.records == nil {
		return known, ok
	}
	data, ok := m.records.Record(ctx, key)
	var r record
	if !ok || json.Unmarshal(data, &r) != nil || len(r.Candidates) > maxProofs {
		return proofs{}, false
	}
	known.listed = r.Listed
	for _, c := range r.Candidates {
		known.candidates = append(known.candidates, Candidate{
			Descriptor: c.Descriptor, ArtifactType: c.ArtifactType, Source: c.Source, TagSuffix: c.TagSuffix, Repository: c.Repository,
		})
	}
	until := known.listed.Add(m.age)
	m.cache.Put(key, known, int64(len(known.candidates))*proofSize, until)
	return known, until.After(time.Now())
}

// put remembers the candidates, which were listed now.
func (m *proofMemory) put(view string, s Subject, found map[digest.Digest]Candidate) {
	if len(found) == 0 || len(found) > maxProofs || m.age <= 0 {
		return
	}
	known, r := proofs{listed: time.Now()}, record{Listed: time.Now()}
	for _, c := range found {
		c.Manifest = ocispec.Manifest{}
		known.candidates = append(known.candidates, c)
		r.Candidates = append(r.Candidates, candidate{c.Descriptor, c.ArtifactType, c.Source, c.TagSuffix, c.Repository})
	}
	key, until := proofKey(view, s), known.listed.Add(m.age)
	m.cache.Put(key, known, int64(len(known.candidates))*proofSize, until)
	if m.records == nil {
		return
	}
	if data, err := json.Marshal(r); err == nil {
		m.records.PutRecord(key, data, until)
	}
}

// forget drops what is remembered of a subject whose lists prove nothing any more.
func (m *proofMemory) forget(view string, s Subject) {
	key := proofKey(view, s)
	m.cache.Delete(key)
	if m.records != nil {
		m.records.PutRecord(key, nil, time.Now())
	}
}

// recall decides from the candidates that proved the subject before, without reading
// its lists. Findings that still hold are used as they are. While the registry is
// away the others are made again, from content that is kept, with revocation
// requested as always; while it is not, the lists are read instead.
//
// Only a yes comes of it: whatever is missing here the lists may have. It does no I/O
// unless mayRead says so.
func (c *Chain) recall(ctx context.Context, subject Subject, mayRead bool) (decision, bool) {
	away := c.away(subject)
	known, ok := c.memory.proofs.of(ctx, c.store.ID(), subject, away != nil && mayRead)
	if !ok {
		return decision{}, false
	}
	seen, renew := newObservations(), false
	var spent atomic.Int64
	for _, candidate := range known.candidates {
		for i, check := range c.checks {
			if c.repositories[i] != candidate.Repository || !check.Verifier.Handles(candidate) {
				continue
			}
			t := task{check: check, candidate: candidate}
			made, ok := c.memory.recall(check, subject, candidate.Descriptor.Digest)
			switch {
			case ok:
				renew = renew || time.Now().After(made.renewAt)
			case away != nil && mayRead:
				made = c.again(ctx, subject, t, &spent)
			}
			seen.add(t, made)
		}
	}
	if !c.proved(seen) {
		return decision{}, false
	}
	if renew {
		c.renewProof(ctx, subject)
	}
	d := c.conclude(subject, seen)
	d.verdict.validUntil = earlier(seen.proven(), tagged(subject))
	if away != nil {
		d.verdict = d.verdict.whileAway(away, known.listed)
	}
	return d, true
}

// again verifies a candidate anew that is known by its descriptor.
func (c *Chain) again(ctx context.Context, subject Subject, t task, spent *atomic.Int64) findings {
	at := subject.at(t.candidate.Repository)
	whole, err := c.store.Candidate(ctx, at, t.candidate)
	if err == nil && spent.Add(whole.Descriptor.Size) > maxDecisionBytes {
		err = tooLarge()
	}
	if err != nil {
		t.unread = AsError(err)
		made, _ := c.known(ctx, subject, t)
		return made
	}
	whole.Repository = t.candidate.Repository
	t.candidate = whole
	return c.judge(ctx, subject, t, c.boundedFetch(at, spent))
}

// away is why the view cannot reach the subject's registry, or one that evidence is
// read from, or nil.
func (c *Chain) away(subject Subject) *Error {
	if e := c.store.Away(subject.Reference.Registry); e != nil {
		return e
	}
	for _, w := range c.wanted {
		if w.Repository.Registry == "" {
			continue
		}
		if e := c.store.Away(w.Repository.Registry); e != nil {
			return e
		}
	}
	return nil
}

// renewProof reads the lists again ahead of the findings' end. No caller waits for
// it.
func (c *Chain) renewProof(ctx context.Context, subject Subject) {
	left, leave := context.WithCancel(ctx)
	leave()
	key := proofKey(c.store.ID(), subject) + " " + c.wantedKey
	_, _ = c.memory.renewals.Do(left, key, decisionBudget, func(ctx context.Context) (struct{}, error) {
		c.listed(ctx, subject, false)
		return struct{}{}, nil
	})
}

// listed decides from the lists as the registry gives them.
func (c *Chain) listed(ctx context.Context, subject Subject, exhaustive bool) decision {
	seen := c.look(ctx, subject, exhaustive)
	d := c.conclude(subject, seen)
	if d.undecided != nil || d.away != nil {
		return d
	}
	monotone := !c.exhaustive && d.verdict.status == StatusTrusted
	switch {
	case monotone:
		d.verdict.validUntil = earlier(seen.proven(), tagged(subject))
	default:
		d.verdict.validUntil = earlier(seen.complete(), tagged(subject))
	}
	if !c.exhaustive {
		c.remember(subject, seen, monotone)
	}
	return d
}

// remember keeps which candidates proved the subject, or forgets it.
func (c *Chain) remember(subject Subject, seen *observations, proved bool) {
	if !proved {
		c.memory.proofs.forget(c.store.ID(), subject)
		return
	}
	found := map[digest.Digest]Candidate{}
	for _, reports := range seen.reports {
		for _, report := range reports {
			if report.Outcome() == OutcomeTrusted {
				found[report.Candidate.Descriptor.Digest] = report.Candidate
			}
		}
	}
	c.memory.proofs.put(c.store.ID(), subject, found)
}
