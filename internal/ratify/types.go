package ratify

import (
	"encoding/json"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// What the specs of Ratify's objects have, as of v1.4. A field that is not here
// is refused rather than passed over.

type storeSpec struct {
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Address    string          `json:"address"`
	Source     json.RawMessage `json:"source"`
	Parameters json.RawMessage `json:"parameters"`
}

type storeParameters struct {
	UseHTTP bool `json:"useHttp"`
	// Cosign's tags are always looked at here.
	CosignEnabled bool `json:"cosignEnabled"`
	// Caches are what they are here.
	CacheEnabled   bool            `json:"cacheEnabled"`
	TTL            int             `json:"ttl"`
	LocalCachePath string          `json:"localCachePath"`
	AuthProvider   json.RawMessage `json:"authProvider"`
}

type authProvider struct {
	Name       string `json:"name"`
	ConfigPath string `json:"configPath"`
	// ClientID and Endpoints are of Azure's identities.
	ClientID  string   `json:"clientID"`
	Endpoints []string `json:"endpoints"`
}

type verifierSpec struct {
	Name          string          `json:"name"`
	Type          string          `json:"type"`
	Version       string          `json:"version"`
	ArtifactTypes string          `json:"artifactTypes"`
	Address       string          `json:"address"`
	Source        json.RawMessage `json:"source"`
	Parameters    json.RawMessage `json:"parameters"`
}

type notationParameters struct {
	VerificationCerts      []string               `json:"verificationCerts"`
	VerificationCertStores map[string]any         `json:"verificationCertStores"`
	TrustPolicyDoc         *api.NotaryTrustPolicy `json:"trustPolicyDoc"`
}

type cosignParameters struct {
	TrustPolicies []cosignTrustPolicy `json:"trustPolicies"`
	// Key and RekorURL are what was there before trustPolicies.
	Key      string `json:"key"`
	RekorURL string `json:"rekorURL"`
}

type cosignTrustPolicy struct {
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Scopes     []string        `json:"scopes"`
	Keys       []cosignKey     `json:"keys"`
	Keyless    json.RawMessage `json:"keyless"`
	TLogVerify *bool           `json:"tLogVerify"`
	RekorURL   string          `json:"rekorURL"`
}

type cosignKey struct {
	Provider string `json:"provider"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	File     string `json:"file"`
}

type policySpec struct {
	Type       string          `json:"type"`
	Parameters json.RawMessage `json:"parameters"`
}

type configPolicyParameters struct {
	ArtifactVerificationPolicies map[string]string `json:"artifactVerificationPolicies"`
}

type providerSpec struct {
	Type            string          `json:"type"`
	RefreshInterval string          `json:"refreshInterval"`
	Parameters      json.RawMessage `json:"parameters"`
}

type certificateStoreSpec struct {
	Provider   string          `json:"provider"`
	Parameters json.RawMessage `json:"parameters"`
}

type inlineParameters struct {
	ContentType string `json:"contentType"`
	Value       string `json:"value"`
}
