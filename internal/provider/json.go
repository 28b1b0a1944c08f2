package provider

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Answers are written by appending to a buffer: their shape is fixed, they are
// the hot path, and encoding/json would build a tree of copies for each.

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string that decodes to s, byte for byte
// where s is UTF-8. What is not UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		if c == '"' || c == '\\' {
			b = append(b, '\\', c)
		} else {
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// appendText appends what people read: one line, bounded, without anything
// that could forge a line or a terminal's colours.
func appendText(b []byte, s string, limit int) []byte {
	return appendString(b, text(s, limit))
}

// text makes s one printable line of at most limit bytes, its middle elided.
func text(s string, limit int) string {
	s = elide(s, limit)
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return strings.Map(printable, s)
		}
	}
	return s
}

func printable(r rune) rune {
	if r == utf8.RuneError || !unicode.IsPrint(r) {
		return '?'
	}
	return r
}

// elide takes the middle out of what is longer than limit bytes.
func elide(s string, limit int) string {
	const gap = "…"
	if len(s) <= limit {
		return s
	}
	head := (limit - len(gap)) / 2
	tail := len(s) - (limit - len(gap) - head)
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	for tail < len(s) && !utf8.RuneStart(s[tail]) {
		tail++
	}
	return s[:head] + gap + s[tail:]
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, "true"...)
	}
	return append(b, "false"...)
}
