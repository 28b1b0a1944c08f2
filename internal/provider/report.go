package provider

import (
	"slices"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// report is one of a value's verifierReports, in the shape of Ratify's 0.2.0.
type report struct {
	subject                     string
	success                     bool
	name, scheme                string
	referenceDigest             string
	artifactType                string
	message, reason, remedy     string
	issuer, certificate, signer string
}

// appendReports writes what each check made of each candidate. There are
// templates that read nothing but these, so a denial always has a report that
// says so, even where every single signature is good but too few are there.
func appendReports(b []byte, a *answer, success bool) []byte {
	var few [8]*verifier.Report
	tree := a.verdict.Tree()
	reports := bounded(gather(few[:0], &tree))
	failed := false
	for i, from := range reports {
		r := reportOf(a.image, from)
		failed = failed || !r.success
		if i > 0 {
			b = append(b, ',')
		}
		b = r.append(b)
	}
	if success || failed {
		return b
	}
	if len(reports) > 0 {
		b = append(b, ',')
	}
	v := &a.verdict
	return (&report{subject: a.image, message: v.Message(), reason: string(v.Reason()), remedy: v.Remedy()}).append(b)
}

// gather lists the tree's reports without copying them.
func gather(list []*verifier.Report, n *verifier.Node) []*verifier.Report {
	for i := range n.Reports {
		list = append(list, &n.Reports[i])
	}
	for i := range n.Children {
		list = gather(list, &n.Children[i])
	}
	return list
}

// bounded is what is shown of the reports: all, or of too many the first ones,
// those that succeeded before the others.
func bounded(reports []*verifier.Report) []*verifier.Report {
	if len(reports) <= maxReports {
		return reports
	}
	good := func(r *verifier.Report) int {
		if r.Outcome() >= verifier.OutcomeExempt {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(reports, func(a, b *verifier.Report) int { return good(a) - good(b) })
	return reports[:maxReports]
}

func reportOf(subject string, from *verifier.Report) report {
	finding := &from.Finding
	r := report{
		subject: subject, name: from.Check, scheme: from.Scheme,
		referenceDigest: string(from.Candidate.Descriptor.Digest), artifactType: from.Candidate.ArtifactType,
		signer: finding.Claims.Signer.Name,
	}
	why := finding.Err
	switch from.Outcome() {
	case verifier.OutcomeTrusted:
		r.success, r.message = true, "signed by "+finding.Claims.Signer.Name
		// Ratify's issuer template compares these without asking whether the
		// report succeeded: only what is trusted gets them.
		r.issuer, r.certificate = finding.Claims.Signer.Issuer, finding.Claims.Signer.Name
		return r
	case verifier.OutcomeExempt:
		r.success, why = true, finding.Claims.Logged[0]
		r.message = "only audited: " + why.Message
	default:
		r.message = why.Message
	}
	r.reason, r.remedy = string(why.Reason), why.Remedy
	return r
}

func (r *report) append(b []byte) []byte {
	b = append(b, `{"subject":`...)
	b = appendText(b, r.subject, 2*verifier.MaxReferenceLength)
	b = append(b, `,"isSuccess":`...)
	b = appendBool(b, r.success)
	for _, field := range [...]struct{ name, value string }{
		{`,"name":`, r.name}, {`,"verifierName":`, r.name},
		{`,"type":`, r.scheme}, {`,"verifierType":`, r.scheme},
		{`,"referenceDigest":`, r.referenceDigest}, {`,"artifactType":`, r.artifactType},
		{`,"message":`, r.message}, {`,"errorReason":`, r.reason}, {`,"remediation":`, r.remedy},
		{`,"extensions":{"Issuer":`, r.issuer}, {`,"SN":`, r.certificate}, {`,"signer":`, r.signer},
	} {
		b = append(b, field.name...)
		b = appendText(b, field.value, maxText)
	}
	return append(b, "}}"...)
}
