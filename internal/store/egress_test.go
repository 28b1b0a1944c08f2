package store

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestL29_AddressesThatAreNeverDialled(t *testing.T) {
	for address, refused := range map[string]bool{
		"169.254.169.254":          true,
		"169.254.0.1":              true,
		"::ffff:169.254.169.254":   true,
		"64:ff9b::a9fe:a9fe":       true,
		"fe80::1":                  true,
		"fe80::1%eth0":             true,
		"fd00:ec2::254":            true,
		"fd20:ce::254":             true,
		"100.100.100.200":          true,
		"168.63.129.16":            true,
		"::ffff:168.63.129.16":     true,
		"64:ff9b::a83f:8110":       true,
		"224.0.0.1":                true,
		"ff02::1":                  true,
		"203.0.113.7":              false,
		"2001:db8::7":              false,
		"10.0.0.1":                 false, // where many registries are
		"192.168.1.1":              false,
		"fd00::1":                  false,
		"64:ff9b::cb00:7107":       false,
		"::ffff:203.0.113.7":       false,
		"100.100.100.201":          false,
		"2001:db8::a9fe:a9fe":      false,
		"2002:7f00:1::a9fe:a9fe:1": false,
	} {
		for _, loopback := range []bool{false, true} {
			if got := checkAddress(netip.MustParseAddr(address), addresses{loopback, true}); (got != nil) != refused {
				t.Errorf("%s, loopback %t: %v", address, loopback, got)
			}
		}
	}
	for _, address := range []string{"127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1"} {
		if checkAddress(netip.MustParseAddr(address), addresses{false, true}) == nil {
			t.Errorf("%s may be dialled", address)
		}
		if got := checkAddress(netip.MustParseAddr(address), addresses{true, true}); got != nil {
			t.Errorf("%s for development: %v", address, got)
		}
	}
}

// TestL29_PrivateAddressesForWhomAPolicyNames: whatever an image's name brings up is
// public, or it is not dialled.
func TestL29_PrivateAddressesForWhomAPolicyNames(t *testing.T) {
	for _, address := range []string{"10.0.0.1", "172.16.9.9", "192.168.1.1", "fd00::1", "100.64.0.1", "64:ff9b::a00:1", "::ffff:10.0.0.1"} {
		if checkAddress(netip.MustParseAddr(address), addresses{private: false}) == nil {
			t.Errorf("%s may be dialled for anybody", address)
		}
		if checkAddress(netip.MustParseAddr(address), addresses{loopback: true}) == nil {
			t.Errorf("%s may be dialled for anybody, for development", address)
		}
		if got := checkAddress(netip.MustParseAddr(address), addresses{private: true}); got != nil {
			t.Errorf("%s for a host that is named: %v", address, got)
		}
	}
	if checkAddress(netip.MustParseAddr("203.0.113.7"), addresses{}) != nil {
		t.Error("a public address may not be dialled")
	}
}

// TestL29_WhichHostsAreNamed, and which are not.
func TestL29_WhichHostsAreNamed(t *testing.T) {
	gitlab := Registry{Host: "registry.gitlab.corp", TokenHosts: []string{"gitlab.corp"}, RedirectHosts: []string{"minio.corp:9000"}}.names("registry.gitlab.corp", true, Reach{Administrator: true})
	acr := Registry{Host: "myacr.azurecr.io"}.names("myacr.azurecr.io", true, Reach{Administrator: true})
	pattern := Registry{Host: "any.example.com", TokenHosts: []string{"tokens.corp"}}.names("any.example.com", false, Reach{Administrator: true})
	fake := Registry{Host: "azurecr.io.attacker.example"}.names("azurecr.io.attacker.example", true, Reach{Administrator: true})
	for _, c := range []struct {
		names func(string) bool
		host  string
		want  bool
	}{
		{gitlab, "registry.gitlab.corp", true}, {gitlab, "registry.gitlab.corp:443", true}, {gitlab, "gitlab.corp", true}, {gitlab, "minio.corp:9000", true},
		{gitlab, "minio.corp", false}, {gitlab, "kubernetes.default.svc", false}, {gitlab, "myacr.westeurope.data.azurecr.io", false}, {gitlab, "10.0.0.1", false},
		{acr, "myacr.azurecr.io", true}, {acr, "myacr.westeurope.data.azurecr.io", true}, {acr, "weu1.blob.core.windows.net", true}, {acr, "blob.core.windows.net.attacker.example", false},
		{pattern, "any.example.com", false}, {pattern, "tokens.corp", true},
		{fake, "weu1.blob.core.windows.net", false},
	} {
		if got := c.names(c.host); got != c.want {
			t.Errorf("%s: %v", c.host, got)
		}
	}
}

// TestL29_TheAddressIsCheckedAsItIsDialled: names that lead inside, and addresses
// themselves, for a registry that only matches a pattern.
func TestL29_TheAddressIsCheckedAsItIsDialled(t *testing.T) {
	s := New(Options{Attempts: 1, AttemptTimeout: 300 * time.Millisecond})
	view, err := s.View(ViewOptions{Reach: Reach{Administrator: true}, Named: []string{"named.example.test"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"10.255.255.1", "192.168.255.1:5000", "127.0.0.1", "localhost", "169.254.169.254", "203.0.113.7", "[fd00::1]:5000"} {
		ref := verifier.Reference{Registry: host, Repository: "a", Tag: "1"}
		begun := time.Now()
		_, err := view.Resolve(t.Context(), ref)
		e := verifier.AsError(err)
		if err == nil || !strings.Contains(e.Message, " address, ") || time.Since(begun) > 200*time.Millisecond {
			t.Errorf("%s: %v", host, err)
		}
		if host == "10.255.255.1" && !strings.Contains(e.Remedy, "name 10.255.255.1 under registries") {
			t.Errorf("%s: %s", host, e.Remedy)
		}
	}
}

// led is a way that tells its name.
type led string

func (l led) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New(string(l)) }

// TestL29_EachHostGoesItsWay: a connection to private addresses is for the hosts
// that are named, and the registry's own CAs are for the registry.
func TestL29_EachHostGoesItsWay(t *testing.T) {
	r := &router{
		host: "registry.corp", named: func(host string) bool { return host != "203.0.113.7" },
		private: func(host string) bool {
			return host != "elsewhere.example.com" && !strings.HasPrefix(host, "203.0.113.")
		},
		own: [2]http.RoundTripper{led("own, public"), led("own, private")}, others: [2]http.RoundTripper{led("other, public"), led("other, private")},
	}
	unnamed := &router{host: "any.example.com", named: func(string) bool { return false }, private: func(string) bool { return false }, own: r.own, others: r.others}
	for _, c := range []struct {
		router *router
		url    string
		want   string
	}{
		{r, "https://registry.corp/v2/", "own, private"}, {r, "https://REGISTRY.corp/v2/", "own, private"}, {r, "https://minio.corp/blob", "other, private"},
		{r, "https://elsewhere.example.com/blob", "other, public"}, {r, "https://203.0.113.7/blob", "203.0.113.7 is a bare address"},
		{r, "https://203.0.113.8/blob", "other, public"}, {r, "https://169.254.169.254/blob", "169.254.169.254 is a link-local address"}, {r, "https://127.0.0.1/blob", "127.0.0.1 is a loopback address"},
		{unnamed, "https://any.example.com/v2/", "own, public"}, {unnamed, "https://cdn.example.com/v2/", "other, public"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.router.RoundTrip(request)
		if resp != nil {
			_ = resp.Body.Close()
		}
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.url, err, c.want)
		}
	}
}

// TestL53_BoundedReachesListedHostsAlone of those at private addresses, by every
// spelling, and none that is never dialled.
func TestL53_BoundedReachesListedHostsAlone(t *testing.T) {
	s := New(Options{AttemptTimeout: 300 * time.Millisecond})
	hosts := []string{"crl.corp", "crl.corp:8080", "[fd00::1]", "169.254.169.254", "127.0.0.1", "100.100.100.200"}
	ways := &bounded{hosts: hosts, public: led("public"), private: led("private")}
	dialled := s.Bounded(hosts)
	ask := func(by http.RoundTripper, url string) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := by.RoundTrip(request)
		if err == nil {
			_ = resp.Body.Close()
			t.Fatalf("%s answered", url)
		}
		return err
	}
	for url, want := range map[string]string{
		"http://crl.corp/list.crl": "private", "http://crl.corp:80/": "private", "http://CRL.corp/": "private", "https://crl.corp/": "private", "https://crl.corp:443/": "private",
		"http://crl.corp:8080/": "private", "https://crl.corp:8080/": "private", "http://[fd00::1]/": "private", "http://[FD00::1]:80/": "private",
		"http://crl.corp:443/": "public", "https://crl.corp:80/": "public", "http://crl.corp:8081/": "public", "http://crl.corp.example.com/": "public", "http://xcrl.corp/": "public",
		"http://crl.corp./": "public", "http://[fd00::1]:8080/": "public", "http://crl.corp@else.corp/": "public", "http://else.corp/crl.corp": "public",
	} {
		if err := ask(ways, url); err.Error() != want {
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
	for url, want := range map[string]string{
		"http://10.255.255.1/list.crl": "10.255.255.1", "http://[fd00::2]:42735/admin/restart?confirm=yes": "[fd00::2]:42735", "http://[fd00::1]:8080/": "[fd00::1]:8080",
		"http://192.168.255.1/": "192.168.255.1", "http://100.64.0.1/": "100.64.0.1", "http://[::ffff:10.0.0.1]/": "[::ffff:10.0.0.1]", "http://[64:ff9b::a00:1]/": "[64:ff9b::a00:1]",
		"http://169.254.169.254/": "", "http://127.0.0.1/": "", "http://100.100.100.200/": "", "http://localhost/": "",
	} {
		err := ask(dialled, url)
		var refused *refusedAddress
		var private *privateHost
		switch {
		case !errors.As(err, &refused):
			t.Errorf("%s: %v", url, err)
		case want == "" && refused.unnamed:
			t.Errorf("%s may be listed: %v", url, err)
		case want != "" && (!errors.As(err, &private) || private.PrivateHost() != want):
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestL53_WhoseOptionsTheyAre: the same options reach private addresses as an
// administrator's, and what an administrator lists as anybody's.
func TestL53_WhoseOptionsTheyAre(t *testing.T) {
	registries := []Registry{{Host: "registry.corp", TokenHosts: []string{"tokens.corp"}, RedirectHosts: []string{"blobs.corp"}}, {Host: "myacr.azurecr.io"}, {Host: "docker.io", Mirror: "mirror.corp/hub"}}
	hosts := []string{"registry.corp", "named.corp", "tokens.corp", "blobs.corp", "myacr.azurecr.io", "myacr.eastus.data.azurecr.io", "mirror.corp"}
	for name, c := range map[string]struct {
		reach  Reach
		others bool
		want   []string
	}{
		"nobody's":               {want: nil},
		"nobody's, others too":   {others: true, want: nil},
		"an administrator's":     {reach: Reach{Administrator: true}, want: hosts},
		"listed":                 {reach: Reach{Hosts: []string{"registry.corp", "blobs.corp", "mirror.corp"}}, want: []string{"registry.corp", "blobs.corp", "mirror.corp"}},
		"named by a pattern":     {reach: Reach{Registries: []string{"registry.corp", "tokens.corp", "myacr.azurecr.io"}}, want: []string{"registry.corp", "myacr.azurecr.io", "myacr.eastus.data.azurecr.io"}},
		"listed, and not needed": {reach: Reach{Hosts: []string{"else.corp"}}, want: nil},
	} {
		v, err := New(Options{}).View(ViewOptions{Reach: c.reach, Registries: registries, Named: []string{"named.corp"}, OthersPrivate: c.others})
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]string{"tokens.corp": "registry.corp", "blobs.corp": "registry.corp", "myacr.eastus.data.azurecr.io": "myacr.azurecr.io", "mirror.corp": "docker.io"}
		for _, host := range hosts {
			asked := of[host]
			if asked == "" {
				asked = host
			}
			if got := v.client(asked).http.Transport.(*router).private(host); got != slices.Contains(c.want, host) {
				t.Errorf("%s: %s is reached: %v", name, host, got)
			}
		}
		if v.client("else.example.com").http.Transport.(*router).private("else.example.com") {
			t.Errorf("%s: any host is reached", name)
		}
	}
}
