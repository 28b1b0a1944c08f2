package config

import "strings"

const (
	maxSubdomain = 253 // RFC 1123
	maxLabel     = 63
)

// isLabel reports whether the text is a DNS label, as Kubernetes wants
// namespaces to be. Files keep to that too: they become objects one day.
func isLabel(s string) bool {
	return len(s) <= maxLabel && consistsOf(s, lower+digits+"-") && !strings.HasPrefix(s, "-") && !strings.HasSuffix(s, "-")
}

// isSubdomain reports the same for names of objects.
func isSubdomain(s string) bool {
	for _, part := range strings.Split(s, ".") {
		if !consistsOf(part, lower+digits+"-") || strings.HasPrefix(part, "-") || strings.HasSuffix(part, "-") {
			return false
		}
	}
	return len(s) <= maxSubdomain
}

// isWord reports whether the text can name a check or a trust store.
func isWord(s string) bool {
	return len(s) <= maxLabel && consistsOf(s, lower+upper+digits+"-._")
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits = "0123456789"
)

func consistsOf(s, letters string) bool {
	return s != "" && strings.Trim(s, letters) == ""
}
