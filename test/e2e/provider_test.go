package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/admission"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/pki"
)

// TestProviderDown: without a provider nothing new runs, whatever the webhook's
// failure policy, since it is Gatekeeper that gets no answer and not the API
// server.
func TestProviderDown(t *testing.T) {
	s := in(t, "down", nil)
	image := s.signed(t, "down/cart:1.4")
	must(t, s.tryPod(t.Context(), "down", image))
	s.stopProvider(t)
	for _, failurePolicy := range []string{"Fail", "Ignore"} {
		t.Run(failurePolicy, func(t *testing.T) {
			must(t, s.Webhooks(t.Context(), failurePolicy, s.gatekeeperCA))
			defer func() { must(t, s.Webhooks(context.WithoutCancel(t.Context()), "Fail", s.gatekeeperCA)) }()
			s.eventuallyDenied(t, "down", image, "provider countersign gave no verdict")
			t.Log(s.tryPod(t.Context(), "down", image))
		})
	}
}

// TestL40_TheHouseIsNotLocked: with every provider down, what the cluster itself
// needs still starts.
func TestL40_TheHouseIsNotLocked(t *testing.T) {
	s := in(t, "locked", nil)
	must(t, s.Namespace(t.Context(), "countersign-system", nil))
	image := s.unsigned(t, "locked/controller:1")
	s.stopProvider(t)
	s.eventuallyDenied(t, "locked", image, "provider countersign gave no verdict")
	for _, namespace := range []string{"kube-system", "gatekeeper-system", "countersign-system"} {
		if err := s.tryPod(t.Context(), namespace, image); err != nil {
			t.Errorf("%s: %v", namespace, err)
		}
	}
}

// stopProvider stops it until the test is over.
func (s *scene) stopProvider(t *testing.T) {
	t.Helper()
	address := s.server.Provider
	must(t, s.server.Stop())
	t.Cleanup(func() { must(t, s.startProvider(context.Background(), address)) })
}

// TestGatekeeperDown shows what the webhook's failure policy does decide: with
// Fail nothing is admitted without Gatekeeper, with Ignore everything is.
func TestGatekeeperDown(t *testing.T) {
	s := in(t, "unguarded", nil)
	image := s.unsigned(t, "unguarded/cart:1")
	s.StopGatekeeper()
	defer func() {
		must(t, s.RestartGatekeeper(t.Context()))
		s.eventuallyDenied(t, "unguarded", image, "no signature found")
	}()
	if err := s.tryPod(t.Context(), "unguarded", image); err == nil {
		t.Error("Fail: admitted")
	}
	must(t, s.Webhooks(t.Context(), "Ignore", s.gatekeeperCA))
	s.eventuallyAdmitted(t, "unguarded", image)
}

// TestSlowRegistry: an answer comes before anybody's deadline, the work goes on
// behind it, and who tries again is admitted.
func TestSlowRegistry(t *testing.T) {
	s := in(t, "slow", nil)
	image := s.signed(t, "slow/cart:1.4") + "@" + s.Digest("slow/cart:1.4").String()
	release := make(chan struct{})
	s.registry.SetFault(registrytest.On("/slow/cart/", registrytest.Hang(release)))
	defer s.registry.SetFault(nil)
	err := s.tryPod(t.Context(), "slow", image)
	wantDenial(t, err, "undecided", "TIMEOUT")
	t.Log(err)
	close(release)
	s.eventuallyAdmitted(t, "slow", image)
}

// TestTagMoved: a Pod that names the tag again is judged by what it names now.
func TestTagMoved(t *testing.T) {
	s := in(t, "moved", nil)
	image := s.signed(t, "moved/cart:1.4")
	must(t, s.tryPod(t.Context(), "moved", image))
	s.unsigned(t, "moved/cart:evil")
	must(t, s.Move(t.Context(), "moved/cart:1.4", "moved/cart:evil"))
	// Until every cache has forgotten, a Pod may be admitted: with the digest
	// that was verified, and no other.
	verified := s.Digest("moved/cart:1.4")
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		made := pod("moved", "cart", image)
		err := s.Client.Create(ctx, made)
		if err != nil {
			wantDenial(t, err, "no signature found", verified.Encoded()[:12])
			return nil
		}
		must(t, s.Client.Delete(ctx, made))
		if runs := made.Spec.Containers[0].Image; runs == image || runs == image+"@"+verified.String() {
			t.Errorf("a Pod was admitted that runs %s", runs)
		}
		return errors.New("still admitted")
	}))
}

// TestSignedLater: the refusal's advice works, without anybody's restart.
func TestSignedLater(t *testing.T) {
	s := in(t, "later", nil)
	image := s.unsigned(t, "later/cart:1.4")
	wantDenial(t, s.tryPod(t.Context(), "later", image), "no signature found")
	s.sign(t, "later/cart:1.4")
	s.eventuallyAdmitted(t, "later", image)
}

// TestL35_BothCertificateChainsRotateUnderLoad: each chain gets a new authority
// in the order that an operator would take, while Pods are created all the time.
func TestL35_BothCertificateChainsRotateUnderLoad(t *testing.T) {
	s := in(t, "rotation", nil)
	image := s.signed(t, "rotation/cart:1.4")
	must(t, s.tryPod(t.Context(), "rotation", image))
	digest := s.Digest("rotation/cart:1.4")

	ctx, stop := context.WithCancel(t.Context())
	var admissions atomic.Int64
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				// Each Pod another key, so that Gatekeeper remembers no answer.
				name := fmt.Sprintf("rotation/cart:%d-%d@%s", worker, n, digest)
				made := pod("rotation", fmt.Sprintf("cart-%d-%d", worker, n), s.Name(name))
				if err := s.Client.Create(ctx, made); err != nil && ctx.Err() == nil {
					t.Errorf("after %d admissions: %v", admissions.Load(), err)
					return
				}
				admissions.Add(1)
			}
		})
	}
	// seen waits until the load has gone through what was changed.
	seen := func() {
		from := admissions.Load()
		must(t, cluster.Eventually(t.Context(), patience, func(context.Context) error {
			if n := admissions.Load() - from; n < 20 && !t.Failed() {
				return fmt.Errorf("%d admissions", n)
			}
			return nil
		}))
	}
	s.rotateGatekeeper(t, seen)
	s.rotateProvider(t, seen)
	stop()
	load.Wait()
	t.Logf("%d admissions", admissions.Load())
}

// rotateGatekeeper: those who check the certificate first, then the certificate.
func (s *scene) rotateGatekeeper(t *testing.T, seen func()) {
	t.Helper()
	old := s.gatekeeperCA
	next, err := pki.NewAuthority("gatekeeper-ca-2")
	must(t, err)
	must(t, s.Webhooks(t.Context(), "Fail", old, next))
	replace(t, filepath.Join(s.dir, "gatekeeper-ca.crt"), next.PEM) // the provider takes the old one for a day
	seen()
	must(t, s.RotateGatekeeper(next))
	s.eventuallyServes(t, s.GatekeeperAddress(), next)
	seen()
	s.gatekeeperCA = next
	must(t, s.Webhooks(t.Context(), "Fail", next))
	seen()
}

// rotateProvider: the Provider objects first, then the certificate.
func (s *scene) rotateProvider(t *testing.T, seen func()) {
	t.Helper()
	next, err := pki.NewAuthority("countersign-ca-2")
	must(t, err)
	must(t, s.providers(t.Context(), append(append([]byte(nil), s.providerCA.PEM...), next.PEM...)))
	seen()
	pair, err := next.Issue("countersign.countersign-system.svc")
	must(t, err)
	_, _, err = pair.Write(filepath.Join(s.dir, "serving"))
	must(t, err)
	s.eventuallyServes(t, s.server.Provider, next)
	seen()
	s.providerCA = next
	must(t, s.providers(t.Context(), next.PEM))
	seen()
}

// eventuallyServes waits until who listens there shows a certificate of the
// authority.
func (s *scene) eventuallyServes(t *testing.T, address string, authority *pki.Authority) {
	t.Helper()
	pair, err := s.gatekeeperCA.Issue(pki.GatekeeperName)
	must(t, err)
	client, err := pair.TLS()
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS13}}
		connection, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	}))
}

// replace changes a file at once, as Kubernetes does with a mounted Secret's.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	must(t, os.WriteFile(path+".new", content, 0o600))
	must(t, os.Rename(path+".new", path))
}

// TestWhatAdmissionWasAskedAboutIsShown to whoever watches what runs: the digests that
// tags named when verdicts were given, of a yes and of a no, each once.
func TestWhatAdmissionWasAskedAboutIsShown(t *testing.T) {
	s := in(t, "answered", nil)
	trusted, refused := s.signed(t, "answered/cart:1.4"), s.unsigned(t, "answered/unsigned:1")
	for range 2 {
		must(t, s.tryPod(t.Context(), "answered", trusted))
		s.eventuallyDenied(t, "answered", refused, "no signature found")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.server.Metrics+"/answered", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	var page admission.Page
	must(t, json.NewDecoder(resp.Body).Decode(&page))
	seen := map[digest.Digest]int{}
	for _, d := range page.Digests {
		seen[d]++
	}
	if seen[s.Digest("answered/cart:1.4")] != 1 || seen[s.Digest("answered/unsigned:1")] != 1 || page.Next != uint64(len(page.Digests)) || page.Instance == "" {
		t.Errorf("%+v", page)
	}
}
