package sigstore

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// remedySign is what helps where the signature is no good.
const remedySign = "Sign this digest with cosign sign"

func unsupported(format string, args ...any) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: fmt.Sprintf(format, args...), Remedy: remedySign}
}

func invalid(cause error, format string, args ...any) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonSignatureInvalid, Message: fmt.Sprintf(format, args...), Remedy: remedySign, Err: cause}
}

func anotherSubject(claimed string) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonSubjectMismatch, Message: "the signature is for another image, " + shorten(claimed), Remedy: remedySign,
	}
}

// anAttestation tells what was found where a signature is wanted.
func anAttestation(predicateType string) *verifier.Error {
	return unsupported("found an attestation (%s) and not a signature", clip(predicateType))
}

func keyless() *verifier.Error {
	return &verifier.Error{
		Reason:  verifier.ReasonFormatUnsupported,
		Message: "the signature is by a certificate (keyless), and only keys are trusted here",
		Remedy:  "Sign with a trusted key: cosign sign --key",
	}
}

// notOurs is for a signature that none of the keys made. A bare signature does
// not say whose it is, so another key's and an altered one look alike; a bundle
// names its key, which is believed as far as words go.
func (r keyring) notOurs(hint string) *verifier.Error {
	e := invalid(nil, "none of the trusted keys made this signature: %s", r)
	e.Remedy = "Sign with one of them, or trust the signer's key"
	if named := r.hinted(hint); named != nil {
		e = invalid(nil, "the signature names the key %s and does not fit what it signs: one of them was altered", named.name)
	}
	return e
}

func tooManyLayers(found, kept int) *verifier.Error {
	return &verifier.Error{
		Reason:  verifier.ReasonLimitExceeded,
		Message: fmt.Sprintf("a manifest holds %d signatures, and the first %d are tried", found, kept),
		Remedy:  "Delete signatures that nobody needs from the repository",
	}
}

func noProof() *verifier.Error {
	return &verifier.Error{
		Reason:  verifier.ReasonLogProofMissing,
		Message: "the signature has no proof that it is in a transparency log",
		Remedy:  "Sign with the upload to the log switched on",
	}
}

func badProof(cause error, format string, args ...any) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonLogProofInvalid, Message: fmt.Sprintf(format, args...),
		Remedy: "Sign again, with the upload to the log switched on", Err: cause,
	}
}

// shorten is as much of a digest as tells two images apart.
func shorten(d string) string {
	algorithm, hex, _ := strings.Cut(d, ":")
	if len(hex) > 12 {
		hex = hex[:12]
	}
	if digest.Digest(d).Validate() != nil {
		return fmt.Sprintf("%q", clip(d))
	}
	return algorithm + ":" + hex
}

// clip keeps a text of a stranger's length readable, on one line.
func clip(s string) string {
	const limit = 160
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
