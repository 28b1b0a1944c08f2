package azure_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"log/slog"

	identities "github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	issuer  = "https://oidc.example.com/cluster/"
	subject = "system:serviceaccount:countersign-system:countersign"
)

// cloud is everybody's; each test has hosts of its own.
var cloud *azure.Cloud

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "azure")
	if err == nil {
		cloud, err = azure.New()
	}
	if err == nil { // the system's roots are read once, and not before
		roots := filepath.Join(dir, "ca.pem")
		err = os.WriteFile(roots, cloud.Authority.PEM, 0o600)
		_ = os.Setenv("SSL_CERT_FILE", roots)
		_ = os.Setenv("SSL_CERT_DIR", dir+"/none")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	cloud.Close()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// said is all that was logged, by whomever.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// scene is our part of the product, in the pod of a federated ServiceAccount.
type scene struct {
	*world.World
	acr      *azure.Registry
	vault    *azure.Vault
	identity *azure.Identity
	env      map[string]string
	dir      string
	log      *said
	skew     time.Duration
	network  store.Options // how registries are reached

	source *config.Source
	vaults *trust.Vaults
	mu     sync.Mutex
	now    time.Time // of the vaults
}

// newScene makes a registry and a vault of the name, and who may read them.
func newScene(t *testing.T) *scene {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "", "_", "").Replace(t.Name()))
	upstream := registrytest.Start(t, registrytest.Options{})
	s := &scene{dir: t.TempDir(), log: &said{}, now: time.Now(), network: store.Options{AllowLoopback: true, Proxy: cloud.Proxy}}
	var err error
	s.World, err = world.New(s.dir, upstream.Host())
	must(t, err)
	s.acr, err = cloud.Registry(name+".azurecr.io", upstream.Host())
	must(t, err)
	s.vault = cloud.Vault(name + ".vault.azure.net")
	s.identity = cloud.Entra.Identity("client-of-"+name, issuer, subject)
	s.identity.Grant(s.acr.Host, "AcrPull")
	s.identity.Grant(s.vault.Host, "Key Vault Secrets User")
	s.identity.Grant(s.vault.Host, "Key Vault Crypto User")
	s.env = map[string]string{"AZURE_CLIENT_ID": s.identity.ClientID, "AZURE_TENANT_ID": azure.Tenant}
	s.federate(t, azure.Token{Lifetime: time.Hour})
	return s
}

// federate writes the pod's token; what is not said is as it should be.
func (s *scene) federate(t *testing.T, token azure.Token) {
	t.Helper()
	if token.Issuer == "" {
		token.Issuer = issuer
	}
	if token.Subject == "" {
		token.Subject = subject
	}
	if token.Audience == "" {
		token.Audience = azure.Audience
	}
	path, err := cloud.Entra.Write(s.dir, token)
	must(t, err)
	s.env["AZURE_FEDERATED_TOKEN_FILE"] = path
}

// node reaches the metadata service of a node, which no proxy leads to.
type node struct {
	metadata http.Handler
	rest     http.RoundTripper
}

func (n node) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "169.254.169.254" {
		return n.rest.RoundTrip(r)
	}
	answer := httptest.NewRecorder()
	n.metadata.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// start wires the rooms as the program does, with a policy.
func (s *scene) start(t *testing.T, policy string) {
	t.Helper()
	policy = strings.NewReplacer("$ACR", s.acr.Host, "$VAULT", s.vault.URI()).Replace(policy)
	must(t, s.Policy("policy.yaml", policy))
	credentials := identities.NewCredentials(identities.Options{
		Getenv: func(name string) string { return s.env[name] }, Transport: node{cloud.Entra.Metadata(s.identity.ClientID), cloud.Transport()},
	})
	s.network.RetryBase = time.Millisecond
	registries := store.New(s.network)
	changed := make(chan struct{}, 1)
	log := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	impatient := cloud.Transport()
	impatient.ResponseHeaderTimeout = 500 * time.Millisecond
	s.vaults = trust.New(trust.Options{
		Credentials: credentials, Transport: impatient, Path: filepath.Join(s.dir, "vaults"), Log: log,
		OnChange: func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		},
		Now: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			return time.Now().Add(s.skew)
		},
	})
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: registries.Transport(), Bounded: registries.Bounded})
	must(t, err)
	s.source, err = config.Load(t.Context(), config.Options{Path: s.Policies, Log: log, Environment: config.Environment{
		View:   func(o store.ViewOptions) (verifier.Store, error) { return registries.View(o) },
		Memory: verifier.NewMemory(1 << 20), Revocation: revocation,
		Azure: auth.NewAzureExchanges(credentials, registries.Transport(), log), Vaults: s.vaults,
	}})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = s.vaults.Run(ctx) })
	group.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				s.source.Reload(ctx)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		group.Wait()
		noSecrets(t, s.log.String())
	})
	must(t, s.vaults.Settle(t.Context()))
	s.source.Reload(t.Context())
}

// later lets time pass for the vaults.
func (s *scene) later(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew += d
}

// decide makes one decision, as REASON and the message.
func (s *scene) decide(t *testing.T, image string) (reason, message string) {
	t.Helper()
	ref, err := verifier.ParseReference(s.acr.Host + "/" + image)
	must(t, err)
	return s.ask(t, ref)
}

func (s *scene) ask(t *testing.T, ref verifier.Reference) (reason, message string) {
	t.Helper()
	chain, verdict := s.source.Snapshot().For(verifier.Request{Namespace: "default", Image: ref})
	var err error
	if chain != nil {
		verdict, err = chain.Verify(t.Context(), verifier.Request{Image: ref})
	}
	if err != nil {
		e := verifier.AsError(err)
		noSecrets(t, e.Error()+e.Remedy)
		return string(e.Reason), e.Message + ". " + e.Remedy
	}
	return string(verdict.Reason()), verdict.Message()
}

func (s *scene) want(t *testing.T, image, reason string, parts ...string) {
	t.Helper()
	got, message := s.decide(t, image)
	if got != reason {
		t.Errorf("%s: %s, want %s: %s", image, got, reason, message)
	}
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("%s: %q does not say %q", image, message, part)
		}
	}
}

func (s *scene) eventually(t *testing.T, image, reason string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		s.source.Reload(t.Context()) // as it does every ten seconds
		got, message := s.decide(t, image)
		if got == reason {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %s, want %s: %s", image, got, reason, message)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// signed pushes an image that the signer signed.
func (s *scene) signed(t *testing.T, image, signer string) *notationtest.Certificate {
	t.Helper()
	must(t, s.Push(t.Context(), image))
	if signer == "" {
		return nil
	}
	must(t, s.Sign(t.Context(), image, signer, notationtest.SignOptions{}))
	of, err := s.Signer(signer)
	must(t, err)
	return of
}

// noSecrets finds what is built like one of the cloud's tokens.
func noSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{"eyJ", "PRIVATE KEY", "client_assertion", "s3cret"} {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret shows: …%s…", text[max(0, at-80):min(len(text), at+80)])
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
