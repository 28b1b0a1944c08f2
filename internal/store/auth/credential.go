// Package auth finds the credential for a registry by its exact host: given in
// the configuration, or kept in a docker configuration file and its credential
// helpers. It sends nothing; how a credential is used, and to whom it may
// never go, is the store's business.
package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Credential is what a registry is shown. The zero Credential is anonymous. It
// prints without its secrets.
type Credential struct {
	Username, Password string
	// RefreshToken is exchanged for access tokens at the token endpoint; docker
	// calls it the identity token.
	RefreshToken string
	// AccessToken is sent to the registry as it is; docker's registry token.
	AccessToken string
}

// Anonymous reports whether there is nothing to show.
func (c Credential) Anonymous() bool { return c == Credential{} }

// String says what kind of credential it is, never the secret.
func (c Credential) String() string {
	switch {
	case c.Anonymous():
		return "no credential"
	case c.AccessToken != "":
		return "an access token"
	case c.RefreshToken != "":
		return "a refresh token"
	}
	return "the password of " + c.Username
}

// GoString is String, so that %#v tells no secret either.
func (c Credential) GoString() string { return c.String() }

// MarshalText keeps a credential out of JSON and of structured logs.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Static is one credential, whatever the host: its user binds it to one.
type Static struct {
	credential Credential
	id         string
}

// NewStatic keeps the credential.
func NewStatic(credential Credential) *Static {
	// Quoted, so that no two credentials run together into one text.
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", credential.Username, credential.Password, credential.RefreshToken, credential.AccessToken))
	return &Static{credential, "static " + hex.EncodeToString(sum[:])}
}

// Credential gives the credential.
func (s *Static) Credential(context.Context, string) (Credential, error) { return s.credential, nil }

// ID differs between two credentials, secrets included, so that a wrong
// password never sees what a right one fetched. It is made from the secret:
// not for logs.
func (s *Static) ID() string { return s.id }
