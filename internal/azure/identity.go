package azure

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Method is how an identity proves itself.
type Method string

// The methods.
const (
	WorkloadIdentity Method = "workload identity"
	ManagedIdentity  Method = "managed identity"
	ServicePrincipal Method = "service principal"
	CLI              Method = "Azure CLI"
)

// The variables that the webhook of Microsoft Entra Workload ID sets in pods.
const (
	ClientIDVariable  = "AZURE_CLIENT_ID"
	TenantIDVariable  = "AZURE_TENANT_ID"
	TokenFileVariable = "AZURE_FEDERATED_TOKEN_FILE"
	authorityVariable = "AZURE_AUTHORITY_HOST"
)

// Identity is who asks. The zero Identity is nobody. Comparable; it prints
// without its secret.
type Identity struct {
	Method             Method
	TenantID, ClientID string
	// Binding asks by way of the cluster's proxy, for workload identity.
	Binding bool
	secret  string
}

// WithSecret gives the identity its secret, for a service principal.
func (i Identity) WithSecret(secret string) Identity {
	i.secret = secret
	return i
}

// String is for people.
func (i Identity) String() string {
	if i.ClientID == "" {
		return string(i.Method)
	}
	return string(i.Method) + " " + i.ClientID
}

// GoString is String, so that %#v tells no secret either.
func (i Identity) GoString() string { return i.String() }

// MarshalText keeps the secret out of JSON and of structured logs.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// ID differs between two identities, secrets included, and tells none.
func (i Identity) ID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %v %q", i.Method, i.TenantID, i.ClientID, i.Binding, i.secret))
	return "azure " + hex.EncodeToString(sum[:])
}

// Options say how Azure is reached.
type Options struct {
	// Getenv reads variables; nil: the process's.
	Getenv func(string) string
	// Transport reaches Microsoft Entra ID and the metadata service; nil: a
	// transport that heeds the proxy variables.
	Transport http.RoundTripper
}

// Credentials get tokens for identities, each identity's from one place, so that
// a token that one part of the program has is everybody's. Safe for concurrent
// use.
type Credentials struct {
	getenv func(string) string
	client *http.Client

	mu    sync.Mutex // guards known
	known map[Identity]*Credential
}

// NewCredentials asks nobody yet.
func NewCredentials(o Options) *Credentials {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Transport == nil {
		o.Transport = NewTransport()
	}
	return &Credentials{getenv: o.Getenv, client: NewClient(o.Transport), known: map[Identity]*Credential{}}
}

// maxIdentities bounds what is remembered; more were renewed secrets.
const maxIdentities = 256

// For gives the identity's credential. It asks nobody.
func (c *Credentials) For(i Identity) *Credential {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.known[i]; ok {
		return known
	}
	if len(c.known) >= maxIdentities {
		clear(c.known)
	}
	made := &Credential{identity: i, of: c}
	c.known[i] = made
	return made
}

// Credential gets tokens for one identity. What is missing in the pod is found
// when a token is asked for, and looked for again each time. Safe for concurrent
// use.
type Credential struct {
	identity Identity
	of       *Credentials

	mu      sync.Mutex // guards all below
	source  azcore.TokenCredential
	renewed time.Time
}

var _ azcore.TokenCredential = (*Credential)(nil)

// Identity says whose credential it is.
func (c *Credential) Identity() Identity { return c.identity }

// GetToken gives a token, from memory where that has a good one. The error is a
// *Failure.
func (c *Credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	source, err := c.open()
	if err != nil {
		return azcore.AccessToken{}, err
	}
	token, err := source.GetToken(ctx, o)
	if err != nil {
		return azcore.AccessToken{}, explainToken(c.identity, c.of.getenv, err)
	}
	return token, nil
}

// renewalInterval keeps a service that refuses every token from having us ask for
// another each time.
const renewalInterval = time.Minute

// Renew forgets the tokens that the credential has, because a service refused one
// that should be good, and reports whether another may be better.
func (c *Credential) Renew() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.renewed) >= renewalInterval {
		c.renewed, c.source = now, nil
		return true
	}
	return false
}

func (c *Credential) open() (azcore.TokenCredential, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source != nil {
		return c.source, nil
	}
	if c.identity.Method == WorkloadIdentity {
		if missing := c.of.Missing(c.identity); len(missing) > 0 {
			return nil, notInjected(missing)
		}
	}
	source, err := c.of.make(c.identity)
	if err != nil {
		return nil, &Failure{Step: StepEnvironment, Message: "the " + c.identity.String() + " cannot be used: " + sayable(err), Remedy: "Correct what the policy says of it"}
	}
	c.source = source
	return source, nil
}

// Missing lists the variables of workload identity that are not there.
func (c *Credentials) Missing(i Identity) []string {
	var missing []string
	for _, v := range []struct{ name, given string }{{ClientIDVariable, i.ClientID}, {TenantIDVariable, i.TenantID}, {TokenFileVariable, ""}} {
		if v.given == "" && c.getenv(v.name) == "" {
			missing = append(missing, v.name)
		}
	}
	return missing
}

// Resolved fills in what the variables say.
func (c *Credentials) Resolved(i Identity) Identity {
	if i.Method != WorkloadIdentity {
		return i
	}
	if i.ClientID == "" {
		i.ClientID = c.getenv(ClientIDVariable)
	}
	if i.TenantID == "" {
		i.TenantID = c.getenv(TenantIDVariable)
	}
	return i
}

// Authority is where tokens come from.
func (c *Credentials) Authority() string {
	if host := c.getenv(authorityVariable); host != "" {
		return host
	}
	return cloud.AzurePublic.ActiveDirectoryAuthorityHost
}

func (c *Credentials) make(i Identity) (azcore.TokenCredential, error) {
	options := azcore.ClientOptions{
		Transport: c.client,
		Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: c.Authority()},
		Retry:     policy.RetryOptions{MaxRetries: 2, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second},
	}
	// The authority is the operator's word, and no other cloud is asked whether it
	// is one. A vault may be in another tenant than the identity.
	const trusted = true
	tenants := []string{"*"}
	switch i.Method {
	case WorkloadIdentity:
		i = c.Resolved(i)
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
			ClientOptions: options, ClientID: i.ClientID, TenantID: i.TenantID, TokenFilePath: c.getenv(TokenFileVariable),
			DisableInstanceDiscovery: trusted, AdditionallyAllowedTenants: tenants, EnableAzureProxy: i.Binding,
		})
	case ManagedIdentity:
		o := &azidentity.ManagedIdentityCredentialOptions{ClientOptions: options}
		if i.ClientID != "" {
			o.ID = azidentity.ClientID(i.ClientID)
		}
		return azidentity.NewManagedIdentityCredential(o)
	case ServicePrincipal:
		return azidentity.NewClientSecretCredential(i.TenantID, i.ClientID, i.secret, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: trusted, AdditionallyAllowedTenants: tenants,
		})
	case CLI:
		return azidentity.NewAzureCLICredential(&azidentity.AzureCLICredentialOptions{TenantID: i.TenantID, AdditionallyAllowedTenants: tenants})
	}
	return nil, fmt.Errorf("there is no method %q", i.Method)
}

// Check says what the pod lacks for the identity, asking nobody; nil: nothing.
func (c *Credential) Check() error {
	_, err := c.open()
	return err
}
