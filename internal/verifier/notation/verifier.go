package notation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/revocation/purpose"
	"github.com/notaryproject/notation-core-go/signature"
	notationgo "github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// ArtifactType is the type of the referrers that are Notary Project signatures.
const ArtifactType = "application/vnd.cncf.notary.signature"

const (
	// maxFindingAge bounds how long a finding holds that nothing else bounds.
	maxFindingAge = time.Hour
	// retryAge is how long a finding holds that passes only because a level logs
	// what could not be found out: soon it may be known.
	retryAge = time.Minute
)

// Verifier judges Notary Project signatures. It is a verifier.Verifier.
type Verifier struct {
	statements  map[string]*statement // by scope; "*" for all others
	revocation  *Revocation
	fingerprint string
	parties     []verifier.Party
}

// New makes a Verifier, or says in the user's words what is wrong with the
// options.
func New(o Options) (*Verifier, error) {
	document, err := o.policy()
	if err != nil {
		return nil, err
	}
	stores := trustStores{}
	for _, store := range o.TrustStores {
		store.Certificates = slices.Clone(store.Certificates)
		stores[store.String()] = store
	}
	v := &Verifier{
		statements: map[string]*statement{}, revocation: o.Revocation, fingerprint: fingerprint(document, o.TrustStores) + o.Revocation.fingerprint(),
	}
	for _, s := range document.TrustPolicies {
		compiled, err := compile(s, stores)
		if err != nil {
			return nil, fmt.Errorf("statement %q: %w", clip(s.Name), err)
		}
		for _, entry := range compiled.entries {
			v.parties = append(v.parties, verifier.Party{ID: entry.id, Signers: entry.signers})
		}
		if o.Revocation == nil && compiled.enforcement[trustpolicy.TypeRevocation] != trustpolicy.ActionSkip {
			return nil, errors.New("revocation is to be checked, and there is nothing to check it with")
		}
		for _, scope := range s.RegistryScopes {
			scope = canonicalScope(scope)
			if v.statements[scope] != nil {
				return nil, fmt.Errorf("the registry scope %q is in two statements", clip(scope))
			}
			v.statements[scope] = compiled
		}
	}
	return v, nil
}

// Fingerprint changes with every option and every byte of trust material.
func (v *Verifier) Fingerprint() string { return v.fingerprint }

// Parties are all whom the options trust, as Claims.Parties has them; one that is
// written twice may be there twice.
func (v *Verifier) Parties() []verifier.Party { return slices.Clone(v.parties) }

// Skips reports whether the Notary trust policy says not to verify images of
// the repository ("registry/path"). A check cannot exempt an image that has no
// signature; whoever compiles policies can.
func (v *Verifier) Skips(repository string) bool {
	s := v.statementFor(repository)
	return s != nil && s.skip
}

// statementFor picks the statement as the Notary Project does: the exact
// repository before "*".
func (v *Verifier) statementFor(repository string) *statement {
	if s, ok := v.statements[canonicalScope(repository)]; ok {
		return s
	}
	return v.statements["*"]
}

// Wants names Notary Project signatures among the referrers.
func (v *Verifier) Wants() verifier.Wanted {
	return verifier.Wanted{ArtifactTypes: []string{ArtifactType}}
}

// Handles reports whether the candidate is a Notary Project signature.
func (v *Verifier) Handles(c verifier.Candidate) bool { return c.ArtifactType == ArtifactType }

// Verify judges the one signature that the candidate holds.
func (v *Verifier) Verify(ctx context.Context, e verifier.Evidence) []verifier.Finding {
	f := v.verify(ctx, e)
	if f.Err != nil && f.Err.Reason.Undecided() {
		f.ValidUntil = time.Time{}
	}
	return []verifier.Finding{f}
}

// verify goes from what is cheap to what is expensive: the manifest, the
// envelope's outline, notation-go, the network.
func (v *Verifier) verify(ctx context.Context, e verifier.Evidence) verifier.Finding {
	now := time.Now()
	f := verifier.Finding{ValidUntil: now.Add(maxFindingAge)}

	s := v.statementFor(e.Subject.Reference.Name())
	if s == nil {
		f.Err = noStatement(e.Subject.Reference.Name())
		return f
	}
	layer, err := envelopeLayer(e)
	if err != nil {
		f.Err = err
		return f
	}
	blob, fetchErr := e.Fetch(ctx, layer)
	if fetchErr != nil {
		f.Err = verifier.AsError(fetchErr)
		return f
	}
	if f.Err = s.glance(layer.MediaType, blob, e.Subject.Digest); f.Err != nil {
		return f
	}
	// The subject in the signature's manifest costs no request and says what
	// media type and size the digest goes with; the digest is the image's own.
	target := ocispec.Descriptor{
		MediaType: e.Candidate.Manifest.Subject.MediaType, Digest: e.Subject.Digest, Size: e.Candidate.Manifest.Subject.Size,
	}
	if s.skip {
		return s.unverified(f, layer.MediaType, blob, target)
	}

	outcome, verifyErr := s.verifier.Verify(ctx, target, blob, notationgo.VerifierVerifyOptions{
		ArtifactReference: artifactReference(e.Subject), SignatureMediaType: layer.MediaType,
	})
	switch {
	case outcome == nil:
		f.Err = unexplained(verifyErr)
		return f
	case outcome.EnvelopeContent == nil:
		f.Err = brokenEnvelope(layer.MediaType, blob, verifyErr)
		return f
	}
	content := outcome.EnvelopeContent
	signer := &content.SignerInfo
	f.Claims = verifier.Claims{Signer: signerOf(signer), Parties: s.parties(signer), SignedAt: signer.SignedAttributes.SigningTime}
	if f.Err = uncritical(signer); f.Err != nil {
		return f
	}
	if f.Err = samePayload(content.Payload.Content, target); f.Err != nil {
		return f
	}

	j := judgement{statement: s, signer: signer, now: now, until: f.ValidUntil}
	j.results(outcome.VerificationResults)
	if j.err == nil && verifyErr != nil {
		j.err = unexplained(verifyErr) // a new way of notation-go to say no
	}
	if j.err == nil {
		v.revoked(ctx, &j)
	}
	if !j.stamp.time.IsZero() {
		f.Claims.SignedAt = j.stamp.time
	}
	f.Err, f.ValidUntil = j.err, j.until
	if f.Err == nil {
		f.Claims.SubjectDigest, f.Claims.Kind, f.Claims.Logged, f.Claims.Ends = e.Subject.Digest, verifier.KindSignature, j.logged, j.ends
	}
	return f
}

// artifactReference is what notation-go wants to be told. It looks nothing up
// by it but the statement, which has been chosen; its grammar of hosts knows no
// IPv6.
func artifactReference(s verifier.Subject) string {
	name := s.Reference.Name()
	if strings.HasPrefix(name, "[") {
		name = "ipv6.invalid/" + s.Reference.Repository
	}
	return name + "@" + s.Digest.String()
}

// judgement collects what is found out about one signature whose integrity
// holds.
type judgement struct {
	statement *statement
	signer    *signature.SignerInfo
	now       time.Time
	stamp     stamp
	untrusted bool // authenticity does not hold, whatever the level makes of it

	err    *verifier.Error   // the first validation that failed and is enforced
	logged []*verifier.Error // those that failed and are only logged
	until  time.Time
	ends   verifier.End // the first that is written in the signature
}

// fail notes a failed validation, as its action says.
func (j *judgement) fail(validation trustpolicy.ValidationType, err *verifier.Error) {
	switch j.statement.enforcement[validation] {
	case trustpolicy.ActionSkip:
		return
	case trustpolicy.ActionLog:
		j.logged = append(j.logged, err)
		if err.Reason.Undecided() {
			j.bound(j.now.Add(retryAge))
		}
	default: // an action that is not known enforces
		if j.err == nil {
			j.err = err
		}
	}
}

// bound makes the finding end by t.
func (j *judgement) bound(t time.Time) {
	if !t.IsZero() && t.Before(j.until) {
		j.until = t
	}
}

// results takes over what notation-go found, each failure with its cause, and
// when what holds now will end.
func (j *judgement) results(results []*notationgo.ValidationResult) {
	for _, r := range results {
		switch {
		case r.Type == trustpolicy.TypeAuthenticTimestamp:
			j.authenticTime()
			if j.stamp.err == nil && r.Error != nil {
				j.stamp.err = badTimestamp("the time of signing cannot be relied on", r.Error)
			}
			if j.stamp.err != nil {
				j.fail(r.Type, j.stamp.err)
			}
		case r.Error == nil:
		case r.Type == trustpolicy.TypeAuthenticity:
			j.untrusted = true
			for _, err := range j.untrustedCauses(r.Error) {
				j.fail(r.Type, err)
			}
		case r.Type == trustpolicy.TypeExpiry:
			j.fail(r.Type, expired(j.signer.SignedAttributes.Expiry))
		default:
			j.err = unexplained(r.Error)
		}
	}
	if expiry := j.signer.SignedAttributes.Expiry; expiry.After(j.now) {
		j.bound(expiry)
		j.ends = verifier.End{What: verifier.EndSignature, At: expiry}
	}
	for _, certificate := range j.signer.CertificateChain {
		switch {
		case j.stamp.fixed: // the certificates are judged at the time of signing
		case certificate.NotBefore.After(j.now):
			j.bound(certificate.NotBefore)
		case certificate.NotAfter.After(j.now):
			j.bound(certificate.NotAfter)
			j.ends = j.ends.Earlier(verifier.End{What: verifier.EndCertificate, Name: certificate.Subject.String(), At: certificate.NotAfter})
		}
	}
}

// revoked asks whether certificates were revoked, but only about chains that
// are trusted: their certificates say whom to ask, and whoever is not trusted
// shall not choose whom we call.
func (v *Verifier) revoked(ctx context.Context, j *judgement) {
	if j.untrusted || j.statement.enforcement[trustpolicy.TypeRevocation] == trustpolicy.ActionSkip {
		return
	}
	if len(j.stamp.chain) > 0 {
		until, err := v.revocation.check(ctx, purpose.Timestamping, j.stamp.chain, time.Time{})
		j.bound(until)
		if err != nil {
			j.fail(trustpolicy.TypeAuthenticTimestamp, err)
		}
	}
	if j.err != nil {
		return
	}
	var signedAt time.Time // may outdate a revocation only where it is authentic
	if j.signer.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		signedAt = j.signer.SignedAttributes.SigningTime
	}
	until, err := v.revocation.check(ctx, purpose.CodeSigning, j.signer.CertificateChain, signedAt)
	j.bound(until)
	if err != nil {
		j.fail(trustpolicy.TypeRevocation, err)
	}
}
