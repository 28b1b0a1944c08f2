package verifier

import "testing"

// TestPresentIsAllOfWhatIsThere: nothing of one kind does not matter, bad evidence
// of one does, and not knowing whether there is some is undecided.
func TestPresentIsAllOfWhatIsThere(t *testing.T) {
	notation, cosign := &Check{Name: "notation"}, &Check{Name: "cosign"}
	good := []Report{{}}
	bad := []Report{{Finding: Finding{Err: &Error{Reason: ReasonSignatureInvalid}}}}
	unread := []Report{{Finding: Finding{Err: &Error{Reason: ReasonRegistryThrottled}}}}
	unlisted := &Error{Reason: ReasonRegistryUnreachable}
	for name, c := range map[string]struct {
		notation, cosign []Report
		list             *Error
		want             Outcome
		reason           Reason
	}{
		"both good":                          {good, good, nil, OutcomeTrusted, ""},
		"one good, nothing of the other":     {good, nil, nil, OutcomeTrusted, ""},
		"nothing of the one, the other good": {nil, good, nil, OutcomeTrusted, ""},
		"one good, one bad":                  {good, bad, nil, OutcomeDenied, ReasonSignatureInvalid},
		"one bad, one good":                  {bad, good, nil, OutcomeDenied, ReasonSignatureInvalid},
		"nothing at all":                     {nil, nil, nil, OutcomeDenied, ReasonSignatureNotFound},
		"one good, one unread":               {good, unread, nil, OutcomeUndecided, ReasonRegistryThrottled},
		"one bad, one unread":                {bad, unread, nil, OutcomeDenied, ReasonSignatureInvalid},
		"one good, and the list is cut":      {good, nil, unlisted, OutcomeUndecided, ReasonRegistryUnreachable},
		"nothing, and the list is cut":       {nil, nil, unlisted, OutcomeUndecided, ReasonRegistryUnreachable},
	} {
		seen := &observations{reports: map[*Check][]Report{notation: c.notation, cosign: c.cosign}, list: c.list}
		for _, parts := range []Present{{Optional: []Rule{notation, cosign}}, {Optional: []Rule{cosign, notation}}, {Optional: []Rule{Every{notation}, Every{cosign}}}} {
			node := decide(parts, seen)
			var reason Reason
			if node.Err != nil {
				reason = node.Err.Reason
			}
			if node.Outcome != c.want || reason != c.reason {
				t.Errorf("%s: %s %s, want %s %s", name, node.Outcome, reason, c.want, c.reason)
			}
		}
	}
	if node := decide(Present{}, &observations{}); node.Outcome != OutcomeUndecided {
		t.Errorf("an empty one is %s", node.Outcome)
	}
	for name, c := range map[string]struct {
		notation, cosign []Report
		want             Outcome
	}{
		"what is required":        {good, nil, OutcomeTrusted},
		"what is not":             {nil, good, OutcomeDenied},
		"required, and a bad one": {good, bad, OutcomeDenied},
		"both":                    {good, good, OutcomeTrusted},
	} {
		seen := &observations{reports: map[*Check][]Report{notation: c.notation, cosign: c.cosign}}
		if node := decide(Present{Required: []Rule{notation}, Optional: []Rule{cosign}}, seen); node.Outcome != c.want {
			t.Errorf("%s: %s", name, node.Outcome)
		}
	}
	if all := (Present{Required: []Rule{notation}, Optional: []Rule{Every{cosign}}}); !exhaustive(all) || len(checks(all)) != 2 ||
		all.describe() != "notation; every signature by cosign, each where it is there" {
		t.Error("not all candidates are looked at")
	}
}
