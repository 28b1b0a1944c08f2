package sigstore

import (
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// envelope is one signature with what it signs, whatever format it came in:
// decoded and bounded, nothing of it proved.
type envelope struct {
	entity *bundle.Bundle // as sigstore-go wants it, its log entries left out where proof makes them
	// signature is over the message; where only the digest of that is known, over the digest.
	signature, message, digest []byte
	// artifact is what sigstore-go is to hold the signature to.
	artifact verify.ArtifactPolicyOption
	// subject is the digest that is signed where the form of what is signed is
	// right, or why it is not. It may be believed once the signature is.
	subject func() (string, *verifier.Error)
	// hint names the key, if anything does.
	hint string
	// certificate tells that there is one beside the signature, which may be
	// there for others to trust.
	certificate bool
	// proof gives the entity with its log entries; nil where there are none.
	proof func() (*bundle.Bundle, error)
}

// confirm lets sigstore-go decide, given the one key that seems to fit.
func (e *envelope) confirm(key signature.Verifier) error {
	v, err := verify.NewVerifier(&material{key: key}, verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate())
	if err != nil {
		return err
	}
	_, err = v.Verify(e.entity, verify.NewPolicy(e.artifact, verify.WithKey()))
	return err
}

// material is what sigstore-go is told to trust for one signature: the key that
// seems to have made it, whatever a hint says, and the logs.
type material struct {
	root.BaseTrustedMaterial
	key  signature.Verifier
	logs map[string]*root.TransparencyLog
}

func (m *material) RekorLogs() map[string]*root.TransparencyLog { return m.logs }

func (m *material) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	return timeless{m.key}, nil
}

// timeless is a key that does not expire: it is trusted as long as the policy
// names it.
type timeless struct{ signature.Verifier }

func (timeless) ValidAtTime(time.Time) bool { return true }
