package watch

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxResults is how many results a report lists; its summary counts all.
	maxResults = 500
	// maxReportText bounds a name or a message in a result, so that a report of 500
	// has less than 400 KB.
	maxReportText = 240
	// ReportName is what the report of each namespace is called.
	ReportName = "countersign"
	// notListed says how many results there was no room for.
	notListed = "countersign.dev/results-not-listed"
)

// reportKind is an API of reports: openreports.io, or what it has come from.
type reportKind struct{ Group, Version, Kind, Resource string }

// reportKinds are those that we speak, the better one first.
func reportKinds() []reportKind {
	return []reportKind{
		{"openreports.io", "v1alpha1", "Report", "reports"},
		{"wgpolicyk8s.io", "v1alpha2", "PolicyReport", "policyreports"},
	}
}

func (k reportKind) open() bool { return k.Group == "openreports.io" }

// report is what runs in a namespace and should not: openreports.io/v1alpha1 Report
// and wgpolicyk8s.io/v1alpha2 PolicyReport, which agree on all but two fields.
type report struct {
	APIVersion    string               `json:"apiVersion"`
	Kind          string               `json:"kind"`
	Metadata      reportMetadata       `json:"metadata"`
	Source        string               `json:"source,omitempty"`
	Configuration *reportConfiguration `json:"configuration,omitempty"`
	Summary       reportSummary        `json:"summary"`
	Results       []reportResult       `json:"results,omitempty"`
}

type reportMetadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	Labels          map[string]string `json:"labels"`
	Annotations     map[string]string `json:"annotations,omitempty"`
	OwnerReferences []reportOwner     `json:"ownerReferences,omitempty"`
}

type reportOwner struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type reportConfiguration struct {
	Limits reportLimits `json:"limits"`
}

type reportLimits struct {
	MaxResults   int      `json:"maxResults"`
	StatusFilter []string `json:"statusFilter"`
}

type reportSummary struct {
	Pass  int `json:"pass"`
	Fail  int `json:"fail"`
	Warn  int `json:"warn"`
	Error int `json:"error"`
	Skip  int `json:"skip"`
}

type reportResult struct {
	Source     string            `json:"source"`
	Policy     string            `json:"policy"`
	Rule       string            `json:"rule,omitempty"`
	Category   string            `json:"category"`
	Severity   string            `json:"severity"`
	Timestamp  reportTime        `json:"timestamp"`
	Result     string            `json:"result"`
	Scored     bool              `json:"scored"`
	Resources  []reportResource  `json:"resources"`
	Message    string            `json:"message"`
	Properties map[string]string `json:"properties"`
}

type reportTime struct {
	Seconds int64 `json:"seconds"`
	Nanos   int32 `json:"nanos"`
}

type reportResource struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
}

// reports are those of all namespaces in which something runs. They change only with
// what they say: when images were looked at is not in them.
func reports(kind reportKind, rows []Row) map[string]*report {
	byNamespace := map[string]*report{}
	slices.SortStableFunc(rows, func(a, b Row) int { // what is listed is the worst
		return cmp.Compare(slices.Index(Statuses(), a.Status), slices.Index(Statuses(), b.Status))
	})
	for _, row := range rows {
		r := byNamespace[row.Namespace]
		if r == nil {
			r = newReport(kind, row.Namespace)
			byNamespace[row.Namespace] = r
		}
		r.add(row)
	}
	return byNamespace
}

func newReport(kind reportKind, namespace string) *report {
	r := &report{
		APIVersion: kind.Group + "/" + kind.Version, Kind: kind.Kind,
		Metadata: reportMetadata{Name: ReportName, Namespace: namespace, Labels: map[string]string{managedBy: ReportName}},
	}
	if kind.open() {
		r.Source = ReportName
		r.Configuration = &reportConfiguration{reportLimits{maxResults, []string{"fail", "warn", "error"}}}
	}
	return r
}

// add counts a row for each workload that runs it, and lists what should not run.
func (r *report) add(row Row) {
	result, severity := graded(row.Status)
	workloads := row.Workloads()
	switch result {
	case "pass":
		r.Summary.Pass += len(workloads)
	case "skip":
		r.Summary.Skip += len(workloads)
	case "fail":
		r.Summary.Fail += len(workloads)
	case "warn":
		r.Summary.Warn += len(workloads)
	case "error":
		r.Summary.Error += len(workloads)
	}
	if !slices.Contains(violating(), row.Status) {
		return
	}
	var since reportTime
	if row.Since != nil {
		since.Seconds = row.Since.Unix()
	}
	for i, workload := range workloads {
		if len(r.Results) == maxResults {
			r.leftOut(len(workloads) - i)
			return
		}
		kind, name, _ := strings.Cut(workload, "/")
		r.Results = append(r.Results, reportResult{
			Source: ReportName, Policy: cmp.Or(row.Policy, "none"), Rule: string(row.Reason), Category: "image verification", Severity: severity,
			Timestamp: since, Result: result, Scored: true, Message: clip(row.Message, maxReportText),
			Resources:  []reportResource{{apiVersion(kind), kind, row.Namespace, name}},
			Properties: map[string]string{"image": clip(row.Image, maxReportText), "digest": row.Digest, "status": string(row.Status)},
		})
	}
}

func (r *report) leftOut(n int) {
	before, _ := strconv.Atoi(r.Metadata.Annotations[notListed])
	r.Metadata.Annotations = map[string]string{notListed: strconv.Itoa(before + n)}
}

// graded is a status in the words of reports. What was not looked at yet is not
// counted.
func graded(s Status) (result, severity string) {
	switch s {
	case Status(verifier.StatusTrusted):
		return "pass", "info"
	case Status(verifier.StatusExempt):
		return "skip", "info"
	case Status(verifier.StatusUntrusted):
		return "fail", "critical"
	case Status(verifier.StatusRefused), Status(verifier.StatusUnknown):
		return "fail", "high"
	case Status(verifier.StatusUnsupported):
		return "warn", "medium"
	case StatusError:
		return "error", "medium"
	default:
		return "", ""
	}
}
