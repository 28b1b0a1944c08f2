package watch

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// maxPlatforms is how many manifests of an index are looked into for a config.
const maxPlatforms = 16

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

// verify looks at an image that runs. An index, the manifest of the node's platform
// in it and that one's config are one image: whoever signed one of them has signed
// what runs. They are looked at one by one until one is trusted.
func verify(ctx context.Context, c chain, r running) Outcome {
	if r.digest == "" { // nothing runs yet: what would
		return judge(ctx, c, r.named)
	}
	if r.isConfig {
		same, err := manifestsOf(ctx, c, r)
		if err != nil {
			return failed(err, c.Policies())
		}
		return best(ctx, c, r, same)
	}
	first := judge(ctx, c, r.at(r.digest))
	if first.Status.success() {
		return first
	}
	others, err := relatives(ctx, c, r)
	if err != nil && first.Status != StatusError {
		return failed(err, c.Policies()) // what is not known may be what is trusted
	}
	return better(first, best(ctx, c, r, others))
}

func judge(ctx context.Context, c chain, ref verifier.Reference) Outcome {
	verdict, err := c.Verify(ctx, verifier.Request{Image: ref})
	if err != nil {
		return failed(err, c.Policies())
	}
	return settled(verdict)
}

// best judges one after the other until one is trusted.
func best(ctx context.Context, c chain, r running, digests []digest.Digest) Outcome {
	var found Outcome
	for _, d := range digests {
		if found = better(found, judge(ctx, c, r.at(d))); found.Status.success() {
			break
		}
	}
	return found
}

// better is the outcome that counts of two for the same image: a yes before what is
// not known before a no, and of two noes the one that says more.
func better(a, b Outcome) Outcome {
	if b.Status != "" && (a.Status == "" || b.Status.weight() < a.Status.weight()) {
		return b
	}
	return a
}

// relatives are the digests by which the image is known as well: the manifest of the
// node's platform where it is an index; the index where the spec's reference names
// one that has it.
func relatives(ctx context.Context, c chain, r running) ([]digest.Digest, error) {
	contents, err := c.Contents(ctx, r.at(r.digest))
	if err != nil {
		return nil, err
	}
	if len(contents.Manifests) > 0 {
		return platforms(contents.Manifests, r.platform), nil
	}
	named, err := c.Resolve(ctx, r.named)
	if err != nil || named.Digest == r.digest {
		return nil, err
	}
	known, err := knownBy(ctx, c, r, named.Digest)
	return known[:min(len(known), 1)], err // what it is itself has been judged
}

// platforms are an index's manifests for a platform; none where nobody knows which.
func platforms(manifests []ocispec.Descriptor, platform string) []digest.Digest {
	var list []digest.Digest
	for _, m := range manifests {
		if m.Platform != nil && platform != "" && m.Platform.OS+"/"+m.Platform.Architecture == platform && len(list) < maxPlatforms {
			list = append(list, m.Digest)
		}
	}
	return list
}

// manifestsOf finds the image that has the config which runs: what the spec's
// reference names, or a manifest of it.
func manifestsOf(ctx context.Context, c chain, r running) ([]digest.Digest, error) {
	named, err := c.Resolve(ctx, r.named)
	if err != nil {
		return nil, err
	}
	known, err := knownBy(ctx, c, r, named.Digest)
	if err != nil || len(known) > 0 {
		return known, err
	}
	return nil, &verifier.Error{
		Reason:  verifier.ReasonImageNotFound,
		Message: fmt.Sprintf("%s: the node runs the config %.19s…, and the reference names another image now", r.named, r.digest),
		Remedy:  "Restart the pod, or name the image by its digest",
	}
}

// knownBy are the digests of manifests, an index first, by which what runs is known
// where a reference names this digest; none where it names another image.
func knownBy(ctx context.Context, c chain, r running, named digest.Digest) ([]digest.Digest, error) {
	if named == r.digest {
		return []digest.Digest{named}, nil
	}
	contents, err := c.Contents(ctx, r.at(named))
	if err != nil {
		return nil, err
	}
	if contents.Config.Digest == r.digest {
		return []digest.Digest{named}, nil
	}
	for _, m := range contents.Manifests {
		if m.Digest == r.digest {
			return []digest.Digest{named, m.Digest}, nil
		}
	}
	if !r.isConfig {
		return nil, nil
	}
	candidates := platforms(contents.Manifests, r.platform)
	if r.platform == "" {
		for _, m := range contents.Manifests[:min(len(contents.Manifests), maxPlatforms)] {
			candidates = append(candidates, m.Digest)
		}
	}
	for _, d := range candidates {
		manifest, err := c.Contents(ctx, r.at(d))
		if err != nil {
			return nil, err
		}
		if manifest.Config.Digest == r.digest {
			return []digest.Digest{named, d}, nil
		}
	}
	return nil, nil
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
