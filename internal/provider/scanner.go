package provider

import (
	"encoding/json"
	"strings"
)

// scanner walks over JSON that json.Valid has seen: it needs to know where
// things end, not whether they are well-formed. Its texts are parts of the
// body, so that a thousand keys cost no copies; a Decoder makes ten for each.
type scanner struct {
	json string
	at   int
}

// next steps over white space and separators, and gives the byte there.
func (s *scanner) next() byte {
	for ; s.at < len(s.json); s.at++ {
		switch c := s.json[s.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return c
		}
	}
	return 0
}

// step steps over the bracket, if it is the next thing.
func (s *scanner) step(bracket byte) bool {
	if s.next() != bracket {
		return false
	}
	s.at++
	return true
}

// text reads a string, if there is one.
func (s *scanner) text() (string, bool) {
	if s.next() != '"' {
		return "", false
	}
	start := s.at
	raw := s.quoted()
	if !strings.Contains(raw, `\`) {
		return raw, true
	}
	var unescaped string
	if err := json.Unmarshal([]byte(s.json[start:s.at]), &unescaped); err != nil {
		return "", false
	}
	return unescaped, true
}

// quoted steps over a string and gives what is between its quotes.
func (s *scanner) quoted() string {
	start := s.at + 1
	for i := start; i < len(s.json); i++ {
		switch s.json[i] {
		case '\\':
			i++
		case '"':
			s.at = i + 1
			return s.json[start:i]
		}
	}
	s.at = len(s.json)
	return ""
}

// skip steps over one value, and reports false if it is nested too deep.
func (s *scanner) skip(maxDepth int) bool {
	for depth := 0; ; {
		switch s.next() {
		case '{', '[':
			depth++
			s.at++
		case '}', ']':
			depth--
			s.at++
		case '"':
			s.quoted()
		case 0:
			return true
		default: // a number, true, false or null
			for s.at < len(s.json) && !strings.ContainsRune(" \t\r\n,:{}[]", rune(s.json[s.at])) {
				s.at++
			}
		}
		if depth > maxDepth {
			return false
		}
		if depth <= 0 {
			return true
		}
	}
}
