package azure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// registryAudience is what a token for registries is for, in all clouds.
const registryAudience = "https://containerregistry.azure.net"

// Registry is one Azure Container Registry, in front of any registry. Safe for
// concurrent use.
type Registry struct {
	// Host is its login server.
	Host string
	// Admin is the password of the admin user, whose name is the registry's;
	// empty: there is none.
	Admin string

	cloud *Cloud
	next  http.Handler
	key   *ecdsa.PrivateKey

	mu        sync.Mutex // guards all below
	data      string     // host of the data endpoint; empty: none
	anonymous bool
	lifetime  time.Duration     // of refresh tokens
	refresh   map[string]string // client ID by refresh token
	access    map[string]pull
	links     map[string]string // path by signature
}

type pull struct {
	clientID, repository string
	push                 bool
	until                time.Time
}

// Registry makes a registry at the host, in front of one that speaks plain HTTP.
func (c *Cloud) Registry(host, upstream string) (*Registry, error) {
	target, err := url.Parse("http://" + upstream)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Header.Del("Authorization") },
		ErrorLog: log.New(io.Discard, "", 0),
	}
	proxy.ModifyResponse = func(resp *http.Response) error { // uploads go on where they began
		if at := resp.Header.Get("Location"); at != "" {
			if u, err := url.Parse(at); err == nil && u.Host != "" {
				u.Scheme, u.Host = "https", host
				resp.Header.Set("Location", u.String())
			}
		}
		return nil
	}
	r := &Registry{
		Host: host, cloud: c, key: key, next: proxy, lifetime: 3 * time.Hour,
		refresh: map[string]string{}, access: map[string]pull{}, links: map[string]string{},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registries[host] = r
	return r, nil
}

// DataEndpoint has blobs be fetched from a host of their own.
func (r *Registry) DataEndpoint(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = host
	r.cloud.mu.Lock()
	defer r.cloud.mu.Unlock()
	r.cloud.registries[host] = r
}

// Anonymous lets anybody pull.
func (r *Registry) Anonymous() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.anonymous = true
}

// Lifetime is how long the refresh tokens are good that it gives from now on.
func (r *Registry) Lifetime(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lifetime = d
}

// Forget makes every token invalid that was given so far.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh, r.access = map[string]string{}, map[string]pull{}
}

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	host := strings.ToLower(req.Host)
	switch {
	case host != r.Host:
		r.blob(w, req)
	case req.URL.Path == "/oauth2/exchange" && req.Method == http.MethodPost:
		r.exchange(w, req)
	case req.URL.Path == "/oauth2/token":
		r.token(w, req)
	case strings.HasPrefix(req.URL.Path, "/v2/"):
		r.content(w, req)
	default:
		http.NotFound(w, req)
	}
}

// exchange is https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
func (r *Registry) exchange(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil || req.PostForm.Get("grant_type") != "access_token" || req.PostForm.Get("service") != r.Host {
		r.refuse(w, http.StatusBadRequest, "UNSUPPORTED", "service or grant_type")
		return
	}
	i := r.cloud.Entra.bearer(req.PostForm.Get("access_token"), registryAudience)
	if i == nil {
		r.refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	r.mu.Lock()
	lifetime := r.lifetime
	r.mu.Unlock()
	now := time.Now()
	token, err := sign(r.key, map[string]any{
		"jti": random(), "sub": i.ClientID, "nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(lifetime).Unix(), "aud": r.Host,
		"iss": "Azure Container Registry", "grant_type": "refresh_token", "tenant": Tenant,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.mu.Lock()
	r.refresh[token] = i.ClientID
	r.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"refresh_token": token})
}

func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil || req.Form.Get("service") != r.Host {
		r.refuse(w, http.StatusBadRequest, "UNSUPPORTED", "service")
		return
	}
	var clientID string
	push := false
	repository, actions := "", ""
	if parts := strings.Split(req.Form.Get("scope"), ":"); len(parts) == 3 && parts[0] == "repository" {
		repository, actions = parts[1], parts[2]
	}
	user, password, basic := req.BasicAuth()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case req.Method == http.MethodPost && req.PostForm.Get("grant_type") == "refresh_token":
		clientID = r.refresh[req.PostForm.Get("refresh_token")]
		if i := r.cloud.Entra.identity(clientID); i == nil || !i.has(r.Host, "AcrPull") {
			r.refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
			return
		}
	case basic && r.Admin != "" && password == r.Admin && user == strings.Split(r.Host, ".")[0]:
		clientID, push = user, true
	case !basic && r.anonymous && !strings.Contains(actions, "push"):
		clientID = "anonymous"
	default:
		r.refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return
	}
	token := "eyJacr." + random() + "." + random()
	r.access[token] = pull{clientID, repository, push, time.Now().Add(75 * time.Minute)}
	reply(w, http.StatusOK, map[string]any{"access_token": token, "expires_in": 4500})
}

func (r *Registry) content(w http.ResponseWriter, req *http.Request) {
	repository := req.URL.Path
	for _, cut := range []string{"/manifests/", "/blobs/", "/referrers/", "/tags/"} {
		repository, _, _ = strings.Cut(repository, cut)
	}
	repository = strings.TrimPrefix(repository, "/v2/")
	r.mu.Lock()
	allowed := false
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok {
		p, known := r.access[token]
		allowed = known && time.Now().Before(p.until) && (p.repository == repository || repository == "") &&
			(p.push || req.Method == http.MethodGet || req.Method == http.MethodHead)
		if i := r.cloud.Entra.identity(p.clientID); allowed && i != nil {
			allowed = i.has(r.Host, "AcrPull")
		}
	}
	data := r.data
	r.mu.Unlock()
	if !allowed {
		actions := "pull"
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			actions = "pull,push"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/oauth2/token",service="%s",scope="repository:%s:%s"`, r.Host, r.Host, repository, actions))
		r.refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required, visit https://aka.ms/acr/authorization for more information.")
		return
	}
	if data != "" && strings.Contains(req.URL.Path, "/blobs/sha256:") && req.Method == http.MethodGet {
		signature := random()
		r.mu.Lock()
		r.links[signature] = req.URL.Path
		r.mu.Unlock()
		http.Redirect(w, req, "https://"+data+"/"+random()+"?sig="+signature, http.StatusTemporaryRedirect)
		return
	}
	r.next.ServeHTTP(w, req)
}

// blob answers at the data endpoint, where the link is the credential and another
// one is refused.
func (r *Registry) blob(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	path, ok := r.links[req.URL.Query().Get("sig")]
	r.mu.Unlock()
	if !ok || req.Header.Get("Authorization") != "" {
		http.Error(w, "AuthenticationFailed", http.StatusForbidden)
		return
	}
	req.URL.Path, req.URL.RawQuery = path, ""
	r.next.ServeHTTP(w, req)
}

func (r *Registry) refuse(w http.ResponseWriter, status int, code, message string) {
	reply(w, status, map[string]any{"errors": []any{map[string]any{"code": code, "message": message}}})
}

func (e *Entra) identity(clientID string) *Identity {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.identities[clientID]
}
