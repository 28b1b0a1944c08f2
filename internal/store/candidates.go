package store

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// list is all that may be a candidate of a subject in the places that were
// asked: referrers in the registry's order, then tags in the order of the suffixes.
type list struct {
	entries []entry
	errs    []error   // what concerns the whole list
	made    time.Time // when its oldest part was
	until   time.Time // when the first of its parts is asked for again
}

// part is what one place holds, as it is remembered. It is shared: not to be changed.
type part struct {
	listing
	made time.Time
	// until is when it must be asked for again; zero: at once.
	until time.Time
	// renewAt is when it is asked for ahead of that.
	renewAt time.Time
}

// end is when it is asked for again, ahead of its time or not.
func (p *part) end() time.Time {
	if len(p.entries) == 0 {
		return p.until
	}
	return p.renewAt
}

func (p *part) cost() int64 {
	var bytes int
	for _, e := range p.entries {
		bytes += 250 + len(e.descriptor.MediaType) + len(e.descriptor.Digest) + len(e.descriptor.ArtifactType)
	}
	return int64(bytes)
}

// found is one candidate read, or why it could not be.
type found struct {
	candidate verifier.Candidate
	err       error
	skip      bool // of no wanted type after all
}

// Candidates implements verifier.Store. Manifests are fetched ahead of the
// consumer and given in the list's order; a consumer who stops, stops that.
func (v *View) Candidates(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted) verifier.Listing {
	var until time.Time
	return verifier.Listing{All: v.candidates(ctx, subject, wanted, &until), Until: func() time.Time { return until }}
}

func (v *View) candidates(ctx context.Context, subject verifier.Subject, wanted verifier.Wanted, until *time.Time) iter.Seq2[verifier.Candidate, error] {
	return func(yield func(verifier.Candidate, error) bool) {
		c := v.client(subject.Reference.Registry)
		listing, again := ctx, false
		for begun := time.Now(); ; {
			l := v.list(listing, c, subject, wanted)
			*until = l.until
			none := true
			for f := range v.read(ctx, c, l, subject, wanted) {
				if f.skip {
					continue
				}
				none = false
				if !yield(f.candidate, f.err) {
					return
				}
			}
			if ctx.Err() != nil {
				yield(verifier.Candidate{}, gaveUp(c.host, context.Cause(ctx)))
				return
			}
			if none && !again && l.made.Before(begun) && time.Since(l.made) > v.store.options.EmptyListTTL {
				// Something was listed and none of it was wanted: like an empty
				// list, that is believed for a few seconds only. The registry is asked
				// once more, and no cache, neither ours nor the one that replicas share.
				listing, again = verifier.Afresh(ctx), true
				continue
			}
			for _, err := range l.errs {
				if !yield(verifier.Candidate{}, err) {
					return
				}
			}
			return
		}
	}
}

// Candidate implements verifier.Store.
func (v *View) Candidate(ctx context.Context, subject verifier.Subject, known verifier.Candidate) (verifier.Candidate, error) {
	e := entry{descriptor: known.Descriptor, source: known.Source, suffix: known.TagSuffix}
	wanted := verifier.Wanted{ArtifactTypes: []string{verifier.AnyArtifactType}}
	f := v.candidate(ctx, v.client(subject.Reference.Registry), e, subject, wanted)
	return f.candidate, f.err
}

// Exists implements verifier.Store.
func (v *View) Exists(ctx context.Context, subject verifier.Subject) error {
	c := v.client(subject.Reference.Registry)
	if err := c.exists(ctx, c.repository(subject.Reference), subject.Digest); err != nil {
		return gaveUp(c.host, err)
	}
	return nil
}

// list asks the wanted places at the same time.
func (v *View) list(ctx context.Context, c *client, subject verifier.Subject, wanted verifier.Wanted) *list {
	var ways []func() *part
	switch {
	case len(wanted.ArtifactTypes) == 0:
	case wanted.Leftovers:
		ways = append(ways, func() *part { return v.leftovers(ctx, c, subject, wanted) })
	default:
		ways = append(ways, func() *part { return v.referrers(ctx, c, subject, wanted) })
	}
	for _, suffix := range wanted.TagSuffixes {
		ways = append(ways, func() *part { return v.suffixed(ctx, c, subject, suffix) })
	}
	l := &list{made: time.Now()}
	l.until = l.made.Add(v.store.options.ListTTL)
	parts := together(ways)
	for _, p := range parts {
		l.entries = append(l.entries, p.entries...)
		if p.err != nil {
			l.errs = append(l.errs, p.err)
		}
		if p.made.Before(l.made) {
			l.made = p.made
		}
		if end := p.end(); end.Before(l.until) {
			l.until = end
		}
	}
	return l
}

// referrers gives what is attached to the subject: by the referrers API, or by
// the tag schema where there is none.
//
// Whether there is an API is remembered, to save a request. The memory decides
// only what is asked first: before "nothing is attached" both were asked, the
// tag as leftovers where there is an API.
func (v *View) referrers(ctx context.Context, c *client, subject verifier.Subject, wanted verifier.Wanted) *part {
	api, known := v.store.referrersAPI.Get(c.key())
	if known && !api {
		if p := v.byTag(ctx, c, subject, wanted); len(p.entries) > 0 || p.err != nil {
			return p
		}
	}
	p := v.byAPI(ctx, c, subject, wanted)
	if len(p.entries) > 0 || p.err != nil || !p.noAPI || known && !api {
		return p
	}
	return v.byTag(ctx, c, subject, wanted)
}

// leftovers gives what clients left under the tag before the registry was given
// the API: registries do not move it.
func (v *View) leftovers(ctx context.Context, c *client, subject verifier.Subject, wanted verifier.Wanted) *part {
	if api, known := v.store.referrersAPI.Get(c.key()); known && !api {
		now := time.Now()
		return &part{made: now, until: now.Add(v.store.options.ListTTL)} // referrers gave it
	}
	return v.byTag(ctx, c, subject, wanted)
}

func (v *View) byAPI(ctx context.Context, c *client, subject verifier.Subject, wanted verifier.Wanted) *part {
	return v.part(ctx, c, subject, "api "+strings.Join(wanted.ArtifactTypes, ","), func(ctx context.Context) listing {
		return c.referrersByAPI(ctx, c.repository(subject.Reference), subject.Digest, wanted)
	})
}

func (v *View) byTag(ctx context.Context, c *client, subject verifier.Subject, wanted verifier.Wanted) *part {
	return v.part(ctx, c, subject, "tag "+strings.Join(wanted.ArtifactTypes, ","), func(ctx context.Context) listing {
		return c.referrersByTag(ctx, c.repository(subject.Reference), subject.Digest, wanted)
	})
}

func (v *View) suffixed(ctx context.Context, c *client, subject verifier.Subject, suffix string) *part {
	return v.part(ctx, c, subject, "suffix "+suffix, func(ctx context.Context) listing {
		return c.suffixed(ctx, c.repository(subject.Reference), subject.Digest, suffix)
	})
}

// part gives what one place holds, from memory or from the registry, asked once
// for all who want it now.
func (v *View) part(ctx context.Context, c *client, subject verifier.Subject, place string, ask func(context.Context) listing) *part {
	s := v.store
	key := c.key("list", c.repository(subject.Reference), subject.Digest.String(), place)
	read := func(ctx context.Context) (*part, error) {
		if p, ok := remembered(ctx, s.lists, key); ok && time.Now().Before(p.renewAt) {
			return p, nil
		}
		if p, ok := s.options.Shared.part(ctx, key, s.options.ListTTL); ok {
			s.lists.Put(key, p, p.cost(), p.until)
			return p, nil
		}
		p := &part{listing: ask(ctx), made: time.Now()}
		ttl := s.options.ListTTL
		if len(p.entries) == 0 || p.err != nil {
			ttl = s.options.EmptyListTTL
		}
		// That there is too much is a fact about the list; all else is a failure
		// to read it, and is not remembered.
		if p.err == nil || verifier.AsError(p.err).Reason == verifier.ReasonLimitExceeded {
			p.until, p.renewAt = p.made.Add(ttl), p.made.Add(ttl-ttl/renewedAhead)
			s.lists.Put(key, p, p.cost(), p.until)
			s.options.Shared.putPart(key, p)
		}
		return p, nil
	}
	if p, ok := remembered(ctx, s.lists, key); ok {
		if len(p.entries) > 0 && time.Now().After(p.renewAt) {
			behind(ctx, &s.listFlights, class(ctx, key), s.options.Budget, read)
		}
		return p
	}
	p, err := s.listFlights.Do(ctx, class(ctx, key), s.options.Budget, read)
	if err != nil {
		return &part{listing: listing{err: gaveUp(c.host, err)}, made: time.Now()}
	}
	return p
}

// together runs all and gives their results in order. A panic reaches the
// caller, whose flight knows what to do with it.
func together(ways []func() *part) []*part {
	parts := make([]*part, len(ways))
	if len(ways) == 1 {
		parts[0] = ways[0]()
		return parts
	}
	panics := make([]any, len(ways))
	var wait sync.WaitGroup
	for i, way := range ways {
		wait.Go(func() {
			defer func() { panics[i] = recover() }()
			parts[i] = way()
		})
	}
	wait.Wait()
	for _, p := range panics {
		if p != nil {
			panic(p)
		}
	}
	return parts
}

// read gives the list's candidates in its order. What is in memory is given at
// once; from the first that is not, manifests are fetched ahead.
func (v *View) read(ctx context.Context, c *client, l *list, subject verifier.Subject, wanted verifier.Wanted) iter.Seq[found] {
	return func(yield func(found) bool) {
		release, err := c.holding(ctx, l)
		if err != nil {
			yield(found{err: err})
			return
		}
		defer release()
		for i, e := range l.entries {
			m, ok := v.store.manifests.Get(manifestKey(e.descriptor))
			if !ok {
				ahead(ctx, l.entries[i:], func(ctx context.Context, e entry) found {
					return v.candidate(ctx, c, e, subject, wanted)
				}, yield)
				return
			}
			if !yield(judge(e, m, subject, wanted)) {
				return
			}
		}
	}
}

// ahead works on up to lookAhead entries at a time, fewer where they are large, and
// yields in order. When it returns, nothing that it started is left.
func ahead(ctx context.Context, entries []entry, work func(context.Context, entry) found, yield func(found) bool) {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	results := make([]chan found, len(entries))
	var started int
	var bytes int64 // of those that are not yielded
	for i := range entries {
		for started < min(i+lookAhead, len(entries)) && (started == i || bytes+entries[started].bytes() <= maxAheadBytes) {
			e, result := entries[started], make(chan found, 1)
			results[started] = result
			wait.Go(func() { result <- work(ctx, e) })
			bytes += e.bytes()
			started++
		}
		f := <-results[i]
		bytes -= entries[i].bytes()
		if ctx.Err() != nil || !yield(f) { // given up: what failed for that is no finding
			return
		}
	}
}

// candidate fetches and judges one entry.
func (v *View) candidate(ctx context.Context, c *client, e entry, subject verifier.Subject, wanted verifier.Wanted) found {
	d := e.descriptor
	unread := verifier.Candidate{Descriptor: d, Source: e.source, TagSuffix: e.suffix}
	if !undetermined(d.ArtifactType) {
		unread.ArtifactType = d.ArtifactType
	}
	if !isManifest(d.MediaType) {
		return found{
			candidate: unread,
			err:       &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: "a candidate is not a manifest but of another media type"},
			skip:      e.source != verifier.SourceTagSuffix && !selects(wanted, d.ArtifactType),
		}
	}
	if err := checkCandidate(e); err != nil {
		return found{candidate: unread, err: err}
	}
	m, err := v.manifest(ctx, c, c.repository(subject.Reference), d)
	if err != nil {
		return found{candidate: unread, err: gaveUp(c.host, err)}
	}
	return judge(e, m, subject, wanted)
}

// checkCandidate refuses an entry before its manifest is requested.
func checkCandidate(e entry) error {
	if limit := candidateLimit(e); e.descriptor.Size > limit {
		return &verifier.Error{
			Reason:  verifier.ReasonLimitExceeded,
			Message: fmt.Sprintf("a signature's manifest has %d bytes; up to %d are read", e.descriptor.Size, limit),
			Remedy:  "Remove it from the repository, or attach it again with fewer annotations",
		}
	}
	return check(e.descriptor, maxManifestBytes)
}

// candidateLimit is how large the manifest of an entry may be.
func candidateLimit(e entry) int64 {
	if e.source == verifier.SourceTagSuffix {
		return maxManifestBytes
	}
	return maxCandidateBytes
}

// bytes is what reading the entry's manifest takes.
func (e entry) bytes() int64 {
	if e.descriptor.Size > candidateLimit(e) {
		return 0 // it is not read
	}
	return max(e.descriptor.Size, 0)
}

// manifest fetches and decodes a manifest once for all who want it.
func (v *View) manifest(ctx context.Context, c *client, repository string, d ocispec.Descriptor) (*manifest, error) {
	s, key := v.store, manifestKey(d)
	if m, ok := s.manifests.Get(key); ok {
		return m, nil
	}
	return s.manifestFlights.Do(ctx, class(ctx, c.key(repository, key, strconv.FormatInt(d.Size, 10))), s.options.Budget, func(ctx context.Context) (*manifest, error) {
		if m, ok := s.manifests.Get(key); ok {
			return m, nil
		}
		release, err := c.reading(ctx, d.Size)
		if err != nil {
			return nil, err
		}
		defer release()
		data, err := c.content(ctx, repository, d)
		if err != nil {
			return nil, err
		}
		m := decodeManifest(d.MediaType, data)
		s.manifests.Put(key, m, m.cost(), forever())
		return m, nil
	})
}

// manifestKey has the media type too, as what a list claims of a digest must
// not speak for another list that claims otherwise. The size is compared by judge.
func manifestKey(d ocispec.Descriptor) string {
	return d.Digest.String() + " " + d.MediaType
}

// judge says what a manifest is to this subject.
func judge(e entry, m *manifest, subject verifier.Subject, wanted verifier.Wanted) found {
	f := found{candidate: verifier.Candidate{
		Descriptor:   e.descriptor,
		Manifest:     m.content,
		ArtifactType: m.artifactType,
		Source:       e.source,
		TagSuffix:    e.suffix,
	}}
	attached := e.source != verifier.SourceTagSuffix
	mismatch := m.about(subject.Digest)
	switch {
	case m.size != e.descriptor.Size:
		f.err = wrongSize(e.descriptor, m.size)
	case attached && m.artifactType != "" && !selects(wanted, m.artifactType):
		f.skip = true
	case m.malformed != nil:
		f.err = m.malformed
	// A tag says by its name what it is about; a subject, if there is one, must
	// not say otherwise.
	case mismatch != nil && (attached || m.content.Subject != nil):
		f.err = mismatch
	}
	if f.err != nil {
		f.candidate.Manifest = ocispec.Manifest{}
	}
	return f
}
