package config

import (
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// pattern names repositories. Host and path are matched apart and from end to
// end, so that a pattern with a literal host never matches another host.
type pattern struct {
	text string // canonical spelling
	host hostPattern
	path sequence
	rank string
	// guessed is set where a broken document's pattern could be read in part only,
	// and this is all that it may be about.
	guessed bool
}

type hostPattern struct {
	literal string   // host with port, where there is no wildcard
	labels  sequence // left to right, where there is one
	port    string
	anyPort bool
}

// sequence is the segments of a path, or the labels of a host.
type sequence struct {
	segments []segment
	// tokens is what glob is given where there is a **, which takes one segment
	// and then any number: two tokens, the second a star, which is nil.
	tokens []*segment
}

func newSequence(text, separator string) sequence {
	var q sequence
	many := false
	for _, part := range strings.Split(text, separator) {
		q.segments = append(q.segments, newSegment(part))
	}
	var tokens []*segment
	for i := range q.segments {
		tokens = append(tokens, &q.segments[i])
		if q.segments[i].class == classMany {
			tokens, many = append(tokens, nil), true
		}
	}
	if many {
		q.tokens = tokens
	}
	return q
}

// segment is one part of a path, or one label of a host.
type segment struct {
	text  string
	class byte
}

// The classes of segments, by how much they say. A rank is made of them.
const (
	classMany    byte = iota + 1 // **, one or more segments
	classOne                     // *, one whole segment
	classPartial                 // *-prod, part of a segment
	classLiteral
	classLiteralHost // a host without wildcard goes before all others
)

func newSegment(text string) segment {
	switch {
	case text == "**":
		return segment{text, classMany}
	case text == "*":
		return segment{text, classOne}
	case strings.Contains(text, "*"):
		return segment{text, classPartial}
	default:
		return segment{text, classLiteral}
	}
}

// patternError says what is wrong with a pattern and what to write.
type patternError struct{ what, remedy string }

// parsePattern reads a pattern. There is one spelling of each: the one that
// the repositories it names have themselves, but for case and default port of
// the host.
func parsePattern(text string) (pattern, *patternError) {
	if e := refusePattern(text); e != nil {
		return pattern{}, e
	}
	hostText, pathText, _ := strings.Cut(text, "/")
	hostText = strings.TrimSuffix(strings.ToLower(hostText), ":443")
	p := pattern{text: hostText + "/" + pathText, path: newSequence(pathText, "/")}
	var e *patternError
	if p.host, e = parseHost(hostText); e != nil {
		return pattern{}, e
	}
	if e := p.path.refuse(text, "segment"); e != nil {
		return pattern{}, e
	}
	if e := refuseImpossible(p); e != nil {
		return pattern{}, e
	}
	p.rank = p.host.rank() + "\x00" + p.path.rank()
	return p, nil
}

// refusePattern finds what people write who think of images, URLs or globs of
// another kind.
func refusePattern(text string) *patternError {
	name, tag, tagged := strings.Cut(text[strings.LastIndex(text, "/")+1:], ":")
	switch {
	case text == "":
		return &patternError{"the pattern is empty", "Write registry/repository"}
	case len(text) > api.MaxPattern:
		return &patternError{"the pattern is longer than 512 bytes", "No image has a name of that length"}
	case text == "*" || text == "**":
		return &patternError{quote(text) + " has no path", `Write "**/**" for every image of every registry`}
	case strings.Contains(text, "://"):
		return &patternError{quote(text) + " is a URL", "Write the host without a scheme, as image references do"}
	case strings.ContainsAny(text, "@"):
		return &patternError{quote(text) + " has an @, and a pattern names repositories", "Write it without digest or user"}
	case tagged && strings.Contains(text, "/") && name != "":
		return &patternError{quote(text) + " has a tag, and a pattern names repositories", "Write it without :" + clip(tag, 32)}
	case !strings.Contains(text, "/") && strings.ContainsAny(text, ".:*"):
		return &patternError{quote(text) + " has no path", "Write " + clip(text, 64) + "/** for every image of that registry"}
	case !strings.Contains(text, "/"):
		return &patternError{quote(text) + " has no host", "Write registry/repository; Docker Hub's official images are docker.io/library/…"}
	}
	return nil
}

// parseHost reads the host of a pattern, in lower case and without default port.
func parseHost(text string) (hostPattern, *patternError) {
	host, port := text, ""
	if i := strings.LastIndex(text, ":"); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
	}
	if !strings.Contains(host, "*") {
		if strings.Contains(port, "*") {
			return hostPattern{}, &patternError{quote(text) + " has a wildcard for a port", "Write the port, or none for 443"}
		}
		return hostPattern{literal: text}, nil
	}
	h := hostPattern{labels: newSequence(host, "."), port: port, anyPort: host == "**" && port == ""}
	if len(h.labels.segments) == 1 && host != "**" {
		return h, &patternError{
			quote(text) + " as a host stays within one label, which no registry's name has alone",
			`Write the host, or "**" for every host`,
		}
	}
	if strings.Contains(port, "*") {
		return h, &patternError{quote(text) + " has a wildcard for a port", "Write the port, or none for 443"}
	}
	return h, h.labels.refuse(text, "label")
}

func (q sequence) refuse(text, word string) *patternError {
	for i, s := range q.segments {
		switch {
		case s.text == "":
			return &patternError{quote(text) + " has an empty " + word, "Delete the separator that is too much"}
		case s.class == classPartial && strings.Contains(s.text, "**"):
			return &patternError{quote(text) + " has ** inside a " + word, "Write * within a " + word + ", or ** in place of a whole one"}
		case i > 0 && s.class == classMany && q.segments[i-1].class == classMany:
			return &patternError{quote(text) + " has ** twice in a row", "One ** stands for as many as there are"}
		}
	}
	return nil
}

// refuseImpossible asks the parser of references: a pattern that no reference
// is spelled like would never match, and its author would not know.
func refuseImpossible(p pattern) *patternError {
	example := p.example()
	ref, err := verifier.ParseReference(example)
	if err != nil {
		return &patternError{quote(p.text) + " can name no image", "Write registry/repository, in lower case: host name, then letters, digits and . _ - between slashes"}
	}
	if ref.Name() == example {
		return nil
	}
	if p.host.literal != "" && ref.Registry != p.host.literal && !strings.ContainsAny(p.host.literal, ".:") {
		return &patternError{quote(p.text) + " has no host: " + quote(p.host.literal) + " would be a path on Docker Hub", "Write docker.io/" + clip(p.text, 64)}
	}
	if ref.Registry == "docker.io" && len(p.path.segments) == 1 {
		return &patternError{quote(p.text) + " matches nothing: Docker Hub's official images are under library/", "Write docker.io/library/" + p.path.segments[0].text}
	}
	return &patternError{quote(p.text) + " matches nothing: its images are spelled " + ref.Registry + "/…", "Write " + ref.Registry + "/" + pathOf(p)}
}

// example is a repository that the pattern matches.
func (p pattern) example() string {
	host := p.host.literal
	if host == "" {
		host = p.host.labels.example(".")
		if p.host.port != "" {
			host += ":" + p.host.port
		}
	}
	return host + "/" + p.path.example("/")
}

func (q sequence) example(separator string) string {
	parts := make([]string, len(q.segments))
	for i, s := range q.segments {
		parts[i] = s.example(separator)
	}
	return strings.Join(parts, separator)
}

func (s segment) example(separator string) string {
	if s.class == classMany {
		return "a" + separator + "a"
	}
	return strings.ReplaceAll(s.text, "*", "a")
}

func pathOf(p pattern) string {
	_, path, _ := strings.Cut(p.text, "/")
	return path
}

// rank orders patterns by how specific they are: compared as text, the greater
// goes first. The parts are compared from where the name begins, which for a
// path is the left and for a host is the right.
func (q sequence) rank() string {
	classes := make([]byte, len(q.segments))
	for i, s := range q.segments {
		classes[i] = s.class
	}
	return string(classes)
}

func (h hostPattern) rank() string {
	if h.literal != "" {
		return string(classLiteralHost)
	}
	classes, port := []byte(h.labels.rank()), classLiteral
	slices.Reverse(classes)
	if h.anyPort {
		port = classMany
	}
	return string(append(classes, 0, port))
}

// name is a repository, cut up for matching.
type name struct {
	host, bare, port string
	labels           []string
	path             []string
}

func newName(ref verifier.Reference) name {
	n := newHost(ref.Registry)
	n.path = strings.Split(ref.Repository, "/")
	return n
}

func newHost(host string) name {
	n := name{host: host, bare: host}
	if i := strings.LastIndex(n.bare, ":"); i >= 0 && !strings.HasSuffix(n.bare, "]") {
		n.bare, n.port = n.bare[:i], n.bare[i+1:]
	}
	n.labels = strings.Split(n.bare, ".")
	return n
}

// matches reports whether the repository is one that the pattern names.
func (p *pattern) matches(n *name) bool {
	return p.host.matches(n) && p.path.matches(n.path)
}

func (h *hostPattern) matches(n *name) bool {
	if h.literal != "" {
		return h.literal == n.host
	}
	return (h.anyPort || h.port == n.port) && h.labels.matches(n.labels)
}

func (q *sequence) matches(parts []string) bool {
	if q.tokens != nil {
		return glob(len(q.tokens), len(parts),
			func(i int) bool { return q.tokens[i] == nil },
			func(i, j int) bool { return q.tokens[i].fits(parts[j]) })
	}
	if len(q.segments) != len(parts) {
		return false
	}
	for i := range q.segments {
		if !q.segments[i].fits(parts[i]) {
			return false
		}
	}
	return true
}

// fits reports whether the segment stands for this one part. A ** stands for
// any part; that it may stand for more is the caller's business.
func (s *segment) fits(part string) bool {
	switch s.class {
	case classLiteral:
		return s.text == part
	case classPartial:
		return globText(s.text, part)
	default:
		return true
	}
}
