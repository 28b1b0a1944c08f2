package config

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// VaultReader reads what documents refer to in vaults.
type VaultReader interface {
	// Read gives what is known, without asking anybody. An error is a
	// *trust.Error.
	Read(trust.Reference) (trust.Material, error)
}

// noVaults is where there are none.
type noVaults struct{}

func (noVaults) Read(r trust.Reference) (trust.Material, error) {
	return trust.Material{}, &trust.Error{Message: r.String() + " cannot be read here"}
}

// azureIdentity is the one that the document chose, and the hosts beside Azure's
// own that it is shown to. Nothing chosen is the pod's workload identity.
func azureIdentity(a *api.AzureIdentity, secret func() string) (azure.Identity, []string) {
	switch {
	case a == nil:
		return azure.Identity{Method: azure.WorkloadIdentity}, nil
	case a.AzureManagedIdentity != nil:
		m := a.AzureManagedIdentity
		return azure.Identity{Method: azure.ManagedIdentity, ClientID: m.ClientID}, m.Endpoints
	case a.AzureServicePrincipal != nil:
		p := a.AzureServicePrincipal
		return azure.Identity{Method: azure.ServicePrincipal, TenantID: p.TenantID, ClientID: p.ClientID}.WithSecret(secret()), p.Endpoints
	case a.AzureCLI != nil:
		return azure.Identity{Method: azure.CLI, TenantID: a.AzureCLI.TenantID}, a.AzureCLI.Endpoints
	case a.AzureWorkloadIdentity != nil:
		w := a.AzureWorkloadIdentity
		return azure.Identity{Method: azure.WorkloadIdentity, TenantID: w.TenantID, ClientID: w.ClientID, Binding: w.IdentityBinding}, w.Endpoints
	}
	return azure.Identity{}, nil
}

// chosenIdentity reports which identity of Azure is chosen, by the name of its
// field; empty: none.
func chosenIdentity(a api.AzureIdentity) string {
	switch {
	case a.AzureWorkloadIdentity != nil:
		return "azureWorkloadIdentity"
	case a.AzureManagedIdentity != nil:
		return "azureManagedIdentity"
	case a.AzureServicePrincipal != nil:
		return "azureServicePrincipal"
	case a.AzureCLI != nil:
		return "azureCLI"
	}
	return ""
}

// azureRegistry holds an identity to hosts that are Azure's.
func (v validator) azureRegistry(path string, r api.Registry) {
	chosen := chosenIdentity(r.Auth.AzureIdentity)
	if chosen == "" {
		return
	}
	path += ".auth." + chosen
	_, endpoints := azureIdentity(&r.Auth.AzureIdentity, func() string { return "" })
	v.azureIdentity(path, r.Auth.AzureIdentity, endpoints)
	host := canonicalHost(r.Host)
	if r.PlainHTTP {
		v.at(path, "there is no TLS with plainHTTP, and an identity is shown over nothing else", "Delete plainHTTP")
	}
	if !azure.IsRegistry(host) && !slices.ContainsFunc(endpoints, func(e string) bool { return canonicalHost(e) == host }) && !v.reported(path+".endpoints") {
		v.at(path, quote(r.Host)+" is not a registry of Azure by its name", "If it is one none the less, add it to endpoints")
	}
}

func (v validator) azureIdentity(path string, a api.AzureIdentity, endpoints []string) {
	v.limit(path+".endpoints", len(endpoints), api.MaxEndpoints)
	for i, host := range endpoints {
		v.host(element(path+".endpoints", i), host)
	}
	if p := a.AzureServicePrincipal; p != nil {
		v.dataSource(path+".clientSecret", p.ClientSecret)
		if p.TenantID == "" {
			v.empty(path + ".tenantID")
		}
		if p.ClientID == "" {
			v.empty(path + ".clientID")
		}
	}
}

// keyVaults checks the options of vaults.
func (v validator) keyVaults() {
	list := v.doc.Spec.KeyVaults
	v.limit("spec.keyVaults", len(list), api.MaxKeyVaults)
	first := map[string]int{}
	for i, k := range list {
		path := element("spec.keyVaults", i)
		if uri := v.vaultURI(path, k.VaultURI); uri != "" {
			if at, twice := first[uri]; twice {
				v.at(path+".vaultURI", quote(uri)+" is there twice", "Delete one of them; the first is "+v.where(element("spec.keyVaults", at)))
			}
			first[uri] = i
		}
		if k.Auth != nil {
			if chosen := chosenIdentity(*k.Auth); chosen != "" {
				v.azureIdentity(path+".auth."+chosen, *k.Auth, nil)
				if _, endpoints := azureIdentity(k.Auth, func() string { return "" }); len(endpoints) > 0 {
					v.at(path+".auth."+chosen+".endpoints", "a vault has no endpoints", "Delete it")
				}
			}
		}
		v.duration(path+".refreshInterval", k.RefreshInterval, trust.MinRefreshInterval)
		v.duration(path+".maxAge", k.MaxAge, time.Minute)
	}
}

func (v validator) vaultURI(path, text string) string {
	path += ".vaultURI"
	if _, there := v.lines[path]; !there || v.reported(path) {
		return ""
	}
	uri, err := azure.Vault(text)
	if err != nil {
		v.at(path, quote(text)+" is not the URI of a vault", "Write it as az keyvault show --query properties.vaultUri does: https://NAME.vault.azure.net")
	}
	return uri
}

// duration reads a span of time that is no shorter than the least.
func (v validator) duration(path string, text api.Duration, least time.Duration) {
	if _, there := v.lines[path]; !there || v.reported(path) {
		return
	}
	switch d, err := time.ParseDuration(string(text)); {
	case err != nil:
		v.at(path, quote(string(text))+" is not a span of time", "Write a number with its unit, as 90s, 5m or 24h")
	case d < least:
		v.at(path, quote(string(text))+" is too short", "Write "+least.String()+" or more")
	}
}

func parseDuration(text api.Duration) time.Duration {
	d, _ := time.ParseDuration(string(text)) // checked; 0 is the default
	return d
}

// vaultObjects checks what a source takes from a vault.
func (v validator) vaultObjects(path, field, vaultURI string, kind trust.Kind, objects []api.KeyVaultObject) {
	uri := v.vaultURI(path, vaultURI)
	path += "." + field
	v.limit(path, len(objects), api.MaxKeyVaultObjects)
	for i, o := range objects {
		at := element(path, i)
		if o.VersionHistoryLimit < 0 || o.VersionHistoryLimit > api.MaxVersionHistory {
			v.at(at+".versionHistoryLimit", fmt.Sprintf("%d versions cannot count", o.VersionHistoryLimit), fmt.Sprintf("Write 1 to %d", api.MaxVersionHistory))
		}
		if o.ID == "" {
			v.vaultName(at+".name", o.Name)
			v.vaultName(at+".version", o.Version)
			continue
		}
		found, err := trust.ParseID(o.ID)
		switch {
		case err != nil || found.Kind != kind:
			v.at(at+".id", quote(o.ID)+" is not the identifier of one of the "+string(kind)+" of a vault", "Write it as https://NAME.vault.azure.net/"+string(kind)+"/NAME/VERSION")
		case uri != "" && found.Vault != uri:
			v.at(at+".id", quote(o.ID)+" is in another vault", "Correct vaultURI, or write another source")
		case found.Version != "" && o.Version != "":
			v.at(at+".version", "id has the version already", "Delete one of them")
		}
	}
}

func (v validator) vaultName(path, text string) {
	if _, there := v.lines[path]; !there || v.reported(path) {
		return
	}
	if !consistsOf(text, lower+upper+digits+"-") || len(text) > 127 {
		v.at(path, quote(text)+" is not the name of something in a vault", "Write letters, digits and -")
	}
}

// vault reads certificates or keys of a vault. What the vault has withdrawn does
// not count; where nothing is left, nobody knows what would.
func (g *gatherer) vault(path, vaultURI, field string, kind trust.Kind, objects []api.KeyVaultObject) {
	if g.doc.inCluster && g.doc.Kind == api.KindTrustPolicy {
		g.refuse(path, "a TrustPolicy has no vaults: the identity that reads them is the provider's", "Write a ClusterTrustPolicy with namespaces, or put the certificates into a Secret or a ConfigMap")
		return
	}
	options, secret := g.vaultOptions(vaultURI)
	if _, err := azure.Vault(vaultURI); err != nil { // of Ratify's; ours are validated
		g.refuse(path, err.Error(), "Write it as az keyvault show --query properties.vaultUri does")
		return
	}
	found := 0
	var withdrawn []Problem
	for i, o := range objects {
		r := vaultReference(options, kind, o, secret)
		at := element(path+"."+field, i)
		m, e := g.sources.vault(r)
		switch {
		case e == nil:
			found++
			g.add(path, r.String(), m.PEM)
			if m.Stale != nil {
				g.warn(at, fmt.Sprintf("%s is as it was at %s: %s", r, m.ReadAt.UTC().Format(time.RFC3339), m.Stale.Message), m.Stale.Remedy)
			}
		case e.Withdrawn:
			p := g.doc.problem(at, e.Message, e.Remedy, verifier.ReasonKeysUnavailable)
			p.Withdrawn = true
			withdrawn = append(withdrawn, p)
		default:
			p := g.doc.problem(at, e.Message, e.Remedy, verifier.ReasonKeysUnavailable)
			p.Pending = e.Pending
			g.problems = append(g.problems, p)
		}
	}
	if found > 0 || len(withdrawn) < len(objects) {
		g.material.warnings = append(g.material.warnings, withdrawn...)
		return
	}
	g.problems = append(g.problems, withdrawn...)
}

// vaultOptions are how the policy has the vault asked, and the secret to do it
// with, where there is one.
func (g *gatherer) vaultOptions(vaultURI string) (options api.KeyVault, secret func() string) {
	uri, _ := azure.Vault(vaultURI) // checked
	for i, k := range g.doc.Spec.KeyVaults {
		if of, _ := azure.Vault(k.VaultURI); of == uri {
			return k, func() string {
				return secretText(g.material, element("spec.keyVaults", i)+".auth.azureServicePrincipal.clientSecret", k.Auth.AzureServicePrincipal.ClientSecret)
			}
		}
	}
	return api.KeyVault{VaultURI: vaultURI}, nil
}

// vaultReference names one object of a vault, and how it is kept.
func vaultReference(k api.KeyVault, kind trust.Kind, o api.KeyVaultObject, secret func() string) trust.Reference {
	uri, _ := azure.Vault(k.VaultURI) // checked
	r := trust.Reference{
		Vault: uri, Kind: kind, Name: o.Name, Version: o.Version, History: max(o.VersionHistoryLimit, 1),
		RefreshInterval: parseDuration(k.RefreshInterval), MaxAge: parseDuration(k.MaxAge),
	}
	r.Identity, _ = azureIdentity(k.Auth, secret)
	if id, err := trust.ParseID(o.ID); err == nil {
		r.Name, r.Version = id.Name, cmp.Or(id.Version, o.Version)
	}
	return r
}

// azure reads the secret of a service principal, where there is one.
func (g *gatherer) azure(path string, a api.AzureIdentity) {
	if chosen := chosenIdentity(a); chosen != "" && g.doc.inCluster && g.doc.Kind == api.KindTrustPolicy {
		g.refuse(path+"."+chosen, "a TrustPolicy has no identity of Azure: that is the provider's", "Write a pullSecret, or a ClusterTrustPolicy with namespaces")
		return
	}
	if a.AzureServicePrincipal != nil {
		g.data(path+".azureServicePrincipal.clientSecret", a.AzureServicePrincipal.ClientSecret)
	}
}

// azureCredential is the identity's credential for registries.
func (c *compiler) azureCredential(path string, a api.AzureIdentity) store.CredentialSource {
	identity, endpoints := azureIdentity(&a, func() string {
		return c.secret(path+".azureServicePrincipal.clientSecret", a.AzureServicePrincipal.ClientSecret)
	})
	if c.env.Azure == nil {
		c.problem(path, "Azure cannot be asked here", "Use another way to sign in")
		return nil
	}
	hosts := make([]string, len(endpoints))
	for i, e := range endpoints {
		hosts[i] = canonicalHost(e)
	}
	return c.env.Azure.Source(identity, hosts)
}
