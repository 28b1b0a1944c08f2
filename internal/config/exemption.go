package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// endingSoon is how long before its end people are warned of an exemption's: a
// weekend and a day to act.
const endingSoon = 72 * time.Hour

// exemption checks an Exemption's own fields.
func (v validator) exemption() {
	spec := v.doc.Exemption
	v.images(spec.Images)
	v.limit("spec.digests", len(spec.Digests), api.MaxDigests)
	for i, text := range spec.Digests {
		path := element("spec.digests", i)
		switch {
		case v.reported(path):
		case digest.Digest(text).Validate() != nil:
			v.at(path, quote(text)+" is not a digest", "Write sha256: and 64 hexadecimal digits")
		case slices.Contains(spec.Digests[:i], text):
			v.at(path, quote(text)+" is there twice", "Delete one of them")
		}
	}
	v.namespaces(spec.Namespaces)
	v.text("spec.reason", spec.Reason, api.MaxReason)
	v.text("spec.owner", spec.Owner, api.MaxOwner)
	if _, err := time.Parse(time.RFC3339, string(spec.ExpiresAt)); err != nil && !v.absent("spec.expiresAt") && !v.reported("spec.expiresAt") {
		v.at("spec.expiresAt", quote(string(spec.ExpiresAt))+" is not a time", "Write it as 2026-12-31T18:00:00Z")
	}
}

// compileExemption makes what an Exemption's document says: a policy that
// admits until it ends.
func compileExemption(doc *Document) (*policy, []Problem) {
	spec := doc.Exemption
	until, err := time.Parse(time.RFC3339, string(spec.ExpiresAt))
	if err != nil { // found by the validator; nothing is exempt
		return nil, []Problem{doc.problem("spec.expiresAt", err.Error(), "Write it as 2026-12-31T18:00:00Z", verifier.ReasonPolicyInvalid)}
	}
	p := &policy{ID: doc.ID, doc: doc, namespaces: spec.Namespaces}
	for i, text := range spec.Images {
		pattern, e := parsePattern(text)
		if e != nil {
			return nil, []Problem{doc.problem(element("spec.images", i), e.what, e.remedy, verifier.ReasonPolicyInvalid)}
		}
		p.patterns = append(p.patterns, pattern)
	}
	e := &verifier.Exemption{Name: doc.Name, Reason: spec.Reason, Owner: spec.Owner, Until: until}
	for _, text := range spec.Digests {
		e.Digests = append(e.Digests, digest.Digest(text))
	}
	p.exemption = e
	return p, nil
}

// exemptions are the Exemptions in force.
type exemptions struct {
	byName   *index
	byDigest []*policy
}

func newExemptions(policies []*policy) exemptions {
	x := exemptions{byName: newIndex(policies)}
	for _, p := range policies {
		if len(p.exemption.Digests) > 0 {
			x.byDigest = append(x.byDigest, p)
		}
	}
	return x
}

// exemptIn reports whether an Exemption applies to images of the namespace.
func (p *policy) exemptIn(namespace string) bool {
	if namespace == "" {
		return slices.Contains(p.namespaces, "*")
	}
	return p.appliesIn(namespace)
}

// admit gives the verdict of an Exemption that is about the image by its name,
// or by the digest that it is asked for.
func (x exemptions) admit(request verifier.Request, n *name) (verdict verifier.Verdict, ok bool) {
	applies := func(p *policy) bool { return p.exemptIn(request.Namespace) }
	for _, e := range x.byName.match(n, applies, func([]entry, entry) bool { return false }) {
		if verdict, ok = e.policy.exemption.Admit(request.Image); ok {
			return verdict, true
		}
	}
	if request.Image.Digest == "" {
		return verifier.Verdict{}, false
	}
	for _, p := range x.byDigest {
		if applies(p) && slices.Contains(p.exemption.Digests, request.Image.Digest) {
			if verdict, ok = p.exemption.Admit(request.Image); ok {
				return verdict, true
			}
		}
	}
	return verifier.Verdict{}, false
}

// digests are the Exemptions that may be about an image whose digest is not
// known yet.
func (x exemptions) digests(request verifier.Request) []*policy {
	var list []*policy
	for _, p := range x.byDigest {
		if request.Image.Digest == "" && p.exemptIn(request.Namespace) {
			list = append(list, p)
		}
	}
	return list
}

// Phase is where an Exemption is in its life.
type Phase string

// The phases of an Exemption.
const (
	PhaseActive Phase = "active"
	PhaseEnding Phase = "ending" // within three days
	PhaseEnded  Phase = "ended"
)

// Phase of an Exemption at a moment; empty for policies and for broken ones.
func (s PolicyStatus) Phase(now time.Time) Phase {
	switch {
	case s.ExpiresAt.IsZero():
		return ""
	case !now.Before(s.ExpiresAt):
		return PhaseEnded
	case now.Add(endingSoon).After(s.ExpiresAt):
		return PhaseEnding
	default:
		return PhaseActive
	}
}

// Reminder says what those who read logs and events should know of the phase,
// or nothing.
func (s PolicyStatus) Reminder(now time.Time) string {
	switch s.Phase(now) {
	case PhaseEnding:
		return fmt.Sprintf("%s ends at %s; from then on its images are verified", s.ID, s.ExpiresAt.UTC().Format(time.RFC3339))
	case PhaseEnded:
		return fmt.Sprintf("%s ended at %s and exempts nothing any more", s.ID, s.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return ""
}
