package watch

import (
	"cmp"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// What is told, and is no status of an image: that nothing runs it any more, and that
// those of a registry can be verified again.
const (
	StatusGone     Status = "GONE"
	StatusVerified Status = "VERIFIED"
)

// goneAfter is how long nothing must run an image before that is told: what is
// restarted comes back sooner.
const goneAfter = 5 * time.Minute

// Told is what services were told of an image in a namespace that may not run there.
type Told struct {
	Status Status `json:"status"`
	Digest string `json:"digest,omitempty"`
}

// told knows what services were told, by row, and what is on its way to them, so that
// nothing is told twice. Not safe for concurrent use.
type told struct {
	entries map[string]*toldEntry
	changed bool // since it was kept
}

type toldEntry struct {
	Told
	saying Status // on its way; empty: nothing is
	// missing is since when nothing has run it; zero: something does.
	missing time.Time
}

func newTold(kept map[string]Told) *told {
	t := &told{entries: map[string]*toldEntry{}}
	for key, k := range kept {
		t.entries[key] = &toldEntry{Told: k}
	}
	return t
}

// last is what was told last or is on its way; empty: nothing, or that all is well.
func (t *told) last(key string) Status {
	e := t.entries[key]
	switch {
	case e == nil:
		return ""
	case e.saying != "":
		return e.saying
	default:
		return e.Status
	}
}

// about is what people are told about: an image by its digest, or a registry whose
// images cannot be verified.
func about(key string, status Status, digest string) string {
	_, rest, _ := strings.Cut(key, "\n")
	image, _, _ := strings.Cut(rest, "\n")
	if status != StatusError {
		return cmp.Or(digest, image)
	}
	if ref, err := verifier.ParseReference(image); err == nil {
		return ref.Registry
	}
	return image
}

// say picks what is news, by row, and notes that it is on its way. Of an image that is
// well again in one namespace and not in another nothing is told yet; images that can be
// verified again are told of by their registry: over has those of which all can, with
// the rows that are well.
func (t *told) say(found map[string]Transition) (news map[string]Transition, over map[string][]string) {
	news, over = map[string]Transition{}, map[string][]string{}
	before := map[string]string{} // what each was told of, if it was
	for key, f := range found {
		if last := t.last(key); last == f.To || last == "" && f.To.settled() {
			continue
		}
		if t.entries[key] == nil {
			t.entries[key] = &toldEntry{}
		}
		e := t.entries[key]
		e.saying = f.To
		e.Digest = cmp.Or(f.Digest, e.Digest)
		f.From, f.Digest = cmp.Or(e.Status, f.From), e.Digest
		before[key] = about(key, e.Status, e.Digest)
		news[key] = f
	}
	trouble := map[string]bool{}
	for key, e := range t.entries {
		if last := t.last(key); !last.settled() {
			trouble[about(key, last, e.Digest)] = true
		}
	}
	for key, f := range news {
		of, unverified := before[key], t.entries[key].Status == StatusError
		if unverified && !trouble[of] {
			well := over[of]
			if f.To.settled() {
				well = append(well, key)
			}
			over[of] = well
		}
		switch {
		case !f.To.settled():
		case trouble[of]:
			t.said(key, f.To)
			delete(news, key)
		case unverified:
			delete(news, key)
		}
	}
	return news, over
}

// said notes that everybody was told who is to be.
func (t *told) said(key string, status Status) {
	e := t.entries[key]
	if e == nil {
		return
	}
	t.changed = true
	e.Status = status
	if e.saying == status || status == StatusVerified && e.saying.settled() {
		e.saying = ""
	}
	if e.saying == "" && status.settled() {
		delete(t.entries, key)
	}
}

// gone finds what nothing has run for a while, of those that run or do not.
func (t *told) gone(now time.Time, runs map[string]bool) map[string]Transition {
	found := map[string]Transition{}
	for key, e := range t.entries {
		switch {
		case t.last(key).settled():
		case runs[key]:
			e.missing = time.Time{}
		case e.missing.IsZero():
			e.missing = now
		case now.Sub(e.missing) >= goneAfter:
			namespace, rest, _ := strings.Cut(key, "\n")
			image, _, _ := strings.Cut(rest, "\n")
			found[key] = Transition{Time: now, Namespace: namespace, Image: image, Digest: e.Digest, To: StatusGone, Message: "nothing runs it any more"}
		}
	}
	return found
}

// kept is what is to outlive this process: what everybody was told.
func (t *told) kept() map[string]Told {
	kept := map[string]Told{}
	for key, e := range t.entries {
		if e.Status != "" && !e.Status.settled() {
			kept[key] = e.Told
		}
	}
	return kept
}

// settled reports whether nothing is to be done about it.
func (s Status) settled() bool { return s.success() || s == StatusGone || s == StatusVerified }
