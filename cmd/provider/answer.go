package main

import (
	"errors"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// answer is a decision, or why there is none, as -o json prints it. Its words
// are those of the provider's value.
type answer struct {
	Image   string      `json:"image"`
	Status  string      `json:"status"` // UNDECIDED where there is no verdict
	Reason  string      `json:"reason"`
	Success bool        `json:"isSuccess"`
	Message string      `json:"message"`
	Remedy  string      `json:"remedy,omitempty"`
	Digest  string      `json:"digest,omitempty"`
	Pinned  string      `json:"pinned,omitempty"`
	Policy  string      `json:"policy,omitempty"`
	Checks  []checkMade `json:"checks,omitempty"`
	Millis  float64     `json:"milliseconds"`
	tree    verifier.Node
}

// checkMade is what one check made of one candidate.
type checkMade struct {
	Check        string    `json:"check"`
	Scheme       string    `json:"scheme"`
	Candidate    string    `json:"candidate"`
	ArtifactType string    `json:"artifactType,omitempty"`
	Outcome      string    `json:"outcome"`
	Signer       string    `json:"signer,omitempty"`
	SignedAt     time.Time `json:"signedAt,omitzero"`
	Reason       string    `json:"reason,omitempty"`
	Message      string    `json:"message,omitempty"`
	Remedy       string    `json:"remedy,omitempty"`
	Cause        string    `json:"cause,omitempty"`
}

// undecidedStatus stands in the place of a status where there is no verdict.
const undecidedStatus = "UNDECIDED"

// newAnswer words a decision; err, where it is set, is an *Undecided.
func newAnswer(image string, v verifier.Verdict, err error, took time.Duration) answer {
	a := answer{
		Image: image, Status: string(v.Status()), Reason: string(v.Reason()), Success: err == nil && v.Success(),
		Message: v.Message(), Remedy: v.Remedy(), Policy: v.Policy(), Digest: string(v.Digest()), tree: v.Tree(),
		Millis: float64(took.Microseconds()) / 1000,
	}
	if v.Digest() != "" {
		a.Pinned = v.Subject().Pinned()
	}
	if err != nil {
		a.Status = undecidedStatus
		a.Reason, a.Message = string(verifier.ReasonInternal), err.Error()
		var u *verifier.Undecided
		if errors.As(err, &u) {
			a.Reason, a.Message, a.Remedy, a.Policy = string(u.Reason()), u.Message(), u.Remedy(), u.Policy()
			a.Digest, a.tree = string(u.Subject().Digest), u.Tree()
		}
	}
	for _, report := range a.tree.AllReports() {
		a.Checks = append(a.Checks, newCheckMade(report))
	}
	return a
}

func newCheckMade(report verifier.Report) checkMade {
	made := checkMade{
		Check: report.Check, Scheme: report.Scheme, Candidate: string(report.Candidate.Descriptor.Digest),
		ArtifactType: report.Candidate.ArtifactType, Outcome: report.Outcome().String(),
		Signer: report.Finding.Claims.Signer.Name, SignedAt: report.Finding.Claims.SignedAt,
	}
	failed := report.Finding.Err
	if failed == nil && len(report.Finding.Claims.Logged) > 0 {
		failed = report.Finding.Claims.Logged[0]
	}
	if failed != nil {
		made.Reason, made.Message, made.Remedy = string(failed.Reason), failed.Message, failed.Remedy
		if failed.Err != nil {
			made.Cause = failed.Err.Error()
		}
	}
	return made
}

// exitCode is the worst of the answers': undecided, then refused.
func exitCode(answers []answer) int {
	code := exitTrusted
	for _, a := range answers {
		switch {
		case a.Status == undecidedStatus:
			return exitUndecided
		case !a.Success:
			code = exitRefused
		}
	}
	return code
}

// exit is exitCode as a command returns it.
func exit(answers []answer) error {
	if code := exitCode(answers); code != exitTrusted {
		return exitError(code)
	}
	return nil
}
