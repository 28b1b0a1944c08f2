package azure_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	identities "github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/test/azure"
)

// trusting trusts wabbit, with the pod's workload identity.
const trusting = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: azure}
spec:
  images: ["**/**"]
  registries:
    - host: $ACR
      auth: {azureWorkloadIdentity: {}}
  require:
    name: wabbit
    notation:
      level: strict
      trustStores: {ca: [{file: ../wabbit.crt}]}
      trustedIdentities: ["*"]
`

// TestAnIdentityPulls: signed is trusted and unsigned is not, with two requests
// more than without a credential, once for a registry.
func TestAnIdentityPulls(t *testing.T) {
	s := newScene(t)
	for i := range 10 {
		s.signed(t, fmt.Sprintf("shop/cart:%d", i), "wabbit")
	}
	s.signed(t, "shop/unsigned:1", "")
	s.start(t, trusting)
	s.want(t, "shop/cart:0", "TRUSTED")
	if n := cloud.Count(s.acr.Host, "/oauth2/"); n != 2 {
		t.Errorf("%d requests for tokens", n)
	}
	cold := cloud.Count(s.acr.Host, "/v2/")
	if cold > 5 { // tag, referrers, manifest, blob, and the challenge
		t.Errorf("%d requests for the first image", cold)
	}
	for i := range 10 {
		s.want(t, fmt.Sprintf("shop/cart:%d", i), "TRUSTED")
	}
	s.want(t, "shop/unsigned:1", "SIGNATURE_NOT_FOUND")
	if n := cloud.Count(s.acr.Host, "/oauth2/exchange"); n != 1 {
		t.Errorf("%d exchanges", n)
	}
	if n := cloud.Count(s.acr.Host, "/oauth2/token"); n != 2 { // two repositories
		t.Errorf("%d tokens", n)
	}
}

// TestOtherIdentities: a service principal, by its secret, and an endpoint that is
// not Azure's by its name.
func TestOtherIdentities(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	acr, err := cloud.Registry("images.contoso.example", s.Host)
	must(t, err)
	principal := cloud.Entra.Identity("principal", "", "")
	principal.Secret = "s3cret"
	principal.Grant(acr.Host, "AcrPull")
	s.acr = acr
	const auth = "auth: {azureServicePrincipal: {tenantID: %s, clientID: principal, clientSecret: {inline: %s}, endpoints: [images.contoso.example]}}"
	s.start(t, strings.Replace(trusting, "auth: {azureWorkloadIdentity: {}}", fmt.Sprintf(auth, azure.Tenant, "s3cret"), 1))
	s.want(t, "shop/cart:1", "TRUSTED")
	must(t, s.Policy("policy.yaml", strings.ReplaceAll(strings.Replace(trusting, "auth: {azureWorkloadIdentity: {}}", fmt.Sprintf(auth, azure.Tenant, "wrong"), 1), "$ACR", acr.Host)))
	s.source.Reload(t.Context())
	s.want(t, "shop/cart:1", "REGISTRY_UNAUTHORIZED", "AADSTS7000215", "az ad app credential reset")
}

// TestWhatIsMissingIsNamed, with what repairs it.
func TestWhatIsMissingIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*testing.T, *scene)
		parts []string
	}{
		"variables":     {func(_ *testing.T, s *scene) { clear(s.env) }, []string{"AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE", "azure.workload.identity/use", "azure.workload.identity/client-id"}},
		"token file":    {func(t *testing.T, s *scene) { must(t, os.Remove(s.env["AZURE_FEDERATED_TOKEN_FILE"])) }, []string{"azure-identity-token cannot be read"}},
		"expired token": {func(t *testing.T, s *scene) { s.federate(t, azure.Token{Lifetime: -time.Hour}) }, []string{"AADSTS700024", "clocks"}},
		"subject": {func(t *testing.T, s *scene) {
			s.federate(t, azure.Token{Subject: "system:serviceaccount:a:b", Lifetime: time.Hour})
		}, []string{"AADSTS700213", "az identity federated-credential create"}},
		"issuer": {func(t *testing.T, s *scene) {
			s.federate(t, azure.Token{Issuer: "https://other.example.com/", Lifetime: time.Hour})
		}, []string{"AADSTS700211", "az identity federated-credential create"}},
		"audience": {func(t *testing.T, s *scene) {
			s.federate(t, azure.Token{Audience: "https://kubernetes.default.svc", Lifetime: time.Hour})
		}, []string{"AADSTS700212", "--audiences api://AzureADTokenExchange"}},
		"client": {func(_ *testing.T, s *scene) { s.env["AZURE_CLIENT_ID"] = "nobody" }, []string{"AADSTS700016", "az identity show"}},
		"tenant": {func(_ *testing.T, s *scene) { s.env["AZURE_TENANT_ID"] = "nowhere" }, nil},
		"role":   {func(_ *testing.T, s *scene) { s.identity.Revoke(s.acr.Host, "AcrPull") }, []string{"does not let the configured identity read", "az role assignment create --assignee client-of-testwhatismissingisnamedrole --role AcrPull", "az acr show --name testwhatismissingisnamedrole"}},
		"not a registry": {func(_ *testing.T, s *scene) {
			cloud.Fault(azure.Fault{Host: s.acr.Host, Path: "/oauth2/exchange", Status: 401})
		}, []string{"does not know", "AcrPull"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.signed(t, "shop/cart:1", "wabbit")
			c.set(t, s)
			s.start(t, trusting)
			reason, message := s.decide(t, "shop/cart:1")
			if reason != "REGISTRY_UNAUTHORIZED" && name != "tenant" {
				t.Errorf("%s: %s", reason, message)
			}
			if reason == "TRUSTED" {
				t.Error("trusted")
			}
			for _, part := range c.parts {
				if !strings.Contains(message, part) {
					t.Errorf("%q does not say %q", message, part)
				}
			}
			t.Log(message)
			if name == "variables" && !strings.Contains(s.log.String(), "the pod has no AZURE_CLIENT_ID") {
				t.Error("nothing was said when it started")
			}
		})
	}
}

// TestTokensEnd: a registry that takes none of the tokens any more, as after three
// hours, and a pod whose token was written anew.
func TestTokensEnd(t *testing.T) {
	s := newScene(t)
	for i := range 4 {
		s.signed(t, fmt.Sprintf("shop/cart:%d", i), "wabbit")
	}
	s.start(t, trusting)
	s.want(t, "shop/cart:0", "TRUSTED")
	s.acr.Forget()
	s.want(t, "shop/cart:1", "TRUSTED")
	cloud.Entra.Revoke() // the identity's token, too
	s.federate(t, azure.Token{Lifetime: 2 * time.Hour})
	s.want(t, "shop/cart:2", "TRUSTED")
	s.identity.Revoke(s.acr.Host, "AcrPull")
	s.want(t, "shop/cart:3", "REGISTRY_UNAUTHORIZED", "AcrPull")
	s.identity.Grant(s.acr.Host, "AcrPull")
	s.want(t, "shop/cart:3", "TRUSTED")
}

// TestClockSkew: our clock is five minutes behind Azure's.
func TestClockSkew(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	cloud.Entra.Skew(5 * time.Minute)
	defer cloud.Entra.Skew(0)
	s.start(t, trusting)
	s.want(t, "shop/cart:1", "TRUSTED")
	cloud.Entra.Skew(2 * time.Hour)
	other := newScene(t)
	writeRoot(t, other)
	other.start(t, trusting)
	other.want(t, "shop/none:1", "REGISTRY_UNAUTHORIZED", "clocks of the nodes")
}

// TestTroubleOnTheWay: what may heal does.
func TestTroubleOnTheWay(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	cloud.Fault(azure.Fault{Host: s.acr.Host, Path: "/oauth2/exchange", Status: 503, Times: 1})
	s.start(t, trusting)
	s.want(t, "shop/cart:1", "TRUSTED")
	lift := cloud.Fault(azure.Fault{Host: s.acr.Host, Path: "/oauth2/exchange", Status: 429, RetryAfter: "30"})
	s.acr.Forget()
	s.signed(t, "shop/cart:2", "wabbit")
	s.want(t, "shop/cart:2", "REGISTRY_THROTTLED")
	lift()
	s.want(t, "shop/cart:2", "TRUSTED")
}

// TestADataEndpoint is a host of its own, whose links are their own credential.
func TestADataEndpoint(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	data := strings.TrimSuffix(s.acr.Host, ".azurecr.io") + ".westeurope.data.azurecr.io"
	s.acr.DataEndpoint(data)
	s.start(t, trusting)
	s.want(t, "shop/cart:1", "TRUSTED")
	if cloud.Count(data, "/") == 0 {
		t.Error("no blob came from there")
	}
	for _, seen := range cloud.Seen() {
		if seen.Host == data && seen.Authorized {
			t.Error("it was shown a credential")
		}
	}
}

// TestL27_WhoIsNotAzureSeesNoCredential: hosts that only look like Azure's, with a
// challenge that asks for one.
func TestL27_WhoIsNotAzureSeesNoCredential(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	s.start(t, trusting)
	s.want(t, "shop/cart:1", "TRUSTED")
	for _, host := range []string{
		s.acr.Host + ".attacker.example", "azurecr.io.evil", "azurecr.io", "xazurecr.io", "my.azurecr.io.", "azurecr-io.attacker.example",
		"myacr.azurecr.com", "evil.azurecr.io.cdn.attacker.example", "xn--azurcr-5ya.io",
	} {
		cloud.Attack(host, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/oauth2/") {
				w.WriteHeader(http.StatusOK)
				_, _ = w.Write([]byte(`{"access_token":"x","refresh_token":"x"}`))
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/oauth2/token",service="%s",scope="repository:shop/cart:pull"`, host, host))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		ref, err := verifier.ParseReference(host + "/shop/cart:1")
		if err != nil {
			continue
		}
		if reason, _ := s.ask(t, ref); reason == "TRUSTED" {
			t.Errorf("%s: trusted", host)
		}
		// The same identity for all hosts, as Ratify's Store has it.
		registries := store.New(store.Options{Proxy: cloud.Proxy, RetryBase: time.Millisecond})
		credentials := identities.NewCredentials(identities.Options{Getenv: func(name string) string { return s.env[name] }, Transport: cloud.Transport()})
		source := auth.NewAzureExchanges(credentials, registries.Transport(), nil).Source(identities.Identity{Method: identities.WorkloadIdentity}, nil)
		view, err := registries.View(store.ViewOptions{Others: store.Registry{Credential: source}})
		must(t, err)
		if subject, err := view.Resolve(t.Context(), ref); err == nil {
			t.Errorf("%s: %s", host, subject.Digest)
		}
		for _, seen := range cloud.Seen() {
			if seen.Host == host && (seen.Path == "/oauth2/exchange" || seen.Authorized && seen.Path != "/v2/shop/cart/manifests/1") {
				t.Errorf("%s saw %+v", host, seen)
			}
		}
	}
}

// TestL28_ARealmElsewhereSeesNoToken: Azure's registry itself, with a challenge
// that leads away.
func TestL28_ARealmElsewhereSeesNoToken(t *testing.T) {
	s := newScene(t)
	s.start(t, strings.ReplaceAll(trusting, "../wabbit.crt", writeRoot(t, s)))
	thief := "thief" + s.acr.Host[:8] + ".example.com"
	cloud.Attack(thief, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"access_token":"x"}`))
	}))
	for n, realm := range []string{"", "https://" + thief + "/oauth2/token", "http://" + s.acr.Host + "/oauth2/token", "https://169.254.169.254/oauth2/token"} {
		evil := fmt.Sprintf("evil%d.azurecr.io", n) // which nobody has met before
		cloud.Attack(evil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/oauth2/exchange" && realm == "": // the exchange itself leads away
				http.Redirect(w, r, "https://"+thief+"/oauth2/exchange", http.StatusTemporaryRedirect)
				return
			case r.URL.Path == "/oauth2/exchange":
				_, _ = w.Write([]byte(`{"refresh_token":"eyJrefresh"}`))
				return
			case realm == "":
				realm = "https://" + evil + "/oauth2/token"
				defer func() { realm = "" }()
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		must(t, s.Policy("policy.yaml", strings.NewReplacer("$ACR", evil, "../wabbit.crt", writeRoot(t, s)).Replace(trusting)))
		s.source.Reload(t.Context())
		ref, err := verifier.ParseReference(evil + "/shop/cart:1")
		must(t, err)
		if reason, message := s.ask(t, ref); reason == "TRUSTED" {
			t.Errorf("%s: %s", realm, message)
		}
	}
	if n := cloud.Count(thief, "/"); n != 0 {
		t.Errorf("the thief was asked %d times", n)
	}
}

func writeRoot(t *testing.T, s *scene) string {
	t.Helper()
	_, err := s.Signer("wabbit")
	must(t, err)
	return s.dir + "/wabbit.crt"
}

// TestRefreshAhead: a refresh token is renewed before it ends, behind the decisions
// that go on with it.
func TestRefreshAhead(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:0", "wabbit")
	s.acr.Lifetime(4 * time.Second)
	s.start(t, trusting)
	s.want(t, "shop/cart:0", "TRUSTED")
	lift := cloud.Fault(azure.Fault{Host: s.acr.Host, Path: "/oauth2/exchange", Status: 503}) // whoever waited for it would fail
	deadline := time.Now().Add(20 * time.Second)
	for i := 1; cloud.Count(s.acr.Host, "/oauth2/exchange") < 2; i++ {
		repository := fmt.Sprintf("shop/cart-%d:1", i) // a token of its own, for which the refresh token is asked
		s.signed(t, repository, "wabbit")
		s.want(t, repository, "TRUSTED")
		if time.Now().After(deadline) {
			t.Fatal("it was never renewed")
		}
		time.Sleep(50 * time.Millisecond)
	}
	lift()
	s.signed(t, "shop/last:1", "wabbit")
	s.want(t, "shop/last:1", "TRUSTED")
	for _, seen := range cloud.Seen() {
		if seen.Host == s.acr.Host && seen.Path == "/oauth2/token" && seen.Status != http.StatusOK {
			t.Error("a token was refused: it was not ahead")
		}
	}
}

// TestIdentityBinding asks the cluster's proxy for tokens, and Microsoft Entra ID
// never.
func TestIdentityBinding(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "wabbit")
	proxy := httptest.NewTLSServer(cloud.Entra)
	defer proxy.Close()
	roots := filepath.Join(s.dir, "proxy.pem")
	must(t, os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}), 0o600))
	t.Setenv("AZURE_KUBERNETES_TOKEN_PROXY", proxy.URL)
	t.Setenv("AZURE_KUBERNETES_SNI_NAME", "example.com") // as the certificate has it
	t.Setenv("AZURE_KUBERNETES_CA_FILE", roots)
	cloud.Reset()
	s.start(t, strings.ReplaceAll(trusting, "{azureWorkloadIdentity: {}}", "{azureWorkloadIdentity: {identityBinding: true}}"))
	s.want(t, "shop/cart:1", "TRUSTED")
	if n := cloud.Count("login.microsoftonline.com", "/"); n != 0 {
		t.Errorf("Microsoft Entra ID was asked %d times", n)
	}
}

// TestManagedIdentity: the node's own identity, one that is assigned to it, and one
// that is not.
func TestManagedIdentity(t *testing.T) {
	for name, c := range map[string]struct {
		auth, want string
		parts      []string
	}{
		"system-assigned": {"{azureManagedIdentity: {}}", "TRUSTED", nil},
		"user-assigned":   {"{azureManagedIdentity: {clientID: $CLIENT}}", "TRUSTED", nil},
		"not assigned":    {"{azureManagedIdentity: {clientID: nobody}}", "REGISTRY_UNAUTHORIZED", []string{"no token for the managed identity nobody"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			clear(s.env)
			s.signed(t, "shop/cart:1", "wabbit")
			s.start(t, strings.ReplaceAll(trusting, "{azureWorkloadIdentity: {}}", strings.ReplaceAll(c.auth, "$CLIENT", s.identity.ClientID)))
			s.want(t, "shop/cart:1", c.want, c.parts...)
		})
	}
}

// TestAzureCLI asks az, as on a developer's machine.
func TestAzureCLI(t *testing.T) {
	s := newScene(t)
	clear(s.env)
	s.signed(t, "shop/cart:1", "wabbit")
	bin := t.TempDir()
	az := func(script string) { must(t, os.WriteFile(bin+"/az", []byte("#!/bin/sh\n"+script), 0o700)) }
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	az("echo 'Please run az login' >&2; exit 1")
	policy := strings.ReplaceAll(trusting, "{azureWorkloadIdentity: {}}", "{azureCLI: {}}")
	s.start(t, policy)
	s.want(t, "shop/cart:1", "REGISTRY_UNAUTHORIZED", "az login")
	token := cloud.Entra.Issue(s.identity.ClientID, "https://containerregistry.azure.net")
	az(fmt.Sprintf(`echo '{"accessToken": "%s", "expiresOn": "2036-01-02 03:04:05.000000", "expires_on": 2083197845, "tokenType": "Bearer"}'`, token))
	s.want(t, "shop/cart:1", "TRUSTED")
}

// TestOtherClouds: the authority is the one that the pod's variable names.
func TestOtherClouds(t *testing.T) {
	for authority, zone := range map[string]string{"login.chinacloudapi.cn": ".azurecr.cn", "login.microsoftonline.us": ".azurecr.us"} {
		s := newScene(t)
		s.env["AZURE_AUTHORITY_HOST"] = "https://" + authority + "/"
		s.signed(t, "shop/cart:1", "wabbit")
		acr, err := cloud.Registry("other"+zone, s.Host)
		must(t, err)
		s.acr = acr
		s.identity.Grant(acr.Host, "AcrPull")
		cloud.Reset()
		s.start(t, trusting)
		s.want(t, "shop/cart:1", "TRUSTED")
		if cloud.Count(authority, "/") == 0 || cloud.Count("login.microsoftonline.com", "/") != 0 {
			t.Errorf("%s was not the one that was asked", authority)
		}
	}
}
