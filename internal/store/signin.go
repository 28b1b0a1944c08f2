package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// challenge is how a host wants to be signed in to. The zero challenge, once
// seen, means that it lets anybody in.
type challenge struct {
	basic, bearer  bool
	realm, service string // of bearer
}

// authorization is a header, and whether a credential of ours made it.
type authorization struct {
	header string
	shown  bool
	// renewAt is when another is fetched ahead of this one's end; zero: never.
	renewAt time.Time
}

// hubRealms are token endpoints on another host that their registries are
// known by. Any other is named in Registry.TokenHosts.
var hubRealms = map[string]string{
	"registry-1.docker.io": "auth.docker.io",
	"registry.gitlab.com":  "gitlab.com",
}

// signedIn sends the question with what the host wants to see, and reports
// whether a credential of ours was among it. What a host wants is learned from
// the first answer ever, and given before it is asked for from then on.
func (c *client) signedIn(ctx context.Context, q question) (_ *http.Response, shown bool, _ *failure) {
	wants, learned, f := c.meet(ctx)
	if f != nil {
		return nil, false, f
	}
	defer learned(nil)
	scope := pullScope(q.repository, "")
	for try := 1; ; try++ {
		sent, f := c.authorize(ctx, wants, scope)
		if f != nil {
			if f.err.Reason == verifier.ReasonRegistryInvalid || f.err.Reason == verifier.ReasonRegistryUnreachable {
				c.store.challenges.Delete(c.key()) // perhaps the token endpoint has moved
			}
			return nil, false, f
		}
		resp, f := c.roundTrip(ctx, q, sent.header)
		if f != nil {
			return nil, false, f
		}
		// A challenge from where a redirect led is not the registry's to make.
		if resp.StatusCode != http.StatusUnauthorized || !sameOrigin(q.url, resp.Request.URL) {
			learned(&wants)
			return resp, sent.shown, nil
		}
		next, asked := parseChallenge(resp.Header.Values("WWW-Authenticate"))
		if try > 1 || next == (challenge{}) {
			return resp, sent.shown, nil
		}
		_, _, _ = read(resp.Body, maxErrorBytes) // so that the connection can be used again
		_ = resp.Body.Close()
		if sent.header != "" { // it was refused: perhaps it has been taken back
			c.forget(wants, scope, sent)
		}
		wants, scope = next, pullScope(q.repository, asked)
		learned(&wants)
	}
}

// meet gives what the host wants, as far as that is known. Of several who ask
// a host for the first time one goes ahead, so that not all are sent away to
// fetch a token; the others wait for it, but not for long. Whoever goes ahead
// calls learned when it knows; nil: it failed.
func (c *client) meet(ctx context.Context) (wants challenge, learned func(*challenge), f *failure) {
	s, key := c.store, c.key()
	remember := func(wants *challenge) {
		if wants != nil {
			s.challenges.Put(key, *wants, int64(len(wants.realm)+len(wants.service)), time.Now().Add(challengeTTL))
		}
	}
	patience := time.NewTimer(s.options.ContactWait)
	defer patience.Stop()
	for {
		if wants, ok := s.challenges.Get(key); ok {
			return wants, func(next *challenge) {
				if next != nil && *next != wants {
					remember(next)
				}
			}, nil
		}
		s.mu.Lock()
		first, underWay := s.contacts[key]
		if !underWay {
			first = make(chan struct{})
			s.contacts[key] = first
		}
		s.mu.Unlock()
		if !underWay {
			return challenge{}, func(wants *challenge) {
				remember(wants)
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.contacts[key] == first {
					delete(s.contacts, key)
					close(first)
				}
			}, nil
		}
		select {
		case <-first:
		case <-patience.C:
			return challenge{}, remember, nil
		case <-ctx.Done():
			return challenge{}, nil, c.unreachable(c.host, context.Cause(ctx))
		}
	}
}

// authorize makes the header for what the host wants, once for all who need it.
func (c *client) authorize(ctx context.Context, wants challenge, scope string) (authorization, *failure) {
	if wants == (challenge{}) {
		return authorization{}, nil
	}
	key := c.tokenKey(wants, scope)
	due := func(known authorization) bool { return !known.renewAt.IsZero() && time.Now().After(known.renewAt) }
	work := func(ctx context.Context) (authorization, error) {
		if known, ok := c.store.tokens.Get(key); ok && !due(known) {
			return known, nil
		}
		made, lifetime, f := c.signIn(ctx, wants, scope)
		if f != nil {
			return authorization{}, &signInError{f}
		}
		if wants.bearer && lifetime != basicTTL {
			made.renewAt = time.Now().Add(lifetime - lifetime/5)
		}
		if made.header != "" {
			c.store.tokens.Put(key, made, int64(len(made.header)), time.Now().Add(lifetime))
		}
		return made, nil
	}
	if known, ok := c.store.tokens.Get(key); ok {
		if due(known) {
			behind(ctx, &c.store.tokenFlights, class(ctx, key), c.store.options.AttemptTimeout, work)
		}
		return known, nil
	}
	made, err := c.store.tokenFlights.Do(ctx, class(ctx, key), c.store.options.AttemptTimeout, work)
	var failed *signInError
	switch {
	case errors.As(err, &failed):
		return authorization{}, failed.failure
	case ctx.Err() != nil:
		return authorization{}, c.unreachable(c.host, err)
	case err != nil: // a panic
		return authorization{}, fail(verifier.ReasonInternal, err, "", "an unexpected error")
	}
	return made, nil
}

// signInError carries a failure through a flight.
type signInError struct{ *failure }

func (e *signInError) Error() string { return e.err.Error() }

func (c *client) tokenKey(wants challenge, scope string) string {
	if wants.basic {
		return c.key("basic")
	}
	return c.key("bearer", wants.realm, wants.service, scope)
}

// forget drops a header that was refused, unless it was renewed since.
func (c *client) forget(wants challenge, scope string, refused authorization) {
	key := c.tokenKey(wants, scope)
	if current, ok := c.store.tokens.Get(key); ok && current == refused {
		c.store.tokens.Delete(key)
	}
}

// signIn turns the credential into a header, and says for how long it is good.
func (c *client) signIn(ctx context.Context, wants challenge, scope string) (authorization, time.Duration, *failure) {
	credential, f := c.credential(ctx)
	if f != nil {
		return authorization{}, 0, f
	}
	switch {
	case wants.bearer && credential.AccessToken != "":
		return authorization{header: "Bearer " + credential.AccessToken, shown: true}, basicTTL, nil
	case wants.bearer:
		token, lifetime, f := c.fetchToken(ctx, wants, scope, credential)
		if c.renews(f, credential) {
			again, none := c.credential(ctx)
			if none != nil {
				return authorization{}, 0, none
			}
			if again != credential {
				token, lifetime, f = c.fetchToken(ctx, wants, scope, again)
			}
		}
		return authorization{header: "Bearer " + token, shown: !credential.Anonymous()}, lifetime, f
	case credential.Username == "" && credential.Password == "":
		return authorization{}, 0, nil // the registry's 401 is the answer
	}
	pair := credential.Username + ":" + credential.Password
	return authorization{header: "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)), shown: true}, basicTTL, nil
}

// credential is what the registry is shown.
func (c *client) credential(ctx context.Context) (auth.Credential, *failure) {
	if c.registry.Credential == nil {
		return auth.Credential{}, nil
	}
	credential, err := c.registry.Credential.Credential(ctx, c.registry.Host)
	var known *verifier.Error
	switch {
	case err == nil:
		return credential, nil
	case errors.As(err, &known): // its cause was known there
		return auth.Credential{}, &failure{err: known, again: known.Reason == verifier.ReasonRegistryUnreachable}
	}
	return auth.Credential{}, fail(verifier.ReasonRegistryUnauthorized, err,
		fmt.Sprintf("Check registries[].auth of %s", c.registry.Host),
		"the credential for the registry %s could not be read", c.registry.Host)
}

// renews reports whether the source has another credential in the place of one
// that the token endpoint refused: a refresh token ends.
func (c *client) renews(f *failure, refused auth.Credential) bool {
	source, ok := c.registry.Credential.(interface {
		Refused(host string, refused auth.Credential) bool
	})
	return ok && f != nil && f.err.Reason == verifier.ReasonRegistryUnauthorized && source.Refused(c.registry.Host, refused)
}

// fetchToken asks the token endpoint once; whoever asked the registry tries
// again. https://distribution.github.io/distribution/spec/auth/token/
func (c *client) fetchToken(ctx context.Context, wants challenge, scope string, credential auth.Credential) (string, time.Duration, *failure) {
	realm, f := c.realm(wants, credential)
	if f != nil {
		return "", 0, f
	}
	if f := c.waitAtGate(ctx, realm.Host); f != nil {
		return "", 0, f
	}
	req, err := tokenRequest(ctx, realm, wants.service, scope, credential)
	if err != nil {
		return "", 0, fail(verifier.ReasonRegistryInvalid, err, "", "the registry %s names a token endpoint that cannot be asked", c.host)
	}
	req.Header.Set("User-Agent", c.store.options.UserAgent)
	seen := Exchange{Host: realm.Host, Kind: "token", Attempt: 1}
	begun := time.Now()
	defer func() {
		seen.Duration = time.Since(begun)
		c.store.options.Observe(seen)
	}()
	resp, err := c.tokens.Do(req)
	if err != nil {
		return "", 0, c.unreachable(realm.Host, err)
	}
	defer func() { _ = resp.Body.Close() }()
	seen.Status = resp.StatusCode
	c.closeGate(realm.Host, resp)
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "", 0, c.refused(status, realm.Host, !credential.Anonymous())
	case status != http.StatusOK:
		return "", 0, c.unexpected(realm.Host, status)
	}
	data, longer, err := read(resp.Body, maxTokenBytes)
	if err != nil {
		return "", 0, c.unreachable(realm.Host, err)
	}
	var answer struct {
		Token       string  `json:"token"`
		AccessToken string  `json:"access_token"`
		ExpiresIn   float64 `json:"expires_in"`
	}
	if err := json.Unmarshal(data, &answer); err != nil || longer {
		return "", 0, fail(verifier.ReasonRegistryInvalid, err, "", "the token endpoint %s did not answer with a token", realm.Host)
	}
	token := answer.Token
	if token == "" {
		token = answer.AccessToken
	}
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", 0, fail(verifier.ReasonRegistryInvalid, nil, "", "the token endpoint %s did not answer with a token", realm.Host)
	}
	return token, tokenLifetime(answer.ExpiresIn), nil
}

// tokenLifetime takes a margin off, so that a token does not expire on its way.
func tokenLifetime(seconds float64) time.Duration {
	seconds = min(max(seconds, minTokenLifetime.Seconds()), maxTokenLifetime.Seconds())
	lifetime := time.Duration(seconds) * time.Second
	return lifetime - min(lifetime/6, 30*time.Second)
}

func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, credential auth.Credential) (*http.Request, error) {
	form := url.Values{"service": {service}, "scope": {scope}}
	if credential.RefreshToken != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", credential.RefreshToken)
		form.Set("client_id", "countersign")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	query := realm.Query()
	for name, values := range form {
		query[name] = values
	}
	at := *realm
	at.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	if credential.Username != "" || credential.Password != "" {
		req.SetBasicAuth(credential.Username, credential.Password)
	}
	return req, nil
}

// realm checks where a challenge sends us. A credential goes to the registry's
// own host or to one that was named for it; an anonymous request may go
// anywhere that the dialer lets it.
func (c *client) realm(wants challenge, credential auth.Credential) (*url.URL, *failure) {
	realm, err := url.Parse(wants.realm)
	if err != nil || realm.Host == "" || realm.User != nil || (realm.Scheme != "https" && realm.Scheme != "http") {
		return nil, fail(verifier.ReasonRegistryInvalid, err, "", "the registry %s names a token endpoint that is no URL", c.host)
	}
	if realm.Scheme == "http" && c.scheme == "https" {
		return nil, fail(verifier.ReasonRegistryInvalid, nil, "", "the registry %s names a token endpoint without TLS", c.host)
	}
	host := strings.ToLower(realm.Host)
	own := c.endpoint("", "")
	named := strings.EqualFold(realm.Hostname(), own.Hostname()) && port(realm) == port(own) ||
		hubRealms[c.host] == host || slices.Contains(c.registry.TokenHosts, host)
	if !named && !credential.Anonymous() {
		return nil, fail(verifier.ReasonRegistryUnauthorized, fmt.Errorf("realm %s", redact.URL(wants.realm)),
			fmt.Sprintf("If that is right, add it to registries[].tokenHosts of %s", c.registry.Host),
			"the registry %s wants its credential sent to another host, %s", c.host, realm.Host)
	}
	return realm, nil
}

// pullScope is what a token must allow: to pull from the repository, and
// whatever else about reading it the challenge asks for. More is never asked
// for, whatever the challenge says.
func pullScope(repository, challenged string) string {
	actions := []string{"pull"}
	for scope := range strings.FieldsSeq(challenged) {
		rest, ok := strings.CutPrefix(scope, "repository:"+repository+":")
		if ok && slices.Contains(strings.Split(rest, ","), "metadata_read") { // Azure's
			actions = []string{"metadata_read", "pull"}
		}
	}
	return "repository:" + repository + ":" + strings.Join(actions, ",")
}

// parseChallenge reads WWW-Authenticate (RFC 9110, 11.6.1) as far as
// registries use it, with the scope that it asks for. Bearer goes before Basic
// where both are offered.
func parseChallenge(headers []string) (found challenge, scope string) {
	for _, header := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
		switch strings.ToLower(scheme) {
		case "basic":
			found.basic = !found.bearer
		case "bearer":
			params := parseParams(rest)
			found = challenge{bearer: true, realm: params["realm"], service: params["service"]}
			scope = params["scope"]
		}
	}
	return found, scope
}

// parseParams reads key=value and key="quoted, value" pairs; it stops at what
// it does not understand.
func parseParams(s string) map[string]string {
	params := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t,")
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			return params
		}
		name = strings.ToLower(strings.TrimSpace(name))
		rest = strings.TrimLeft(rest, " \t")
		if !strings.HasPrefix(rest, `"`) {
			value, after, _ := strings.Cut(rest, ",")
			params[name], s = strings.TrimSpace(value), after
			continue
		}
		var value strings.Builder
		i := 1
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
			}
			value.WriteByte(rest[i])
		}
		if i >= len(rest) {
			return params
		}
		params[name], s = value.String(), rest[i+1:]
	}
}
