package provider_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// echo answers every key with the same value, as large as ours: the least that
// a provider can do. It is what warm answers are measured against, over the
// same TLS in the same run.
func echo(value json.RawMessage) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request externaldata.ProviderRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		response := externaldata.ProviderResponse{APIVersion: request.APIVersion, Kind: "ProviderResponse"}
		for _, key := range request.Request.Keys {
			response.Response.Items = append(response.Response.Items, externaldata.Item{Key: key, Value: value})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(response)
	})
}

// BenchmarkWarm compares the provider with echo: one key and ten, over kept
// connections, with eight clients for each core as Gatekeeper may have.
// The ns/op of both in one run are what counts.
func BenchmarkWarm(b *testing.B) {
	for _, n := range []int{1, 10} {
		keys := make([]string, n)
		s := newShop()
		s.store.Lifetime = time.Hour
		for i := range keys {
			image := fmt.Sprintf("shop.example.com/team/cart-%d:1.4", i)
			s.add(image, "CN=wabbit")
			keys[i] = "[shop]" + image
		}
		body := requestOf(b, keys...)
		// The door alone: as many bytes, and no Chain.
		exempt := verifier.Exempt(verifier.Reference{Registry: "shop.example.com", Repository: "team/cart", Tag: "1.4", Digest: digestOf("x")},
			"production", verifier.ReasonSkipped, strings.Repeat("x", 100))
		server, err := provider.New(provider.Options{
			Select: s.Select, Snapshot: func() any { return s }, DrainDelay: -1, VerifyTimeout: time.Minute, Logger: telemetry.NewLogger(io.Discard, slog.LevelInfo),
		})
		if err != nil {
			b.Fatal(err)
		}
		recorder := httptest.NewRecorder()
		server.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(body)))
		value, err := json.Marshal(readAnswer(b, recorder.Body.Bytes()).Response.Items[0].Value)
		if err != nil {
			b.Fatal(err)
		}
		door := newServer(b, provider.Options{Select: func(r verifier.Request) (*verifier.Chain, verifier.Verdict) { return nil, exempt }, VerifyTimeout: time.Minute})
		for _, c := range []struct {
			name    string
			handler http.Handler
		}{{"echo", echo(value)}, {"countersign", server}, {"door", door}} {
			b.Run(fmt.Sprintf("%s/keys=%d", c.name, n), func(b *testing.B) { measure(b, c.handler, body) })
			b.Run(fmt.Sprintf("%s/keys=%d/handler", c.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					w := httptest.NewRecorder()
					c.handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/verify", strings.NewReader(body)))
				}
			})
		}
	}
}

func measure(b *testing.B, handler http.Handler, body string) {
	d := &door{dir: b.TempDir(), serverCA: newAuthority(b, "countersign"), clientCA: newAuthority(b, "gatekeeper-ca")}
	d.writeServing(b, d.serverCA)
	d.write(b, filepath.Base(d.files().ClientCAFile), d.clientCA.pem())
	certs, err := provider.LoadCertificates(d.files())
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(tls.NewListener(listener, certs.TLSConfig())) }()
	defer func() { _ = server.Close() }()
	transport := d.transport(b, d.clientCA.pair(b, "gatekeeper"))
	url := "https://" + listener.Addr().String() + "/v1/verify"
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			response, err := transport.RoundTrip(request)
			if err != nil {
				b.Error(err)
				return
			}
			n, err := io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || n < 200 {
				b.Errorf("HTTP %d, %d bytes, %v", response.StatusCode, n, err)
				return
			}
		}
	})
}
