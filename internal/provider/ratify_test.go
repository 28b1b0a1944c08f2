package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// What Ratify answered, version 1.4 and version 2, shortened. Templates and
// dashboards read these fields.
const (
	ratifyV1Trusted = `{"apiVersion":"a","kind":"ProviderResponse","response":{"items":[{"key":"k","value":{"version":"0.2.0","isSuccess":true,"traceID":"t","timestamp":"2026-11-20T22:00:32Z",
		"verifierReports":[{"subject":"s","isSuccess":true,"name":"notation","verifierName":"notation","type":"notation","verifierType":"notation","referenceDigest":"sha256:44","artifactType":"t",
		"message":"m","extensions":{"Issuer":"CN=exp","SN":"CN=exp"}}]}}]}}`
	ratifyV1Refused = `{"apiVersion":"a","kind":"ProviderResponse","response":{"items":[{"key":"k","value":{"version":"0.2.0","isSuccess":false,"traceID":"t","timestamp":"2026-11-20T22:00:32Z",
		"verifierReports":[{"subject":"s","isSuccess":false,"message":"m","errorReason":"r"}]}}]}}`
	ratifyV2Trusted = `{"apiVersion":"a","kind":"ProviderResponse","response":{"items":[{"key":"k","value":{"succeeded":true,"artifactReports":[{"subject":"s","artifact":"sha256:6e",
		"results":[{"verifierName":"notation-1","description":"d","detail":"{\"Issuer\":\"CN=exp\",\"SN\":\"CN=exp\"}"}]}]}}]}}`
	ratifyV2Refused = `{"apiVersion":"a","kind":"ProviderResponse","response":{"items":[{"key":"k","value":{"succeeded":false,"artifactReports":[{"subject":"s","artifact":"sha256:6e",
		"results":[{"verifierName":"cosign-1","description":"d","errorReason":"r","detail":"{}"}]}]}}]}}`
	ratifyMutated = `{"apiVersion":"a","kind":"ProviderResponse","response":{"idempotent":true,"items":[{"key":"k","value":"v"}]}}`
)

// TestRatifysPathsAnswerInItsShapes: each field that Ratify had is there, with a
// value of the same kind, and says the same yes or no.
func TestRatifysPathsAnswerInItsShapes(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	client := &http.Client{Transport: d.transport(t, d.client)}
	for _, c := range []struct{ path, key, ratify string }{
		{"/ratify/gatekeeper/v1/verify", "shop.example.com/signed:1", ratifyV1Trusted},
		{"/ratify/gatekeeper/v1/verify", "shop.example.com/stranger:1", ratifyV1Refused},
		{"/ratify/gatekeeper/v1/verify", "shop.example.com/unsigned:1", ratifyV1Refused},
		{"/ratify/gatekeeper/v1/verify", "else.example.com/x", ratifyV1Refused},
		{"/ratify/gatekeeper/v2/verify", "shop.example.com/signed:1", ratifyV2Trusted},
		{"/ratify/gatekeeper/v2/verify", "shop.example.com/stranger:1", ratifyV2Refused},
		{"/ratify/gatekeeper/v2/verify", "shop.example.com/unsigned:1", ratifyV2Refused},
		{"/ratify/gatekeeper/v2/verify", "[shop]else.example.com/x", ratifyV2Refused},
		{"/ratify/gatekeeper/v1/mutate", "shop.example.com/signed:1", ratifyMutated},
		{"/ratify/gatekeeper/v2/mutate", "shop.example.com/signed:1", ratifyMutated},
	} {
		body := fmt.Sprintf(`{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":[%q]}}`, c.key)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+c.path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		var ours, theirs any
		if err := errorOf(err, json.Unmarshal(content, &ours), json.Unmarshal([]byte(c.ratify), &theirs)); err != nil {
			t.Fatalf("%v: %s", err, content)
		}
		covers(t, c.path+" "+c.key, theirs, ours)
	}
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// covers wants every field of theirs in ours, of the same kind, and booleans equal.
func covers(t *testing.T, path string, theirs, ours any) {
	t.Helper()
	switch theirs := theirs.(type) {
	case map[string]any:
		object, ok := ours.(map[string]any)
		if !ok {
			t.Errorf("%s is %v", path, ours)
			return
		}
		for name, value := range theirs {
			there, ok := object[name]
			if !ok {
				t.Errorf("%s has no %s", path, name)
				continue
			}
			covers(t, path+"."+name, value, there)
		}
	case []any:
		list, ok := ours.([]any)
		if !ok || len(list) == 0 {
			t.Errorf("%s is %v", path, ours)
			return
		}
		// A report that says what the whole says is what templates look for.
		last := list[len(list)-1]
		covers(t, path+"[]", theirs[0], last)
	case bool:
		if ours != theirs {
			t.Errorf("%s is %v", path, ours)
		}
	case string:
		text, ok := ours.(string)
		if !ok {
			t.Errorf("%s is %v", path, ours)
		}
		if len(theirs) > 0 && theirs[0] == '{' {
			if err := json.Unmarshal([]byte(text), new(map[string]any)); err != nil {
				t.Errorf("%s: %s: %v", path, text, err)
			}
		}
	}
}

// TestL54_RatifysKeysNameNoPullSecrets: Ratify's templates send the image as a Pod's
// author wrote it, and the author must not choose whose pull secrets are used. A
// namespace may be there, as Ratify's own multi-tenancy template writes it. An answer
// that is remembered from another path is repeated at neither.
func TestL54_RatifysKeysNameNoPullSecrets(t *testing.T) {
	const image = "shop.example.com/cart:1.4"
	scoped := []string{"[shop;sa=default]" + image, "[shop;secrets=regcred]" + image, "[shop;sa=default;secrets=regcred,other]" + image}
	malformed := []string{"[shop;]" + image, "[;sa=default]" + image, "[;]" + image, "[shop;x=y]" + image, "[shop;sa=default;secrets=]" + image}
	plain := []string{image, "[shop]" + image}
	for _, path := range []string{"/ratify/gatekeeper/v1/verify", "/ratify/gatekeeper/v2/verify"} {
		for _, warm := range []bool{false, true} {
			r := newRemembering(t, time.Minute)
			r.add(image, "CN=wabbit")
			var selected []verifier.Request
			server, err := provider.New(provider.Options{
				Select: func(request verifier.Request) (*verifier.Chain, verifier.Verdict) {
					selected = append(selected, request)
					return r.Select(request)
				},
				Snapshot: func() any { return r.snapshot.Load() }, Logger: telemetry.NewLogger(io.Discard, slog.LevelInfo), VerifyTimeout: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			r.server = server
			trusted := func(path string, keys []string, want bool) {
				t.Helper()
				for range 2 { // the second may be a repeat
					for _, key := range keys {
						v := value(t, r.ask(t, path, key), key)
						if v["isSuccess"] != want && v["succeeded"] != want || !want && v["reason"] != "REFERENCE_INVALID" {
							t.Errorf("%s, warm %v: %s: %v", path, warm, key, v)
						}
					}
					answers := r.ask(t, path, keys...)
					for _, key := range keys {
						if v := value(t, answers, key); v["isSuccess"] != want && v["succeeded"] != want {
							t.Errorf("%s, warm %v, a batch: %s: %v", path, warm, key, v)
						}
					}
				}
			}
			if warm {
				trusted("/v1/verify", scoped, true)
			}
			trusted(path, plain, true)
			selected = nil
			trusted(path, append(scoped, malformed...), false)
			if len(selected) > 0 {
				t.Errorf("%s: policies were looked up for %v", path, selected)
			}
			trusted("/v1/verify", scoped, true)
		}
	}
}
