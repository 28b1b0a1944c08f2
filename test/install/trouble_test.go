package install

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/pki"
)

// outage is how long the API server is away.
func outage() time.Duration {
	if os.Getenv("CI") != "" { // which has an hour for all
		return 40 * time.Second
	}
	return 2 * time.Minute
}

// enforced trusts a signer in the test's repositories and waits until Pods show it.
func (s *scene) enforced(t *testing.T, name string) (trusted, untrusted string) {
	t.Helper()
	trusted = s.signed(t, name+"/cart:1.4", "wabbit")
	must(t, s.Push(t.Context(), name+"/unsigned:1"))
	untrusted = s.Name(name + "/unsigned:1")
	policy := s.policy(name, name+"/**", map[string]any{"inline": s.root(t, "wabbit")})
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, name, trusted) })
	eventually(t, func(ctx context.Context) error {
		if s.tryPod(ctx, name, untrusted) == nil {
			return errors.New("an unsigned image is admitted")
		}
		return nil
	})
	return trusted, untrusted
}

// admissions asks the API server to admit Pods, trusted ones and others.
func (s *scene) admissions(name, trusted, untrusted string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if err := s.tryPod(ctx, name, trusted); err != nil {
			return "", err
		}
		if err := s.tryPod(ctx, name, untrusted); err == nil {
			return "an unsigned image is admitted", nil
		} else if !strings.Contains(err.Error(), "no signature found") {
			return "", err
		}
		return "", nil
	}
}

// served is the authority that the leaf of a server chains to: one of these, or none.
func served(address string, authorities ...[]byte) int {
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return -1
	}
	defer func() { _ = connection.Close() }()
	for i, authority := range authorities {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority)
		if _, err := connection.ConnectionState().PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots}); err == nil {
			return i
		}
	}
	return -1
}

// trustedByGatekeeper counts the authorities in a Provider object.
func (s *scene) trustedByGatekeeper(ctx context.Context) (int, error) {
	provider := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "Provider"}}
	if err := s.Client.Get(ctx, client.ObjectKey{Name: "countersign"}, provider); err != nil {
		return 0, err
	}
	text, _, err := unstructured.NestedString(provider.Object, "spec", "caBundle")
	if err != nil {
		return 0, err
	}
	content, err := decode(text)
	return bytes.Count(content, []byte("BEGIN CERTIFICATE")), err
}

// TestAllCertificatesRotateUnderLoad: our authority, our certificate under it, and
// Gatekeeper's authority, without one admission that fails.
func TestAllCertificatesRotateUnderLoad(t *testing.T) {
	s := in(t, "rotation")
	trusted, untrusted := s.enforced(t, "rotation")
	load := under(t, perSecond/2, s.admissions("rotation", trusted, untrusted)) // each asks twice

	// Ours, authority and all.
	before := s.secret(t)
	before.Annotations = map[string]string{"countersign.dev/rotate": "now"}
	must(t, s.Client.Update(t.Context(), before))
	rotated := s.rotated(t, before.Data["tls.crt"])
	if bytes.Equal(rotated.Data["ca.crt"], before.Data["ca.crt"]) {
		t.Error("the authority is the same")
	}
	s.servedEverywhere(t, rotated.Data["ca.crt"], before.Data["ca.crt"])

	// Ours, under the same authority, as when a third of its time is left.
	must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(rotated), rotated))
	old := rotated.Data["tls.crt"]
	rotated.Data["tls.crt"], rotated.Data["tls.key"] = nil, nil
	must(t, s.Client.Update(t.Context(), rotated))
	again := s.rotated(t, old)
	if !bytes.Equal(again.Data["ca.crt"], rotated.Data["ca.crt"]) {
		t.Error("the authority is another")
	}
	s.servedEverywhere(t, again.Data["ca.crt"])

	// Gatekeeper's, as its own rotation does it: first the webhooks trust both, then
	// its certificate changes.
	next, err := pki.NewAuthority("gatekeeper-ca")
	must(t, err)
	must(t, s.Webhooks(t.Context(), "Fail", s.gatekeeperCA, next))
	for i := range s.replicas {
		eventually(t, func(ctx context.Context) error { return s.letsIn(ctx, i, next) })
	}
	must(t, s.RotateGatekeeper(next))
	eventually(t, func(context.Context) error {
		if served(s.GatekeeperAddress(), next.PEM) < 0 {
			return errors.New("gatekeeper serves with the old certificate")
		}
		return nil
	})
	must(t, s.Webhooks(t.Context(), "Fail", next))
	s.gatekeeperCA = next
	asked := load.asked.Load()
	eventually(t, func(context.Context) error {
		if load.asked.Load() < asked+perSecond {
			return errors.New("the load goes on")
		}
		return nil
	})
	load.stop()
	if len(load.errs) > 0 || len(load.wrong) > 0 {
		t.Errorf("%v %v", load.errs, load.wrong)
	}
}

// rotated waits until the Secret has another certificate.
func (s *scene) rotated(t *testing.T, before []byte) (secret *secretObject) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		secret = s.secret(t)
		if now := secret.Data["tls.crt"]; len(now) == 0 || bytes.Equal(now, before) {
			return errors.New("the certificate is the same")
		}
		return nil
	})
	return secret
}

// servedEverywhere waits until each replica serves under the first authority, and
// until Gatekeeper trusts no other.
func (s *scene) servedEverywhere(t *testing.T, authorities ...[]byte) {
	t.Helper()
	for _, address := range s.addresses() {
		eventually(t, func(context.Context) error {
			if i := served(address, authorities...); i != 0 {
				return fmt.Errorf("%s serves under %d", address, i)
			}
			return nil
		})
	}
	eventually(t, func(ctx context.Context) error {
		if n, err := s.trustedByGatekeeper(ctx); err != nil || n != 1 {
			return fmt.Errorf("%d authorities are trusted: %w", n, err)
		}
		return nil
	})
}

// letsIn is nil when a replica takes a client whose certificate the authority has
// issued.
func (s *scene) letsIn(ctx context.Context, i int, authority *pki.Authority) error {
	pair, err := authority.Issue(pki.GatekeeperName)
	if err != nil {
		return err
	}
	certificate, err := pair.TLS()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{certificate}, InsecureSkipVerify: true, // it is the other side that is tried
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/", s.replicas[i].port), nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// TestAReplicaIsKilledUnderLoad: no wrong answer, and few that do not come.
func TestAReplicaIsKilledUnderLoad(t *testing.T) {
	s := in(t, "killed")
	trusted, untrusted := s.enforced(t, "killed")
	load := under(t, perSecond/2, s.admissions("killed", trusted, untrusted))
	enough := func(more int64) {
		asked := load.asked.Load()
		eventually(t, func(context.Context) error {
			if load.asked.Load() < asked+more {
				return errors.New("the load goes on")
			}
			return nil
		})
	}
	enough(perSecond)
	s.replicas[1].Kill()
	s.replicas[1].Server = nil
	enough(2 * perSecond)
	must(t, s.restartReplica(t.Context(), 1))
	must(t, s.publish(t.Context()))
	enough(perSecond)
	load.stop()
	if len(load.wrong) > 0 {
		t.Error(load.wrong)
	}
	// What was on its way to the one that was killed has no answer, and Gatekeeper
	// keeps up to 10 connections to it: it refuses those.
	for _, err := range load.errs {
		if !strings.Contains(err.Error(), "provider countersign gave no verdict") && !strings.Contains(err.Error(), "EOF") {
			t.Error(err)
		}
	}
	if n := load.failed.Load(); n > 64 {
		t.Errorf("%d admissions failed, more than were on their way", n)
	}
}

// TestAnAPIServerThatIsAway stops nobody from answering, not even a replica that
// starts meanwhile.
func TestAnAPIServerThatIsAway(t *testing.T) {
	s := in(t, "away")
	trusted, untrusted := s.enforced(t, "away")
	askers := map[string]*asker{}
	for _, address := range s.addresses() {
		askers[address] = s.asker(t, address)
	}
	check := func(a *asker) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			for image, want := range map[string]string{trusted: "TRUSTED", untrusted: "SIGNATURE_NOT_FOUND"} {
				got, err := a.reason(ctx, "[away]"+image)
				if err != nil {
					return "", err
				}
				if got != want {
					return image + ": " + got, nil
				}
			}
			return "", nil
		}
	}
	s.StopAPIServer()
	gone := time.Now()
	serving := under(t, 20, check(askers[s.addresses()[0]]))
	s.replicas[1].Kill()
	s.replicas[1].Server = nil
	must(t, s.restartReplica(t.Context(), 1)) // it is ready when it has restored
	t.Logf("the replica that started without API server was ready after %v", time.Since(gone).Round(time.Second))
	restarted := under(t, 20, check(&asker{"https://" + s.addresses()[1] + "/v1/verify", askers[s.addresses()[0]].client}))
	must(t, cluster.Eventually(t.Context(), outage()+patience, func(context.Context) error {
		if time.Since(gone) < outage() {
			return errors.New("it is still away")
		}
		return nil
	}))
	serving.stop()
	restarted.stop()
	for _, load := range []*load{serving, restarted} {
		if len(load.errs) > 0 || len(load.wrong) > 0 {
			t.Errorf("%v %v", load.errs, load.wrong)
		}
	}
	must(t, s.RestartAPIServer(t.Context()))
	must(t, s.publish(t.Context()))
	// And what changes is seen again.
	changed := s.policy("away", "away/**", map[string]any{"inline": s.root(t, "mallory")})
	eventually(t, func(ctx context.Context) error { return s.Apply(ctx, changed) })
	for _, address := range s.addresses() {
		a := s.asker(t, address)
		eventually(t, func(ctx context.Context) error { return wants(ctx, a, "[away]"+trusted, "CERTIFICATE_NOT_TRUSTED") })
	}
	s.ready(t, changed, "InForce")
}
