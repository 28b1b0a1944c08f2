package v1beta1

const (
	// MaxTrustStoreSources is how many sources the trust stores of one type
	// have. A source is a bundle or a directory, so it is not how many
	// certificates there are.
	MaxTrustStoreSources = 32
	// MaxTrustedIdentities is how many identities one check trusts.
	MaxTrustedIdentities = 64
	// MaxNotaryPolicies is how many policies a Notary trust policy document has.
	MaxNotaryPolicies = 64
)

// Notation wants a signature as the Notary Project specifies it: signed by a
// trusted identity, whose certificate chains to a trust store, and valid as far
// as the verification level demands. What to demand is said either here, with
// trustedIdentities and level, or in a whole Notary trust policy.
// https://github.com/notaryproject/specifications/blob/v1.1.0/specs/trust-store-trust-policy.md
type Notation struct {
	// TrustStores hold the certificates that signatures must chain to.
	TrustStores TrustStores `json:"trustStores"`
	// TrustedIdentities are the signers: "x509.subject: C=…, ST=…, O=…, CN=…"
	// as Notary writes them, or "*" for everyone with a certificate of the trust
	// stores. Required, unless trustPolicyDoc is there.
	TrustedIdentities []string `json:"trustedIdentities,omitempty"`
	// Level is how strictly signatures are verified: strict, permissive or
	// audit. Required, unless trustPolicyDoc is there. A signature that only an
	// audit or permissive level let through admits the image as EXEMPT, never as
	// TRUSTED.
	Level VerificationLevel `json:"level,omitempty"`
	// Override loosens validations of the level one by one. It can only loosen:
	// to be strict in one point, write level strict and loosen the others.
	Override *VerificationOverride `json:"override,omitempty"`
	// VerifyTimestamp says when a signature needs a timestamp, where there is a
	// tsa trust store: always, the default, or afterCertExpiry.
	VerifyTimestamp VerifyTimestamp `json:"verifyTimestamp,omitempty"`
	// TrustPolicyDoc is a Notary trust policy, as in trustpolicy.json, in place
	// of trustedIdentities, level, override and verifyTimestamp. Its trustStores
	// name the ones given here, as type:name. Its registryScopes say which of its
	// policies is about an image; one without is not trusted.
	TrustPolicyDoc *NotaryTrustPolicy `json:"trustPolicyDoc,omitempty"`
}

// TrustStores are Notary's named trust stores, by type. Each entry is one
// source of certificates; entries of one name together are the trust store of
// that name.
type TrustStores struct {
	// CA holds certificate authorities, or signing certificates themselves.
	CA []TrustStoreSource `json:"ca,omitempty"`
	// SigningAuthority holds the roots of signing services that sign for others.
	SigningAuthority []TrustStoreSource `json:"signingAuthority,omitempty"`
	// TSA holds the roots of RFC 3161 timestamping authorities.
	TSA []TrustStoreSource `json:"tsa,omitempty"`
}

// DefaultTrustStore is the name of trust stores that are given none.
const DefaultTrustStore = "default"

// TrustStoreSource is where the certificates of a trust store are: exactly one
// of inline, file, directory, secret, configMap and azureKeyVault.
type TrustStoreSource struct {
	// Name of the trust store that the certificates belong to; "default" when
	// absent. A Notary trust policy calls it by type:name.
	Name string `json:"name,omitempty"`
	// Inline are certificates in PEM.
	Inline string `json:"inline,omitempty" union:"source"`
	// File is the path of a file with certificates in PEM, or one in DER. A
	// relative path starts at the document's own directory.
	File string `json:"file,omitempty" union:"source"`
	// Directory is the path of a directory; each file in it is read as File is.
	Directory string `json:"directory,omitempty" union:"source"`
	// Secret is a Secret that holds certificates as a file does, under a key.
	Secret *KeyReference `json:"secret,omitempty" union:"source"`
	// ConfigMap is a ConfigMap that holds certificates as a file does, under a
	// key.
	ConfigMap *KeyReference `json:"configMap,omitempty" union:"source"`
	// AzureKeyVault are certificates of an Azure Key Vault.
	AzureKeyVault *KeyVaultCertificates `json:"azureKeyVault,omitempty" union:"source"`
}

// VerificationLevel is Notary's, without skip: a rule's skip says that, with a
// reason.
type VerificationLevel string

// The values of VerificationLevel.
const (
	LevelStrict     VerificationLevel = "strict"
	LevelPermissive VerificationLevel = "permissive"
	LevelAudit      VerificationLevel = "audit"
)

// Values lists what may be written.
func (VerificationLevel) Values() []string {
	return []string{string(LevelStrict), string(LevelPermissive), string(LevelAudit)}
}

// VerificationOverride changes what happens when a validation fails. Integrity
// is always enforced.
type VerificationOverride struct {
	// Authenticity is that a trusted identity signed.
	Authenticity ValidationAction `json:"authenticity,omitempty"`
	// AuthenticTimestamp is that the certificate was valid at signing time.
	AuthenticTimestamp ValidationAction `json:"authenticTimestamp,omitempty"`
	// Expiry is that the signature has not run out.
	Expiry ValidationAction `json:"expiry,omitempty"`
	// Revocation is that no certificate of the chain was revoked. It is the only
	// one that can be skipped.
	Revocation RevocationAction `json:"revocation,omitempty"`
}

// ValidationAction is what happens when a validation fails: enforce refuses the
// signature, log admits the image as EXEMPT and says why.
type ValidationAction string

// The values of ValidationAction.
const (
	ActionEnforce ValidationAction = "enforce"
	ActionLog     ValidationAction = "log"
)

// Values lists what may be written.
func (ValidationAction) Values() []string {
	return []string{string(ActionEnforce), string(ActionLog)}
}

// RevocationAction is a ValidationAction or skip, which does not ask.
type RevocationAction string

// RevocationSkip does not ask whether certificates were revoked.
const RevocationSkip RevocationAction = "skip"

// Values lists what may be written.
func (RevocationAction) Values() []string {
	return append(ValidationAction("").Values(), string(RevocationSkip))
}

// VerifyTimestamp says when a signature needs a timestamp.
type VerifyTimestamp string

// The values of VerifyTimestamp.
const (
	VerifyTimestampAlways          VerifyTimestamp = "always"
	VerifyTimestampAfterCertExpiry VerifyTimestamp = "afterCertExpiry"
)

// Values lists what may be written.
func (VerifyTimestamp) Values() []string {
	return []string{string(VerifyTimestampAlways), string(VerifyTimestampAfterCertExpiry)}
}

// NotaryTrustPolicy is the Notary Project's trust policy document, field by
// field as in trustpolicy.json.
type NotaryTrustPolicy struct {
	// Version of the format: "1.0".
	Version string `json:"version"`
	// TrustPolicies of which the one whose scope matches the image is used.
	TrustPolicies []NotaryPolicy `json:"trustPolicies"`
}

// NotaryPolicy is one policy of a Notary trust policy document.
type NotaryPolicy struct {
	// Name of the policy.
	Name string `json:"name"`
	// RegistryScopes are repositories in full, or a lone "*".
	RegistryScopes []string `json:"registryScopes"`
	// SignatureVerification is the level and what changes it.
	SignatureVerification NotarySignatureVerification `json:"signatureVerification"`
	// TrustStores by type:name, "ca:acme". None for level skip.
	TrustStores []string `json:"trustStores,omitempty"`
	// TrustedIdentities are the signers. None for level skip.
	TrustedIdentities []string `json:"trustedIdentities,omitempty"`
}

// NotarySignatureVerification is the level of one policy of a Notary trust
// policy document.
type NotarySignatureVerification struct {
	// Level is strict, permissive, audit or skip.
	Level NotaryLevel `json:"level"`
	// Override changes validations of the level one by one.
	Override *VerificationOverride `json:"override,omitempty"`
	// VerifyTimestamp says when a signature needs a timestamp: always or
	// afterCertExpiry.
	VerifyTimestamp VerifyTimestamp `json:"verifyTimestamp,omitempty"`
}

// NotaryLevel is a verification level as a Notary trust policy document has it.
type NotaryLevel string

// LevelSkip verifies nothing.
const LevelSkip NotaryLevel = "skip"

// Values lists what may be written.
func (NotaryLevel) Values() []string {
	return append(VerificationLevel("").Values(), string(LevelSkip))
}
