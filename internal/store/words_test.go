package store

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// What the protocols say in headers and names, as registries really say it.

func TestChallenges(t *testing.T) {
	for header, want := range map[string]struct {
		challenge
		scope string
	}{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull"`:                                {challenge{bearer: true, realm: "https://auth.docker.io/token", service: "registry.docker.io"}, "repository:library/nginx:pull"},
		`Bearer realm="https://a.azurecr.io/oauth2/token", service="a.azurecr.io", scope="repository:x:metadata_read,pull", error="insufficient_scope"`: {challenge{bearer: true, realm: "https://a.azurecr.io/oauth2/token", service: "a.azurecr.io"}, "repository:x:metadata_read,pull"},
		`bearer REALM=https://x.example.test/t , service = "a \"quoted\", one"`:                                                                         {challenge{bearer: true, realm: "https://x.example.test/t", service: `a "quoted", one`}, ""},
		`Basic realm="Registry Realm"`: {challenge{basic: true}, ""},
		`BASIC`:                        {challenge{basic: true}, ""},
		`Negotiate abc=`:               {},
		``:                             {},
		`Bearer`:                       {challenge{bearer: true}, ""},
		`Bearer realm="cut`:            {challenge{bearer: true}, ""},
		`Bearer ====,"",=`:             {challenge{bearer: true}, ""},
	} {
		got, scope := parseChallenge([]string{header})
		if got != want.challenge || scope != want.scope {
			t.Errorf("%s\n got %+v %q\nwant %+v", header, got, scope, want)
		}
	}
	for _, headers := range [][]string{{`Basic realm="x"`, `Bearer realm="y"`}, {`Bearer realm="y"`, `Basic realm="x"`}} {
		if got, _ := parseChallenge(headers); got != (challenge{bearer: true, realm: "y"}) {
			t.Errorf("%q: %+v", headers, got)
		}
	}
}

func TestAScopeIsNeverWiderThanReading(t *testing.T) {
	for challenged, want := range map[string]string{
		"":                                   "repository:a/b:pull",
		"repository:a/b:pull":                "repository:a/b:pull",
		"repository:a/b:pull,push":           "repository:a/b:pull",
		"repository:a/b:metadata_read":       "repository:a/b:metadata_read,pull",
		"repository:a/b:*":                   "repository:a/b:pull",
		"repository:other:metadata_read":     "repository:a/b:pull",
		"registry:catalog:*":                 "repository:a/b:pull",
		"repository:a/b:pull repository:c:*": "repository:a/b:pull",
	} {
		if got := pullScope("a/b", challenged); got != want {
			t.Errorf("%q: %q, want %q", challenged, got, want)
		}
	}
}

func TestHowLongATokenIsGood(t *testing.T) {
	for seconds, want := range map[float64]time.Duration{
		0: 50 * time.Second, -1: 50 * time.Second, 60: 50 * time.Second, 300: 270 * time.Second, 1e300: time.Hour - 30*time.Second,
	} {
		if got := tokenLifetime(seconds); got != want {
			t.Errorf("%g s: %s, want %s", seconds, got, want)
		}
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for value, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0": 0, "": 0, "-5": 0, "soon": 0, "1e3": 0, "99999999999999999999": 0, date: 90 * time.Second,
		"Wed, 21 Oct 2015 07:28:00 GMT": 0,
	} {
		if got := retryAfter(value); max(got, 0).Round(5*time.Second) != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestTagsOfADigest(t *testing.T) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		d := alg.FromString("x")
		if tag, want := referrersTag(d), alg.String()+"-"+d.Encoded()[:64]; tag != want || len(tag) > maxTag {
			t.Errorf("%s, want %s", tag, want)
		}
	}
}

func TestDockerHubIsWhereDockerLooks(t *testing.T) {
	v, err := New(Options{}).View(ViewOptions{Registries: []Registry{{Host: "docker.io", TokenHosts: []string{"x"}}}})
	if err != nil {
		t.Fatal(err)
	}
	c := v.client("docker.io")
	if got := c.endpoint("library/nginx", "manifests/latest").String(); got != "https://registry-1.docker.io/v2/library/nginx/manifests/latest" {
		t.Error(got)
	}
	for realm, named := range map[string]bool{
		"https://auth.docker.io/token": true, "https://registry-1.docker.io/token": true, "https://auth.docker.io.evil.test/token": false,
		"https://auth.docker.io:8443/token": false, "https://docker.io@evil.test/token": false, "http://auth.docker.io/token": false,
	} {
		_, f := c.realm(challenge{bearer: true, realm: realm}, robotForTests)
		if (f == nil) != named {
			t.Errorf("%s: %v", realm, f)
		}
	}
}

func TestHelpfulMessagesAreShort(t *testing.T) {
	host := strings.Repeat("long.", 12) + "example.test"
	c, err := New(Options{}).newClient(Registry{Host: host}, true, &ViewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*failure{c.refused(401, host, false), c.refused(403, host, true), c.unexpected(host, 429), c.unexpected(host, 500), leftAlone(host, gate{time.Now().Add(time.Hour), 429})} {
		if len(f.err.Message) > 160 || strings.HasSuffix(f.err.Message, ".") || strings.HasSuffix(f.err.Remedy, ".") {
			t.Errorf("%q %q", f.err.Message, f.err.Remedy)
		}
	}
}
