package install

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestStatuses: each object says what became of it, and what to do.
func TestStatuses(t *testing.T) {
	s := in(t, "statuses")
	keys := s.policy("keys", "keys/**", map[string]any{"secret": map[string]any{"name": "roots", "key": "ca.crt"}})
	s.apply(t, keys)
	if said := s.ready(t, keys, "KeysUnavailable"); said != "its images are undecided: spec.require.notation.trustStores.ca[0].secret: Secret countersign-system/roots does not exist. Create it; the policy will use it at once" {
		t.Error(said)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "roots"}, Data: map[string][]byte{"ca.crt": []byte(s.root(t, "wabbit"))}}
	must(t, s.Client.Create(t.Context(), secret))
	s.ready(t, keys, "InForce")
	must(t, s.Client.Delete(t.Context(), secret))
	if said := s.ready(t, keys, "LastGoodInForce"); !strings.HasPrefix(said, "an earlier version is in force: ") {
		t.Error(said)
	}
	eventually(t, func(ctx context.Context) error { return s.event(ctx, "keys", "LastGoodInForce") })

	invalid := s.policy("invalid", "invalid/**", map[string]any{"inline": "no certificate"})
	s.apply(t, invalid)
	if said := s.ready(t, invalid, "Invalid"); !strings.HasPrefix(said, "its images are undecided: spec.require.notation.trustStores.ca[0].inline: ") {
		t.Error(said)
	}
	eventually(t, func(ctx context.Context) error { return s.event(ctx, "invalid", "Invalid") })

	audits := s.policy("audits", "audits/**", map[string]any{"inline": s.root(t, "wabbit")})
	audits.Object["spec"].(map[string]any)["mode"] = "audit"
	s.apply(t, audits)
	s.ready(t, audits, "Auditing")

	for name, c := range map[string]struct {
		until  time.Duration
		reason string
	}{"long": {30 * 24 * time.Hour, "Exempting"}, "soon": {time.Hour, "EndingSoon"}, "ended": {-time.Hour, "Ended"}} {
		exemption := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "countersign.dev/v1beta1", "kind": "Exemption", "metadata": map[string]any{"name": name},
			"spec": map[string]any{
				"images": []any{s.Host + "/exempt/**"}, "namespaces": []any{"statuses"}, "reason": "a test", "owner": "shop@example.com",
				"expiresAt": time.Now().Add(c.until).UTC().Format(time.RFC3339),
			},
		}}
		s.apply(t, exemption)
		s.ready(t, exemption, c.reason)
	}
}

// event looks for an Event about an object.
func (s *scene) event(ctx context.Context, name, reason string) error {
	var list eventsv1.EventList
	if err := s.Client.List(ctx, &list); err != nil {
		return err
	}
	for _, e := range list.Items {
		if e.Regarding.Name == name && e.Reason == reason {
			return nil
		}
	}
	return fmt.Errorf("no Event %s about %s", reason, name)
}

// TestNoStatusLoops: what does not change is not written.
func TestNoStatusLoops(t *testing.T) {
	s := in(t, "quiet")
	policy := s.policy("quiet", "quiet/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	version := func() string {
		must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
		return policy.GetResourceVersion()
	}
	before := version()
	// Another policy makes another Snapshot, and all statuses are looked at.
	other := s.policy("noise", "noise/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, other)
	s.ready(t, other, "InForce")
	if after := version(); after != before {
		t.Errorf("written again: %s, %s", before, after)
	}
}

// TestAnEditIsInForceWithinASecond in every replica, under load.
func TestAnEditIsInForceWithinASecond(t *testing.T) {
	s := in(t, "edit")
	image := s.signed(t, "edit/cart:1.4", "wabbit")
	policies := map[string]*unstructured.Unstructured{
		"TRUSTED":                 s.policy("edit", "edit/**", map[string]any{"inline": s.root(t, "wabbit")}),
		"CERTIFICATE_NOT_TRUSTED": s.policy("edit", "edit/**", map[string]any{"inline": s.root(t, "mallory")}),
	}
	s.apply(t, policies["TRUSTED"])
	s.ready(t, policies["TRUSTED"], "InForce")
	key := "[edit]" + image
	var askers []*asker
	for _, address := range s.addresses() {
		askers = append(askers, s.asker(t, address))
	}
	busy := under(t, perSecond, func(ctx context.Context) (string, error) {
		_, err := askers[0].reason(ctx, key)
		return "", err
	})
	var slowest time.Duration
	for i := range 10 {
		want := []string{"CERTIFICATE_NOT_TRUSTED", "TRUSTED"}[i%2]
		must(t, s.Apply(t.Context(), policies[want]))
		start := time.Now()
		for j, a := range askers {
			eventually(t, func(ctx context.Context) error {
				if got, err := a.reason(ctx, key); err != nil || got != want {
					return fmt.Errorf("replica %d: %s, want %s: %w", j, got, want, err)
				}
				return nil
			})
		}
		slowest = max(slowest, time.Since(start))
	}
	busy.stop()
	if busy.failed.Load() > 0 {
		t.Error(busy.errs[0])
	}
	t.Logf("the slowest of 10 edits was in force in both replicas after %v", slowest.Round(time.Millisecond))
	if slowest > time.Second {
		t.Errorf("an edit took %v", slowest)
	}
}

// TestABrokenObjectLeavesTheOthersAtWork: its images are undecided, and nobody
// else's.
func TestABrokenObjectLeavesTheOthersAtWork(t *testing.T) {
	s := in(t, "isolated")
	image, other := s.signed(t, "isolated/cart:1.4", "wabbit"), s.signed(t, "broken/cart:1.4", "wabbit")
	good := s.policy("isolated", "isolated/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, good)
	s.ready(t, good, "InForce")
	broken := s.policy("broken", "broken/**", map[string]any{"inline": "no certificate"})
	s.apply(t, broken)
	s.ready(t, broken, "Invalid")
	for _, address := range s.addresses() {
		a := s.asker(t, address)
		for key, want := range map[string]string{image: "TRUSTED", other: "POLICY_INVALID"} {
			eventually(t, func(ctx context.Context) error {
				if got, err := a.reason(ctx, "[isolated]"+key); err != nil || got != want {
					return fmt.Errorf("%s: %s, want %s: %w", key, got, want, err)
				}
				return nil
			})
		}
	}
}

// TestL25_ATenantReachesItsOwnNamespaceOnly: not the provider's Secrets, nor its
// files, nor another namespace's images.
func TestL25_ATenantReachesItsOwnNamespaceOnly(t *testing.T) {
	s := in(t, "tenant")
	image := s.signed(t, "tenant/cart:1.4", "wabbit")
	cluster := s.policy("tenants", "tenant/**", map[string]any{"inline": s.root(t, "wabbit")})
	cluster.Object["spec"].(map[string]any)["delegate"] = true
	s.apply(t, cluster)
	s.ready(t, cluster, "InForce")
	tenant := func(name string, source map[string]any) *unstructured.Unstructured {
		policy := s.policy(name, "tenant/**", source)
		policy.SetKind("TrustPolicy")
		policy.SetNamespace("tenant")
		return policy
	}
	for name, c := range map[string]struct {
		source map[string]any
		said   string
	}{
		"secret": {map[string]any{"secret": map[string]any{"name": release + "-tls", "key": "ca.crt", "namespace": namespace}}, "a TrustPolicy reaches its own namespace only"},
		"own":    {map[string]any{"secret": map[string]any{"name": release + "-tls", "key": "ca.crt"}}, "Secret tenant/" + release + "-tls may not be read"},
		"vault":  {map[string]any{"azureKeyVault": map[string]any{"vaultURI": "https://wabbit-kv.vault.azure.net", "certificates": []any{map[string]any{"name": "wabbit"}}}}, "a TrustPolicy has no vaults: the identity that reads them is the provider's"},
		"file":   {map[string]any{"file": "/var/run/secrets/kubernetes.io/serviceaccount/token"}, "a TrustPolicy reads no files of the provider"},
	} {
		policy := tenant(name, c.source)
		must(t, s.Apply(t.Context(), policy))
		reason := "Invalid"
		if name == "own" {
			reason = "KeysUnavailable"
		}
		if said := s.ready(t, policy, reason); !strings.Contains(said, c.said) {
			t.Errorf("%s: %s", name, said)
		}
		must(t, s.Client.Delete(t.Context(), policy))
	}
	identity := tenant("identity", map[string]any{"inline": s.root(t, "wabbit")})
	identity.Object["spec"].(map[string]any)["registries"] = []any{map[string]any{"host": "evil.azurecr.io", "auth": map[string]any{"azureWorkloadIdentity": map[string]any{}}}}
	identity.Object["spec"].(map[string]any)["images"] = []any{"evil.azurecr.io/**"}
	must(t, s.Apply(t.Context(), identity))
	if said := s.ready(t, identity, "Invalid"); !strings.Contains(said, "a TrustPolicy has no identity of Azure: that is the provider's") {
		t.Error(said)
	}
	must(t, s.Client.Delete(t.Context(), identity))
	a := s.asker(t, s.addresses()[0])
	eventually(t, func(ctx context.Context) error { return wants(ctx, a, "[tenant]"+image, "TRUSTED") })
	nobody := tenant("nobody", map[string]any{"inline": s.root(t, "mallory")})
	must(t, s.Apply(t.Context(), nobody))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), nobody) })
	s.ready(t, nobody, "InForce")
	eventually(t, func(ctx context.Context) error { return wants(ctx, a, "[tenant]"+image, "CERTIFICATE_NOT_TRUSTED") })
	must(t, wants(t.Context(), a, "[statuses]"+image, "TRUSTED"))
}

func wants(ctx context.Context, a *asker, key, want string) error {
	if got, err := a.reason(ctx, key); err != nil || got != want {
		return fmt.Errorf("%s: %s, want %s: %w", key, got, want, err)
	}
	return nil
}
