package notation

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	notationgo "github.com/notaryproject/notation-go"
	notationverifier "github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
)

// Options is what a Verifier trusts, resolved: no path, no vault, no default
// that trusts. Either the fields from TrustedIdentities to VerifyTimestamp are
// set, and all trust stores count, or TrustPolicyDoc is, which names the stores.
type Options struct {
	TrustStores []TrustStore
	// TrustedIdentities are "x509.subject: C=…,ST=…,O=…" or a lone "*".
	TrustedIdentities []string
	// Level is strict, permissive or audit; empty is strict.
	Level string
	// Override changes single validations of the level: authenticity,
	// authenticTimestamp, expiry, revocation to enforce, log or (revocation
	// only) skip.
	Override map[string]string
	// VerifyTimestamp is always or afterCertExpiry; empty is always. It matters
	// where there is a trust store of type tsa.
	VerifyTimestamp string
	// TrustPolicyDoc is a whole Notary trust policy, as trustpolicy.json has it.
	TrustPolicyDoc []byte
	// Revocation is asked unless every level skips revocation.
	Revocation *Revocation
}

// plainStatement is the name of the statement that the plain options make.
const plainStatement = "options"

// statement is one statement of a Notary trust policy, ready to judge.
type statement struct {
	name        string
	skip        bool
	enforcement map[trustpolicy.ValidationType]trustpolicy.ValidationAction
	timestamps  trustpolicy.TimestampOption
	identities  []string
	stores      []TrustStore
	entries     []entry
	verifier    notationgo.Verifier
}

// ofType gives the statement's stores of a type.
func (s *statement) ofType(t TrustStoreType) []TrustStore {
	var stores []TrustStore
	for _, store := range s.stores {
		if store.Type == t {
			stores = append(stores, store)
		}
	}
	return stores
}

// policy makes the Notary trust policy that the options mean, validated.
func (o Options) policy() (*trustpolicy.Document, error) {
	for i, store := range o.TrustStores {
		if err := store.validate(); err != nil {
			return nil, err
		}
		for _, other := range o.TrustStores[:i] {
			if other.String() == store.String() {
				return nil, fmt.Errorf("trust store %q is there twice", store)
			}
		}
	}
	var document *trustpolicy.Document
	var err error
	if o.TrustPolicyDoc != nil {
		if len(o.TrustedIdentities) > 0 || o.Level != "" || len(o.Override) > 0 || o.VerifyTimestamp != "" {
			return nil, errors.New("trustPolicyDoc says all; take out level, override, verifyTimestamp and trustedIdentities beside it")
		}
		document, err = parsePolicy(o.TrustPolicyDoc)
	} else {
		document, err = o.plainPolicy()
	}
	if err != nil {
		return nil, err
	}
	for _, s := range document.TrustPolicies {
		if err := checkStatement(s); err != nil {
			if o.TrustPolicyDoc != nil {
				return nil, fmt.Errorf("trustPolicyDoc: statement %q: %w", clip(s.Name), err)
			}
			return nil, err
		}
	}
	if err := document.Validate(); err != nil {
		// notation-go names the statement; ours is none that the user wrote.
		return nil, errors.New(strings.Replace(strings.TrimPrefix(err.Error(), "trust policy: "),
			fmt.Sprintf("trust policy statement %q", plainStatement), "the policy", 1))
	}
	return document, nil
}

func (o Options) plainPolicy() (*trustpolicy.Document, error) {
	s := trustpolicy.TrustPolicy{
		Name: plainStatement, RegistryScopes: []string{"*"}, TrustedIdentities: o.TrustedIdentities,
		SignatureVerification: trustpolicy.SignatureVerification{
			VerificationLevel: o.Level, VerifyTimestamp: trustpolicy.TimestampOption(o.VerifyTimestamp),
		},
	}
	switch o.Level {
	case "":
		s.SignatureVerification.VerificationLevel = trustpolicy.LevelStrict.Name
	case trustpolicy.LevelSkip.Name:
		return nil, errors.New("level skip verifies nothing; write a skip rule with its reason instead")
	}
	if len(o.Override) > 0 {
		s.SignatureVerification.Override = map[trustpolicy.ValidationType]trustpolicy.ValidationAction{}
		for validation, action := range o.Override {
			s.SignatureVerification.Override[trustpolicy.ValidationType(validation)] = trustpolicy.ValidationAction(action)
		}
	}
	for _, store := range o.TrustStores {
		s.TrustStores = append(s.TrustStores, store.String())
	}
	slices.Sort(s.TrustStores)
	return &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{s}}, nil
}

// checkStatement refuses what notation-go accepts and then never trusts, and
// the usual mistakes in words that name the field and what may be there.
func checkStatement(s trustpolicy.TrustPolicy) error {
	if err := checkVerification(s.SignatureVerification); err != nil {
		return err
	}
	if s.SignatureVerification.VerificationLevel == trustpolicy.LevelSkip.Name {
		return nil
	}
	signers := 0
	for _, name := range s.TrustStores {
		if t, _, _ := strings.Cut(name, ":"); t != string(TypeTSA) {
			signers++
		}
	}
	if signers == 0 {
		return errors.New("trustStores: nobody is trusted to sign; name a trust store of type ca or signingAuthority")
	}
	if len(s.TrustedIdentities) == 0 {
		return errors.New(`trustedIdentities: none; name some, or write "*" for everyone whom the trust stores vouch for`)
	}
	for i, identity := range s.TrustedIdentities {
		if identity == "*" {
			if len(s.TrustedIdentities) > 1 {
				return errors.New(`trustedIdentities: "*" is everyone, the others say nothing; take out one or the other`)
			}
			continue
		}
		if !strings.HasPrefix(identity, "x509.subject:") {
			return fmt.Errorf(`trustedIdentities[%d]: %q can match nobody; write "x509.subject: C=…,ST=…,O=…" or "*"`, i, clip(identity))
		}
		if !usableIdentity(identity) {
			return fmt.Errorf("trustedIdentities[%d]: %q is no distinguished name (RFC 4514) with C, ST and O, each once", i, clip(identity))
		}
	}
	return nil
}

// usableIdentity asks notation-go about one identity alone; it keeps its parser
// of distinguished names to itself.
func usableIdentity(identity string) bool {
	return (&trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name: plainStatement, RegistryScopes: []string{"*"}, TrustStores: []string{"ca:any"}, TrustedIdentities: []string{identity},
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
	}}}).Validate() == nil
}

func checkVerification(v trustpolicy.SignatureVerification) error {
	switch v.VerificationLevel {
	case trustpolicy.LevelStrict.Name, trustpolicy.LevelPermissive.Name, trustpolicy.LevelAudit.Name, trustpolicy.LevelSkip.Name:
	default:
		return fmt.Errorf("level: %q is not one of strict, permissive, audit", clip(v.VerificationLevel))
	}
	switch v.VerifyTimestamp {
	case "", trustpolicy.OptionAlways, trustpolicy.OptionAfterCertExpiry:
	default:
		return fmt.Errorf("verifyTimestamp: %q is not one of always, afterCertExpiry", clip(string(v.VerifyTimestamp)))
	}
	for _, validation := range slices.Sorted(maps.Keys(v.Override)) {
		action := v.Override[validation]
		switch validation {
		case trustpolicy.TypeAuthenticity, trustpolicy.TypeAuthenticTimestamp, trustpolicy.TypeExpiry, trustpolicy.TypeRevocation:
		default:
			return fmt.Errorf("override: %q is not one of authenticity, authenticTimestamp, expiry, revocation", clip(string(validation)))
		}
		switch action {
		case trustpolicy.ActionEnforce, trustpolicy.ActionLog:
		case trustpolicy.ActionSkip:
			if validation != trustpolicy.TypeRevocation {
				return fmt.Errorf("override.%s: only revocation can be skipped; enforce or log", validation)
			}
		default:
			return fmt.Errorf("override.%s: %q is not one of enforce, log, skip", validation, clip(string(action)))
		}
	}
	return nil
}

// compile makes the statement ready. Revocation is taken out of what
// notation-go does: it asks about chains that nobody trusts where authenticity
// is only logged, and about timestamping chains even where revocation is
// skipped. Verify asks afterwards, when it is safe.
func compile(s trustpolicy.TrustPolicy, stores trustStores) (*statement, error) {
	level, err := s.SignatureVerification.GetVerificationLevel()
	if err != nil {
		return nil, err
	}
	compiled := &statement{
		name: s.Name, skip: level.Name == trustpolicy.LevelSkip.Name, enforcement: level.Enforcement,
		timestamps: s.SignatureVerification.VerifyTimestamp, identities: s.TrustedIdentities,
	}
	if compiled.skip {
		return compiled, nil
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(s.TrustStores))) {
		store, ok := stores[name]
		if !ok {
			return nil, fmt.Errorf("it names the trust store %q, which is not configured; configured are: %s",
				clip(name), strings.Join(slices.Sorted(maps.Keys(stores)), ", "))
		}
		compiled.stores = append(compiled.stores, store)
	}
	if compiled.entries, err = entriesOf(s.TrustedIdentities, compiled.stores); err != nil {
		return nil, err
	}
	s.RegistryScopes = []string{"*"} // which statement applies is decided by statementFor
	s.SignatureVerification.Override = maps.Clone(s.SignatureVerification.Override)
	if s.SignatureVerification.Override == nil {
		s.SignatureVerification.Override = map[trustpolicy.ValidationType]trustpolicy.ValidationAction{}
	}
	s.SignatureVerification.Override[trustpolicy.TypeRevocation] = trustpolicy.ActionSkip
	compiled.verifier, err = notationverifier.NewWithOptions(
		&trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{s}}, stores, nil,
		notationverifier.VerifierOptions{RevocationCodeSigningValidator: notAsked{}, RevocationTimestampingValidator: notAsked{}})
	return compiled, err
}

// fingerprint is a hash of everything that can change what a Verifier says:
// the policy with all its defaults, and every byte of every certificate.
func fingerprint(document *trustpolicy.Document, stores []TrustStore) string {
	h := sha256.New()
	encode := json.NewEncoder(h)
	// Neither can fail: a hash takes all bytes, and both are made of strings.
	_ = encode.Encode(document)
	stores = slices.SortedFunc(slices.Values(stores), func(a, b TrustStore) int { return strings.Compare(a.String(), b.String()) })
	for _, store := range stores {
		_ = encode.Encode(store.String())
		for _, c := range store.Certificates {
			_ = encode.Encode(c.Raw)
		}
	}
	return "notation:" + hex.EncodeToString(h.Sum(nil))
}
