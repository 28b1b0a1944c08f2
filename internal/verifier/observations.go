package verifier

import "time"

// observations is what the candidates of one subject showed so far.
type observations struct {
	reports map[*Check][]Report // in candidate order
	// list says why the list of candidates is not all there is; nil when it is.
	list *Error
	// capped says for which checks there were more candidates than are tried.
	capped map[*Check]*Error
	// listed is how long the lists of candidates are taken to be the registry's; zero:
	// nobody knows.
	listed time.Time
}

func newObservations() *observations {
	return &observations{reports: map[*Check][]Report{}, capped: map[*Check]*Error{}, listed: time.Now().Add(maxFindingAge)}
}

// add reports what a check made of a candidate.
func (o *observations) add(t task, made findings) {
	for _, finding := range made.findings {
		o.reports[t.check] = append(o.reports[t.check], Report{
			Check: t.check.Name, Scheme: t.check.Scheme, Candidate: t.candidate.named(), Finding: finding, renewAt: made.renewAt,
		})
	}
}

// missing says why the check may have overlooked a candidate, or nil.
func (o *observations) missing(c *Check) *Error {
	if e := o.capped[c]; e != nil {
		return e
	}
	return o.list
}

// proven is how long the proof holds, whatever else is attached or comes to be.
func (o *observations) proven() time.Time {
	until := time.Now().Add(maxFindingAge)
	for _, reports := range o.reports {
		for _, report := range reports {
			if report.Outcome() == OutcomeTrusted {
				until = earlier(until, report.renewAt)
			}
		}
	}
	return until
}

// complete is how long all of it holds, what is not trusted and what is not there
// included.
func (o *observations) complete() time.Time {
	until := o.listed
	for _, reports := range o.reports {
		for _, report := range reports {
			until = earlier(until, report.renewAt)
		}
	}
	return until
}
