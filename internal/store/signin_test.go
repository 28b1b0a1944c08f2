package store_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestSigningIn(t *testing.T) {
	basic := registrytest.Auth{Scheme: "Basic", Username: "robot", Password: "right"}
	bearer := registrytest.Auth{Scheme: "Bearer", Username: "robot", Password: "right"}
	config := filepath.Join(t.TempDir(), "config.json")
	for name, test := range map[string]struct {
		auth       registrytest.Auth
		credential store.CredentialSource
		requests   int // of the first decision, by digest: 3 and what signing in takes
	}{
		"Basic":             {basic, robot("right"), 4},
		"Bearer":            {bearer, robot("right"), 5},
		"anonymous Bearer":  {registrytest.Auth{Scheme: "Bearer"}, nil, 5},
		"a refresh token":   {registrytest.Auth{Scheme: "Bearer", RefreshToken: "refresh"}, auth.NewStatic(auth.Credential{RefreshToken: "refresh"}), 5},
		"docker config":     {bearer, auth.NewDockerConfig(config), 5},
		"nothing is wanted": {registrytest.Auth{}, robot("right"), 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{Auth: test.auth, TLS: true})
			pair := base64.StdEncoding.EncodeToString([]byte("robot:right"))
			if err := os.WriteFile(config, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.Host(), pair), 0o600); err != nil {
				t.Fatal(err)
			}
			v := open(t, store.New(quick()), r, test.credential)
			for n, want := range []int{test.requests, 3} {
				image := r.PushImage(repo, fmt.Sprint("v", n))
				r.AttachReferrer(repo, image, notation(n))
				r.Reset()
				if got := decide(t, v, byDigest(r, image.Digest), signatures); len(got.candidates) != 1 {
					t.Fatalf("got %+v", got)
				}
				if n := len(r.Requests()); n != want {
					t.Errorf("%d requests, want %d:\n%s", n, want, paths(r))
				}
			}
			if test.auth.Scheme == "" && strings.Contains(fmt.Sprint(r.Requests()), pair) {
				t.Error("a credential was sent that nobody asked for")
			}
		})
	}
}

func TestAnAccessTokenIsSentAsItIs(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, auth.NewStatic(auth.Credential{AccessToken: "as-it-is"}))
	r.PushImage(repo, "v1")
	r.SetFault(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") == "Bearer as-it-is" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://tokens.example.test/token"`)
		return registrytest.Status(401)(w, req)
	})
	if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
		t.Error(err)
	}
}

func TestOneTokenForAScopeAndOneRefusalForAHost(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer", Username: "robot", Password: "right"}})
	v := open(t, store.New(quick()), r, robot("right"))
	repos := []string{"team/a", "team/b", "team/c"}
	var refs []verifier.Reference
	for _, name := range repos {
		for i := range 20 {
			tag := fmt.Sprint("v", i)
			r.PushImage(name, tag)
			refs = append(refs, verifier.Reference{Registry: r.Host(), Repository: name, Tag: tag})
		}
	}
	var wait sync.WaitGroup
	for _, ref := range refs {
		wait.Go(func() {
			if _, err := v.Resolve(t.Context(), ref); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	refused := 0
	for _, q := range r.Requests() {
		if q.Status == http.StatusUnauthorized {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("%d requests were sent away to fetch a token", refused)
	}
	for _, name := range repos {
		if n := r.Tokens()["repository:"+name+":pull"]; n != 1 {
			t.Errorf("%d tokens for %s", n, name)
		}
	}
}

func TestATokenThatWasTakenBackIsReplaced(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
	v := open(t, store.New(quick()), r, nil)
	for i := range 3 {
		r.RevokeTokens()
		r.PushImage(repo, fmt.Sprint("v", i))
		if _, err := v.Resolve(t.Context(), byTag(r, fmt.Sprint("v", i))); err != nil {
			t.Error(err)
		}
	}
	if n := r.Tokens()["repository:"+repo+":pull"]; n != 3 {
		t.Errorf("%d tokens", n)
	}
}

func TestACredentialThatChangedIsReadAgain(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Basic", Username: "robot", Password: "new"}})
	v := open(t, store.New(quick()), r, auth.NewDockerConfig(config))
	r.PushImage(repo, "v1")
	for _, password := range []string{"old", "new"} {
		pair := base64.StdEncoding.EncodeToString([]byte("robot:" + password))
		if err := os.WriteFile(config, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.Host(), pair), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := v.Resolve(t.Context(), byTag(r, "v1"))
		if (err == nil) != (password == "new") {
			t.Errorf("with the %s password: %v", password, err)
		}
	}
}

func TestATokenEndpointThatMovedIsFound(t *testing.T) {
	for name, gone := range map[string]func(*registrytest.Registry){
		"404": func(old *registrytest.Registry) { old.SetFault(registrytest.Status(404)) }, "closed": (*registrytest.Registry).Close,
	} {
		t.Run(name, func(t *testing.T) {
			old, err := registrytest.New(registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
			v := open(t, store.New(quick()), r, nil)
			resolve := func(repo string) error {
				r.PushImage(repo, "v1")
				_, err := v.Resolve(t.Context(), verifier.Reference{Registry: r.Host(), Repository: repo, Tag: "v1"})
				return err
			}
			r.SetFault(func(w http.ResponseWriter, req *http.Request) bool {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, old.URL()))
				return registrytest.Status(401)(w, req)
			})
			_ = resolve("team/a")
			if old.Tokens()["repository:team/a:pull"] == 0 {
				t.Fatal("the old endpoint was not asked")
			}
			gone(old)
			r.SetFault(nil)
			_ = resolve("team/b")
			if err := resolve("team/b"); err != nil {
				t.Errorf("at its new place: %v", err)
			}
		})
	}
}

func TestBadTokenAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON": "<html>", "no token": "{}", "a header in it": `{"token":"a\r\nX: y"}`, "null": "null",
		"long": `{"token":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
		v := open(t, store.New(quick()), r, nil)
		r.SetFault(registrytest.On("/token", func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(body))
			return true
		}))
		if _, err := v.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// carried are the Authorization headers that a registry saw.
func carried(r *registrytest.Registry) []string {
	var list []string
	for _, q := range r.Requests() {
		if q.Authorization != "" {
			list = append(list, q.Authorization)
		}
	}
	return list
}

func TestL28_NoCredentialGoesToAnotherHost(t *testing.T) {
	account := registrytest.Auth{Scheme: "Bearer", Username: "robot", Password: "right"}
	t.Run("token realm", func(t *testing.T) {
		foreign := registrytest.Start(t, registrytest.Options{Auth: account})
		led := account
		led.Realm = foreign.URL() + "/token"
		r := registrytest.Start(t, registrytest.Options{Auth: led})
		r.PushImage(repo, "v1")
		v := open(t, store.New(quick()), r, robot("right"))
		if _, err := v.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnauthorized {
			t.Errorf("got %v", err)
		}
		if n := len(foreign.Requests()); n != 0 {
			t.Errorf("%d requests went there", n)
		}
		v, err := store.New(quick()).View(store.ViewOptions{Registries: []store.Registry{{
			Host: r.Host(), PlainHTTP: true, Credential: robot("right"), TokenHosts: []string{foreign.Host()},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _ = v.Resolve(t.Context(), byTag(r, "v1")); foreign.Tokens()["repository:"+repo+":pull"] == 0 {
			t.Error("a token host that was named gave no token")
		}
	})
	t.Run("anonymous token realm", func(t *testing.T) {
		foreign := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
		r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer", Realm: foreign.URL() + "/token"}})
		_, _ = open(t, store.New(quick()), r, nil).Resolve(t.Context(), byTag(r, "v1"))
		if n := len(foreign.Requests()); n == 0 || carried(foreign) != nil {
			t.Errorf("%d requests, credentials %v", n, carried(foreign))
		}
	})
	for _, realm := range []string{
		"http://169.254.169.254/token", "file:///etc/passwd", "gopher://x/", "//x/token", "", "https://robot:pw@x.example.test/", "http://x.example.test/token",
	} {
		t.Run("realm "+realm, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{TLS: true, Auth: registrytest.Auth{Scheme: "Bearer"}})
			r.SetFault(func(w http.ResponseWriter, req *http.Request) bool {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, realm))
				return registrytest.Status(401)(w, req)
			})
			for _, credential := range []store.CredentialSource{nil, robot("right")} {
				if _, err := open(t, store.New(quick()), r, credential).Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryInvalid {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	t.Run("redirected blobs", func(t *testing.T) {
		for _, status := range []int{301, 302, 303, 307, 308} {
			storage := registrytest.Start(t, registrytest.Options{})
			r := registrytest.Start(t, registrytest.Options{Auth: account})
			v := open(t, store.New(quick()), r, robot("right"))
			image := r.PushImage(repo, "v1")
			blob := storage.PushBlob(repo, "text/plain", []byte("envelope"))
			r.SetFault(registrytest.On("/blobs/", registrytest.Redirect(storage.URL(), status)))
			if data, err := v.Fetch(t.Context(), subjectOf(r, image), blob); err != nil || string(data) != "envelope" {
				t.Errorf("%d: %q, %v", status, data, err)
			}
			if got := carried(storage); got != nil {
				t.Errorf("%d: the storage saw %v", status, got)
			}
		}
	})
	t.Run("redirected to who asks for a credential", func(t *testing.T) {
		for _, scheme := range []string{"Basic", "Bearer"} {
			thief := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: scheme, Username: "robot", Password: "right"}})
			r := registrytest.Start(t, registrytest.Options{Auth: account})
			v := open(t, store.New(quick()), r, robot("right"))
			image := r.PushImage(repo, "v1")
			blob := r.PushBlob(repo, "text/plain", []byte("envelope"))
			r.SetFault(registrytest.On("/blobs/", registrytest.Redirect(thief.URL(), 307)))
			if _, err := v.Fetch(t.Context(), subjectOf(r, image), blob); reason(err) != verifier.ReasonRegistryInvalid {
				t.Errorf("got %v", err)
			}
			if got := carried(thief); got != nil || len(thief.Requests()) != 1 {
				t.Errorf("%s: saw %v in %d requests", scheme, got, len(thief.Requests()))
			}
		}
	})
	t.Run("redirected there and back", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{Auth: account})
		between := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, robot("right"))
		image := r.PushImage(repo, "v1")
		blob := r.PushBlob(repo, "text/plain", []byte("there and back"))
		if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil { // signed in
			t.Fatal(err)
		}
		r.SetFault(registrytest.On("/blobs/", registrytest.First(1, registrytest.Redirect(between.URL(), 307))))
		between.SetFault(registrytest.Redirect(r.URL(), 307))
		r.Reset()
		data, err := v.Fetch(t.Context(), subjectOf(r, image), blob)
		list := r.Requests()
		if len(list) < 2 || list[0].Authorization == "" || list[1].Authorization != "" || carried(between) != nil {
			t.Errorf("there and back: %+v, between %v; %q, %v", list, carried(between), data, err)
		}
	})
	t.Run("redirected tokens", func(t *testing.T) {
		for _, credential := range []store.CredentialSource{robot("right"), auth.NewStatic(auth.Credential{RefreshToken: "refresh"})} {
			thief := registrytest.Start(t, registrytest.Options{})
			r := registrytest.Start(t, registrytest.Options{Auth: account})
			r.SetFault(registrytest.On("/token", registrytest.Redirect(thief.URL(), 307)))
			if _, err := open(t, store.New(quick()), r, credential).Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryInvalid {
				t.Errorf("got %v", err)
			}
			if n := len(thief.Requests()); n != 0 {
				t.Errorf("%d requests went elsewhere", n)
			}
		}
	})
	t.Run("redirected out of TLS", func(t *testing.T) {
		plain := registrytest.Start(t, registrytest.Options{})
		r := registrytest.Start(t, registrytest.Options{TLS: true})
		r.SetFault(registrytest.Redirect(plain.URL(), 307))
		if _, err := open(t, store.New(quick()), r, nil).Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryInvalid {
			t.Errorf("got %v", err)
		}
		if n := len(plain.Requests()); n != 0 {
			t.Errorf("%d requests in clear", n)
		}
	})
	t.Run("redirected to a metadata service", func(t *testing.T) {
		for _, to := range []string{"http://169.254.169.254", "http://[fd00:ec2::254]", "http://[::ffff:169.254.169.254]", "http://0xA9FEA9FE"} {
			r := registrytest.Start(t, registrytest.Options{})
			r.SetFault(registrytest.Redirect(to, 307))
			options := quick()
			options.Attempts = 1
			if _, err := open(t, store.New(options), r, nil).Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnreachable {
				t.Errorf("%s: %v", to, err)
			}
		}
	})
}

func TestL30_TwoRegistriesInParallel(t *testing.T) {
	s := store.New(quick())
	type side struct {
		r    *registrytest.Registry
		view *store.View
		refs []verifier.Reference
		want []string
	}
	var sides []*side
	var all []store.Registry
	for i, scheme := range []string{"Basic", "Bearer"} {
		password := fmt.Sprint("password-", i)
		r := registrytest.Start(t, registrytest.Options{TLS: true, Auth: registrytest.Auth{Scheme: scheme, Username: "robot", Password: password}})
		x := &side{r: r}
		for n := range 30 { // the same names on both sides
			tag := fmt.Sprint("v", n)
			image := r.PushImage(repo, tag)
			attached := r.AttachReferrer(repo, image, notation(100*i+n))
			x.refs, x.want = append(x.refs, byTag(r, tag)), append(x.want, attached.Digest.String())
		}
		sides = append(sides, x)
		all = append(all, store.Registry{Host: r.Host(), CAs: r.CA(), Credential: robot(password)})
	}
	both, err := s.View(store.ViewOptions{Registries: all})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range sides {
		if x.view, err = s.View(store.ViewOptions{Registries: all[i : i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(s.CloseIdleConnections)
	var wait sync.WaitGroup
	for _, x := range sides {
		for n, ref := range x.refs {
			for _, v := range []*store.View{x.view, both} {
				wait.Go(func() {
					got := decide(t, v, ref, signatures)
					if len(got.candidates) != 1 || got.candidates[0].Descriptor.Digest.String() != x.want[n] {
						t.Errorf("%s: %+v", ref, got)
					}
				})
			}
			// the other side's view knows neither the CA nor the credential
			other := sides[1-slices.Index(sides, x)].view
			wait.Go(func() {
				if _, err := other.Resolve(context.Background(), ref); reason(err) != verifier.ReasonRegistryUnreachable {
					t.Errorf("%s through the other's view: %v", ref, err)
				}
			})
		}
	}
	wait.Wait()
	for i, x := range sides {
		other := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "robot:password-%d", 1-i))
		for _, header := range carried(x.r) {
			if strings.Contains(header, other) {
				t.Errorf("registry %d saw the other's credential", i)
			}
		}
	}
}

// public is a registry that the system's roots vouch for, in this test binary.
var public *registrytest.Registry

func TestMain(m *testing.M) {
	os.Exit(withPublic(m))
}

func withPublic(m *testing.M) int {
	var err error
	if public, err = registrytest.New(registrytest.Options{TLS: true}); err != nil {
		panic(err)
	}
	defer public.Close()
	roots, err := os.CreateTemp("", "roots-*.pem")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.Remove(roots.Name()) }()
	if _, err := roots.Write(public.CA()); err != nil {
		panic(err)
	}
	if err := os.Setenv("SSL_CERT_FILE", roots.Name()); err != nil {
		panic(err)
	}
	return m.Run()
}

func TestWhoVouchesForAHost(t *testing.T) {
	private := registrytest.Start(t, registrytest.Options{TLS: true})
	public.PushImage(repo, "v1")
	private.PushImage(repo, "v1")
	s := store.New(quick())
	resolve := func(r *registrytest.Registry, ca []byte) verifier.Reason {
		v, err := s.View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), CAs: ca}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil {
			return reason(err)
		}
		return verifier.ReasonTrusted
	}
	for _, test := range []struct { // in this order: what one has read is no answer for the next
		name string
		r    *registrytest.Registry
		ca   []byte
		want verifier.Reason
	}{
		{"the system", public, nil, verifier.ReasonTrusted},
		{"its own CA", private, private.CA(), verifier.ReasonTrusted},
		{"nobody", private, nil, verifier.ReasonRegistryUnreachable},
		{"the system, though a CA is set", public, private.CA(), verifier.ReasonRegistryUnreachable},
		{"another's CA", private, public.CA(), verifier.ReasonRegistryUnreachable},
	} {
		if got := resolve(test.r, test.ca); got != test.want {
			t.Errorf("%s: %s", test.name, got)
		}
	}
	// where the private one refers to, the system's roots count as well
	blob := public.PushBlob(repo, "text/plain", []byte("envelope"))
	private.SetFault(registrytest.On("/blobs/", registrytest.Redirect(public.URL(), 307)))
	if data, err := open(t, s, private, nil).Fetch(t.Context(), subjectOf(private, blob), blob); err != nil || string(data) != "envelope" {
		t.Errorf("redirected to a public host: %q, %v", data, err)
	}
}

func TestAViewSeesNothingThatAnotherFetched(t *testing.T) {
	for _, scheme := range []string{"Basic", "Bearer"} {
		t.Run(scheme, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: scheme, Username: "robot", Password: "right"}})
			image := r.PushImage(repo, "v1")
			r.AttachReferrer(repo, image, notation(1))
			s := store.New(quick())
			owner := open(t, s, r, robot("right"))
			decide(t, owner, byTag(r, "v1"), signatures)
			decide(t, open(t, s, r, robot("right")), byTag(r, "v1"), signatures)
			n := len(r.Requests())
			for name, credential := range map[string]store.CredentialSource{"anonymous": nil, "wrong password": robot("wrong")} {
				v := open(t, s, r, credential)
				if v.ID() == owner.ID() {
					t.Errorf("%s: the same view", name)
				}
				if _, err := v.Resolve(t.Context(), byTag(r, "v1")); reason(err) != verifier.ReasonRegistryUnauthorized {
					t.Errorf("%s: the tag: %v", name, err)
				}
				if got := look(t.Context(), v, subjectOf(r, image), signatures); got.candidates != nil || !slices.Contains(got.list, verifier.ReasonRegistryUnauthorized) {
					t.Errorf("%s: the candidates: %+v", name, got)
				}
			}
			if n == len(r.Requests()) {
				t.Error("nobody asked the registry")
			}
		})
	}
}

func TestViewsOfTheSameOptionsAreOne(t *testing.T) {
	s := store.New(quick())
	id := func(s *store.Store, list ...store.Registry) string {
		v, err := s.View(store.ViewOptions{Registries: list})
		if err != nil {
			t.Fatal(err)
		}
		return v.ID()
	}
	a, b := store.Registry{Host: "a.example.test"}, store.Registry{Host: "b.example.test", Credential: robot("x")}
	if id(s, a, b) != id(s, b, a) {
		t.Error("the order of registries makes another view")
	}
	if id(s, a) == id(store.New(quick()), a) {
		t.Error("a view's id means something in another process")
	}
	ca := registrytest.Start(t, registrytest.Options{TLS: true}).CA()
	seen := map[string]int{}
	for i, r := range []store.Registry{
		{Host: "a.example.test"}, {Host: "b.example.test"}, {Host: "a.example.test", PlainHTTP: true}, {Host: "a.example.test", CAs: ca},
		{Host: "a.example.test", Credential: robot("x")}, {Host: "a.example.test", Credential: robot("y")}, {Host: "a.example.test", TokenHosts: []string{"t"}},
		{Host: "a.example.test", Credential: auth.NewDockerConfig("/x")}, {Host: "a.example.test", Credential: auth.NewDockerConfig("/y")},
	} {
		if other, ok := seen[id(s, r)]; ok {
			t.Errorf("options %d and %d are one view", i, other)
		}
		seen[id(s, r)] = i
	}
	for name, list := range map[string][]store.Registry{"twice": {a, a}, "no certificate": {{Host: "a.example.test", CAs: []byte("x")}}} {
		if _, err := s.View(store.ViewOptions{Registries: list}); err == nil || !strings.Contains(err.Error(), "a.example.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
