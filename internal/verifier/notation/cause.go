package notation

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	nx509 "github.com/notaryproject/notation-core-go/x509"
	notationgo "github.com/notaryproject/notation-go"
	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// remedySign is what helps where the signature is no good.
const remedySign = "Sign this digest with notation sign"

func unsupported(message string) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: message, Remedy: remedySign}
}

// unexplained is for what notation-go has no documented way to say. It is
// undecided, because nobody knows what it means.
func unexplained(err error) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonInternal, Message: "the Notary Project's verifier failed", Remedy: "Report this with the trace id", Err: err}
}

func noStatement(repository string) *verifier.Error {
	return &verifier.Error{
		Reason:  verifier.ReasonCertificateNotTrusted,
		Message: "no statement of the Notary trust policy is for " + clip(repository),
		Remedy:  `Add it to a statement's registryScopes, or add a statement for "*"`,
	}
}

// brokenEnvelope says why the integrity of an envelope does not hold. It looks
// again, because of what notation-go found only the text is left.
func brokenEnvelope(mediaType string, blob []byte, cause error) *verifier.Error {
	content, err := open(mediaType, blob)
	if err == nil {
		return unsupported(fmt.Sprintf("what is signed is a %q and not a Notary Project payload", clip(content.Payload.ContentType)))
	}
	e := &verifier.Error{Reason: verifier.ReasonSignatureInvalid, Remedy: remedySign, Err: cause}
	var integrity *signature.SignatureIntegrityError
	var invalid *signature.InvalidSignatureError
	switch {
	case errors.As(err, &integrity):
		e.Message = "the signature does not fit what it signs: one of them was altered"
	case errors.As(err, &invalid):
		e.Message = "the signature envelope breaks the Notary Project's rules"
		if fault := chainFault(mediaType, blob); fault != nil {
			e.Message = "the signature's certificates are no chain for code signing"
			e.Remedy = "Sign with a code-signing certificate and its whole chain, root included"
			e.Err = fault
		}
	default: // an algorithm or a key that the Notary Project does not allow
		e.Reason, e.Message = verifier.ReasonFormatUnsupported, "the signature uses an algorithm or key that the Notary Project does not allow"
	}
	return e
}

func chainFault(mediaType string, blob []byte) error {
	o, err := readOutline(mediaType, blob)
	if err != nil {
		return nil
	}
	certificates, err := parseChain(o.chain)
	if err != nil {
		return nil
	}
	return nx509.ValidateCodeSigningCertChain(certificates, nil)
}

// untrustedCauses says why authenticity does not hold: the chain ends at
// nobody who is trusted, the signer is none of the trusted identities, or both.
func (j *judgement) untrustedCauses(cause error) []*verifier.Error {
	var causes []*verifier.Error
	anchored := anchoredIn(j.signer.CertificateChain, j.signerStores())
	if !anchored {
		causes = append(causes, j.notAnchored(cause))
	}
	// notation-go tells only the last of the two; those of the chain have types.
	var unanchored *signature.SignatureAuthenticityError
	var nothingToTrust notationgo.VerificationInconclusiveError
	if anchored || !errors.As(cause, &unanchored) && !errors.As(cause, &nothingToTrust) {
		causes = append(causes, j.notTrustedIdentity(cause))
	}
	return causes
}

// signerStores are the stores that vouch for the signature's scheme.
func (j *judgement) signerStores() []TrustStore {
	if j.signer.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		return j.statement.ofType(TypeSigningAuthority)
	}
	return j.statement.ofType(TypeCA)
}

func anchoredIn(chain []*x509.Certificate, stores []TrustStore) bool {
	for _, store := range stores {
		for _, trusted := range store.Certificates {
			for _, c := range chain {
				if c.Equal(trusted) {
					return true
				}
			}
		}
	}
	return false
}

func (j *judgement) notAnchored(cause error) *verifier.Error {
	stores := j.signerStores()
	root := j.signer.CertificateChain[len(j.signer.CertificateChain)-1]
	if len(stores) == 0 {
		scheme := j.signer.SignedAttributes.SigningScheme
		return &verifier.Error{
			Reason:  verifier.ReasonCertificateNotTrusted,
			Message: fmt.Sprintf("the signature is of the scheme %s, for which no trust store is configured", scheme),
			Remedy:  "Add a trust store of the type signingAuthority, or ca for the scheme notary.x509, if you trust its issuer",
			Err:     cause,
		}
	}
	if e := emptyStore(stores, cause); e != nil {
		return e
	}
	message := fmt.Sprintf("signed by %q under the root %q, not in %s", briefly(j.signer.CertificateChain[0]), briefly(root), holdings(stores))
	if namesake(root, stores) {
		message = fmt.Sprintf("signed by %q under the root %q, which only has the name of one in %s", briefly(j.signer.CertificateChain[0]), briefly(root), namesOf(stores))
	}
	return &verifier.Error{
		Reason: verifier.ReasonCertificateNotTrusted, Message: message, Remedy: "Add its root to a trust store if you trust it", Err: cause,
	}
}

// namesake reports whether a trusted certificate has the same subject: a
// renewed root, or a forged one.
func namesake(root *x509.Certificate, stores []TrustStore) bool {
	for _, store := range stores {
		for _, trusted := range store.Certificates {
			if bytes.Equal(trusted.RawSubject, root.RawSubject) {
				return true
			}
		}
	}
	return false
}

// emptyStore is the error for a store without certificates. It might have held
// the one that is missing, so nothing is decided.
func emptyStore(stores []TrustStore, cause error) *verifier.Error {
	for _, store := range stores {
		if len(store.Certificates) == 0 {
			return &verifier.Error{
				Reason:  verifier.ReasonKeysUnavailable,
				Message: fmt.Sprintf("the trust store %s is empty", store),
				Remedy:  "Check where its certificates come from",
				Err:     cause,
			}
		}
	}
	return nil
}

// holdings lists what stores hold, as far as a line has room.
func holdings(stores []TrustStore) string {
	var held []string
	for _, store := range stores {
		for _, c := range store.Certificates {
			held = append(held, fmt.Sprintf("%q", briefly(c)))
		}
	}
	const shown = 2
	more := ""
	if len(held) > shown {
		held, more = held[:shown], fmt.Sprintf(" and %d more", len(held)-shown)
	}
	return fmt.Sprintf("%s (%s%s)", namesOf(stores), strings.Join(held, ", "), more)
}

func namesOf(stores []TrustStore) string {
	names := make([]string, len(stores))
	for i, store := range stores {
		names[i] = store.String()
	}
	return "trust store " + strings.Join(names, ", ")
}

func (j *judgement) notTrustedIdentity(cause error) *verifier.Error {
	leaf := j.signer.CertificateChain[0]
	trusted := make([]string, len(j.statement.identities))
	for i, identity := range j.statement.identities {
		trusted[i] = fmt.Sprintf("%q", strings.TrimSpace(strings.TrimPrefix(identity, "x509.subject:")))
	}
	return &verifier.Error{
		Reason:  verifier.ReasonIdentityNotTrusted,
		Message: fmt.Sprintf("signed by %q; trusted: %s", nameOf(leaf), clip(strings.Join(trusted, ", "))),
		Remedy:  "Sign as a trusted identity, or add x509.subject of this one to trustedIdentities",
		Err:     cause,
	}
}

func expired(expiry time.Time) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonSignatureExpired, Message: "the signature expired on " + day(expiry), Remedy: "Sign this digest again",
	}
}

// day writes a time as people compare it.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// shorten is as much of a digest as tells two images apart.
func shorten(d digest.Digest) string {
	const length = len("sha256:") + 12
	if len(d) > length {
		d = d[:length]
	}
	return strings.ToValidUTF8(string(d), "?")
}
