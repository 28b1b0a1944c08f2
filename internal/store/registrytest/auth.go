package registrytest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const tokenPath = "/token"

// Auth is how a registry wants to be asked. The zero value asks nobody.
type Auth struct {
	// Scheme is "", "Basic" or "Bearer".
	Scheme string
	// Username and Password are the one account. A Bearer registry without
	// them gives tokens to anybody.
	Username, Password string
	// RefreshToken, when set, is accepted at the token endpoint by POST.
	RefreshToken string
	// Realm replaces the token endpoint in the challenge, to lead clients astray.
	Realm string
	// Lifetime is what the token endpoint says of its tokens; 0: it says nothing.
	Lifetime time.Duration
}

type tokens struct {
	mu      sync.Mutex // guards all below
	scopes  map[string]string
	fetched map[string]int
}

// Tokens tells how many tokens were given out, by scope.
func (r *Registry) Tokens() map[string]int {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	return maps.Clone(r.tokens.fetched)
}

// RevokeTokens makes all tokens that were given out worthless.
func (r *Registry) RevokeTokens() {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	clear(r.tokens.scopes)
}

// authorized answers 401 with a challenge unless the request may go on.
func (r *Registry) authorized(w http.ResponseWriter, req *http.Request, repo string) bool {
	auth := r.options.Auth
	switch auth.Scheme {
	case "":
		return true
	case "Basic":
		if user, password, ok := req.BasicAuth(); ok && user == auth.Username && password == auth.Password {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registrytest"`)
	case "Bearer":
		action := "pull"
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			action = "pull,push"
		}
		scope := ""
		if repo != "" {
			scope = "repository:" + repo + ":" + action
		}
		if r.tokenHolds(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "), repo, action) {
			return true
		}
		realm := auth.Realm
		if realm == "" {
			realm = r.URL() + tokenPath
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="registrytest",scope=%q`, realm, scope))
	}
	registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func (r *Registry) tokenHolds(token, repo, action string) bool {
	r.tokens.mu.Lock()
	defer r.tokens.mu.Unlock()
	granted, ok := r.tokens.scopes[token]
	if !ok || repo == "" {
		return ok
	}
	for scope := range strings.FieldsSeq(granted) {
		rest, ok := strings.CutPrefix(scope, "repository:"+repo+":")
		if ok && (action == "pull" || strings.Contains(rest, "push")) {
			return true
		}
	}
	return false
}

func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	auth := r.options.Auth
	if err := req.ParseForm(); err != nil {
		registryError(w, http.StatusBadRequest, "UNSUPPORTED", err.Error())
		return
	}
	allowed := auth.Username == "" && auth.RefreshToken == ""
	if user, password, ok := req.BasicAuth(); ok {
		allowed = user == auth.Username && password == auth.Password
	}
	if req.Method == http.MethodPost {
		allowed = auth.RefreshToken != "" && req.PostForm.Get("refresh_token") == auth.RefreshToken
	}
	if !allowed {
		registryError(w, http.StatusUnauthorized, "UNAUTHORIZED", "unknown account")
		return
	}
	scopes := slices.Sorted(slices.Values(strings.Fields(strings.Join(req.Form["scope"], " "))))
	scope := strings.Join(scopes, " ")
	r.tokens.mu.Lock()
	if r.tokens.scopes == nil {
		r.tokens.scopes, r.tokens.fetched = map[string]string{}, map[string]int{}
	}
	r.tokens.fetched[scope]++
	total := 0
	for _, n := range r.tokens.fetched {
		total += n
	}
	token := fmt.Sprintf("token-%d", total)
	r.tokens.scopes[token] = scope
	r.tokens.mu.Unlock()
	answer := map[string]any{"token": token, "access_token": token}
	if auth.Lifetime > 0 {
		answer["expires_in"] = int(auth.Lifetime.Seconds())
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(answer))
}
