package notation

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/notaryproject/notation-core-go/signature"
)

// entry is what thresholds count: a trusted identity, or a trust store where the
// identity is "*".
type entry struct {
	id string
	// signers is equal for entries that the same signers meet.
	signers string
	// subject that a certificate must have, as attributes; nil: any.
	subject map[string]string
	// stores of which one must vouch for the certificate.
	stores []TrustStore
}

// entriesOf lists the parties that a statement trusts. The ID of one is made of what
// it says and of the keys that vouch for it, so that it is the same in every check and
// whatever it is called; levels and options are no part of it.
func entriesOf(identities []string, stores []TrustStore) ([]entry, error) {
	stores = slices.DeleteFunc(slices.Clone(stores), func(s TrustStore) bool { return s.Type == TypeTSA })
	var entries []entry
	for _, identity := range identities {
		if identity == "*" {
			for _, store := range stores {
				entries = append(entries, newEntry("*", nil, store))
			}
			continue
		}
		_, name, _ := strings.Cut(identity, ":")
		subject, err := attributesOf(name)
		if err != nil {
			return nil, fmt.Errorf("trustedIdentities: %q: %w", clip(identity), err)
		}
		var attributes []string
		for key, value := range subject {
			attributes = append(attributes, fmt.Sprintf("%s=%q", key, value))
		}
		slices.Sort(attributes)
		entries = append(entries, newEntry(strings.Join(attributes, ","), subject, stores...))
	}
	return entries, nil
}

// newEntry makes an entry with hashes for its names, because a policy may have many
// certificates. A certificate of the same key is the same, and by its id so is another
// version of a vault's object.
func newEntry(said string, subject map[string]string, stores ...TrustStore) entry {
	var objects, keys []string
	for _, store := range stores {
		for _, c := range store.Certificates {
			key := string(store.Type) + " " + keyID(c)
			keys = append(keys, key)
			if object := store.Objects[c]; object != "" {
				key = string(store.Type) + " " + object
			}
			objects = append(objects, key)
		}
	}
	hash := func(held []string) string {
		slices.Sort(held)
		sum := sha256.Sum256([]byte(said + "\n" + strings.Join(slices.Compact(held), "\n")))
		return "x509:" + hex.EncodeToString(sum[:])
	}
	return entry{id: hash(objects), signers: hash(keys), subject: subject, stores: stores}
}

// parties are the entries that the signer meets, whether or not the signature is good.
// It is asked only where the envelope is whole.
func (s *statement) parties(info *signature.SignerInfo) []string {
	of := TypeCA
	if info.SignedAttributes.SigningScheme == signature.SigningSchemeX509SigningAuthority {
		of = TypeSigningAuthority
	}
	subject, err := attributesOf(info.CertificateChain[0].Subject.String())
	var met []string
	for _, e := range s.entries {
		stores := slices.DeleteFunc(slices.Clone(e.stores), func(s TrustStore) bool { return s.Type != of })
		if anchoredIn(info.CertificateChain, stores) && (e.subject == nil || err == nil && within(e.subject, subject)) {
			met = append(met, e.id)
		}
	}
	slices.Sort(met)
	return slices.Compact(met)
}

// attributesOf reads a distinguished name (RFC 4514) as notation-go does, which keeps
// its parser to itself and has validated the names of the policy. A name that it would
// refuse, because an attribute is there twice, is refused here too.
func attributesOf(name string) (map[string]string, error) {
	dn, err := ldap.ParseDN(name)
	if err != nil {
		return nil, err
	}
	attributes := map[string]string{}
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			key := a.Type
			if key == "S" { // an alias of stateOrProvince
				key = "ST"
			}
			if attributes[key] != "" {
				return nil, fmt.Errorf("%s is there twice", key)
			}
			attributes[key] = a.Value
		}
	}
	return attributes, nil
}

// within reports whether the subject has all that the identity says.
func within(identity, subject map[string]string) bool {
	for key, value := range identity {
		if subject[key] != value {
			return false
		}
	}
	return true
}

// keyID is the hash of a certificate's key, as other schemes make it of theirs.
func keyID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "key:" + hex.EncodeToString(sum[:])
}
