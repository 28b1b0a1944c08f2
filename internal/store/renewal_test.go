package store_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestRenewedAhead: in the last part of its life what is remembered is asked for
// anew, and nobody waits for that, whatever the registry does meanwhile.
func TestRenewedAhead(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	options := quick()
	options.TagTTL, options.ListTTL = 3*time.Second, 3*time.Second
	v := open(t, store.New(options), r, nil)
	ask := func() (resolved verifier.Subject) {
		t.Helper()
		began := time.Now()
		resolved, err := v.Resolve(t.Context(), byTag(r, "v1"))
		if err != nil {
			t.Fatal(err)
		}
		if s := look(t.Context(), v, subjectOf(r, image), signatures); len(s.candidates) != 1 {
			t.Fatal(s)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("it waited %v", took)
		}
		return resolved
	}
	first := ask()
	moved := r.PushImage(repo, "v2")
	r.Tag(repo, "v1", moved.Digest)
	r.Reset()
	hold := make(chan struct{})
	r.SetFault(func(_ http.ResponseWriter, req *http.Request) bool {
		<-hold
		return false
	})
	// Both are asked for, and everybody goes on with what was remembered until its end.
	asked := func(path string) bool {
		for _, q := range r.Requests() {
			if strings.Contains(q.Path, path) {
				return true
			}
		}
		return false
	}
	for !asked("/manifests/v1") || !asked("/referrers/") {
		if time.Now().After(first.Until.Add(600 * time.Millisecond)) { // a fifth of its life
			t.Fatalf("it ended and nobody had asked anew: %v", r.Requests())
		}
		if got := ask(); got.Digest != image.Digest || !got.Until.Equal(first.Until) {
			t.Fatalf("%v until %v", got.Digest, got.Until)
		}
	}
	if time.Now().Before(first.Until) {
		t.Error("it was asked for anew while answers that rest on it may be kept")
	}
	close(hold)
	for ask().Digest != moved.Digest {
	}
	for _, path := range []string{"/manifests/v1", "/referrers/"} {
		n := 0
		for _, q := range r.Requests() {
			if strings.Contains(q.Path, path) {
				n++
			}
		}
		if n > 2 { // another period may have begun
			t.Errorf("%d requests for %s", n, path)
		}
	}
}
