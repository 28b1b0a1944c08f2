package verifier

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

const (
	// maxMessage keeps a whole message within the 256 bytes that Gatekeeper's
	// audit and the Azure portal show of one.
	maxMessage = 240
	// maxImage is how much of an image's name a message shows.
	maxImage = 96
	// shownDigest is how many hex digits of a digest tell two images apart.
	shownDigest = 12
)

// line composes the one line that the person who was denied reads. Clauses
// give way from the least useful: what the policy wants, then the owner, then
// the remedy; image, digest and cause stay.
func line(image string, d digest.Digest, cause, wants, remedy string, policy Policy) string {
	if d != "" {
		image, _, _ = strings.Cut(image, "@") // the digest follows in short
	}
	head := elide(printable(image), maxImage)
	if d != "" {
		head += " (" + short(d) + ")"
	}
	head += ": " + printable(cause)
	wants, remedy = printable(wants), strings.TrimSuffix(printable(remedy), ".")
	ask := ""
	if policy.Owner != "" {
		ask = "ask " + printable(policy.Owner)
	}
	if policy.HelpURL != "" {
		if ask != "" {
			ask += ", "
		}
		ask += "see " + printable(policy.HelpURL)
	}
	for _, tail := range []string{
		clause(wants, remedy, ask), clause(wants, remedy, ""), clause("", remedy, ask), clause("", remedy, ""), clause("", "", ask),
	} {
		if len(head)+len(tail) <= maxMessage {
			return head + tail
		}
	}
	return cut(head, maxMessage)
}

// clause is what follows the cause: "; policy p wants a. Sign it, or ask o".
func clause(wants, remedy, ask string) string {
	s := ""
	if wants != "" {
		s = "; " + wants
	}
	switch {
	case remedy != "" && ask != "":
		return s + ". " + remedy + ", or " + ask
	case remedy != "":
		return s + ". " + remedy
	case ask != "":
		return s + ". " + strings.ToUpper(ask[:1]) + ask[1:]
	}
	return s
}

// short is the first 12 hex digits, by which people know a digest.
func short(d digest.Digest) string {
	_, hex, _ := strings.Cut(string(d), ":")
	if len(hex) > shownDigest {
		hex = hex[:shownDigest]
	}
	return hex
}

// elide takes the middle out of a name that is longer than limit bytes: its
// host and its tag are what people look for.
func elide(s string, limit int) string {
	const gap = "…"
	if len(s) <= limit {
		return s
	}
	head, tail := (limit-len(gap))/2, (limit-len(gap))-(limit-len(gap))/2
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	start := len(s) - tail
	for start < len(s) && !utf8.RuneStart(s[start]) {
		start++
	}
	return s[:head] + gap + s[start:]
}

// cut takes the end off.
func cut(s string, limit int) string {
	const gap = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(gap)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + gap
}

// printable replaces what could forge a line or a terminal's colours; names
// and certificate subjects are an attacker's text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
