package verifier

import (
	"slices"
	"strconv"
	"time"
)

// EndKind is what ends.
type EndKind string

// The kinds of ends.
const (
	EndSignature   EndKind = "signature"
	EndCertificate EndKind = "certificate"
	EndExemption   EndKind = "exemption"
)

// End is when something ends that evidence or a verdict rests on. The zero End is
// none: it goes on.
type End struct {
	What EndKind
	// Name of the certificate's subject, or of the exemption.
	Name string
	At   time.Time
}

// Earlier is the one of both that comes first.
func (e End) Earlier(other End) End {
	if e.At.IsZero() || !other.At.IsZero() && other.At.Before(e.At) {
		return other
	}
	return e
}

// before orders ends, those that never come last.
func (e End) before(other End) bool { return e != other && e.Earlier(other) == e }

// Ends is when the image will not be let run any more if nobody does anything, as
// far as it is written anywhere: in its evidence, the certificates, the exemption. Of
// proof that is not needed nothing counts. The zero End: never, or it is not let run
// now.
func (v Verdict) Ends() End {
	if !v.Success() {
		return End{}
	}
	return v.end.Earlier(v.tree.ends())
}

// ends is when the rule will not hold any more.
func (n Node) ends() End {
	switch n.Rule {
	case "any":
		return lasting(1, n.held())
	case "atLeast":
		count, err := strconv.Atoi(n.Name)
		if err != nil {
			return End{}
		}
		return n.thresholdEnds(count)
	case "every":
		var first End
		for _, report := range n.AllReports() {
			first = first.Earlier(report.Finding.Claims.Ends)
		}
		return first
	}
	if len(n.Children) == 0 {
		var ends []End
		for _, report := range n.Reports {
			if report.Outcome() >= OutcomeExempt {
				ends = append(ends, report.Finding.Claims.Ends)
			}
		}
		return lasting(1, ends)
	}
	var first End
	for _, end := range n.held() {
		first = first.Earlier(end)
	}
	return first
}

// thresholdEnds is when the signatures that are left are fewer than so many signers'.
func (n Node) thresholdEnds(count int) End {
	var ends []End
	for _, report := range n.AllReports() {
		if report.Outcome() == OutcomeTrusted {
			ends = append(ends, report.Finding.Claims.Ends)
		}
	}
	slices.SortFunc(ends, func(a, b End) int {
		switch {
		case a.before(b):
			return -1
		case b.before(a):
			return 1
		}
		return 0
	})
	for _, end := range ends {
		if end.At.IsZero() {
			break
		}
		left := make([][]Report, len(n.Children))
		for i, child := range n.Children {
			for _, report := range child.Reports {
				// What has ended still tells which entries its signer meets.
				if at := report.Finding.Claims.Ends.At; report.Outcome() == OutcomeTrusted && !at.IsZero() && !at.After(end.At) {
					report.Finding.Err = &Error{Reason: ReasonSignatureExpired}
				}
				left[i] = append(left[i], report)
			}
		}
		if len(signersOf(signaturesOf(left, func(Candidate) bool { return true }))) < count {
			return end
		}
	}
	return End{}
}

// held are the ends of the rules below that hold.
func (n Node) held() []End {
	var ends []End
	for _, child := range n.Children {
		if child.Outcome >= OutcomeExempt {
			ends = append(ends, child.ends())
		}
	}
	return ends
}

// lasting is when fewer than so many are left.
func lasting(count int, ends []End) End {
	if count < 1 || len(ends) < count {
		return End{}
	}
	slices.SortFunc(ends, func(a, b End) int {
		switch {
		case a.before(b):
			return 1
		case b.before(a):
			return -1
		}
		return 0
	})
	return ends[count-1]
}
