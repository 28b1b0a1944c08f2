package telemetry

import (
	"io"
	"log/slog"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxLogged bounds one value of a log line; longer text is somebody else's
// page or certificate, not a cause.
const maxLogged = 2 << 10

// NewLogger writes JSON lines to w. Every value is text of a bounded length
// with the credentials taken out, whoever wrote it.
func NewLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	redaction := newRedaction()
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
			switch attr.Value.Kind() {
			case slog.KindString:
				return slog.String(attr.Key, redaction.clean(attr.Value.String()))
			case slog.KindAny:
				if err, ok := attr.Value.Any().(error); ok {
					return slog.String(attr.Key, redaction.clean(err.Error()))
				}
			}
			return attr
		},
	}))
}

// redaction takes credentials out of text that came from elsewhere: errors of
// HTTP clients carry URLs, and registries like to quote what they were sent.
// It is the second line; the first is that no room puts a credential in an error.
type redaction []struct {
	pattern *regexp.Regexp
	instead string
}

func newRedaction() redaction {
	return redaction{
		{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{6,}`), "$1 [redacted]"},
		{regexp.MustCompile(`://[^/\s@"]+@`), "://[redacted]@"},
		{regexp.MustCompile(`(?i)\b((?:access|refresh|id|identity)_?token|client_(?:secret|assertion)|assertion|password|passwd|secret|sig|signature)("?\s*[=:]\s*"?)[^\s&"',;}]+`), "$1$2[redacted]"},
		{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`), "[redacted]"},
	}
}

func (r redaction) clean(s string) string {
	if len(s) > maxLogged {
		end := maxLogged
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end] + "…"
	}
	if !strings.ContainsAny(s, " =:.") {
		return s // a word: a status, a digest's hex, a trace id
	}
	for _, rule := range r {
		s = rule.pattern.ReplaceAllString(s, rule.instead)
	}
	return s
}
