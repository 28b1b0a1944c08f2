package provider

import (
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// The paths at which Ratify answered. The first version's answer is a part of
// ours; the second's has artifactReports beside it.
const (
	ratifyV1 = "/ratify/gatekeeper/v1"
	ratifyV2 = "/ratify/gatekeeper/v2"
)

// refuse refuses a key that says whose pull secrets count, where that is for none to
// say: Ratify's templates send the image as the Pod's author has written it.
func (e *endpoint) refuse(key string) (answer, bool) {
	if !e.plain || e.name != endpointVerify {
		return answer{}, false
	}
	scope, image, scoped := splitKey(key)
	if !scoped || !strings.Contains(scope, ";") {
		return answer{}, false
	}
	image = elide(image, verifier.MaxReferenceLength)
	return answer{key: key, reply: &reply{image: image, verdict: verifier.Refuse(image, &verifier.Error{
		Reason:  verifier.ReasonReferenceInvalid,
		Message: "the key names a ServiceAccount or pull secrets, which no key does at Ratify's paths",
		Remedy:  "Write it as image or [namespace]image, or ask /v1/verify with a template of Countersign",
	})}}, true
}

// appendVerifiedV2 writes the answer to a verify request in the shape of Ratify's
// second version: ours, and artifactReports in it.
func appendVerifiedV2(b []byte, answers []answer, now time.Time, trace string) []byte {
	return appendItems(b, answers, appendValueV2, now, trace)
}

func appendValueV2(b []byte, a *answer) []byte {
	b = appendValue(b, a)
	b = append(b[:len(b)-1], `,"artifactReports":[`...)
	return append(appendArtifacts(b, a), "]}"...)
}

// appendArtifacts writes what was made of each artifact. A denial without any has
// one of the image itself.
func appendArtifacts(b []byte, a *answer) []byte {
	var few [8]*verifier.Report
	tree := a.verdict.Tree()
	reports := bounded(gather(few[:0], &tree))
	subject := a.image
	if a.verdict.Digest() != "" {
		subject = a.verdict.Subject().Pinned()
	}
	var order []digest.Digest
	byArtifact := map[digest.Digest][]*verifier.Report{}
	for _, r := range reports {
		artifact := r.Candidate.Descriptor.Digest
		if byArtifact[artifact] == nil {
			order = append(order, artifact)
		}
		byArtifact[artifact] = append(byArtifact[artifact], r)
	}
	for i, artifact := range order {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendArtifact(b, subject, string(artifact))
		for j, r := range byArtifact[artifact] {
			if j > 0 {
				b = append(b, ',')
			}
			shown := reportOf(a.image, r)
			b = appendResult(b, &shown)
		}
		b = append(b, "]}"...)
	}
	if len(order) == 0 && !a.verdict.Success() {
		b = appendArtifact(b, subject, "")
		b = appendResult(b, &report{message: a.verdict.Message(), reason: string(a.verdict.Reason())})
		b = append(b, "]}"...)
	}
	return b
}

func appendArtifact(b []byte, subject, artifact string) []byte {
	b = append(b, `{"subject":`...)
	b = appendText(b, subject, 2*verifier.MaxReferenceLength)
	b = append(b, `,"artifact":`...)
	b = appendString(b, artifact)
	return append(b, `,"results":[`...)
}

func appendResult(b []byte, r *report) []byte {
	b = append(b, `{"verifierName":`...)
	b = appendText(b, r.name, maxText)
	b = append(b, `,"description":`...)
	b = appendText(b, r.message, maxText)
	b = append(b, `,"errorReason":`...)
	b = appendText(b, r.reason, maxText)
	// It is JSON inside a text, as it was there.
	detail := append([]byte(`{"Issuer":`), appendText(nil, r.issuer, maxText)...)
	detail = append(append(append(detail, `,"SN":`...), appendText(nil, r.certificate, maxText)...), '}')
	b = append(b, `,"detail":`...)
	return append(appendString(b, string(detail)), '}')
}
