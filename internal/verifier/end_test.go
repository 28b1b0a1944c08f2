package verifier

import (
	"testing"
	"time"
)

// TestWhenAVerdictEnds follows the rules: what is needed counts, and what is not does
// not.
func TestWhenAVerdictEnds(t *testing.T) {
	day := func(n int) End {
		return End{EndSignature, "", time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC)}
	}
	leaf := func(ends ...End) Node {
		n := Node{Rule: "notation", Outcome: OutcomeTrusted}
		for i, end := range ends {
			n.Reports = append(n.Reports, Report{Finding: Finding{Claims: Claims{Signer: Signer{ID: string(rune('a' + i))}, Parties: []string{string(rune('a' + i))}, Ends: end}}})
		}
		return n
	}
	refused := Node{Rule: "notation", Outcome: OutcomeDenied, Reports: []Report{{Finding: Finding{Err: &Error{Reason: ReasonSignatureExpired}, Claims: Claims{Ends: day(1)}}}}}
	rule := func(word, name string, children ...Node) Node {
		return Node{Rule: word, Name: name, Outcome: OutcomeTrusted, Children: children}
	}
	sameSigner := leaf(day(9))
	for name, test := range map[string]struct {
		tree Node
		want End
	}{
		"nothing ends":                        {leaf(End{}), End{}},
		"a signature":                         {leaf(day(3)), day(3)},
		"one signature of two is enough":      {leaf(day(3), day(5)), day(5)},
		"one of two goes on":                  {leaf(day(3), End{}), End{}},
		"all: the first":                      {rule("all", "", leaf(day(3)), leaf(day(5)), leaf(End{})), day(3)},
		"any: the last":                       {rule("any", "", leaf(day(3)), leaf(day(5)), refused), day(5)},
		"any: the last, in another order":     {rule("any", "", leaf(day(5)), leaf(day(3)), leaf(day(4))), day(5)},
		"any: one goes on":                    {rule("any", "", leaf(day(3)), leaf(End{})), End{}},
		"all of any":                          {rule("all", "", rule("any", "", leaf(day(3)), leaf(day(5))), leaf(day(9))), day(5)},
		"two of three signers":                {rule("atLeast", "2", leaf(day(3), day(5), day(7))), day(5)},
		"two of three, one goes on":           {rule("atLeast", "2", leaf(day(3), day(5), End{})), day(5)},
		"two of two, the same signer's later": {rule("atLeast", "2", leaf(day(3), day(5)), sameSigner), day(5)},
		"every: the first":                    {rule("every", "", leaf(day(3), day(5))), day(3)},
		"what is refused does not count":      {rule("present", "", refused, leaf(day(4))), day(4)},
	} {
		t.Run(name, func(t *testing.T) {
			v := Verdict{status: StatusTrusted, tree: rule("all", "", rule("policy", "p", test.tree))}
			if got := v.Ends(); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			v.status = StatusUntrusted
			if got := v.Ends(); got != (End{}) {
				t.Errorf("what may not run ends: %v", got)
			}
		})
	}
	exempt, _ := Exemption{Name: "e", Until: time.Now().Add(time.Hour)}.Admit(Reference{})
	if end := exempt.Ends(); end.What != EndExemption || end.Name != "e" || end.At.Before(time.Now()) {
		t.Errorf("%v", end)
	}
}
