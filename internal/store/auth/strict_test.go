package auth

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestL25_PodsOfTwoNamespacesAreTwo, though their ServiceAccounts and Secrets have the
// same names, as "default" and "regcred" have everywhere.
func TestL25_PodsOfTwoNamespacesAreTwo(t *testing.T) {
	api := newAPIServer()
	api.secrets["shop/regcred"], api.secrets["pay/regcred"] = login("registry.example.com", "shop"), login("registry.example.com", "pay")
	pods := NewPods(api)
	shop := pods.Of(Pod{Namespace: "shop", ServiceAccount: "default", Secrets: []string{"regcred"}})
	pay := pods.Of(Pod{Namespace: "pay", ServiceAccount: "default", Secrets: []string{"regcred"}})
	if shop.ID() == pay.ID() {
		t.Error("what one has seen the other would")
	}
	for range 2 {
		for want, of := range map[string]*PodSecrets{"shop": shop, "pay": pay} {
			if got, err := of.Credential(t.Context(), "registry.example.com"); err != nil || got.Username != want {
				t.Errorf("%s is given the credential of %q, %v", want, got.Username, err)
			}
		}
	}
}

// TestAHelperIsNoPath: a file that names helpers names programs that are installed as
// such, and no others.
func TestAHelperIsNoPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("docker-credential-x", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"program", "docker-credential-program"} {
		if err := os.WriteFile(name, []byte("#!/bin/sh\necho '{\"Username\":\"u\",\"Secret\":\"s\"}'\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := askHelper(t.Context(), "../"+filepath.Base(dir)+"/docker-credential-program", "r.example.com"); err == nil {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"x/../program", "x/" + "../docker-credential-program", "", ".", "..", "-x", "a b", "a\nb"} {
		if got, err := askHelper(t.Context(), name, "r.example.com"); err == nil || !strings.Contains(err.Error(), "not a name") {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
}

// TestAHelpersOutputIsBounded, though what it says is well formed.
func TestAHelpersOutputIsBounded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script := "#!/bin/sh\nprintf '{\"Username\":\"u\",\"Secret\":\"'\nhead -c $((80 * 1024)) /dev/zero | tr '\\0' s\nprintf '\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-long"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := askHelper(t.Context(), "long", "r.example.com"); err == nil {
		t.Errorf("a secret of %d bytes was taken", len(got.Password))
	}
}

// TestL28_ACloudsRedirectIsNotFollowed: what is sent to a service of a cloud is the pod's
// identity.
func TestL28_ACloudsRedirectIsNotFollowed(t *testing.T) {
	asked := 0
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer thief.Close()
	cloud := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer cloud.Close()
	clouds := NewClouds(CloudOptions{})
	for _, client := range []*http.Client{clouds.client, clouds.node} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, cloud.URL, strings.NewReader("token"))
		if err != nil {
			t.Fatal(err)
		}
		err = asking{service: "the cloud"}.do(client, req, func([]byte) error { return nil })
		if reason := verifier.AsError(err).Reason; err == nil || reason != verifier.ReasonRegistryUnreachable {
			t.Errorf("%v", err)
		}
	}
	if asked != 0 {
		t.Errorf("the identity was sent elsewhere %d times", asked)
	}
}
