package v1beta1

const (
	// MaxKeys is how many keys one check trusts: each may be tried on each
	// signature of an image.
	MaxKeys = 32
	// MaxLogKeys is how many transparency logs one check trusts by their keys.
	MaxLogKeys = 16
)

// Cosign wants a signature that Cosign made with a key, in its own format or in
// a Sigstore bundle.
type Cosign struct {
	// Keys of which any may have signed.
	Keys []PublicKeySource `json:"keys"`
	// TransparencyLog is what a proof that the signature is in a transparency log
	// is worth: required, optional (verified where it is there) or ignored.
	TransparencyLog TransparencyLog `json:"transparencyLog"`
	// SignatureRepository is where the signatures are kept, as registry/repository,
	// when that is not the image's own (Cosign's COSIGN_REPOSITORY). They are
	// looked for there alone, and signed in there as spec.registries says.
	SignatureRepository string `json:"signatureRepository,omitempty"`
	// LogKeys are the public keys of transparency logs of the first version of
	// Rekor. They and the logs of trustedRoot are the ones that are believed.
	LogKeys []DataSource `json:"logKeys,omitempty"`
	// TrustedRoot is a Sigstore trusted_root.json. Only its transparency logs
	// count.
	TrustedRoot *DataSource `json:"trustedRoot,omitempty"`
}

// PublicKeySource is a public key and where it is; or several of a vault.
type PublicKeySource struct {
	// Name of the key, by which answers call who signed; a part of the key's hash
	// when absent.
	Name       string `json:"name,omitempty"`
	DataSource `json:",inline"`
	// AzureKeyVault are keys of an Azure Key Vault, of which each counts.
	AzureKeyVault *KeyVaultKeys `json:"azureKeyVault,omitempty" union:"source"`
}

// TransparencyLog is what a proof that a signature is in a transparency log is
// worth.
type TransparencyLog string

// The values of TransparencyLog.
const (
	TransparencyLogRequired TransparencyLog = "required"
	TransparencyLogOptional TransparencyLog = "optional"
	TransparencyLogIgnored  TransparencyLog = "ignored"
)

// Values lists what may be written.
func (TransparencyLog) Values() []string {
	return []string{string(TransparencyLogRequired), string(TransparencyLogOptional), string(TransparencyLogIgnored)}
}
