package config

import (
	"path/filepath"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// claims are the patterns that a broken document keeps weaker policies away
// from, read as generously as can be; whole reports whether all could be read.
func (doc *Document) claims() (patterns []pattern, whole bool) {
	whole = len(doc.images) > 0
	seen := map[string]int{}
	for _, text := range doc.images {
		p, ok := claim(text)
		if !ok {
			whole = false
			continue
		}
		if at, twice := seen[p.text]; twice {
			patterns[at].guessed = patterns[at].guessed || p.guessed
			continue
		}
		seen[p.text] = len(patterns)
		patterns = append(patterns, p)
	}
	return patterns, whole
}

// boundless reports whether the document claims every image: an object whose
// images cannot be read may be about any. What a file held before it was broken
// is known or not as a whole; see fileState.
func (doc *Document) boundless() bool {
	return doc.inCluster && doc.Kind != api.KindExemption && !doc.whole()
}

// whole reports whether all that the document claims could be read.
func (doc *Document) whole() bool {
	_, whole := doc.claims()
	return whole
}

// claim reads a pattern that may be wrong: what it would be if its author
// followed the remedy, or else all below the part that can be read.
func claim(text string) (pattern, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	if _, rest, isURL := strings.Cut(text, "://"); isURL {
		text = rest
	}
	text, _, _ = strings.Cut(text, "@")
	if i := strings.LastIndex(text, ":"); i > strings.LastIndex(text, "/") && strings.Contains(text, "/") {
		text = text[:i]
	}
	p, e := parsePattern(text)
	if e == nil {
		return p, true
	}
	host, path, hasPath := strings.Cut(text, "/")
	// Docker Hub's short names, unless it is a host alone.
	if ref, err := verifier.ParseReference(text); err == nil && (hasPath || !strings.Contains(host, ".")) {
		if p, e := parsePattern(ref.Name()); e == nil {
			return p, true
		}
	}
	if host == "index.docker.io" {
		host = "docker.io"
	}
	segments := strings.Split(path, "/")
	for i := min(len(segments), maxSegments); i >= 0; i-- {
		below := append([]string{host}, segments[:i]...)
		if i == 0 || segments[i-1] != "**" {
			below = append(below, "**")
		}
		if p, e := parsePattern(strings.Join(below, "/")); e == nil {
			p.guessed = true
			return p, true
		}
	}
	return pattern{}, false
}

// maxSegments bounds how hard a broken pattern is looked at: a name of 255
// bytes has at most 128.
const maxSegments = 128

// claimedNamespaces are those of a broken ClusterTrustPolicy. Where one cannot
// be read it may be any, and the policy goes before those that name none.
func (doc *Document) claimedNamespaces() []string {
	for _, text := range doc.namespaces {
		if !isLabel(strings.ReplaceAll(text, "*", "a")) {
			return []string{"*"}
		}
	}
	return doc.namespaces
}

// broken makes the policy that answers undecided for all that the document
// claims.
func broken(doc *Document, cause Problem) *policy {
	p := &policy{ID: doc.ID, doc: doc, broken: cause.cause(doc)}
	p.patterns, _ = doc.claims()
	if doc.Kind != api.KindTrustPolicy {
		p.namespaces = doc.claimedNamespaces()
	} else if p.Namespace == "" {
		p.Namespace = every
	}
	p.rule = verifier.Policy{Name: doc.displayName(), Owner: doc.owner}
	if doc.unknown {
		p.rule.Name = filepath.Base(doc.File)
	}
	return p
}

// cause is the problem as those whose image it keeps from running read it.
func (p Problem) cause(doc *Document) *verifier.Error {
	where := Problem{Path: p.Path, Message: p.Message}
	if p.File != "" {
		where.File, where.Line = filepath.Base(p.File), p.Line
	}
	what := "policy " + doc.displayName() + " cannot be used: "
	if doc.boundless() {
		what = "policy " + doc.displayName() + " cannot be used, and may be about any image: "
	}
	if doc.unknown {
		what = "a policy cannot be read: "
	}
	return &verifier.Error{Reason: p.Reason, Message: what + where.String(), Remedy: "Have the policy mended"}
}
