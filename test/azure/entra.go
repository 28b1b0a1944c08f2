package azure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Audience is what a federated token must be for.
const Audience = "api://AzureADTokenExchange"

// Entra is Microsoft Entra ID: it gives tokens to identities. Safe for concurrent
// use.
type Entra struct {
	mu         sync.Mutex // guards all below
	now        func() time.Time
	issuers    map[string]*ecdsa.PrivateKey // of clusters, by URL
	identities map[string]*Identity         // by client ID
	tokens     map[string]grant             // access tokens
}

// grant is what a token stands for.
type grant struct {
	clientID, audience string
	until              time.Time
}

// Identity is one that may have tokens.
type Identity struct {
	ClientID string
	// Issuer and Subject are of its federated credential.
	Issuer, Subject string
	// Secret, when set, is a service principal's.
	Secret string
	// Roles by registry or vault host.
	mu    sync.Mutex
	roles map[string]bool
}

// Grant gives the identity a role, as "myacr.azurecr.io AcrPull".
func (i *Identity) Grant(host, role string) { i.set(host, role, true) }

// Revoke takes it.
func (i *Identity) Revoke(host, role string) { i.set(host, role, false) }

func (i *Identity) set(host, role string, has bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.roles[host+" "+role] = has
}

func (i *Identity) has(host, role string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.roles[host+" "+role]
}

func newEntra() *Entra {
	return &Entra{now: time.Now, issuers: map[string]*ecdsa.PrivateKey{}, identities: map[string]*Identity{}, tokens: map[string]grant{}}
}

// Identity makes a managed identity that is federated with a ServiceAccount.
func (e *Entra) Identity(clientID, issuer, subject string) *Identity {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := &Identity{ClientID: clientID, Issuer: issuer, Subject: subject, roles: map[string]bool{}}
	e.identities[clientID] = i
	return i
}

// Revoke makes every token invalid that was given so far.
func (e *Entra) Revoke() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tokens = map[string]grant{}
}

// Skew puts Entra's clock ahead of ours.
func (e *Entra) Skew(by time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = func() time.Time { return time.Now().Add(by) }
}

// Token is a ServiceAccount's, as the cluster with the issuer writes it.
type Token struct {
	Issuer, Subject, Audience string
	// Lifetime from now; may be negative.
	Lifetime time.Duration
}

// Write writes the token where a pod has it.
func (e *Entra) Write(dir string, t Token) (path string, err error) {
	token, err := e.ServiceAccountToken(t)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "azure-identity-token")
	return path, os.WriteFile(path, []byte(token), 0o600)
}

// ServiceAccountToken signs a token.
func (e *Entra) ServiceAccountToken(t Token) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := e.issuers[t.Issuer]
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return "", err
		}
		e.issuers[t.Issuer] = key
	}
	now := time.Now()
	claims := map[string]any{
		"iss": t.Issuer, "sub": t.Subject, "aud": []string{t.Audience},
		"iat": now.Add(-time.Minute).Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(t.Lifetime).Unix(), "jti": random(),
	}
	return sign(key, claims)
}

func sign(key *ecdsa.PrivateKey, claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := segment([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + segment(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + segment(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)), nil
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ServeHTTP answers whoever does not come by way of the cloud, as a cluster's
// proxy of tokens does.
func (e *Entra) ServeHTTP(w http.ResponseWriter, r *http.Request) { e.serve(w, r) }

// serve answers as an authority of tokens.
// https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
func (e *Entra) serve(w http.ResponseWriter, r *http.Request) {
	tenant, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	base := "https://" + r.Host + "/" + tenant
	switch {
	case rest == "v2.0/.well-known/openid-configuration":
		if tenant != Tenant {
			deny(w, http.StatusBadRequest, "invalid_tenant", "AADSTS90002: Tenant '"+tenant+"' not found.")
			return
		}
		reply(w, http.StatusOK, map[string]any{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0",
		})
	case rest == "oauth2/v2.0/token" && r.Method == http.MethodPost && tenant == Tenant:
		e.token(w, r)
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		discover(w)
	default:
		http.NotFound(w, r)
	}
}

// discover tells that login.microsoftonline.com is an authority.
func discover(w http.ResponseWriter) {
	reply(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": "https://login.microsoftonline.com/" + Tenant + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
		"metadata": []any{map[string]any{
			"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net", "aliases": []string{"login.microsoftonline.com", "login.microsoft.com", "login.windows.net"},
		}},
	})
}

func deny(w http.ResponseWriter, status int, kind, description string) {
	reply(w, status, map[string]any{"error": kind, "error_description": description + " Trace ID: " + random(), "error_codes": []int{0}})
}

func (e *Entra) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		deny(w, http.StatusBadRequest, "invalid_request", "AADSTS900144: no form.")
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.identities[r.PostForm.Get("client_id")]
	switch {
	case r.PostForm.Get("grant_type") != "client_credentials":
		deny(w, http.StatusBadRequest, "unsupported_grant_type", "AADSTS70003: another grant.")
		return
	case i == nil:
		deny(w, http.StatusBadRequest, "unauthorized_client", "AADSTS700016: Application with identifier '"+r.PostForm.Get("client_id")+"' was not found in the directory.")
		return
	}
	if why := e.proven(i, r); why != "" {
		deny(w, http.StatusUnauthorized, "invalid_client", why)
		return
	}
	scope, ok := strings.CutSuffix(firstScope(r.PostForm.Get("scope")), "/.default")
	if !ok {
		deny(w, http.StatusBadRequest, "invalid_scope", "AADSTS1002012: The provided value for scope is not valid.")
		return
	}
	token := e.issue(i.ClientID, scope)
	reply(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": token})
}

func (e *Entra) issue(clientID, audience string) string {
	token := "eyJaad." + segment([]byte(clientID)) + "." + random()
	e.tokens[token] = grant{clientID, audience, e.now().Add(time.Hour)}
	return token
}

// Issue gives a token to whoever has one otherwise: az, or a node.
func (e *Entra) Issue(clientID, audience string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.issue(clientID, audience)
}

// Metadata is a node's metadata service, as far as it vouches for identities.
// https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
func (e *Entra) Metadata(systemAssigned string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clientID := r.URL.Query().Get("client_id")
		if clientID == "" {
			clientID = systemAssigned
		}
		switch {
		case r.Header.Get("Metadata") != "true" || r.URL.Path != "/metadata/identity/oauth2/token":
			http.Error(w, "", http.StatusBadRequest)
		case e.identity(clientID) == nil:
			reply(w, http.StatusBadRequest, map[string]string{"error": "invalid_request", "error_description": "Identity not found"})
		default:
			token := e.Issue(clientID, strings.TrimSuffix(r.URL.Query().Get("resource"), "/"))
			reply(w, http.StatusOK, map[string]string{"access_token": token, "expires_in": "3600", "expires_on": fmt.Sprint(time.Now().Add(time.Hour).Unix()), "resource": r.URL.Query().Get("resource"), "token_type": "Bearer"})
		}
	})
}

func firstScope(scopes string) string {
	for s := range strings.FieldsSeq(scopes) {
		if strings.HasPrefix(s, "https://") {
			return s
		}
	}
	return scopes
}

// proven says why the identity has not proven that it is one.
func (e *Entra) proven(i *Identity, r *http.Request) string {
	if secret := r.PostForm.Get("client_secret"); secret != "" || i.Secret != "" {
		if i.Secret == "" || secret != i.Secret {
			return "AADSTS7000215: Invalid client secret provided."
		}
		return ""
	}
	if r.PostForm.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return "AADSTS7000218: The request body must contain the following parameter: 'client_assertion'."
	}
	var claims struct {
		Issuer   string   `json:"iss"`
		Subject  string   `json:"sub"`
		Audience []string `json:"aud"`
		Expires  int64    `json:"exp"`
		Before   int64    `json:"nbf"`
	}
	parts := strings.Split(r.PostForm.Get("client_assertion"), ".")
	if len(parts) != 3 {
		return "AADSTS50027: Invalid JWT token."
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	signature, err2 := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || json.Unmarshal(payload, &claims) != nil || len(signature) != 64 {
		return "AADSTS50027: Invalid JWT token."
	}
	key, sum := e.issuers[claims.Issuer], sha256.Sum256([]byte(parts[0]+"."+parts[1]))
	now := e.now().Unix()
	switch {
	case key == nil || claims.Issuer != i.Issuer:
		return "AADSTS700211: No matching federated identity record found for presented assertion issuer '" + claims.Issuer + "'."
	case !ecdsa.Verify(&key.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])):
		return "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on application."
	case len(claims.Audience) != 1 || claims.Audience[0] != Audience:
		return "AADSTS700212: No matching federated identity record found for presented assertion audience."
	case claims.Subject != i.Subject:
		return "AADSTS700213: No matching federated identity record found for presented assertion subject '" + claims.Subject + "'."
	case now > claims.Expires || now < claims.Before:
		return fmt.Sprintf("AADSTS700024: Client assertion is not within its valid time range. Current time: %d.", now)
	}
	return ""
}

// bearer says whose a request's token is, if it is for the audience.
func (e *Entra) bearer(token, audience string) *Identity {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, ok := e.tokens[token]
	if !ok || g.audience != audience || e.now().After(g.until) {
		return nil
	}
	return e.identities[g.clientID]
}
