package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// signedURL is what follows the host of a URL that is as good as a password.
const signedURL, urlSecret = "/blob?sv=2020&sig=S3CR3T#S3CR3T", "S3CR3T"

// tells reports where an error has the secret: in its text or its fields, as a log
// writes it, or in anything that it wraps.
func tells(err error) string {
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Error("test", slog.Any("error", err))
	slog.New(slog.NewJSONHandler(&log, nil)).Error("test", slog.Any("error", err), slog.Any("known", verifier.AsError(err)))
	data, _ := json.Marshal(verifier.AsError(err))
	shown := append(all(err), log.String(), string(data))
	for _, text := range shown {
		if strings.Contains(text, urlSecret) {
			return text
		}
	}
	return ""
}

// all writes an error and what it wraps in each way that Go writes one.
func all(err error) []string {
	list := []string{fmt.Sprintf("%v %+v %#v", err, err, err)}
	switch wraps := err.(type) { //nolint:errorlint // each layer
	case interface{ Unwrap() error }:
		if inner := wraps.Unwrap(); inner != nil {
			list = append(list, all(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range wraps.Unwrap() {
			list = append(list, all(inner)...)
		}
	}
	return list
}

// TestL55_SignedURLsAreInNoError: a registry sends its clients to URLs that are as good
// as passwords, and however that fails, the URL's query is nowhere to be read.
func TestL55_SignedURLsAreInNoError(t *testing.T) {
	blobs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch kind := req.URL.Query().Get("kind"); kind {
		case "reset":
			registrytest.Reset()(w, req)
		case "cut":
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("short"))
		case "hang":
			<-req.Context().Done()
		case "again":
			http.Redirect(w, req, req.URL.String()+urlSecret, http.StatusTemporaryRedirect)
		case "nowhere":
			w.WriteHeader(http.StatusTemporaryRedirect)
		case "other":
			_, _ = w.Write([]byte("other bytes!"))
		default:
			var status int
			_, _ = fmt.Sscan(kind, &status)
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(blobs.Close)
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	at := func(kind string) string { return blobs.URL + strings.Replace(signedURL, "?", "?kind="+kind+"&", 1) }
	for name, location := range map[string]string{
		"refused": gone.URL + signedURL, "unknown authority": secure.URL + signedURL,
		"no TLS there": strings.Replace(blobs.URL, "http:", "https:", 1) + signedURL,
		"reset":        at("reset"), "cut short": at("cut"), "hangs": at("hang"), "redirects for ever": at("again"), "a redirect to nowhere": at("nowhere"),
		"other bytes": at("other"), "400": at("400"), "401": at("401"), "403": at("403"), "404": at("404"), "429": at("429"), "500": at("500"), "503": at("503"), "206": at("206"),
		"a bare address": "http://203.0.113.7" + signedURL, "a metadata service": "http://169.254.169.254" + signedURL,
		"another scheme": "ftp://blobs.example.com" + signedURL, "no URL": "http://blobs.example.com:port" + signedURL, "no URL at all": "://" + signedURL,
		"a user": strings.Replace(gone.URL, "//", "//user:"+urlSecret+"@", 1) + "/blob", "a user alone": strings.Replace(gone.URL, "//", "//"+urlSecret+"@", 1) + "/blob",
		"a name without address": "http://no-such-host.invalid" + signedURL,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.Start(t, registrytest.Options{})
			image, blob := r.PushImage(repo, "v1"), r.PushBlob(repo, "text/plain", []byte("the envelope"))
			r.SetFault(registrytest.On("/blobs/", func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header()["Location"] = []string{location}
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			}))
			options := quick()
			options.Attempts, options.AttemptTimeout, options.Budget = 2, 300*time.Millisecond, 3*time.Second
			_, err := open(t, store.New(options), r, nil).Fetch(t.Context(), subjectOf(r, image), blob)
			if err == nil {
				t.Fatal("it was fetched")
			}
			if shown := tells(err); shown != "" {
				t.Error(shown)
			}
			t.Log(err)
		})
	}
}

// TestL55_TokenEndpointsAndPages name URLs as well.
func TestL55_TokenEndpointsAndPages(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for _, realm := range []string{gone.URL + signedURL, "http://h:port" + signedURL, "https://elsewhere.example.com" + signedURL, strings.Replace(gone.URL, "//", "//"+urlSecret+"@", 1)} {
		for _, credential := range []store.CredentialSource{nil, robot("right")} {
			r := registrytest.Start(t, registrytest.Options{})
			r.PushImage(repo, "v1")
			r.SetFault(func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			options := quick()
			options.Attempts, options.AttemptTimeout = 1, 300*time.Millisecond
			v := open(t, store.New(options), r, credential)
			_, err := v.Resolve(t.Context(), byTag(r, "v1"))
			if err == nil {
				t.Fatal("it was let in")
			}
			if shown := tells(err); shown != "" {
				t.Error(shown)
			}
		}
	}
	for _, next := range []string{"http://elsewhere.example.com" + signedURL, "http://h:port" + signedURL, "/v2\x7f" + signedURL} {
		r := registrytest.Start(t, registrytest.Options{})
		image := r.PushImage(repo, "v1")
		r.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header()["Link"] = []string{"<" + next + ">; rel=\"next\""}
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			_, _ = w.Write([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))
			return true
		}))
		seen := 0
		for _, err := range open(t, store.New(quick()), r, nil).Candidates(t.Context(), subjectOf(r, image), signatures).All {
			seen++
			if shown := tells(err); err == nil || shown != "" {
				t.Error(err, shown)
			}
		}
		if seen == 0 {
			t.Errorf("%q was taken for the end", next)
		}
	}
}
