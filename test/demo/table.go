package main

import (
	"fmt"
	"strings"
	"time"
)

// columns of the table before the message.
const columns = "%-15s %-29s %-9s %6s %6s  "

// table is the decisions, row by row as they are made.
type table struct {
	screen *screen
	rows   int
}

func (s *screen) table(registry string) *table {
	s.line("")
	s.line("Images without a host are at %s. Milliseconds the first time and again.", registry)
	s.line("")
	s.line("%s", s.paint(faint, strings.TrimRight(fmt.Sprintf(columns+"%s", "POD", "IMAGE", "DECISION", "MS", "AGAIN", "MESSAGE"), " ")))
	return &table{screen: s}
}

// add writes one row. On a terminal the message has lines of its own below it.
func (t *table) add(r row, got result) {
	t.rows++
	decision, colour := "refused", red
	if got.admitted {
		decision, colour = "admitted", green
	}
	head := fmt.Sprintf(columns, r.pod, r.images, decision, milliseconds(got.first), milliseconds(got.again))
	head = strings.Replace(head, decision, t.screen.paint(colour, decision), 1)
	message := strings.ReplaceAll(got.message, "\n", " ")
	if !got.right {
		message += " (WRONG: wanted " + wanted(r) + ")"
	}
	if !t.screen.terminal {
		t.screen.line("%s", strings.TrimRight(head+message, " "))
		return
	}
	t.screen.line("%s", strings.TrimRight(head, " "))
	if message == "" {
		return
	}
	const indent = "    "
	for _, line := range wrap(message, t.screen.width-len(indent)) {
		if got.admitted {
			line = t.screen.paint(faint, line)
		}
		t.screen.line("%s%s", indent, line)
	}
}

// end says how it went.
func (t *table) end(wrong int) {
	t.screen.line("")
	if wrong > 0 {
		t.screen.line("%s", t.screen.paint(red, fmt.Sprintf("%d of %d decisions are wrong", wrong, t.rows)))
		return
	}
	t.screen.line("%s", t.screen.paint(green, fmt.Sprintf("All %d decisions are right", t.rows)))
}

func wanted(r row) string {
	if r.want == "" {
		return "admitted"
	}
	return fmt.Sprintf("refused with %q", r.want)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000)
}
