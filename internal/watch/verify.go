package watch

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Outcome is what looking at an image came to.
type Outcome struct {
	Status Status
	Reason verifier.Reason
	// Message and Remedy are as an admission's denial has them.
	Message, Remedy string
	Policy          string
	// Digest that was judged; empty where nothing was resolved.
	Digest digest.Digest
	// Rules are what each rule of the policies came to; Evidence what was found, and what
	// each check made of it.
	Rules    []Rule
	Evidence []Evidence
	// At is when it was found out, and Until when it may be something else.
	At, Until time.Time
	// Ends is when the image will not be let run any more, if nobody does anything.
	Ends verifier.End
}

// settled is the outcome of a verdict that needed no look.
func settled(v verifier.Verdict) Outcome {
	return Outcome{
		Status: Status(v.Status()), Reason: v.Reason(), Message: v.Message(), Remedy: v.Remedy(), Policy: v.Policy(),
		Digest: v.Digest(), Rules: rulesOf(v.Tree()), Evidence: evidenceOf(v.Tree()), At: time.Now(), Until: v.ValidUntil(), Ends: v.Ends(),
	}
}

// maxEvidence is how much evidence of an image is shown.
const maxEvidence = 32

// Evidence is what a check made of something that is attached to an image.
type Evidence struct {
	Check        string          `json:"check"`
	Scheme       string          `json:"scheme"`
	Outcome      string          `json:"outcome"`
	Digest       string          `json:"digest,omitempty"`
	ArtifactType string          `json:"artifactType,omitempty"`
	Signer       string          `json:"signer,omitempty"`
	SignedAt     *time.Time      `json:"signedAt,omitempty"`
	ValidUntil   *time.Time      `json:"validUntil,omitempty"`
	Reason       verifier.Reason `json:"reason,omitempty"`
	Message      string          `json:"message,omitempty"`
}

// evidenceOf keeps of a tree's reports what is shown.
func evidenceOf(tree verifier.Node) []Evidence {
	var list []Evidence
	for _, r := range tree.AllReports() {
		if len(list) == maxEvidence {
			break
		}
		claims := r.Finding.Claims
		e := Evidence{
			Check: r.Check, Scheme: r.Scheme, Outcome: fmt.Sprint(r.Outcome()), Digest: r.Candidate.Descriptor.Digest.String(), ArtifactType: r.Candidate.ArtifactType,
			Signer: claims.Signer.Name, SignedAt: some(claims.SignedAt), ValidUntil: some(r.Finding.ValidUntil),
		}
		if r.Finding.Err != nil {
			e.Reason, e.Message = r.Finding.Err.Reason, r.Finding.Err.Message
		}
		list = append(list, e)
	}
	return list
}

// maxRules is how many rules of an image's policies are shown.
const maxRules = 64

// Rule is what a rule of a policy came to.
type Rule struct {
	// Depth in the policy's tree.
	Depth   int    `json:"depth"`
	Rule    string `json:"rule"`
	Name    string `json:"name,omitempty"`
	Outcome string `json:"outcome"`
	Message string `json:"message,omitempty"`
}

// rulesOf are a tree's rules, each before those below it.
func rulesOf(tree verifier.Node) []Rule {
	var list []Rule
	var walk func(n verifier.Node, depth int)
	walk = func(n verifier.Node, depth int) {
		if len(list) == maxRules {
			return
		}
		r := Rule{Depth: depth, Rule: n.Rule, Name: n.Name, Outcome: fmt.Sprint(n.Outcome)}
		if n.Err != nil {
			r.Message = n.Err.Message
		}
		list = append(list, r)
		for _, child := range n.Children {
			walk(child, depth+1)
		}
	}
	for _, policy := range tree.Children { // the tree itself is that all policies hold
		walk(policy, 0)
	}
	return list
}

// failed is the outcome of an error: we could not find out.
func failed(err error, policy string) Outcome {
	e := verifier.AsError(err)
	return Outcome{Status: StatusError, Reason: e.Reason, Message: e.Message, Remedy: e.Remedy, Policy: policy, At: time.Now()}
}

// chain is what an image is verified through; *verifier.Chain.
type chain interface {
	Verify(context.Context, verifier.Request) (verifier.Verdict, error)
	Resolve(context.Context, verifier.Reference) (verifier.Subject, error)
	Contents(context.Context, verifier.Reference) (verifier.Contents, error)
	Attached(ctx context.Context, ref verifier.Reference, artifactType string) iter.Seq2[verifier.Candidate, error]
	Policies() string
}

// Status is a verdict's, or one of two that are none.
type Status string

// What is no verdict: it could not be found out, and it has not been looked at yet.
const (
	StatusError   Status = "ERROR"
	StatusPending Status = "PENDING"
)

// Statuses are all there are, the ones to look at first.
func Statuses() []Status {
	return []Status{
		Status(verifier.StatusUntrusted), Status(verifier.StatusRefused), Status(verifier.StatusUnknown), Status(verifier.StatusUnsupported),
		StatusError, StatusPending, Status(verifier.StatusExempt), Status(verifier.StatusTrusted),
	}
}

// violating are those of what should not run, or might not.
func violating() []Status {
	return slices.DeleteFunc(Statuses(), func(s Status) bool { return s.success() || s == StatusPending })
}

// success reports whether it may run.
func (s Status) success() bool {
	return s == Status(verifier.StatusTrusted) || s == Status(verifier.StatusExempt)
}

// weight orders what counts for one image by its digests.
func (s Status) weight() int {
	order := []Status{
		Status(verifier.StatusTrusted), Status(verifier.StatusExempt), StatusPending, StatusError,
		Status(verifier.StatusUnsupported), Status(verifier.StatusUntrusted), Status(verifier.StatusRefused), Status(verifier.StatusUnknown),
	}
	if i := slices.Index(order, s); i >= 0 {
		return i
	}
	return len(order)
}

// worse is the status to show of a row that several checks speak of.
func (s Status) worse(than Status) bool {
	return slices.Index(Statuses(), s) < slices.Index(Statuses(), than)
}
