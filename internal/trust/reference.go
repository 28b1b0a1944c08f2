package trust

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/azure"
)

// Kind is what an object of a vault is.
type Kind string

// The kinds, as identifiers of vaults have them.
const (
	Certificate Kind = "certificates"
	Key         Kind = "keys"
)

// Reference names a certificate or a key of a vault, and how it is kept.
// Comparable.
type Reference struct {
	// Vault is its URI as azure.Vault spells it.
	Vault string
	Kind  Kind
	Name  string
	// Version that counts; empty: the latest.
	Version string
	// History is how many versions count, that one included; at least 1.
	History  int
	Identity azure.Identity
	// RefreshInterval and MaxAge are as in an api.KeyVault; 0: the defaults.
	RefreshInterval, MaxAge time.Duration
}

// String is the identifier, as the vault shows it.
func (r Reference) String() string {
	id := r.Vault + "/" + string(r.Kind) + "/" + r.Name
	if r.Version != "" {
		id += "/" + r.Version
	}
	return id
}

// object is what two references share that differ in how they are kept only.
func (r Reference) object() Reference {
	r.RefreshInterval, r.MaxAge = 0, 0
	return r
}

var part = regexp.MustCompile(`^[0-9a-zA-Z-]{1,127}$`)

// ParseID reads an identifier as a vault shows it: of a certificate, of the
// secret that holds it, or of a key.
func ParseID(id string) (r Reference, err error) {
	wrong := fmt.Errorf("%q is not the identifier of a certificate or a key", clip(id, 256))
	u, err := url.Parse(id)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return Reference{}, wrong
	}
	r.Vault, err = azure.Vault(u.Scheme + "://" + u.Host)
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if err != nil || len(parts) < 2 || len(parts) > 3 {
		return Reference{}, wrong
	}
	for _, p := range parts {
		if !part.MatchString(p) {
			return Reference{}, wrong
		}
	}
	switch parts[0] {
	case "certificates", "secrets":
		r.Kind = Certificate
	case "keys":
		r.Kind = Key
	default:
		return Reference{}, wrong
	}
	r.Name = parts[1]
	if len(parts) == 3 {
		r.Version = parts[2]
	}
	return r, nil
}
