package verifier

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Exemption admits images unverified, by digest, until it ends. Which images
// and namespaces it is about otherwise is configuration's business.
type Exemption struct {
	// Name of the document; Reason and Owner are shown in answers.
	Name, Reason, Owner string
	// Digests of the images; none for an exemption by name.
	Digests []digest.Digest
	// Until is when it ends.
	Until time.Time
}

// Admit makes the EXEMPT verdict for an image that the exemption is about, or
// reports that it has ended. Only configuration calls it.
func (e Exemption) Admit(ref Reference) (Verdict, bool) {
	return e.verdict(Subject{Reference: ref, Digest: ref.Digest})
}

// admit does the same for an image that it names by digest.
func (e Exemption) admit(subject Subject) (Verdict, bool) {
	if !slices.Contains(e.Digests, subject.Digest) {
		return Verdict{}, false
	}
	return e.verdict(subject)
}

func (e Exemption) verdict(subject Subject) (Verdict, bool) {
	if !time.Now().Before(e.Until) {
		return Verdict{}, false
	}
	until := e.Until.UTC().Format("2006-01-02 15:04 MST")
	return Verdict{
		status: StatusExempt, reason: ReasonExempted, policy: "Exemption " + e.Name, subject: subject,
		validUntil: earlier(e.Until, time.Now().Add(maxFindingAge)), end: End{EndExemption, e.Name, e.Until},
		message: line(subject.Reference.String(), subject.Digest,
			"not verified until "+until+", as Exemption "+e.Name+" says: "+e.Reason, "", "", Policy{Owner: e.Owner}),
	}, true
}
