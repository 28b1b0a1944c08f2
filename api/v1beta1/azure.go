package v1beta1

const (
	// MaxKeyVaults is how many vaults one policy has options for.
	MaxKeyVaults = 16
	// MaxKeyVaultObjects is how many certificates or keys one source takes from a
	// vault.
	MaxKeyVaultObjects = 32
	// MaxVersionHistory is how many versions of one certificate or key count.
	MaxVersionHistory = 16
	// MaxEndpoints is how many hosts one identity is shown to beside Azure's own.
	MaxEndpoints = 16
)

// AzureIdentity is who asks Azure: one of its fields. The credentials are the
// provider's own, so that a TrustPolicy of a cluster has none of them.
type AzureIdentity struct {
	// AzureWorkloadIdentity is the identity that the pod's ServiceAccount is
	// federated with.
	AzureWorkloadIdentity *AzureWorkloadIdentity `json:"azureWorkloadIdentity,omitempty" union:"auth"`
	// AzureManagedIdentity is an identity of the node.
	AzureManagedIdentity *AzureManagedIdentity `json:"azureManagedIdentity,omitempty" union:"auth"`
	// AzureServicePrincipal is an application with a secret.
	AzureServicePrincipal *AzureServicePrincipal `json:"azureServicePrincipal,omitempty" union:"auth"`
	// AzureCLI is whoever has signed in with az login, for a developer's machine.
	AzureCLI *AzureCLI `json:"azureCLI,omitempty" union:"auth"`
}

// AzureWorkloadIdentity is Microsoft Entra Workload ID. What is not written is
// taken from the variables that its webhook sets in the pod.
type AzureWorkloadIdentity struct {
	// ClientID of the identity; AZURE_CLIENT_ID when absent.
	ClientID string `json:"clientID,omitempty"`
	// TenantID of the identity; AZURE_TENANT_ID when absent.
	TenantID string `json:"tenantID,omitempty"`
	// IdentityBinding asks for tokens by way of the cluster's proxy, as AKS
	// identity bindings want it.
	IdentityBinding bool `json:"identityBinding,omitempty"`
	// Endpoints are hosts of Azure Container Registry that are not under
	// azurecr.io, azurecr.cn or azurecr.us. The identity is shown to no other.
	Endpoints []string `json:"endpoints,omitempty"`
}

// AzureManagedIdentity is an identity that the instance metadata service of the
// node vouches for.
type AzureManagedIdentity struct {
	// ClientID of a user-assigned identity; the system-assigned one when absent.
	ClientID string `json:"clientID,omitempty"`
	// Endpoints are hosts of Azure Container Registry that are not under
	// azurecr.io, azurecr.cn or azurecr.us. The identity is shown to no other.
	Endpoints []string `json:"endpoints,omitempty"`
}

// AzureServicePrincipal is an application of Microsoft Entra ID with a secret.
type AzureServicePrincipal struct {
	// TenantID of the application.
	TenantID string `json:"tenantID"`
	// ClientID of the application.
	ClientID string `json:"clientID"`
	// ClientSecret of the application.
	ClientSecret *DataSource `json:"clientSecret"`
	// Endpoints are hosts of Azure Container Registry that are not under
	// azurecr.io, azurecr.cn or azurecr.us. The identity is shown to no other.
	Endpoints []string `json:"endpoints,omitempty"`
}

// AzureCLI takes tokens from the command line interface of Azure, az.
type AzureCLI struct {
	// TenantID to sign in to; the one that az has chosen when absent.
	TenantID string `json:"tenantID,omitempty"`
	// Endpoints are hosts of Azure Container Registry that are not under
	// azurecr.io, azurecr.cn or azurecr.us. The identity is shown to no other.
	Endpoints []string `json:"endpoints,omitempty"`
}

// KeyVault is how one vault is asked, by exact URI.
type KeyVault struct {
	// VaultURI of the vault, as https://NAME.vault.azure.net.
	VaultURI string `json:"vaultURI"`
	// Auth is who asks; the pod's workload identity when absent.
	Auth *AzureIdentity `json:"auth,omitempty"`
	// RefreshInterval is how often the vault is asked for what has changed: a
	// duration, 5m when absent, and 30s at least.
	RefreshInterval Duration `json:"refreshInterval,omitempty"`
	// MaxAge is for how long certificates and keys count that could not be
	// refreshed: a duration, 24h when absent.
	MaxAge Duration `json:"maxAge,omitempty"`
}

// Duration is a span of time, as 90s, 5m or 24h.
type Duration string

// KeyVaultCertificates are certificates of a vault with their whole chains, read
// as secrets, because a certificate by itself has no chain there.
type KeyVaultCertificates struct {
	// VaultURI of the vault, as https://NAME.vault.azure.net.
	VaultURI string `json:"vaultURI"`
	// Certificates to trust.
	Certificates []KeyVaultObject `json:"certificates"`
}

// KeyVaultKeys are public keys of a vault.
type KeyVaultKeys struct {
	// VaultURI of the vault, as https://NAME.vault.azure.net.
	VaultURI string `json:"vaultURI"`
	// Keys to trust.
	Keys []KeyVaultObject `json:"keys"`
}

// KeyVaultObject is a certificate or a key of a vault: by its name, or by the
// identifier that the vault shows.
type KeyVaultObject struct {
	// Name of the object.
	Name string `json:"name,omitempty" union:"object"`
	// ID is the whole identifier, as https://NAME.vault.azure.net/keys/KEY/VERSION.
	ID string `json:"id,omitempty" union:"object"`
	// Version that counts; the latest when absent.
	Version string `json:"version,omitempty"`
	// VersionHistoryLimit is how many versions count: the one above and those made
	// before it; 1 when absent. Versions that are disabled do not count.
	VersionHistoryLimit int `json:"versionHistoryLimit,omitempty"`
}
