package provider_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const version = "externaldata.gatekeeper.sh/v1beta1"

// requestOf is the body that Gatekeeper sends for the keys.
func requestOf(t testing.TB, keys ...string) string {
	t.Helper()
	body, err := json.Marshal(externaldata.NewProviderRequest(keys))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func withKeys(keys string) string {
	return `{"apiVersion":"` + version + `","kind":"ProviderRequest","request":{"keys":` + keys + `}}`
}

// readAnswer holds any answer to what Gatekeeper's client needs: JSON of a
// ProviderResponse, and never one that names neither an item nor an error.
func readAnswer(t testing.TB, body []byte) *externaldata.ProviderResponse {
	t.Helper()
	var response externaldata.ProviderResponse
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&response); err != nil {
		t.Fatalf("%v: %.200q", err, body)
	}
	if response.APIVersion != version || response.Kind != "ProviderResponse" {
		t.Errorf("%s %s", response.APIVersion, response.Kind)
	}
	if len(response.Response.Items) == 0 && response.Response.SystemError == "" {
		t.Errorf("an answer that says nothing, which naive templates admit: %s", body)
	}
	return &response
}

func TestBadRequestsHaveAClearAnswer(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	client := &http.Client{Transport: d.transport(t, d.client)}
	hundredThousand := withKeys(`["a"` + strings.Repeat(`,"a"`, 99_999) + `]`)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		systemError        string
	}{
		"GET":                    {http.MethodGet, "/v1/verify", "", 405, "bad request: ask with POST"},
		"unknown path":           {http.MethodPost, "/v2/verify", withKeys(`["a"]`), 404, "bad request: there is no such path; ask /v1/verify or /v1/mutate"},
		"empty body":             {http.MethodPost, "/v1/verify", "", 400, "bad request: the body is empty"},
		"malformed body":         {http.MethodPost, "/v1/verify", `{"apiVersion":`, 400, "bad request: the body is not JSON"},
		"malformed on mutate":    {http.MethodPost, "/v1/mutate", `{"apiVersion":`, 400, "bad request: the body is not JSON"},
		"an empty object":        {http.MethodPost, "/v1/verify", `{}`, 400, "bad request: kind is not ProviderRequest"},
		"an array":               {http.MethodPost, "/v1/verify", `[]`, 400, "bad request: the body is not shaped as a ProviderRequest"},
		"null":                   {http.MethodPost, "/v1/verify", `null`, 400, "bad request: the body is not shaped as a ProviderRequest"},
		"nested without an end":  {http.MethodPost, "/v1/verify", `{"x":` + strings.Repeat("[", 500_000), 400, "bad request: the body is not JSON"},
		"two objects":            {http.MethodPost, "/v1/verify", withKeys(`["a"]`) + `{}`, 400, "bad request: the body is not JSON"},
		"not UTF-8":              {http.MethodPost, "/v1/verify", withKeys("[\"\xff\"]"), 400, "bad request: the body is not UTF-8"},
		"unknown API version":    {http.MethodPost, "/v1/verify", strings.Replace(withKeys(`["a"]`), "v1beta1", "v9", 1), 400, "bad request: apiVersion is not externaldata.gatekeeper.sh/v1beta1"},
		"another kind":           {http.MethodPost, "/v1/verify", strings.Replace(withKeys(`["a"]`), "ProviderRequest", "ProviderResponse", 1), 400, "bad request: kind is not ProviderRequest"},
		"no keys":                {http.MethodPost, "/v1/verify", withKeys(`[]`), 400, "bad request: there are no keys"},
		"keys missing":           {http.MethodPost, "/v1/verify", `{"apiVersion":"` + version + `","kind":"ProviderRequest","request":{}}`, 400, "bad request: there are no keys"},
		"keys in another case":   {http.MethodPost, "/v1/verify", strings.Replace(withKeys(`["a"]`), "keys", "Keys", 1), 400, "bad request: there are no keys"},
		"keys twice":             {http.MethodPost, "/v1/verify", withKeys(`["a"],"keys":["b"]`), 400, "bad request: keys is there twice"},
		"a key that is null":     {http.MethodPost, "/v1/verify", withKeys(`["a",null]`), 400, "bad request: there is something else where text should be"},
		"a key that is a number": {http.MethodPost, "/v1/verify", withKeys(`[1]`), 400, "bad request: there is something else where text should be"},
		"100,000 keys":           {http.MethodPost, "/v1/verify", hundredThousand, 413, "LIMIT_EXCEEDED: the request has more than 1000 keys"},
		"a body of 2 MiB":        {http.MethodPost, "/v1/verify", withKeys(`["` + strings.Repeat("a", 2<<20) + `"]`), 413, "LIMIT_EXCEEDED: the request is larger than 1048576 bytes"},
		"deeply nested":          {http.MethodPost, "/v1/verify", `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}", 413, "LIMIT_EXCEEDED: the request is nested more than 16 deep"},
	} {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), c.method, d.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			answer := readAnswer(t, body)
			if response.StatusCode != c.status || answer.Response.SystemError != c.systemError || len(answer.Response.Items) != 0 {
				t.Errorf("HTTP %d: %+v", response.StatusCode, answer.Response)
			}
		})
	}
	// Nothing of that has hurt it.
	if got := decided(t, d.ask(t, "shop.example.com/signed:1"), "shop.example.com/signed:1"); got != "TRUSTED/TRUSTED" {
		t.Error(got)
	}
}

func TestABodyWithoutALengthIsBounded(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	client := &http.Client{Transport: d.transport(t, d.client)}
	for _, c := range []struct {
		body   string
		status int
	}{{requestOf(t, "shop.example.com/signed:1"), 200}, {withKeys(`["` + strings.Repeat("a", 2<<20) + `"]`), 413}} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/v1/verify", io.MultiReader(strings.NewReader(c.body)))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if readAnswer(t, body); response.StatusCode != c.status {
			t.Errorf("HTTP %d, want %d: %s", response.StatusCode, c.status, body)
		}
	}
}

func TestBadKeysDoNotHurtTheirNeighbours(t *testing.T) {
	s := stocked()
	s.store.BeforeCandidates = func(_ context.Context, subject verifier.Subject) error {
		if subject.Reference.Repository == "no-such-digest" {
			return &verifier.Error{Reason: verifier.ReasonImageNotFound, Message: "the registry has no such image", Remedy: "Check the name and the tag"}
		}
		return nil
	}
	resolve := s.store.BeforeResolve
	s.store.BeforeResolve = func(ctx context.Context, ref verifier.Reference) error {
		if ref.Repository == "no-such-host" {
			return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry cannot be reached", Remedy: "Check its name and the network"}
		}
		return resolve(ctx, ref)
	}
	d := open(t, provider.Options{Select: s.Select})
	for name, c := range map[string]struct{ key, want string }{
		"a 1 MB key":                   {strings.Repeat("a", 1_000_000), "REFUSED/REFERENCE_INVALID"},
		"a key with a newline":         {"shop.example.com/signed:1\n", "REFUSED/REFERENCE_INVALID"},
		"no reference":                 {"https://shop.example.com/signed:1", "REFUSED/REFERENCE_INVALID"},
		"an unreachable host":          {"shop.example.com/no-such-host:1", "REGISTRY_UNREACHABLE shop.example.com/no-such-host:1: the registry cannot be reached. Check its name and the network"},
		"a digest that does not exist": {"shop.example.com/no-such-digest@" + digestOf("x").String(), "IMAGE_NOT_FOUND shop.example.com/no-such-digest@" + digestOf("x").String() + ": the registry has no such image. Check the name and the tag"},
	} {
		t.Run(name, func(t *testing.T) {
			response := d.ask(t, "shop.example.com/signed:1", c.key, "shop.example.com/unsigned:1")
			if got := decided(t, response, "shop.example.com/signed:1"); got != "TRUSTED/TRUSTED" {
				t.Error(got)
			}
			if got := decided(t, response, "shop.example.com/unsigned:1"); got != "UNKNOWN/SIGNATURE_NOT_FOUND" {
				t.Error(got)
			}
			got := response.Response.SystemError
			if got == "" {
				got = decided(t, response, c.key)
			}
			if got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// Ours are written by hand; this holds them to Gatekeeper's types.
func TestTheWireIsGatekeepers(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	for _, path := range []string{"/v1/verify", "/v1/mutate"} {
		for _, keys := range [][]string{{"shop.example.com/signed:1"}, {"shop.example.com/unreachable:1"}, {"shop.example.com/signed:1", "shop.example.com/gone:1", "::"}} {
			recorder := httptest.NewRecorder()
			d.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, strings.NewReader(requestOf(t, keys...))))
			answer := readAnswer(t, recorder.Body.Bytes())
			again, err := json.Marshal(answer)
			if err != nil {
				t.Fatal(err)
			}
			var ours, theirs any
			if err := errorsOf(json.Unmarshal(recorder.Body.Bytes(), &ours), json.Unmarshal(again, &theirs)); err != nil {
				t.Fatal(err)
			}
			dropEmptyItems(ours)
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Errorf("%s %v (-theirs +ours):\n%s", path, keys, diff)
			}
		}
	}
}

func errorsOf(list ...error) error {
	i := slices.IndexFunc(list, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return list[i]
}

// dropEmptyItems removes what theirs leaves out and ours shows.
func dropEmptyItems(response any) {
	inner := response.(map[string]any)["response"].(map[string]any)
	if items, ok := inner["items"].([]any); ok && len(items) == 0 {
		delete(inner, "items")
	}
}

func FuzzRequestBody(f *testing.F) {
	for _, seed := range []string{
		withKeys(`["nginx","[shop]shop.example.com/signed:1"]`), withKeys(`[]`), withKeys(`["\ud800","\u0000"]`), `{}`, `{"request":{"keys":["a"]}}`,
		`{"x":[{"y":[]}],"apiVersion":"` + version + `","kind":"ProviderRequest","request":{"z":1,"keys":["a"]}}`, "\xef\xbb\xbf{}", "[[[[",
	} {
		f.Add([]byte(seed))
	}
	s := newShop()
	s.store.Tag("shop.example.com/signed:1", digest.FromString("signed"))
	server, err := provider.New(provider.Options{Select: s.Select})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"/v1/verify", "/v1/mutate"} {
			recorder := httptest.NewRecorder()
			server.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
			answer := readAnswer(t, recorder.Body.Bytes())
			if recorder.Code != http.StatusOK {
				if len(answer.Response.Items) != 0 {
					t.Errorf("HTTP %d with items", recorder.Code)
				}
				continue
			}
			// What we accept, everybody reads alike.
			var request externaldata.ProviderRequest
			if err := json.Unmarshal(body, &request); err != nil {
				t.Fatalf("accepted what is not JSON: %v", err)
			}
			for _, item := range answer.Response.Items {
				if !slices.Contains(request.Request.Keys, item.Key) {
					t.Errorf("item %q for no key of %q", item.Key, request.Request.Keys)
				}
			}
		}
	})
}
