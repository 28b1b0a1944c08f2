package config

import (
	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// scheme is one way of signing as a check has it, and all that the rest of this
// package knows of it. Each is in a file of its own.
type scheme interface {
	// validate finds what the types cannot say. The path is the scheme's field.
	validate(v validator, path string)
	// gather reads the files that it refers to.
	gather(g *gatherer, path string)
	// host is a registry that is asked beside the images', or empty.
	host() string
	// compile makes the verifier, or reports why it cannot and gives nil.
	compile(c *compiler, path string) schemeVerifier
}

// schemeVerifier is a Verifier that tells its options and trust material apart.
type schemeVerifier interface {
	verifier.Verifier
	Fingerprint() string
	// Parties are all whom it trusts; one that is written twice may be there twice.
	Parties() []verifier.Party
}

// schemeOf gives the scheme that a check chose and its field's name, which is
// how answers call it. It is the one place that names every scheme.
func schemeOf(c api.Check) (name string, chosen scheme) {
	switch {
	case c.Notation != nil:
		return "notation", notationScheme{c.Notation}
	case c.Cosign != nil:
		return "cosign", cosignScheme{c.Cosign}
	}
	return "", nil
}

// scheme gives a check's scheme with the path of its field; nil for others.
func (r rule) scheme() (path string, chosen scheme) {
	name, chosen := schemeOf(r.check)
	return join(r.path, name), chosen
}
