package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// State is how a document fares.
type State string

// The states of a document.
const (
	StateReady    State = "ready"     // in force as it is written
	StateLastGood State = "last good" // broken; an earlier version is in force
	StateBroken   State = "broken"    // broken from the start; its images are undecided
	// StateContested is in force but for patterns that another document has.
	StateContested State = "contested"
)

// PolicyStatus tells how one document fares.
type PolicyStatus struct {
	ID
	File     string
	Line     int
	Images   []string // the patterns in force
	State    State
	Problems []Problem
	// Boundless is set for a broken document whose images cannot be read, so that
	// every image that it may be about is undecided.
	Boundless bool
	// Generation of the object that this is about; 0 for a file.
	Generation int64
	// Audits is set for a policy in force that only audits.
	Audits bool
	// ExpiresAt is when an Exemption ends; zero for policies.
	ExpiresAt time.Time
	// Unreachable says which thresholds can never be met, because too few of their
	// entries count apart.
	Unreachable []string
	// Warnings are about what the document refers to: it counts, and is not as it
	// should be.
	Warnings []Problem
}

// builder makes Snapshots, one after the other: it remembers which version of
// each document was good last. Not safe for concurrent use.
type builder struct {
	env     Environment
	serials uint64
	last    map[ID]*policy       // in force and not broken, with all its patterns
	ratify  map[string][]*policy // those of Ratify's objects by namespace, good last
	// ratifyFrom are the objects that those of ratify were made of.
	ratifyFrom map[string][]ratify.Object
	kept       kept // what an earlier process left
	standing   []*standing
	current    *Snapshot
}

func newBuilder(env Environment) *builder {
	return &builder{env: env, last: map[ID]*policy{}, current: &Snapshot{env: env, podChains: newPodChains(), cluster: newIndex(nil), exemptions: newExemptions(nil)}}
}

// lastGood lists the good versions in a stable order, and those that an earlier
// process left.
func (b *builder) lastGood() []*Document {
	var list []*Document
	for _, p := range b.last {
		list = append(list, p.doc)
	}
	for _, doc := range b.kept.documents {
		list = append(list, doc)
	}
	slices.SortFunc(list, func(x, y *Document) int { return compareIDs(x.ID, y.ID) })
	return list
}

// standing is one policy on its way into a Snapshot.
type standing struct {
	id  ID
	doc *Document // the latest version
	// good is the version in force where that is not broken, and policy what it,
	// or the broken one, decides: without patterns that another document has.
	good     *policy
	policy   *policy
	state    State
	problems []Problem
	warnings []Problem
}

// revision is what a Snapshot is made of.
type revision struct {
	documents []*Document
	// kept are those of them that stand in no file any more, because theirs has an error.
	kept map[*Document]bool
	// dark reports whether a document may stay dark: nothing was known of its
	// file when the process started, and the file was never whole since.
	dark func(*Document) bool
	// ratify are Ratify's objects, and home the namespace that was Ratify's.
	ratify []ratify.Object
	home   string
	// problems that belong to no document.
	problems []Problem
	sources  *sources
}

// build makes the next Snapshot.
func (b *builder) build(r revision) *Snapshot {
	var all []*standing
	var unknown []*Document
	versions := map[ID][]*Document{}
	for _, doc := range r.documents {
		if doc.unknown {
			unknown = append(unknown, doc)
		} else {
			versions[doc.ID] = append(versions[doc.ID], doc)
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(versions), compareIDs) {
		s := b.stand(id, versions[id], r.sources)
		if s.state == StateReady && r.kept[s.doc] {
			s.state = StateLastGood
		}
		all = append(all, s)
	}
	for _, doc := range unknown {
		id := ID{Kind: doc.Kind, Namespace: doc.Namespace, Name: position(doc.File, doc.Line)}
		s := &standing{id: id, doc: doc, problems: doc.Problems}
		b.giveUp(s, r.sources)
		all = append(all, s)
	}
	settleTwins(all)
	next := b.assemble(all, r)
	b.addRatify(next, r)
	b.last, b.standing = map[ID]*policy{}, all
	for _, s := range all {
		if s.good != nil {
			b.last[s.id] = s.good
		}
	}
	b.kept.forget(all)
	next.keepChains(b.current)
	b.current = next
	return next
}

// stand finds the version of a document that is in force.
func (b *builder) stand(id ID, versions []*Document, sources *sources) *standing {
	s := &standing{id: id, doc: versions[0]}
	if len(versions) > 1 {
		s.doc = union(versions)
		s.problems = s.doc.Problems
		b.giveUp(s, sources)
		return s
	}
	if s.problems = s.doc.Problems; len(s.problems) == 0 {
		s.good, s.warnings, s.problems = b.compile(s.doc, sources)
		s.policy, s.state = s.good, StateReady
	}
	if len(s.problems) > 0 {
		b.giveUp(s, sources)
	}
	return s
}

// union stands for several documents of one name, of which nobody knows which
// is meant.
func union(versions []*Document) *Document {
	u := *versions[0]
	u.Problems, u.images = nil, nil
	for i, doc := range versions {
		other := versions[(i+1)%len(versions)]
		u.Problems = append(u.Problems, doc.Problems...)
		u.Problems = append(u.Problems, doc.problem("metadata.name", "another document has this name: "+position(other.File, other.Line),
			"Rename one of them, or delete it", verifier.ReasonPolicyInvalid))
		u.images = append(u.images, doc.images...)
		if !slices.Equal(doc.namespaces, versions[0].namespaces) {
			u.namespaces = []string{"*"}
		}
	}
	return &u
}

// place says where a document that is no object is.
func (doc *Document) place() string {
	if doc.inCluster {
		return ""
	}
	return ": " + position(doc.File, doc.Line)
}

func position(file string, line int) string { return file + ":" + strconv.Itoa(line) }

// compile makes the document's policy, or gives the one that was made before
// of the same words and the same material. What crashes on one document leaves
// the others alone.
func (b *builder) compile(doc *Document, sources *sources) (p *policy, warnings, problems []Problem) {
	defer func() {
		if crash := recover(); crash != nil {
			p, warnings, problems = nil, nil, []Problem{doc.problem("", fmt.Sprint("reading it crashed: ", crash), "Report this with the document", verifier.ReasonInternal)}
		}
	}()
	m, problems := gather(doc, sources)
	if len(problems) > 0 {
		return nil, m.warnings, problems
	}
	if known := b.known(doc); known != nil && known.doc.content == doc.content && known.material == m.sum {
		return known, m.warnings, nil
	}
	if doc.Kind == api.KindExemption {
		p, problems = compileExemption(doc)
	} else {
		p, problems = compile(b.env, doc, m)
	}
	if p != nil {
		p.serial = b.serial()
	}
	return p, m.warnings, problems
}

// known is the last good version of the document; not of another object that had
// the same name.
func (b *builder) known(doc *Document) *policy {
	if p := b.last[doc.ID]; p != nil && p.doc.uid == doc.uid {
		return p
	}
	return nil
}

func (b *builder) serial() uint64 {
	b.serials++
	return b.serials
}

// giveUp puts the last good version in force, with its material as it is now
// if that is sound, or else makes the images undecided. What it trusted and what
// was withdrawn since is trusted no more.
func (b *builder) giveUp(s *standing, sources *sources) {
	good := b.known(s.doc)
	if good == nil {
		good = b.restore(s.doc, sources)
	}
	if good == nil {
		b.breakDown(s, s.problems[0])
		return
	}
	renewed, warnings, problems := b.compile(good.doc, sources)
	withdrawn := problems
	if len(problems) > 0 && (material{warnings: warnings}).withdrawn() != good.withdrawn {
		withdrawn = append(slices.Clone(problems), warnings...)
	}
	if i := slices.IndexFunc(withdrawn, func(p Problem) bool { return p.Withdrawn }); i >= 0 {
		if good.doc != s.doc {
			s.problems = append(s.problems, withdrawn[i])
		}
		b.kept.withdraw(s.id)
		b.breakDown(s, withdrawn[i])
		return
	}
	s.good, s.state = good, StateLastGood
	if len(problems) == 0 {
		s.good, s.warnings = renewed, warnings
	}
	s.policy = s.good
}

func (b *builder) breakDown(s *standing, cause Problem) {
	s.good, s.policy, s.state = nil, broken(s.doc, cause), StateBroken
	s.policy.serial = b.serial()
}

// assemble makes the Snapshot of what stands.
func (b *builder) assemble(all []*standing, r revision) *Snapshot {
	s := &Snapshot{env: b.env, podChains: newPodChains(), tenants: map[string]*index{}, inForce: map[uint64]bool{}, problems: slices.Clone(r.problems)}
	var cluster, exempt []*policy
	tenants := map[string][]*policy{}
	for _, standing := range all {
		p := standing.policy
		s.inForce[p.serial] = true
		s.problems = append(s.problems, standing.problems...)
		s.policies = append(s.policies, standing.status())
		if standing.state == StateBroken && r.dark(standing.doc) && !standing.doc.whole() && p.Kind != api.KindExemption {
			s.dark = append(s.dark, p)
		}
		switch {
		case p.Kind == api.KindTrustPolicy:
			tenants[p.Namespace] = append(tenants[p.Namespace], p)
		case p.Kind != api.KindExemption:
			cluster = append(cluster, p)
		case p.exemption != nil: // a broken one exempts nothing
			exempt = append(exempt, p)
		}
	}
	s.cluster, s.exemptions = newIndex(cluster), newExemptions(exempt)
	for namespace, policies := range tenants {
		s.tenants[namespace] = newIndex(policies)
	}
	sortProblems(s.problems)
	return s
}

func (s *standing) status() PolicyStatus {
	status := PolicyStatus{ID: s.id, File: s.doc.File, Line: s.doc.Line, State: s.state, Problems: s.problems, Warnings: s.warnings,
		Generation: s.doc.generation, Audits: s.policy.rule.AuditOnly}
	status.Boundless = s.state == StateBroken && s.doc.boundless()
	for _, p := range s.policy.patterns {
		status.Images = append(status.Images, p.text)
	}
	if s.policy.exemption != nil {
		status.ExpiresAt = s.policy.exemption.Until
	}
	if s.policy.broken == nil {
		status.Unreachable = unreachable(s.policy.rule.Require)
	}
	return status
}

// Ready says why nothing can be decided, or gives nil. An object that makes every
// image undecided does not count: a provider that is not ready gives no answer at
// all, and a webhook that ignores failures admits then.
func (s *Snapshot) Ready() error {
	for _, p := range s.dark {
		if p.Kind != api.KindTrustPolicy && (p.doc == nil || !p.doc.inCluster) {
			return fmt.Errorf("every image is undecided: %w", p.broken)
		}
	}
	return nil
}

// Count counts documents by state, for metrics.
func (s *Snapshot) Count() map[State]int {
	counts := map[State]int{StateReady: 0, StateLastGood: 0, StateBroken: 0, StateContested: 0}
	for _, p := range s.policies {
		counts[p.State]++
	}
	return counts
}
