package notation

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/notaryproject/notation-core-go/signature"
	nx509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/tspclient-go"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// maxToken bounds a timestamp token in bytes. One with its whole chain has
// about 6 KiB; a chain is built from what is in it before it is trusted.
const maxToken = 256 << 10

// stamp is what is known of when a signature was made.
type stamp struct {
	time  time.Time           // of a timestamp that holds, else zero
	chain []*x509.Certificate // of the timestamping authority that made it
	fixed bool                // the certificates are judged at a proved time, not now
	err   *verifier.Error     // why the validation of time fails
}

// authenticTime goes the steps of notation-go's validation of time again:
// notation-go keeps to itself which time it found and, but for a text, what it
// missed. It alone decides; where both disagree the signature is refused.
//
// https://github.com/notaryproject/specifications/blob/v1.1.0/specs/trust-store-trust-policy.md#steps
func (j *judgement) authenticTime() {
	if j.signer.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		j.stamp.fixed = true
		at := j.signer.SignedAttributes.SigningTime
		j.stamp.err = outsideValidity(j.signer.CertificateChain, at, at, "when it was made")
		return
	}
	if !j.needsTimestamp() {
		j.stamp.err = outsideValidity(j.signer.CertificateChain, j.now, j.now, "")
		return
	}
	j.stamp.err = j.readStamp()
	j.stamp.fixed = j.stamp.err == nil
}

// needsTimestamp: there is a trust store of timestamping authorities, and with
// afterCertExpiry a certificate has run out.
func (j *judgement) needsTimestamp() bool {
	if len(j.statement.ofType(TypeTSA)) == 0 {
		return false
	}
	if j.statement.timestamps != trustpolicy.OptionAfterCertExpiry {
		return true
	}
	for _, c := range j.signer.CertificateChain {
		if j.now.After(c.NotAfter) {
			return true
		}
	}
	return false
}

func (j *judgement) readStamp() *verifier.Error {
	raw := j.signer.UnsignedAttributes.TimestampSignature
	if len(raw) == 0 {
		e := badTimestamp("the signature has no timestamp, and the trust policy demands one", nil)
		if err := outsideValidity(j.signer.CertificateChain, j.now, j.now, ""); err != nil {
			e.Message = "the signature has no timestamp to prove that it is older: " + err.Message
		}
		e.Remedy = "Sign this digest again with notation sign --timestamp-url"
		return e
	}
	token, err := parseToken(raw)
	if err != nil {
		return badTimestamp("the timestamp cannot be read", err)
	}
	info, err := token.Info()
	if err != nil {
		return badTimestamp("the timestamp cannot be read", err)
	}
	at, err := info.Validate(j.signer.Signature)
	if err != nil {
		return badTimestamp("the timestamp is not of this signature", err)
	}
	stores := j.statement.ofType(TypeTSA)
	chain, err := verifyToken(token, at.Value, stores)
	if err != nil {
		if e := emptyStore(stores, err); e != nil {
			return e
		}
		return badTimestamp(fmt.Sprintf("the timestamp is by %s, not in %s", authorityOf(token), holdings(stores)), err)
	}
	// The whole range that its accuracy leaves must lie within.
	if e := outsideValidity(j.signer.CertificateChain, at.Value.Add(-at.Accuracy), at.Value.Add(at.Accuracy), "at the time of the timestamp, "+day(at.Value)); e != nil {
		return e
	}
	j.stamp.time, j.stamp.chain = at.Value, chain
	return nil
}

// parseToken reads a token, unless it is made to be expensive.
func parseToken(raw []byte) (*tspclient.SignedToken, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("%d bytes are more than the %d that are read", len(raw), maxToken)
	}
	token, err := tspclient.ParseSignedToken(raw)
	if err != nil {
		return nil, err
	}
	if err := boundedKeys(token.Certificates); err != nil {
		return nil, err
	}
	return token, nil
}

func verifyToken(token *tspclient.SignedToken, at time.Time, stores []TrustStore) ([]*x509.Certificate, error) {
	roots := x509.NewCertPool()
	for _, store := range stores {
		for _, c := range store.Certificates {
			roots.AddCert(c)
		}
	}
	chain, err := token.Verify(context.Background(), x509.VerifyOptions{CurrentTime: at, Roots: roots})
	if err != nil {
		return nil, err
	}
	return chain, nx509.ValidateTimestampingCertChain(chain)
}

// authorityOf names who made a token, unproved.
func authorityOf(token *tspclient.SignedToken) string {
	for i := range token.SignerInfos {
		if c, err := token.SigningCertificate(&token.SignerInfos[i]); err == nil {
			return fmt.Sprintf("%q of %q", briefly(c), clip("CN="+c.Issuer.CommonName))
		}
	}
	return "nobody it names"
}

func badTimestamp(message string, cause error) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonTimestampInvalid, Message: message,
		Remedy: "Sign this digest again with a timestamp of a trusted authority", Err: cause,
	}
}

// outsideValidity names the first certificate that is not valid for all of
// earliest to latest.
func outsideValidity(chain []*x509.Certificate, earliest, latest time.Time, when string) *verifier.Error {
	for _, c := range chain {
		fault, remedy := "", "Sign this digest with a certificate that is valid, and with a timestamp so that it stays so"
		switch {
		case earliest.Before(c.NotBefore):
			fault = "is not valid before " + day(c.NotBefore)
			remedy = "Check the clocks of signer and verifier, or sign with a certificate that is valid"
		case latest.After(c.NotAfter):
			fault = "expired on " + day(c.NotAfter)
		default:
			continue
		}
		message := fmt.Sprintf("the signer's certificate %q %s", briefly(c), fault)
		if when != "" {
			message = fmt.Sprintf("the signer's certificate %q was not valid %s: it %s", briefly(c), when, fault)
		}
		return &verifier.Error{Reason: verifier.ReasonCertificateExpired, Message: message, Remedy: remedy}
	}
	return nil
}
