package store

import (
	"testing"

	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestL28_ATokenEndpointIsKnownByItsOwnRegistry: what Docker Hub and GitLab are known by
// is no other registry's token endpoint.
func TestL28_ATokenEndpointIsKnownByItsOwnRegistry(t *testing.T) {
	robot := auth.Credential{Username: "robot", Password: "secret"}
	for _, c := range []struct {
		host, realm string
		want        bool
	}{
		{"docker.io", "https://auth.docker.io/token", true},
		{"docker.io", "https://AUTH.docker.io/token", true},
		{"docker.io", "https://gitlab.com/jwt/auth", false},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"registry.gitlab.com", "https://auth.docker.io/token", false},
		{"registry.example.com", "https://auth.docker.io/token", false},
		{"registry.example.com", "https://gitlab.com/jwt/auth", false},
		{"registry.example.com", "https://registry.example.com/token", true},
		{"registry.example.com", "https://registry.example.com:8443/token", false},
		{"registry.example.com", "https://registry.example.com.attacker.example/token", false},
		{"registry.example.com", "https://evilregistry.example.com/token", false},
	} {
		client, err := New(Options{}).newClient(Registry{Host: c.host}, true, &ViewOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, f := client.realm(challenge{bearer: true, realm: c.realm}, robot)
		if (f == nil) != c.want || f != nil && f.err.Reason != verifier.ReasonRegistryUnauthorized {
			t.Errorf("%s sends its credential to %s: %v", c.host, c.realm, f == nil)
		}
		if _, f := client.realm(challenge{bearer: true, realm: c.realm}, auth.Credential{}); f != nil {
			t.Errorf("%s, anonymously at %s: %v", c.host, c.realm, f.err)
		}
	}
}

// TestL28_ATokenHostIsNamedInFull: a credential goes to the hosts that are named for it,
// not to those whose names end or begin alike.
func TestL28_ATokenHostIsNamedInFull(t *testing.T) {
	client, err := New(Options{}).newClient(Registry{Host: "registry.example.com", TokenHosts: []string{"auth.example.com", "tokens.example.com:8443"}}, true, &ViewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for realm, want := range map[string]bool{
		"https://auth.example.com/token": true, "https://AUTH.example.com/token": true, "https://tokens.example.com:8443/token": true,
		"https://evilauth.example.com/token": false, "https://auth.example.com.evil.example/token": false, "https://example.com/token": false,
		"https://auth.example.com:8443/token": false, "https://tokens.example.com/token": false, "https://x.auth.example.com/token": false,
	} {
		if _, f := client.realm(challenge{bearer: true, realm: realm}, auth.Credential{Username: "robot", Password: "secret"}); (f == nil) != want {
			t.Errorf("the credential goes to %s: %v", realm, f == nil)
		}
	}
}
