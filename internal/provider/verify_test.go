package provider_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// stocked is a shop with an image of every kind.
func stocked() *shop {
	s := newShop()
	s.add("shop.example.com/signed:1", "CN=wabbit")
	s.add("shop.example.com/unsigned:1")
	s.add("shop.example.com/stranger:1", "CN=mallory")
	s.store.Attach(s.store.Tag("shop.example.com/audited:1", digestOf("audited")), verifiertest.Statement{
		Subject: digestOf("audited"), Kind: verifier.KindSignature, Signer: "CN=wabbit", Logged: "the signature expired on 2026-01-02",
	})
	s.store.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
		if strings.HasPrefix(ref.Repository, "unreachable") {
			return &verifier.Error{
				Reason: verifier.ReasonRegistryThrottled, Message: "the registry wants us to wait",
				Remedy: "Try again in 30 seconds", Err: fmt.Errorf("GET %s: 429", ref),
			}
		}
		return nil
	}
	return s
}

func TestEachKindOfImageHasItsStatus(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	want := map[string]string{
		"shop.example.com/signed:1":       "TRUSTED/TRUSTED",
		"[shop]shop.example.com/signed:1": "TRUSTED/TRUSTED",
		"shop.example.com/unsigned:1":     "UNKNOWN/SIGNATURE_NOT_FOUND",
		"shop.example.com/stranger:1":     "UNTRUSTED/IDENTITY_NOT_TRUSTED",
		"shop.example.com/audited:1":      "EXEMPT/AUDIT_ONLY",
		"skip.example.com/anything":       "EXEMPT/SKIPPED",
		"else.example.com/anything":       "REFUSED/POLICY_NOT_FOUND",
		"Not A Reference":                 "REFUSED/REFERENCE_INVALID",
		"[]shop.example.com/signed:1":     "REFUSED/REFERENCE_INVALID",
		"":                                "REFUSED/REFERENCE_INVALID",
	}
	response := d.ask(t, slices.Sorted(maps.Keys(want))...)
	for key, status := range want {
		if got := decided(t, response, key); got != status {
			t.Errorf("%q: %s, want %s", key, got, status)
		}
		admitted := strings.HasPrefix(status, "TRUSTED") || strings.HasPrefix(status, "EXEMPT")
		v := value(t, response, key)
		if v["isSuccess"] != admitted || v["succeeded"] != admitted {
			t.Errorf("%q: isSuccess %v, succeeded %v", key, v["isSuccess"], v["succeeded"])
		}
		if message := v["message"].(string); message == "" || len(message) > 240 {
			t.Errorf("%q: message %q", key, message)
		}
	}
	if response.Response.SystemError != "" || response.Response.Idempotent || len(response.Response.Items) != len(want) {
		t.Errorf("response: %+v", response.Response)
	}
}

func TestEveryFieldIsAlwaysThere(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	fields := []string{
		"audited", "digest", "image", "isSuccess", "message", "pinned", "policy", "reason", "remedy",
		"status", "succeeded", "timestamp", "traceID", "verifierReports", "version",
	}
	reportFields := []string{
		"artifactType", "errorReason", "extensions", "isSuccess", "message", "name", "referenceDigest",
		"remediation", "subject", "type", "verifierName", "verifierType",
	}
	for _, key := range []string{"shop.example.com/signed:1", "shop.example.com/stranger:1", "shop.example.com/unsigned:1", "skip.example.com/x", "else.example.com/x", "::"} {
		v := value(t, d.ask(t, key), key)
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(v))); diff != "" {
			t.Errorf("%q:\n%s", key, diff)
		}
		for _, r := range v["verifierReports"].([]any) {
			if diff := cmp.Diff(reportFields, slices.Sorted(maps.Keys(r.(map[string]any)))); diff != "" {
				t.Errorf("%q: report:\n%s", key, diff)
			}
		}
	}
}

// There are templates that read nothing but the reports.
func TestADenialHasAReportThatFailed(t *testing.T) {
	s := stocked()
	two := verifier.NewChain([]verifier.Policy{{Name: "two", Require: verifier.AtLeast{Count: 2, Of: []*verifier.Check{
		verifiertest.Check("alice", "CN=alice"), verifiertest.Check("bob", "CN=bob"),
	}}}}, s.store, verifier.NewMemory(1<<20))
	s.add("shop.example.com/half:1", "CN=alice")
	s.chain = two
	d := open(t, provider.Options{Select: s.Select})
	for _, key := range []string{"shop.example.com/half:1", "shop.example.com/unsigned:1", "else.example.com/x", "::"} {
		v := value(t, d.ask(t, key), key)
		failed := slices.ContainsFunc(v["verifierReports"].([]any), func(r any) bool { return r.(map[string]any)["isSuccess"] == false })
		if v["isSuccess"] != false || !failed {
			t.Errorf("%q: %v", key, v)
		}
	}
}

// Ratify's issuer template compares the issuer of every report, good or not.
func TestOnlyATrustedReportNamesTheIssuer(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	for key, want := range map[string]string{
		"shop.example.com/signed:1": "CN=wabbit", "shop.example.com/stranger:1": "", "shop.example.com/audited:1": "",
	} {
		report := value(t, d.ask(t, key), key)["verifierReports"].([]any)[0].(map[string]any)
		extensions := report["extensions"].(map[string]any)
		if extensions["SN"] != want || extensions["signer"] == "" {
			t.Errorf("%q: %v", key, extensions)
		}
	}
}

func TestAFloodOfSignaturesIsNotAFloodOfReports(t *testing.T) {
	s := newShop()
	subject := s.store.Tag("shop.example.com/flooded:1", digestOf("flooded"))
	for i := range 60 {
		s.store.Attach(subject, verifiertest.Statement{Subject: subject.Digest, Kind: verifier.KindSignature, Signer: "CN=mallory", Salt: i})
	}
	s.store.Sign(subject, "CN=wabbit")
	d := open(t, provider.Options{Select: s.Select})
	v := value(t, d.ask(t, "shop.example.com/flooded:1"), "shop.example.com/flooded:1")
	reports := v["verifierReports"].([]any)
	if v["status"] != "TRUSTED" || len(reports) > 32 || reports[0].(map[string]any)["isSuccess"] != true {
		t.Errorf("%v, %d reports, the first: %v", v["status"], len(reports), reports[0])
	}
}

func TestUndecidedKeysAreNoItems(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	response := d.ask(t, "[a]shop.example.com/unreachable:1", "shop.example.com/signed:1", "not a reference", "shop.example.com/unreachable:2")
	if got := decided(t, response, "shop.example.com/signed:1"); got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
	if len(response.Response.Items) != 2 {
		t.Errorf("items: %+v", response.Response.Items)
	}
	const want = "REGISTRY_THROTTLED [a]shop.example.com/unreachable:1: the registry wants us to wait. Try again in 30 seconds; " +
		"REGISTRY_THROTTLED shop.example.com/unreachable:2: the registry wants us to wait. Try again in 30 seconds"
	if got := response.Response.SystemError; got != want {
		t.Errorf("systemError %q", got)
	}
	// A cause is for the log, with the trace id that the answer carries.
	poll(t, "the cause is logged", func() bool { return strings.Contains(d.logs.String(), "GET shop.example.com/unreachable:1: 429") })
	if trace := value(t, response, "shop.example.com/signed:1")["traceID"].(string); len(trace) != 32 || !strings.Contains(d.logs.String(), trace) {
		t.Errorf("trace id %q is not in the log", trace)
	}
}

func TestSystemErrorIsBounded(t *testing.T) {
	server, err := provider.New(provider.Options{Select: stocked().Select, VerifyTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("[%s]shop.example.com/unreachable/%s:%d", strings.Repeat("n", 60), strings.Repeat("long/", 30)+"name", i)
	}
	response := post(t, server, "/v1/verify", keys...)
	systemError := response.Response.SystemError
	if len(response.Response.Items) != 0 || len(systemError) > 4096 || len(systemError) < 3500 {
		t.Errorf("%d items, %d bytes of systemError", len(response.Response.Items), len(systemError))
	}
	if !strings.HasSuffix(systemError, " more") {
		t.Errorf("does not say that there are more: …%s", systemError[len(systemError)-60:])
	}
}

func TestKeysComeBackByteForByteAndOnce(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	keys := []string{
		"shop.example.com/signed:1", "<&>\u2028\"\\\x00\x1f\x7f\n", "shop.example.com/signed:1", "nginx ", "\ufffd", "日本",
		"docker.io/nginx", "nginx", "shop.example.com/signed:1",
	}
	response := d.ask(t, keys...)
	var got []string
	for _, item := range response.Response.Items {
		got = append(got, item.Key)
	}
	want := append(slices.Clone(keys[:2]), keys[3:8]...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMutationPinsTheTag(t *testing.T) {
	s := stocked()
	d := open(t, provider.Options{Select: s.Select})
	pinned := "@" + digestOf("shop.example.com/signed:1").String()
	want := map[string]string{
		"shop.example.com/signed:1":                     "shop.example.com/signed:1" + pinned,
		"SHOP.example.com:443/signed:1":                 "shop.example.com/signed:1" + pinned,
		"shop.example.com/signed:1" + pinned:            "shop.example.com/signed:1" + pinned,
		"SHOP.example.com:443/signed" + pinned:          "SHOP.example.com:443/signed" + pinned,
		"shop.example.com/unsigned:1":                   "shop.example.com/unsigned:1@" + digestOf("shop.example.com/unsigned:1").String(),
		"skip.example.com/x":                            "skip.example.com/x",
		"else.example.com/x":                            "else.example.com/x",
		"not a reference":                               "not a reference",
		"[kube-system]shop.example.com/signed:1":        "[kube-system]shop.example.com/signed:1",
		"[kube-system;sa=x]shop.example.com/unsigned:1": "[kube-system;sa=x]shop.example.com/unsigned:1",
	}
	response := d.mutate(t, slices.Sorted(maps.Keys(want))...)
	got := map[string]string{}
	for _, item := range response.Response.Items {
		if item.Error != "" {
			t.Errorf("%q: %s", item.Key, item.Error)
		}
		got[item.Key], _ = item.Value.(string)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !response.Response.Idempotent || response.Response.SystemError != "" {
		t.Errorf("%+v", response.Response)
	}
	// Once more over what came out changes nothing.
	again := d.mutate(t, want["shop.example.com/signed:1"])
	if again.Response.Items[0].Value != want["shop.example.com/signed:1"] {
		t.Errorf("not idempotent: %v", again.Response.Items)
	}
}

func TestMutationOfWhatCannotBeResolvedIsTheItemsError(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	response := d.mutate(t, "shop.example.com/unreachable:1", "shop.example.com/gone:1", "panic.example.com/x", "shop.example.com/signed:1")
	want := []externaldata.Item{
		{Key: "shop.example.com/unreachable:1", Error: "REGISTRY_THROTTLED: the registry wants us to wait. Try again in 30 seconds"},
		{Key: "shop.example.com/gone:1", Error: "IMAGE_NOT_FOUND: the registry has no such image. Check the name and the tag"},
		{Key: "panic.example.com/x", Error: "INTERNAL: answering crashed. Report this with the trace id"},
		{Key: "shop.example.com/signed:1", Value: "shop.example.com/signed:1@" + digestOf("shop.example.com/signed:1").String()},
	}
	if diff := cmp.Diff(want, response.Response.Items); diff != "" {
		t.Error(diff)
	}
	if response.Response.SystemError != "" {
		t.Errorf("systemError %q fails every placeholder of the object", response.Response.SystemError)
	}
}

// A verdict that says nothing is a bug, and admits nothing.
func TestNoVerdictIsUndecided(t *testing.T) {
	d := open(t, provider.Options{Select: func(verifier.Request) (*verifier.Chain, verifier.Verdict) { return nil, verifier.Verdict{} }})
	response := d.ask(t, "nginx")
	if len(response.Response.Items) != 0 || !strings.HasPrefix(response.Response.SystemError, "INTERNAL nginx: ") {
		t.Errorf("%+v", response.Response)
	}
}
