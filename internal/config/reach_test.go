package config_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// inside is a host of the private network.
const inside = "10.0.0.5:8080"

// network is all hosts there are, behind a proxy, which the store reaches on loopback
// although it dials nothing else there.
type network struct {
	http.Handler

	mu   sync.Mutex
	seen []string
}

func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.seen = append(n.seen, r.Host)
	n.mu.Unlock()
	if r.Method == http.MethodConnect {
		http.Error(w, "no TLS here", http.StatusForbidden)
		return
	}
	n.Handler.ServeHTTP(w, r)
}

// reached reports whether the host was called.
func (n *network) reached(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.seen, host)
}

// within is the environment in the network: registries and revocation servers are
// reached through the real store, which does not dial loopback.
func within(t *testing.T, n *network) config.Environment {
	t.Helper()
	server := httptest.NewServer(n)
	t.Cleanup(server.Close)
	by, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(store.Options{
		Attempts: 1, HedgeAfter: -1, AttemptTimeout: 2 * time.Second, Proxy: func(*http.Request) (*url.URL, error) { return by, nil },
	})
	t.Cleanup(s.CloseIdleConnections)
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: s.Transport(), Bounded: s.Bounded})
	if err != nil {
		t.Fatal(err)
	}
	env := environment(t)
	env.Revocation, env.View = revocation, func(o store.ViewOptions) (verifier.Store, error) { return s.View(o) }
	return env
}

// loaded loads documents that are sound.
func loaded(t *testing.T, env config.Environment, files map[string]string) *config.Snapshot {
	t.Helper()
	source, err := config.Load(t.Context(), config.Options{Path: directory(t, files), Environment: env})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range source.Snapshot().Problems() {
		t.Errorf("problem: %s", p)
	}
	return source.Snapshot()
}

// judge verifies an image as a namespace asks about it.
func judge(t *testing.T, s *config.Snapshot, namespace, text string) (verifier.Verdict, *verifier.Error) {
	t.Helper()
	request := verifier.Request{Namespace: namespace, Image: image(t, text)}
	chain, verdict := s.For(request)
	if chain == nil {
		return verdict, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	verdict, err := chain.Verify(ctx, request)
	if err != nil {
		return verdict, verifier.AsError(err)
	}
	return verdict, nil
}

// signedStore holds shop.example.com/app, signed by the signer.
func signedStore(signer *notationtest.Certificate) verifier.Store {
	s := &verifiertest.Store{}
	content := notationtest.NewSubject("an image")
	a := signer.SignArtifact(content, notationtest.SignOptions{})
	s.List(s.Tag("shop.example.com/app:1", content.Digest), verifier.Candidate{
		Descriptor: a.Descriptor, Manifest: a.Manifest, ArtifactType: a.Manifest.Config.MediaType, Source: verifier.SourceReferrersAPI,
	}, nil)
	return &blobs{s, map[digest.Digest][]byte{digest.FromBytes(a.Envelope): a.Envelope}}
}

// blobs is a store with further blobs.
type blobs struct {
	*verifiertest.Store
	blobs map[digest.Digest][]byte
}

func (b *blobs) Fetch(_ context.Context, _ verifier.Subject, d ocispec.Descriptor) ([]byte, error) {
	data, ok := b.blobs[d.Digest]
	if !ok {
		return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such blob"}
	}
	return data, nil
}

const (
	// trusting trusts the tenant's authority, and asks which certificates are revoked.
	trusting = "require: {name: team, notation: {level: strict, trustStores: {ca: [{file: team.crt}]}, trustedIdentities: ['*']}}"
	// unasking trusts it without that question.
	unasking = "require: {name: company, notation: {level: strict, override: {revocation: skip}, trustStores: {ca: [{file: team.crt}]}, trustedIdentities: ['*']}}"
)

// TestL53_ATenantsAuthorityCallsNoPrivateAddress: whoever brings an authority of his own
// writes what its certificates name, path and query too.
func TestL53_ATenantsAuthorityCallsNoPrivateAddress(t *testing.T) {
	const public = "crl.example.com"
	adds := tenant("team", "own", `"shop.example.com/**"`, trusting)
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	responder := &notationtest.Responder{Issuer: root}
	private := notationtest.CertificateOptions{CRL: []string{"http://" + inside + "/list.crl?confirm=yes"}}
	for name, c := range map[string]struct {
		documents []string
		leaf      notationtest.CertificateOptions
		called    bool
		target    string // inside, where it is empty
	}{
		"the cluster's own authority":      {documents: []string{cluster("company", `"shop.example.com/**"`, trusting)}, leaf: private, called: true},
		"a TrustPolicy adds":               {documents: []string{cluster("company", `"shop.example.com/**"`, unasking), adds}, leaf: private},
		"a TrustPolicy replaces":           {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, "delegate: true"), adds}, leaf: private},
		"it adds where nothing is checked": {documents: []string{cluster("company", `"shop.example.com/**"`, skip("a test")), adds}, leaf: private},
		"listed where it adds":             {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["`+inside+`"]`), adds}, leaf: private, called: true},
		"listed where it replaces":         {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, "delegate: true", `privateHosts: ["`+inside+`"]`), adds}, leaf: private, called: true},
		"listed where nothing is checked":  {documents: []string{cluster("company", `"shop.example.com/**"`, skip("a test"), `privateHosts: ["`+inside+`"]`), adds}, leaf: private, called: true},
		"listed among registries":          {documents: []string{cluster("company", `"shop.example.com/**", "`+inside+`/**"`, unasking, `registries: [{host: "`+inside+`"}]`), adds}, leaf: private, called: true},
		"listed with another port":         {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["10.0.0.5"]`), adds}, leaf: private},
		"listed by one of two that must hold": {documents: []string{
			cluster("company", `"shop.example.com/**"`, unasking, "namespaces: [team]"),
			cluster("other", `"shop.example.com/**"`, unasking, `namespaces: ["te*"]`, `privateHosts: ["`+inside+`"]`), adds,
		}, leaf: private, called: true},
		"listed for another namespace": {documents: []string{
			cluster("company", `"shop.example.com/**"`, unasking, "namespaces: [team]"), cluster("other", `"shop.example.com/**"`, unasking, "namespaces: [else]", `privateHosts: ["`+inside+`"]`), adds,
		}, leaf: private},
		"listed for another image": {documents: []string{
			cluster("company", `"shop.example.com/**"`, unasking), cluster("other", `"else.example.com/**"`, unasking, `privateHosts: ["`+inside+`"]`), adds,
		}, leaf: private},
		"listed by one that is less specific": {documents: []string{
			cluster("company", `"shop.example.com/**"`, unasking), cluster("other", `"**/**"`, unasking, `privateHosts: ["`+inside+`"]`), adds,
		}, leaf: private},
		"named in the cluster's images only": {documents: []string{cluster("company", `"shop.example.com/**", "`+inside+`/**"`, unasking), adds}, leaf: private},
		"the tenant's own registries and images": {documents: []string{
			cluster("company", `"shop.example.com/**"`, unasking, "delegate: true"),
			tenant("team", "own", `"shop.example.com/**", "`+inside+`/**"`, trusting, `registries: [{host: "`+inside+`", plainHTTP: true, tokenHosts: ["`+inside+`"], redirectHosts: ["`+inside+`"]}]`),
		}, leaf: private},
		"OCSP": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking), adds}, leaf: notationtest.CertificateOptions{OCSP: []string{"http://" + inside + "/ocsp"}}},
		"OCSP by POST": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking), adds},
			leaf: notationtest.CertificateOptions{OCSP: []string{"http://" + inside + "/" + strings.Repeat("long/", 60)}}},
		"OCSP, listed": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["`+inside+`"]`), adds},
			leaf: notationtest.CertificateOptions{OCSP: []string{"http://" + inside + "/ocsp"}}, called: true},
		"a redirect leads there": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking), adds},
			leaf: notationtest.CertificateOptions{CRL: []string{"http://" + public + "/redirect"}}},
		"a redirect leads there, listed": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["`+inside+`"]`), adds},
			leaf: notationtest.CertificateOptions{CRL: []string{"http://" + public + "/redirect"}}, called: true},
		"a public address": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking), adds},
			leaf: notationtest.CertificateOptions{CRL: []string{"http://203.0.113.7/list.crl"}}, called: true, target: "203.0.113.7"},
		"a metadata service, listed": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["169.254.169.254"]`), adds},
			leaf: notationtest.CertificateOptions{CRL: []string{"http://169.254.169.254/list.crl"}}, target: "169.254.169.254"},
		"loopback, listed": {documents: []string{cluster("company", `"shop.example.com/**"`, unasking, `privateHosts: ["127.0.0.1"]`), adds},
			leaf: notationtest.CertificateOptions{CRL: []string{"http://127.0.0.1/list.crl"}}, target: "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &network{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/redirect" {
					http.Redirect(w, r, "http://"+inside+"/list.crl", http.StatusFound)
					return
				}
				responder.ServeHTTP(w, r)
			})}
			env := within(t, n)
			signed := signedStore(root.NewSigner(c.leaf))
			env.View = func(store.ViewOptions) (verifier.Store, error) { return signed, nil }
			s := loaded(t, env, map[string]string{"policies.yaml": strings.Join(c.documents, ""), "team.crt": string(root.PEM())})
			verdict, undecided := judge(t, s, "team", "shop.example.com/app:1")
			target := c.target
			if target == "" {
				target = inside
			}
			if n.reached(target) != c.called {
				t.Errorf("%s called: %v, want %v", target, !c.called, c.called)
			}
			switch {
			case c.called && verdict.Status() != verifier.StatusTrusted:
				t.Errorf("%s, %v", verdict.Status(), undecided)
			case !c.called && (undecided == nil || undecided.Reason != verifier.ReasonRevocationUnavailable):
				t.Errorf("%s, %v", verdict.Status(), undecided)
			case !c.called && target == inside && !strings.Contains(undecided.Remedy, inside+" listed in privateHosts"):
				t.Errorf("remedy: %s", undecided.Remedy)
			}
		})
	}
}

// TestL53_WhatTheClusterHasAskedIsNotTheTenants: the same chain, whose CRL is in memory
// because a cluster policy reaches it, is judged for a tenant as if nobody had asked.
func TestL53_WhatTheClusterHasAskedIsNotTheTenants(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	n := &network{Handler: &notationtest.Responder{Issuer: root}}
	for kind, leaf := range map[string]notationtest.CertificateOptions{"CRL": {CRL: []string{"http://" + inside + "/list.crl"}}, "OCSP": {OCSP: []string{"http://" + inside + "/ocsp"}}} {
		env := within(t, n)
		signed := signedStore(root.NewSigner(leaf))
		env.View = func(store.ViewOptions) (verifier.Store, error) { return signed, nil }
		s := loaded(t, env, map[string]string{"team.crt": string(root.PEM()), "policies.yaml": cluster("company", `"shop.example.com/**"`, trusting, "namespaces: [other]") +
			cluster("teams", `"shop.example.com/**"`, unasking, "namespaces: [team, listed]", "delegate: true") + tenant("team", "own", `"shop.example.com/**"`, trusting)})
		for range 2 {
			if verdict, undecided := judge(t, s, "other", "shop.example.com/app:1"); verdict.Status() != verifier.StatusTrusted {
				t.Errorf("%s: the cluster's: %s, %v", kind, verdict.Status(), undecided)
			}
			if verdict, undecided := judge(t, s, "team", "shop.example.com/app:1"); undecided == nil || undecided.Reason != verifier.ReasonRevocationUnavailable {
				t.Errorf("%s: the tenant's: %s, %v", kind, verdict.Status(), undecided)
			}
		}
	}
}

// TestL53_ATenantsRegistriesAreAtPublicAddresses: whatever a TrustPolicy says of
// registries, where it replaces a ClusterTrustPolicy, or of signatures beside an image.
func TestL53_ATenantsRegistriesAreAtPublicAddresses(t *testing.T) {
	const shop, own = `"shop.example.com/**"`, `"` + inside + `/**"`
	delegates := func(images string, more ...string) string {
		return cluster("company", images, append(more, "delegate: true")...)
	}
	plain := `{host: shop.example.com, plainHTTP: true}`
	for name, c := range map[string]struct {
		documents string
		image     string
		called    bool
	}{
		"registries and images":        {delegates(`"**/**"`) + tenant("team", "own", own, `registries: [{host: "`+inside+`", plainHTTP: true}]`), inside + "/app:1", false},
		"images alone, by TLS":         {delegates(`"**/**"`) + tenant("team", "own", own), inside + "/app:1", false},
		"a pattern":                    {delegates(`"**/**"`) + tenant("team", "own", `"**/**"`), inside + "/app:1", false},
		"listed in registries":         {delegates(`"**/**"`, `registries: [{host: "`+inside+`"}]`) + tenant("team", "own", own, `registries: [{host: "`+inside+`", plainHTTP: true}]`), inside + "/app:1", true},
		"listed in privateHosts":       {delegates(`"**/**"`, `privateHosts: ["`+inside+`"]`) + tenant("team", "own", own), inside + "/app:1", true},
		"the cluster's images name it": {delegates(own) + tenant("team", "own", own), inside + "/app:1", true},
		"another namespace's":          {delegates(`"**/**"`, "namespaces: [team]") + cluster("other", `"**/**"`, "namespaces: [else]", `privateHosts: ["`+inside+`"]`) + tenant("team", "own", own), inside + "/app:1", false},
		"one for other images":         {delegates(own) + cluster("rest", `"**/**"`, "delegate: true") + tenant("team", "own", `"**/**"`), "10.0.0.6:8080/app:1", false},
		"a mirror":                     {delegates(shop) + tenant("team", "own", shop, `registries: [{host: shop.example.com, mirror: "`+inside+`/hub"}, {host: "`+inside+`", plainHTTP: true}]`), "shop.example.com/app:1", false},
		"a mirror without options":     {delegates(shop) + tenant("team", "own", shop, `registries: [{host: shop.example.com, mirror: "`+inside+`"}]`), "shop.example.com/app:1", false},
		"a mirror of the cluster's is no listing": {delegates(shop, `registries: [{host: shop.example.com, mirror: "`+inside+`"}]`) +
			tenant("team", "own", shop, `registries: [{host: shop.example.com, mirror: "`+inside+`"}]`), "shop.example.com/app:1", false},
		"a mirror that is listed":            {delegates(shop, `privateHosts: ["`+inside+`"]`) + tenant("team", "own", shop, `registries: [{host: shop.example.com, mirror: "`+inside+`"}]`), "shop.example.com/app:1", true},
		"a mirror of the cluster's own":      {cluster("company", shop, `registries: [{host: shop.example.com, mirror: "`+inside+`"}]`), "shop.example.com/app:1", true},
		"a token endpoint":                   {delegates(shop) + tenant("team", "own", shop, `registries: [{host: shop.example.com, plainHTTP: true, tokenHosts: ["`+inside+`"]}]`), "shop.example.com/token:1", false},
		"a token endpoint that nobody named": {delegates(shop, "registries: ["+plain+"]") + tenant("team", "own", shop, "registries: ["+plain+"]"), "shop.example.com/token:1", false},
		"a token endpoint that is listed": {delegates(shop, `registries: [{host: shop.example.com, tokenHosts: ["`+inside+`"]}]`) +
			tenant("team", "own", shop, `registries: [{host: shop.example.com, plainHTTP: true, tokenHosts: ["`+inside+`"]}]`), "shop.example.com/token:1", true},
		"a redirect": {delegates(shop) + tenant("team", "own", shop, `registries: [{host: shop.example.com, plainHTTP: true, redirectHosts: ["`+inside+`"]}]`), "shop.example.com/redirect:1", false},
		"a redirect that is listed": {delegates(shop, `registries: [{host: shop.example.com, redirectHosts: ["`+inside+`"]}]`) +
			tenant("team", "own", shop, `registries: [{host: shop.example.com, plainHTTP: true, redirectHosts: ["`+inside+`"]}]`), "shop.example.com/redirect:1", true},
		"a redirect to what is listed in privateHosts": {delegates(shop, `privateHosts: ["`+inside+`"]`) +
			tenant("team", "own", shop, `registries: [{host: shop.example.com, plainHTTP: true, redirectHosts: ["`+inside+`"]}]`), "shop.example.com/redirect:1", true},
		"a public address":                  {delegates(`"**/**"`) + tenant("team", "own", `"203.0.113.7:5000/**"`), "203.0.113.7:5000/app:1", true},
		"a public address by a pattern":     {delegates(`"**/**"`) + tenant("team", "own", `"**/**"`), "203.0.113.7:5000/app:1", false},
		"a metadata service that is listed": {delegates(`"**/**"`, `privateHosts: ["169.254.169.254"]`) + tenant("team", "own", `"169.254.169.254/**"`, `registries: [{host: 169.254.169.254, plainHTTP: true}]`), "169.254.169.254/app:1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &network{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.Contains(r.URL.Path, "/token/"):
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+inside+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/redirect/"):
					http.Redirect(w, r, "http://"+inside+"/blob", http.StatusTemporaryRedirect)
				default:
					http.NotFound(w, r)
				}
			})}
			s := loaded(t, within(t, n), map[string]string{"policies.yaml": c.documents})
			verdict, undecided := judge(t, s, "team", c.image)
			target := inside
			if !strings.HasPrefix(c.image, "shop.example.com") {
				target, _, _ = strings.Cut(c.image, "/")
			}
			if n.reached(target) != c.called {
				t.Errorf("%s called: %v; %s, %v", target, !c.called, verdict.Status(), undecided)
			}
			if !c.called && (undecided == nil || undecided.Reason != verifier.ReasonRegistryUnreachable) {
				t.Errorf("%s, %v", verdict.Status(), undecided)
			}
		})
	}
}

// TestL53_RatifysTenantsCallNoPrivateAddress: a namespace's own certificates are a
// tenant's, and those of the cluster are an administrator's wherever they are named.
func TestL53_RatifysTenantsCallNoPrivateAddress(t *testing.T) {
	root := notationtest.NewRoot(notationtest.CertificateOptions{})
	content, err := os.ReadFile(filepath.Join("..", "ratify", "testdata", "namespaces.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.ReplaceAll(strings.TrimSpace(string(root.PEM())), "\n", "\n      ")
	text := regexp.MustCompile(`(?s)-----BEGIN.*?-----END CERTIFICATE-----`).ReplaceAllString(string(content), ours)
	clusters := strings.Replace(text, "{ca: {certs: [team-a/own]}}", "{ca: {certs: [certs]}}", 1)
	for name, c := range map[string]struct {
		objects, namespace string
		called             bool
	}{
		"the cluster's": {text, "team-b", true}, "the cluster's, without a namespace": {text, "", true},
		"a namespace's own": {text, "team-a", false}, "the cluster's, which a namespace names": {clusters, "team-a", true},
	} {
		n := &network{Handler: &notationtest.Responder{Issuer: root}}
		env := within(t, n)
		signed := signedStore(root.NewSigner(notationtest.CertificateOptions{CRL: []string{"http://" + inside + "/list.crl"}}))
		env.View = func(store.ViewOptions) (verifier.Store, error) { return signed, nil }
		list, err := ratify.Parse([]byte(c.objects))
		if err != nil {
			t.Fatal(err)
		}
		o := config.NewObjects(config.ObjectsOptions{Environment: env, Reader: held{}})
		// The same words of another owner are another policy.
		other, err := ratify.Parse([]byte(map[bool]string{true: text, false: clusters}[c.objects == clusters]))
		if err != nil {
			t.Fatal(err)
		}
		o.Update(t.Context(), nil, other...)
		s := o.Update(t.Context(), nil, list...)
		for _, p := range s.Problems() {
			t.Error(p)
		}
		verdict, undecided := judge(t, s, c.namespace, "shop.example.com/app:1")
		if n.reached(inside) != c.called || (verdict.Status() == verifier.StatusTrusted) != c.called {
			t.Errorf("%s: called %v, %s, %v", name, n.reached(inside), verdict.Status(), undecided)
		}
	}
}
