//go:build linux

// Package memory holds the real binary to the memory of its container, whatever
// registries send.
package memory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/hostile"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/world"
)

const (
	// goMemory is what the binary sets of a container of 512 MiB, see cmd/provider.
	goMemory = "GOMEMLIMIT=320MiB"
	// maxResident is what the process may have had at most.
	maxResident = 400 << 20
	// patience is how long a user tries to start a pod.
	patience = 5 * time.Second
	// longVariable has the long form run: a thousand pods of each attack.
	longVariable = "COUNTERSIGN_LONG"

	policy = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**", "$HOSTILE/**"]
  owner: platform@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}, {host: "$HOSTILE", plainHTTP: true}]
  require:
    any:
    - name: wabbit
      notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}
    - name: ci
      cosign: {transparencyLog: ignored, keys: [{file: ../ci.pub}]}
`
)

var executable string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "countersign-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if err := os.Unsetenv(binary.RaceVariable); err != nil { // it takes several times the memory
			panic(err)
		}
		if executable, err = binary.Find(context.Background(), "../..", dir, os.Stderr); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// scene is the binary between a hostile registry and a healthy one.
type scene struct {
	*world.World
	hostile *hostile.Registry
	server  *binary.Server
	client  *http.Client
}

func newScene(t *testing.T, h *hostile.Registry, args ...string) *scene {
	t.Helper()
	dir := t.TempDir()
	healthy := registrytest.Start(t, registrytest.Options{})
	s := &scene{hostile: h}
	var err error
	s.World, err = world.New(dir, healthy.Host())
	must(t, err)
	_, err = s.Signer("wabbit")
	must(t, err)
	_, err = s.Key("ci")
	must(t, err)
	must(t, s.Policy("production.yaml", strings.ReplaceAll(policy, "$HOSTILE", s.hostile.Host)))
	authority, err := pki.NewAuthority("gatekeeper-ca")
	must(t, err)
	serving, err := authority.Issue("countersign.countersign-system.svc")
	must(t, err)
	certFile, keyFile, err := serving.Write(filepath.Join(dir, "serving"))
	must(t, err)
	clientCA := filepath.Join(dir, "gatekeeper-ca.crt")
	must(t, os.WriteFile(clientCA, authority.PEM, 0o600))
	s.server, err = binary.RunIn(t.Context(), []string{goMemory}, executable, append([]string{
		"serve", "--config", s.Policies, "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
		"--tls-cert", certFile, "--tls-key", keyFile, "--client-ca", clientCA, "--allow-loopback", "--drain-delay", "0s",
	}, args...)...)
	must(t, err)
	t.Cleanup(func() {
		if err := s.server.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("countersign logged:\n%s", tail(s.server.Log(), 4<<10))
		}
	})
	must(t, s.server.Ready(t.Context()))
	pair, err := authority.Issue("gatekeeper")
	must(t, err)
	certificate, err := pair.TLS()
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "countersign.countersign-system.svc"},
		MaxIdleConnsPerHost: 64,
	}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

func start(t *testing.T, a hostile.Attack) *hostile.Registry {
	h := hostile.Start(a)
	t.Cleanup(h.Close)
	return h
}

func tail(text string, n int) string { return text[max(len(text)-n, 0):] }

// ask gives what the provider says of the images, as one pod.
func (s *scene) ask(ctx context.Context, images ...string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": images},
	})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.server.VerifyURL(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	return string(data), err
}

// status gives a figure of /proc/PID/status, in bytes.
func (s *scene) status(t *testing.T, name string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.server.PID()))
	must(t, err)
	_, after, _ := strings.Cut(string(data), name+":")
	line, _, _ := strings.Cut(after, "kB")
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	must(t, err)
	return n << 10
}

// push signs an image of the healthy registry that nobody has asked for before.
func (s *scene) push(t *testing.T, n int) string {
	t.Helper()
	name := fmt.Sprintf("shop/cart:%d", n)
	must(t, s.Push(t.Context(), name))
	must(t, s.Sign(t.Context(), name, "wabbit", notationtest.SignOptions{}))
	return s.Name(name)
}

// pods attacks with that many pods of so many images each, at most parallel at a time,
// and meanwhile asks for signed images of the healthy registry, each for the first time.
func (s *scene) pods(t *testing.T, pods, images, parallel, first int) {
	t.Helper()
	work, over := make(chan int), make(chan struct{})
	var wait sync.WaitGroup
	for range parallel {
		wait.Go(func() {
			for pod := range work {
				var names []string
				for i := range images {
					names = append(names, s.hostile.Name(first+pod*images+i))
				}
				answer, err := s.ask(t.Context(), names...)
				if err != nil {
					t.Error(err)
				} else if strings.Contains(answer, `TRUSTED`) && !strings.Contains(answer, "UNTRUSTED") {
					t.Error("an image of the hostile registry was trusted:", answer)
				}
			}
		})
	}
	go func() {
		for pod := range pods {
			work <- pod
		}
		close(work)
		wait.Wait()
		close(over)
	}()
	answered, asked := 0, 0
	var slowest time.Duration
	var last string
	for n, going := 0, true; going || n < 3; n++ {
		name, begun := s.push(t, first+n), time.Now()
		// With so many requests under way the provider answers what is cold before it is
		// decided, and its user tries again.
		for time.Since(begun) < patience {
			asked++
			answer, err := s.ask(t.Context(), name)
			must(t, err)
			if strings.Contains(answer, `\"status\":\"TRUSTED\"`) || strings.Contains(answer, `"status":"TRUSTED"`) {
				answered++
				break
			}
			last = answer
			select {
			case <-time.After(100 * time.Millisecond):
			case <-t.Context().Done():
			}
		}
		slowest = max(slowest, time.Since(begun))
		select {
		case <-over:
			going = false
		case <-time.After(50 * time.Millisecond):
		}
		if n+1 != answered {
			t.Errorf("%d of %d images of a healthy registry were admitted: %s", answered, n+1, last)
			break
		}
	}
	<-over
	t.Logf("%d images of a healthy registry were admitted meanwhile in %d tries, the slowest after %v; the hostile one sent %d MiB; VmHWM %d MiB, VmRSS %d MiB",
		answered, asked, slowest.Round(time.Millisecond), s.hostile.Sent.Load()>>20, s.status(t, "VmHWM")>>20, s.status(t, "VmRSS")>>20)
	if peak := s.status(t, "VmHWM"); peak > maxResident {
		t.Errorf("the process had %d MiB in memory, and may have %d", peak>>20, maxResident>>20)
	}
}

var both = []string{hostile.NotationType, hostile.BundleType}

// attacks are what is attached to each image.
var attacks = map[string]hostile.Attack{
	"annotations of 4 MB":              {Referrers: 64, Manifest: 4_000_000, Types: both, LayerType: "application/jose+json"},
	"manifests as large as may be":     {Referrers: 64, Manifest: 256 << 10, Types: both, LayerType: "application/jose+json"},
	"manifests without their length":   {Referrers: 64, Manifest: 256 << 10, Types: both, LayerType: "application/jose+json", Chunked: true},
	"a tag of 4 MiB":                   {Tag: 4 << 20, TagLayers: 8000, LayerType: "application/vnd.dev.cosign.simplesigning.v1+json", Blob: 128 << 10},
	"pages of 4 MiB":                   {Referrers: 100, Manifest: 64 << 10, Types: both, LayerType: "application/jose+json", Pages: 8, Page: 4 << 20},
	"pages that do not end":            {Referrers: 1, Manifest: 1000, Types: both, LayerType: "application/jose+json", Page: 4 << 20, Stall: true, Chunked: true},
	"tags that do not end":             {Tag: 4 << 20, TagLayers: 10, LayerType: "application/vnd.dev.cosign.simplesigning.v1+json", Stall: true, Chunked: true},
	"envelopes of 1 MiB":               {Referrers: 64, Manifest: 1000, Types: []string{hostile.NotationType}, Layers: 1, Blob: 1 << 20, LayerType: "application/jose+json"},
	"64 bundles in each of 64":         {Referrers: 64, Manifest: 1000, Types: []string{hostile.BundleType}, Layers: 64, Blob: 256 << 10, LayerType: hostile.BundleType},
	"blobs of 32 MiB":                  {Referrers: 64, Manifest: 1000, Types: both, Layers: 1, Blob: 32 << 20, LayerType: "application/jose+json"},
	"all of it, without their lengths": {Referrers: 64, Manifest: 200 << 10, Types: both, Layers: 8, Blob: 256 << 10, LayerType: hostile.BundleType, Tag: 4 << 20, TagLayers: 8000, Pages: 8, Page: 4 << 20, Chunked: true},
}

func TestL47_EvidenceLargerThanMemory(t *testing.T) {
	for name, a := range attacks {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, start(t, a))
			t.Logf("at the start: VmHWM %d MiB", s.status(t, "VmHWM")>>20)
			s.pods(t, 1, 8, 1, 0) // one pod of eight images, then many
			pods, parallel := 40, 40
			if os.Getenv(longVariable) != "" {
				pods, parallel = 1000, 200
			}
			s.pods(t, pods, 1, parallel, 1000)
		})
	}
}

// TestL47_FromWhatReplicasShare and from disk: the second process reads there what the
// first one has read.
func TestL47_FromWhatReplicasShare(t *testing.T) {
	redis := startRedis(t)
	for name, args := range map[string]func(t *testing.T) []string{
		"shared": func(t *testing.T) []string {
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "url"), []byte("redis://"+redis), 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "secret"), bytes.Repeat([]byte("s"), 40), 0o600))
			return []string{"--shared-cache", dir}
		},
		"on disk": func(t *testing.T) []string { return []string{"--content-cache", t.TempDir()} },
	} {
		t.Run(name, func(t *testing.T) {
			for name, a := range attacks {
				t.Run(name, func(t *testing.T) {
					if os.Getenv(longVariable) == "" && name != "manifests as large as may be" && name != "64 bundles in each of 64" {
						t.Skip("the long form runs it: make memory")
					}
					flags, h := args(t), start(t, a)
					newScene(t, h, flags...).pods(t, 8, 8, 8, 0)
					newScene(t, h, flags...).pods(t, 8, 8, 8, 0)
				})
			}
		})
	}
}

func startRedis(t *testing.T) (address string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server here: apt-get install redis-server")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address = listener.Addr().String()
	must(t, listener.Close())
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	process := exec.CommandContext(t.Context(), path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return address
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
