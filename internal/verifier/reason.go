package verifier

// Status says how an image was judged.
type Status string

// The statuses of a Verdict. Only StatusTrusted and StatusExempt admit; the
// zero Status denies.
const (
	StatusTrusted     Status = "TRUSTED"
	StatusUntrusted   Status = "UNTRUSTED"   // evidence is there, none of it is trusted, or trust was withdrawn
	StatusUnsupported Status = "UNSUPPORTED" // trusted once, end of life
	StatusUnknown     Status = "UNKNOWN"     // no candidate existed for any check
	StatusRefused     Status = "REFUSED"     // no policy, bad reference, digest required
	StatusExempt      Status = "EXEMPT"      // a skip rule, an exemption, or a level that only audits
)

// Reason is the one cause of an answer, from a closed list that docs/answers.md
// explains one by one. It is given once, where the foreign error is met.
type Reason string

// The reasons of verdicts.
const (
	ReasonTrusted   Reason = "TRUSTED"
	ReasonAuditOnly Reason = "AUDIT_ONLY"
	ReasonExempted  Reason = "EXEMPTED"
	ReasonSkipped   Reason = "SKIPPED"

	ReasonSignatureNotFound     Reason = "SIGNATURE_NOT_FOUND"
	ReasonSignatureInvalid      Reason = "SIGNATURE_INVALID"
	ReasonSignatureExpired      Reason = "SIGNATURE_EXPIRED"
	ReasonSubjectMismatch       Reason = "SUBJECT_MISMATCH"
	ReasonIdentityNotTrusted    Reason = "IDENTITY_NOT_TRUSTED"
	ReasonCertificateNotTrusted Reason = "CERTIFICATE_NOT_TRUSTED"
	ReasonCertificateExpired    Reason = "CERTIFICATE_EXPIRED"
	ReasonCertificateRevoked    Reason = "CERTIFICATE_REVOKED"
	ReasonTimestampInvalid      Reason = "TIMESTAMP_INVALID"
	ReasonLogProofMissing       Reason = "LOG_PROOF_MISSING"
	ReasonLogProofInvalid       Reason = "LOG_PROOF_INVALID"
	ReasonFormatUnsupported     Reason = "FORMAT_UNSUPPORTED"
	ReasonAttestationNotFound   Reason = "ATTESTATION_NOT_FOUND"
	ReasonAttestationRuleFailed Reason = "ATTESTATION_RULE_FAILED"
	ReasonThresholdNotMet       Reason = "THRESHOLD_NOT_MET"
	ReasonLedgerUntrusted       Reason = "LEDGER_UNTRUSTED"
	ReasonLedgerUnsupported     Reason = "LEDGER_UNSUPPORTED"
	ReasonEndOfLife             Reason = "END_OF_LIFE"

	ReasonPolicyNotFound   Reason = "POLICY_NOT_FOUND"
	ReasonReferenceInvalid Reason = "REFERENCE_INVALID"
	ReasonDigestRequired   Reason = "DIGEST_REQUIRED"
)

// The reasons of undecided: we could not find out.
const (
	// ReasonRegistryAway: several connections in a row were refused or unanswered,
	// the last a moment ago. Throttling, DNS, TLS, the check of addresses, our own
	// limits, and what one list, manifest or blob was answered, are never it.
	ReasonRegistryAway          Reason = "REGISTRY_AWAY"
	ReasonRegistryUnreachable   Reason = "REGISTRY_UNREACHABLE"
	ReasonRegistryUnauthorized  Reason = "REGISTRY_UNAUTHORIZED"
	ReasonRegistryThrottled     Reason = "REGISTRY_THROTTLED"
	ReasonRegistryInvalid       Reason = "REGISTRY_INVALID"
	ReasonImageNotFound         Reason = "IMAGE_NOT_FOUND"
	ReasonKeysUnavailable       Reason = "KEYS_UNAVAILABLE"
	ReasonRevocationUnavailable Reason = "REVOCATION_UNAVAILABLE"
	ReasonPolicyInvalid         Reason = "POLICY_INVALID"
	ReasonLedgerStale           Reason = "LEDGER_STALE"
	ReasonLimitExceeded         Reason = "LIMIT_EXCEEDED"
	ReasonTimeout               Reason = "TIMEOUT"
	ReasonInternal              Reason = "INTERNAL"
)

// distanceFromYes orders the reasons that deny by how much was proved before
// they were met, far to near: a tree is refused with the reason of the leaf
// that came closest, because that is the one worth mending. The table is also
// the list of all reasons that deny evidence; a reason that is in none of the
// tables here is undecided.
var distanceFromYes = []Reason{
	ReasonSignatureNotFound,
	ReasonAttestationNotFound,
	ReasonFormatUnsupported,
	ReasonSignatureInvalid,
	ReasonSubjectMismatch,
	ReasonLogProofMissing,
	ReasonLogProofInvalid,
	ReasonCertificateNotTrusted,
	ReasonIdentityNotTrusted,
	ReasonTimestampInvalid,
	ReasonCertificateExpired,
	ReasonSignatureExpired,
	ReasonCertificateRevoked,
	ReasonAttestationRuleFailed,
	ReasonThresholdNotMet,
	ReasonEndOfLife,
	ReasonLedgerUnsupported,
	ReasonLedgerUntrusted,
}

// closeness is the reason's place in distanceFromYes, and -1 for others.
func (r Reason) closeness() int {
	for i, known := range distanceFromYes {
		if r == known {
			return i
		}
	}
	return -1
}

// Undecided reports whether the reason means that we could not find out. Any
// reason that is not known to be a verdict's is undecided, the empty one too.
func (r Reason) Undecided() bool {
	switch r {
	case ReasonTrusted, ReasonAuditOnly, ReasonExempted, ReasonSkipped,
		ReasonPolicyNotFound, ReasonReferenceInvalid, ReasonDigestRequired:
		return false
	}
	return r.closeness() < 0
}
