package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/auth"
)

const secret = "s3cret-do-not-print"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func config(t *testing.T, text string) *auth.DockerConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, text)
	return auth.NewDockerConfig(path)
}

// helper puts docker-credential-<name> first on the PATH.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "docker-credential-"+name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestDockerConfigFindsTheExactHost(t *testing.T) {
	d := config(t, `{"auths": {
		"shop.example.com": {"auth": "cm9ib3Q6czNjcmV0"},
		"https://old.example.com/v2/": {"username": "old", "password": "pw"},
		"https://index.docker.io/v1/": {"username": "hub", "password": "pw"},
		"tls.example.com:443": {"username": "tls", "password": "pw"},
		"port.example.com:5000": {"username": "port", "password": "pw"},
		"team.example.com/team": {"username": "podman", "password": "pw"},
		"identity.example.com": {"identitytoken": "refresh"},
		"registry.example.com": {"registrytoken": "access"}
	}}`)
	for host, want := range map[string]auth.Credential{
		"shop.example.com":               {Username: "robot", Password: "s3cret"},
		"old.example.com":                {Username: "old", Password: "pw"},
		"docker.io":                      {Username: "hub", Password: "pw"},
		"tls.example.com":                {Username: "tls", Password: "pw"},
		"port.example.com:5000":          {Username: "port", Password: "pw"},
		"identity.example.com":           {RefreshToken: "refresh"},
		"registry.example.com":           {AccessToken: "access"},
		"port.example.com":               {},
		"team.example.com":               {},
		"shop.example.com.evil.test":     {},
		"evil.test":                      {},
		"example.com":                    {},
		"sub.shop.example.com":           {},
		"shop.example.com:5000":          {},
		"https://shop.example.com":       {},
		"old.example.com/v2":             {},
		"index.docker.io.attacker.test":  {},
		"registry.example.com@evil.test": {},
	} {
		got, err := d.Credential(t.Context(), host)
		if err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", host, got, err, want)
		}
	}
}

func TestDockerConfigIsReadAgainWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	d := auth.NewDockerConfig(path)
	if _, err := d.Credential(t.Context(), "a.example.com"); err == nil {
		t.Error("a file that is not there gave no error")
	}
	for _, password := range []string{"one", "two", "six"} { // of one length, within one tick
		write(t, path, `{"auths": {"a.example.com": {"username": "robot", "password": "`+password+`"}}}`)
		got, err := d.Credential(t.Context(), "a.example.com")
		if err != nil || got.Password != password {
			t.Fatalf("got %v, %v; want the password %s", got, err, password)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, long, long); err != nil {
		t.Fatal(err)
	}
	for range 2 { // read, and remembered
		if got, err := d.Credential(t.Context(), "a.example.com"); err != nil || got.Password != "six" {
			t.Fatalf("got %v, %v", got, err)
		}
	}
}

func TestABadDockerConfigTellsWhereAndNoSecret(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":   `{"auths": {"a.example.com": {"password": "` + secret + `"`,
		"wrong type": `{"auths": {"a.example.com": {"password": ["` + secret + `"]}}}`,
		"not base64": `{"auths": {"a.example.com": {"auth": "!` + secret + `"}}}`,
		"no colon":   `{"auths": {"a.example.com": {"auth": "czNjcmV0LWRvLW5vdC1wcmludA=="}}}`,
		"too large":  `{"auths": {}, "x": "` + strings.Repeat("x", 1<<20) + `"}`,
		"path":       `{"credHelpers": {"a.example.com": "../../bin/sh"}}`,
	} {
		_, err := config(t, text).Credential(t.Context(), "a.example.com")
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHelpersAreAskedByTheirProtocol(t *testing.T) {
	helper(t, "vault", `
[ "$1" = get ] || exit 3
read -r server
case "$server" in
token.example.com) echo '{"Username":"<token>","Secret":"refresh"}' ;;
none.example.com) echo 'credentials not found in native keychain'; exit 1 ;;
https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"pw"}' ;;
*) echo "{\"Username\":\"$server\",\"Secret\":\"pw\"}" ;;
esac`)
	d := config(t, `{"credsStore": "vault", "auths": {"none.example.com": {"username": "file", "password": "pw"}}}`)
	for host, want := range map[string]auth.Credential{
		"token.example.com": {RefreshToken: "refresh"},
		"a.example.com":     {Username: "a.example.com", Password: "pw"},
		"none.example.com":  {Username: "file", Password: "pw"},
		"docker.io":         {Username: "hub", Password: "pw"},
	} {
		if got, err := d.Credential(t.Context(), host); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", host, got, err, want)
		}
	}
	d = config(t, `{"credHelpers": {"a.example.com": "vault"}}`)
	if got, err := d.Credential(t.Context(), "a.example.com"); err != nil || got.Username != "a.example.com" {
		t.Errorf("by credHelpers: %v, %v", got, err)
	}
	if got, err := d.Credential(t.Context(), "b.example.com"); err != nil || !got.Anonymous() {
		t.Errorf("a host without a helper: %v, %v", got, err)
	}
}

func TestABadHelperFailsInItsTimeAndTellsNoSecret(t *testing.T) {
	helper(t, "endless", "while :; do echo "+secret+secret+secret+"; done")
	helper(t, "garbage", "echo "+secret)
	helper(t, "failing", "echo "+secret+"; echo "+secret+" >&2; exit 1")
	helper(t, "hanging", "sleep 60")
	for _, name := range []string{"endless", "garbage", "failing", "hanging", "missing"} {
		d := config(t, `{"credHelpers": {"a.example.com": "`+name+`"}}`)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		begun := time.Now()
		got, err := d.Credential(ctx, "a.example.com")
		cancel()
		if err == nil || !got.Anonymous() || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}

func TestACredentialPrintsNoSecret(t *testing.T) {
	for _, c := range []auth.Credential{
		{Username: "robot", Password: secret}, {RefreshToken: secret}, {AccessToken: secret},
	} {
		encoded, err := json.Marshal(map[string]any{"credential": c})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %s", c, c, c), string(encoded), auth.NewStatic(c).ID()} {
			if strings.Contains(text, secret) {
				t.Errorf("%q tells the secret", text)
			}
		}
	}
}

func TestStaticCredentialsDifferByTheirSecret(t *testing.T) {
	right := auth.NewStatic(auth.Credential{Username: "robot", Password: "right"})
	same := auth.NewStatic(auth.Credential{Username: "robot", Password: "right"})
	wrong := auth.NewStatic(auth.Credential{Username: "robot", Password: "wrong"})
	if right.ID() != same.ID() || right.ID() == wrong.ID() {
		t.Error("the ID is not the credential's")
	}
}
