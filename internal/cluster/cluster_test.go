package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// answered is what a Snapshot says of an image without asking a registry.
func answered(t *testing.T, s *config.Snapshot, image string) string {
	t.Helper()
	ref, err := verifier.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	_, verdict := s.For(verifier.Request{Namespace: "shop", Image: ref})
	return string(verdict.Reason())
}

// objects are policies that need nothing of the cluster.
func objects() *config.Objects {
	return config.NewObjects(config.ObjectsOptions{Environment: config.Environment{
		View: func(store.ViewOptions) (verifier.Store, error) { return &verifiertest.Store{}, nil }, Memory: verifier.NewMemory(1 << 20),
	}})
}

// TestAnEditedObjectIsReadAgain, and one that is as it was is not.
func TestAnEditedObjectIsReadAgain(t *testing.T) {
	from := &things{all: []client.Object{skipping("production", "old.example.com", 1)}}
	p := &policies{from: from, objects: objects(), log: slog.New(slog.DiscardHandler)}
	update := func() *config.Snapshot {
		t.Helper()
		if err := p.update(t.Context()); err != nil {
			t.Fatal(err)
		}
		return p.objects.Snapshot()
	}
	first := update()
	if got := answered(t, first, "old.example.com/cart:1"); got != "SKIPPED" {
		t.Fatalf("%q, %v", got, first.Problems())
	}
	if update() != first {
		t.Error("another Snapshot, though nothing changed")
	}
	from.all = []client.Object{skipping("production", "new.example.com", 2)}
	next := update()
	if got := answered(t, next, "old.example.com/cart:1"); got != "POLICY_NOT_FOUND" {
		t.Errorf("the old images: %s", got)
	}
	if got := answered(t, next, "new.example.com/cart:1"); got != "SKIPPED" {
		t.Errorf("the new images: %s", got)
	}
	from.err = errors.New("away")
	if err := p.update(t.Context()); err == nil || p.objects.Snapshot() != next {
		t.Errorf("an API server that is away changes something: %v", err)
	}
}

// TestAStatusIsOfTheGenerationThatWasRead, and says whether it is in force.
func TestAStatusIsOfTheGenerationThatWasRead(t *testing.T) {
	from := &things{all: []client.Object{skipping("production", "a.example.com", 1)}}
	p := &policies{from: from, objects: objects(), log: slog.New(slog.DiscardHandler)}
	if err := p.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &statuses{client: from, snapshot: p.objects.Snapshot, events: events.NewFakeRecorder(9), log: slog.New(slog.DiscardHandler)}
	from.all = []client.Object{skipping("production", "b.example.com", 2)} // and was not read yet
	if err := s.write(t.Context()); err != nil || len(from.patched) != 0 {
		t.Errorf("a status was written for what was not read: %v, %v", from.patched, err)
	}
	if err := p.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context()); err != nil || len(from.patched) != 1 {
		t.Errorf("%v, %v", from.patched, err)
	}
}

// TestOnlyWhatIsInForceIsReady.
func TestOnlyWhatIsInForceIsReady(t *testing.T) {
	now := time.Now()
	problem := []config.Problem{{Message: "wrong", Reason: verifier.ReasonPolicyInvalid}}
	away := []config.Problem{{Message: "away", Reason: verifier.ReasonKeysUnavailable}}
	for want, s := range map[string]config.PolicyStatus{
		"True InForce":          {State: config.StateReady},
		"True Auditing":         {State: config.StateReady, Audits: true},
		"True Exempting":        {State: config.StateReady, ExpiresAt: now.Add(99 * 24 * time.Hour)},
		"True EndingSoon":       {State: config.StateReady, ExpiresAt: now.Add(time.Hour)},
		"False Ended":           {State: config.StateReady, ExpiresAt: now.Add(-time.Hour)},
		"False LastGoodInForce": {State: config.StateLastGood, Problems: problem},
		"False Invalid":         {State: config.StateBroken, Problems: problem},
		"False KeysUnavailable": {State: config.StateBroken, Problems: away},
	} {
		c := conditionOf(s, now)
		if got := string(c.Status) + " " + c.Reason; got != want {
			t.Errorf("%s: want %s", got, want)
		}
	}
}

// TestWhatMayNotBeReadIsNotGone: for what is gone there is no credential, for what may
// not be read there is one that nobody knows.
func TestWhatMayNotBeReadIsNotGone(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	other := errors.New("the API server is away")
	for _, c := range []struct{ given, want error }{
		{nil, nil}, {other, other}, {apierrors.NewNotFound(secrets, "a"), fs.ErrNotExist}, {apierrors.NewForbidden(secrets, "a", nil), fs.ErrPermission},
	} {
		if got := readError(c.given); !errors.Is(got, c.want) || c.given == nil && got != nil {
			t.Errorf("%v: %v", c.given, got)
		}
	}
}

// TestThePullSecretsOfTheOlderForm hold the entries alone.
func TestThePullSecretsOfTheOlderForm(t *testing.T) {
	secret := func(name string, kind corev1.SecretType, key string) client.Object {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: kind, Data: map[string][]byte{key: []byte(`{"of":"` + name + `"}`)},
		}
	}
	p := &PullSecrets{&things{all: []client.Object{
		secret("new", corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey), secret("old", corev1.SecretTypeDockercfg, corev1.DockerConfigKey),
	}}}
	for name, want := range map[string]string{"new": `{"of":"new"}`, "old": `{"auths":{"of":"old"}}`} {
		if got, err := p.PullSecret(t.Context(), "shop", name); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := p.PullSecret(t.Context(), "pay", "new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another namespace's: %v", err)
	}
}

// TestTheClustersObjectGoesBeforeTheCharts, where both have Ratify's kind and name.
func TestTheClustersObjectGoesBeforeTheCharts(t *testing.T) {
	ours := ratify.Object{Kind: "Verifier", Name: "notation", Spec: []byte("cluster")}
	given := withDefaults([]ratify.Object{ours}, []ratify.Object{
		{Kind: "Verifier", Name: "notation", Spec: []byte("chart")}, {Kind: "Store", Name: "notation", Spec: []byte("chart")},
		{Kind: "Verifier", Namespace: "shop", Name: "notation", Spec: []byte("chart")},
	})
	if len(given) != 3 || string(given[0].Spec) != "cluster" {
		t.Errorf("%+v", given)
	}
}

// TestACertificateIsOfTheAuthorityBesideIt, or it is not served.
func TestACertificateIsOfTheAuthorityBesideIt(t *testing.T) {
	one, _ := renewed(t, identity{}, names, time.Now(), false)
	other, _ := renewed(t, identity{}, names, time.Now(), false)
	for what, id := range map[string]identity{
		"another's authority": {serving: one.serving, servingKey: one.servingKey, authority: other.authority},
		"no authority":        {serving: one.serving, servingKey: one.servingKey},
		"another's key":       {serving: one.serving, servingKey: other.servingKey, authority: one.authority},
	} {
		if leaf, err := id.leaf(); err == nil {
			t.Errorf("%s: %v", what, leaf.Subject)
		}
	}
}

// stage is a cluster with our Secret, Gatekeeper's webhook and a Provider object.
func stage(served, vouching identity) *things {
	provider := newObject(providerKind())
	provider.SetName("countersign")
	provider.Object["spec"] = map[string]any{"caBundle": base64.StdEncoding.EncodeToString(vouching.authority)}
	return &things{all: []client.Object{
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: "tls"}, Data: served.data()},
		&admissionv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "gatekeeper"},
			Webhooks:   []admissionv1.ValidatingWebhook{{ClientConfig: admissionv1.WebhookClientConfig{CABundle: vouching.authority}}},
		},
		provider,
	}}
}

func presentingOf(t *testing.T, from *things) *presenting {
	t.Helper()
	return &presenting{
		options: TLSOptions{Secret: "tls", GatekeeperWebhook: "gatekeeper", Providers: []Provider{{Name: "countersign"}}},
		files:   NewCertificates(t.TempDir()), cached: from, api: from, namespace: "system", log: slog.New(slog.DiscardHandler),
	}
}

// TestACertificateIsServedOnceGatekeeperTrustsIt: first the Provider objects vouch for
// it, and where another is in use Gatekeeper's pods have some seconds to learn of it.
func TestACertificateIsServedOnceGatekeeperTrustsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, _ := renewed(t, identity{}, names, time.Now(), false)
		other, _ := renewed(t, identity{}, names, time.Now(), false)
		from := stage(one, other)
		p := presentingOf(t, from)
		served := func() string {
			t.Helper()
			if _, err := p.present(t.Context()); err != nil {
				t.Fatal(err)
			}
			content, _ := os.ReadFile(p.files.Serving())
			return string(content)
		}
		if got := served(); got != "" || p.files.Ready() == nil {
			t.Error("served, though the Provider object vouches for another")
		}
		from.all = stage(one, one).all
		first := served()
		if !strings.Contains(first, string(one.serving)) || p.files.Ready() != nil {
			t.Fatal("not served")
		}
		from.all = stage(other, one).all
		if served() != first {
			t.Error("the next is served, though the Provider object does not vouch for it")
		}
		from.all = stage(other, other).all
		if served() != first {
			t.Error("the next is served at once")
		}
		time.Sleep(spread - time.Second) // synctest's clock
		if served() != first {
			t.Error("the next is served too early")
		}
		time.Sleep(time.Second)
		if got := served(); !strings.Contains(got, string(other.serving)) {
			t.Error("the next is not served")
		}
	})
}

// TestWithoutGatekeepersAuthorityNobodyIsLetIn.
func TestWithoutGatekeepersAuthorityNobodyIsLetIn(t *testing.T) {
	one, _ := renewed(t, identity{}, names, time.Now(), false)
	p := presentingOf(t, stage(one, identity{}))
	if err := p.presentGatekeeper(t.Context()); err == nil {
		t.Error("a webhook without a caBundle is taken")
	}
	if _, err := os.Stat(p.files.Gatekeeper()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file without authorities was written: %v", err)
	}
}

// TestAnAuthorityStaysWhileItIsServedWith: a replica that has not changed yet is still
// asked.
func TestAnAuthorityStaysWhileItIsServedWith(t *testing.T) {
	now := time.Now()
	before, _ := renewed(t, identity{}, names, now, false)
	current, _ := renewed(t, identity{}, names, now, false)
	for _, c := range []struct {
		name   string
		served []identity
		want   int
	}{
		{"all have changed", []identity{current, current}, 1},
		{"one has not", []identity{current, before}, 2},
		{"none has", []identity{before}, 2},
		{"nobody can be asked", nil, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "system"}}
			var all []client.Object
			for _, id := range c.served {
				one := slice.DeepCopy()
				address, port := serve(t, id)
				name := "https"
				one.Ports = []discoveryv1.EndpointPort{{Name: &name, Port: &port}}
				one.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{address}}}
				all = append(all, one)
			}
			p := &providers{options: TLSOptions{Service: "countersign", Port: "https"}, api: &things{all: all}, namespace: "system"}
			got, err := p.stillNeeded(t.Context(), parseBundle(current.authority), parseBundle(before.authority))
			if err != nil || len(got) != c.want {
				t.Errorf("%d authorities, %v; want %d", len(got), err, c.want)
			}
			if !slices.ContainsFunc(got, func(a *x509.Certificate) bool { return a.Equal(parseBundle(current.authority)[0]) }) {
				t.Error("the current one is missing")
			}
		})
	}
}

// serve shows the certificate to who connects.
func serve(t *testing.T, id identity) (address string, port int32) {
	t.Helper()
	pair, err := tls.X509KeyPair(id.serving, id.servingKey)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = connection.(*tls.Conn).HandshakeContext(context.Background())
				_ = connection.Close()
			}()
		}
	}()
	at := listener.Addr().(*net.TCPAddr)
	return at.IP.String(), int32(at.Port)
}
