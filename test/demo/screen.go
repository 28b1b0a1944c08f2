package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	// plainWidth is where text is wrapped when nobody says how wide it may be: never.
	plainWidth = 1 << 20
	// narrow is the least width that the table is made for.
	narrow = 60
)

// screen writes for people: with colours and wrapped on a terminal, one row a
// line and plain in a pipe.
type screen struct {
	to       io.Writer
	terminal bool
	colour   bool
	width    int
}

// newScreen finds out what file is.
func newScreen(file *os.File) *screen {
	s := &screen{to: file, width: plainWidth}
	if width, _, err := term.GetSize(int(file.Fd())); err == nil {
		s.terminal, s.width = true, max(width, narrow)
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

func (s *screen) line(format string, args ...any) { _, _ = fmt.Fprintf(s.to, format+"\n", args...) }

const (
	red   = "31"
	green = "32"
	faint = "2"
)

// paint colours text where colours are shown.
func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// begin says what is being started; on a terminal only, where done overwrites it.
func (s *screen) begin(what string) {
	if s.terminal {
		_, _ = fmt.Fprintf(s.to, "%-12s ...", what)
	}
}

// done says that it has started.
func (s *screen) done(what, said string, took time.Duration) {
	if s.terminal {
		_, _ = fmt.Fprint(s.to, "\r\x1b[K")
	}
	s.line("%-12s %s %s", what, said, s.paint(faint, fmt.Sprintf("(%d ms)", took.Milliseconds())))
}

// try says what the user can do now.
func (s *screen) try(c *cluster) {
	s.line("")
	s.line("Countersign listens at https://%s until Ctrl-C. Ask it as Gatekeeper does:", c.server.Provider)
	s.line("")
	s.line("  %s", curl(c))
	s.line("")
	s.line("Or change %s/production.yaml and ask again.", c.Policies)
}

// curl is a line that works as it is.
func curl(c *cluster) string {
	body := fmt.Sprintf(`{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["[shop]%s"]}}`, c.Name("cart:1.4"))
	return fmt.Sprintf("curl -s --cacert %s --cert %s --key %s -d '%s' %s", c.caFile, c.certFile, c.keyFile, body, c.server.VerifyURL())
}

// wrap breaks text at spaces so that no line is longer than width, where it can.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
