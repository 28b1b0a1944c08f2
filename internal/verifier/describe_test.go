package verifier

import "testing"

func TestDescribeReadsAsASentence(t *testing.T) {
	check := func(name string) *Check { return &Check{Name: name} }
	for want, rule := range map[string]Rule{
		"a":                           check("a"),
		"a or b":                      Any{check("a"), check("b")},
		"a, b or c":                   Any{check("a"), check("b"), check("c")},
		"a, b and (c or d)":           All{check("a"), check("b"), Any{check("c"), check("d")}},
		"a or (2 of b, c)":            Any{check("a"), AtLeast{Count: 2, Of: []*Check{check("b"), check("c")}}},
		"(every signature by a) or b": Any{Every{Check: check("a")}, check("b")},
	} {
		if got := rule.describe(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
