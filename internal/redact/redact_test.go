package redact_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/redact"
)

const secret = "S3CR3T"

func TestURLsWithoutTheirSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"https://blobs.example.com/a/b":                            "https://blobs.example.com/a/b",
		"https://blobs.example.com/a?sig=S3CR3T&se=1#S3CR3T":       "https://blobs.example.com/a",
		"https://user:S3CR3T@blobs.example.com:8443/a?":            "https://blobs.example.com:8443/a",
		"https://S3CR3T@blobs.example.com/a":                       "https://blobs.example.com/a",
		"https://S3CR3T@blobs.example.com:port/a\x7f?sig=\"S3CR3T": "https://blobs.example.com:port/a\x7f",
		"": "",
	} {
		if got := redact.URL(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`Get "https://h/p?sig=S3CR3T": EOF`:                              `Get "https://h/p": EOF`,
		`Get "https://h/p?sig=\"S3CR3T": EOF, https://S3CR3T@h/q#S3CR3T`: `Get "https://h/p": EOF, https://h/q`,
		`is it so? yes`: `is it so? yes`,
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestL55_ErrorsOfClientsWithoutSecrets: each layer that can be unwrapped is clean,
// and the causes that decide what is said of it are still there.
func TestL55_ErrorsOfClientsWithoutSecrets(t *testing.T) {
	signed := "https://user:" + secret + "@h/p?sig=" + secret
	at := func(err error) error { return &url.Error{Op: "Get", URL: signed, Err: err} }
	for name, err := range map[string]error{
		"a URL's error":                  at(io.EOF),
		"one of a redirect":              at(fmt.Errorf("redirect to %s: %w", signed, io.EOF)),
		"one that is wrapped":            fmt.Errorf("ask: %w", at(io.EOF)),
		"one that is wrapped, not shown": hidden{at(io.EOF)},
		"one within another":             at(fmt.Errorf("again: %w", at(io.EOF))),
	} {
		got := redact.Error(err)
		if !errors.Is(got, io.EOF) {
			t.Errorf("%s: %v has lost its cause", name, got)
		}
		for _, e := range layers(got) {
			if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e), secret) {
				t.Errorf("%s: %#v", name, e)
			}
		}
	}
	if redact.Error(nil) != nil {
		t.Error("no error became one")
	}
	if err := fmt.Errorf("wrapped: %w", io.EOF); redact.Error(err) != err {
		t.Error("an error without a URL was changed")
	}
	once := redact.Error(at(io.EOF))
	if known := fmt.Errorf("known: %w", once); redact.Error(known) != known {
		t.Error("an error that was clean was changed")
	}
	joined := redact.Error(errors.Join(at(context.Canceled), io.EOF))
	if strings.Contains(joined.Error(), secret) || !errors.Is(joined, io.EOF) || !errors.Is(joined, context.Canceled) {
		t.Errorf("joined: %v", joined)
	}
}

// TestL55_ALocationThatCannotBeParsed is written into the error by net/http, whole.
func TestL55_ALocationThatCannotBeParsed(t *testing.T) {
	for _, location := range []string{"https://h:port/?sig=" + secret, "//" + secret + "@h\x01/", "/a%zz?sig=\"" + secret, "mailto:" + secret, "/\x7f?sig=" + secret} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{location}
			w.WriteHeader(http.StatusTemporaryRedirect)
		}))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := server.Client().Do(request)
		if err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s was followed", location)
		}
		if got := redact.Error(err); strings.Contains(got.Error(), secret) {
			t.Error(got)
		}
		server.Close()
	}
}

// hidden wraps an error without its text.
type hidden struct{ err error }

func (h hidden) Error() string { return "hidden" }
func (h hidden) Unwrap() error { return h.err }

// layers are all that can be unwrapped.
func layers(err error) []error {
	list := []error{err}
	switch e := err.(type) { //nolint:errorlint // each layer
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			list = append(list, layers(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			list = append(list, layers(inner)...)
		}
	}
	return list
}
