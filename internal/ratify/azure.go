package ratify

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// vaultType is what providers of Azure Key Vault are called.
const vaultType = "azurekeyvault"

// Vault is what a KeyManagementProvider or CertificateStore takes from a vault.
type Vault struct {
	api.KeyVault
	Certificates, Keys []api.KeyVaultObject
}

type vaultParameters struct {
	VaultURI string `json:"vaultURI"`
	TenantID string `json:"tenantID"`
	ClientID string `json:"clientID"`
	// CloudName is said by AZURE_AUTHORITY_HOST here.
	CloudName    string          `json:"cloudName"`
	Certificates json.RawMessage `json:"certificates"`
	Keys         []vaultObject   `json:"keys"`
}

type vaultObject struct {
	Name                string `json:"name"`
	Version             string `json:"version"`
	VersionHistoryLimit int    `json:"versionHistoryLimit"`
}

// VaultOf reads what an object takes from a vault; nil where it takes nothing.
func VaultOf(o Object) (*Vault, error) {
	kind, refresh, parameters, err := providerOf(o)
	if err != nil || kind != vaultType {
		return nil, err
	}
	var p vaultParameters
	if err := strict(parameters, &p); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	for name, value := range map[string]string{"vaultURI": p.VaultURI, "tenantID": p.TenantID, "clientID": p.ClientID} {
		if value == "" {
			return nil, errors.New("there is no " + name)
		}
	}
	v := &Vault{KeyVault: api.KeyVault{
		VaultURI: p.VaultURI, RefreshInterval: api.Duration(refresh),
		Auth: &api.AzureIdentity{AzureWorkloadIdentity: &api.AzureWorkloadIdentity{ClientID: p.ClientID, TenantID: p.TenantID}},
	}}
	certificates, err := p.certificates()
	if err != nil {
		return nil, err
	}
	if v.Certificates, err = objectsOf(certificates); err != nil {
		return nil, err
	}
	if v.Keys, err = objectsOf(p.Keys); err != nil {
		return nil, err
	}
	if len(v.Certificates)+len(v.Keys) == 0 {
		return nil, errors.New("it names neither certificates nor keys")
	}
	return v, nil
}

// certificates reads both forms: a list, and a text with YAML in YAML, which is
// what a CertificateStore has.
func (p vaultParameters) certificates() ([]vaultObject, error) {
	var text string
	if json.Unmarshal(p.Certificates, &text) != nil {
		var list []vaultObject
		if err := strict(p.Certificates, &list); err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		return list, nil
	}
	var outer struct {
		Array []string `yaml:"array"`
	}
	if err := yaml.Unmarshal([]byte(text), &outer); err != nil {
		return nil, errors.New("certificates: not YAML")
	}
	var list []vaultObject
	for _, entry := range outer.Array {
		var one struct {
			Name    string `yaml:"certificateName"`
			Version string `yaml:"certificateVersion"`
		}
		if err := yaml.Unmarshal([]byte(entry), &one); err != nil {
			return nil, errors.New("certificates: not YAML")
		}
		list = append(list, vaultObject{Name: one.Name, Version: one.Version})
	}
	return list, nil
}

// objectsOf says in our words which versions count. Beside a version Ratify counts
// as many before it as its limit says.
func objectsOf(list []vaultObject) ([]api.KeyVaultObject, error) {
	var objects []api.KeyVaultObject
	for _, one := range list {
		if one.Name == "" {
			return nil, errors.New("something of the vault has no name")
		}
		o := api.KeyVaultObject{Name: one.Name, Version: one.Version, VersionHistoryLimit: one.VersionHistoryLimit}
		if strings.HasPrefix(o.Version, "https://") { // the identifier of a key, as az shows it
			o.Version = path.Base(o.Version)
		}
		if o.Version != "" && o.VersionHistoryLimit > 0 {
			o.VersionHistoryLimit++
		}
		if o.VersionHistoryLimit < 0 || o.VersionHistoryLimit > api.MaxVersionHistory {
			return nil, fmt.Errorf("%s: %d versions cannot count", one.Name, one.VersionHistoryLimit)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// providerOf reads what both kinds of provider say of themselves.
func providerOf(o Object) (kind, refresh string, parameters json.RawMessage, err error) {
	if o.Kind == KindKeyManagementProvider {
		var spec providerSpec
		err = strict(o.Spec, &spec)
		return spec.Type, spec.RefreshInterval, spec.Parameters, err
	}
	var spec certificateStoreSpec
	err = strict(o.Spec, &spec)
	return spec.Provider, "", spec.Parameters, err
}

// use has the policies that are made ask the vault as it says.
func (t *translator) use(v *Vault) error {
	for _, known := range t.vaults {
		if strings.EqualFold(strings.TrimRight(known.VaultURI, "/"), strings.TrimRight(v.VaultURI, "/")) {
			a, b := known.Auth.AzureWorkloadIdentity, v.Auth.AzureWorkloadIdentity
			if a.ClientID != b.ClientID || a.TenantID != b.TenantID {
				return fmt.Errorf("the vault %s is asked by two identities", v.VaultURI)
			}
			return nil
		}
	}
	t.vaults = append(t.vaults, v.KeyVault)
	return nil
}

// azureSignIn takes over an identity of Azure. Hosts that are Azure's by their
// names need not be written.
func azureSignIn(p authProvider) (*api.AzureIdentity, error) {
	var endpoints []string
	for _, host := range p.Endpoints {
		switch {
		case host == "*.azurecr.io" || host == "*.azurecr.cn" || host == "*.azurecr.us":
		case strings.Contains(host, "*"):
			return nil, fmt.Errorf("endpoint %s has a wildcard", host)
		default:
			endpoints = append(endpoints, host)
		}
	}
	if p.Name == "azureManagedIdentity" {
		return &api.AzureIdentity{AzureManagedIdentity: &api.AzureManagedIdentity{ClientID: p.ClientID, Endpoints: endpoints}}, nil
	}
	return &api.AzureIdentity{AzureWorkloadIdentity: &api.AzureWorkloadIdentity{ClientID: p.ClientID, Endpoints: endpoints}}, nil
}
