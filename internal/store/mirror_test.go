package store_test

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestAMirror is asked in the place of the registry, with its own sign-in, and the
// image keeps its name.
func TestAMirror(t *testing.T) {
	mirror := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer", Username: "robot", Password: "x"}})
	image := mirror.PushImage("hub/library/nginx", "1.27")
	mirror.AttachReferrer("hub/library/nginx", image, notation(1))
	s := store.New(quick())
	t.Cleanup(s.CloseIdleConnections)
	v, err := s.View(store.ViewOptions{Registries: []store.Registry{
		{Host: "docker.io", Mirror: mirror.Host() + "/hub"},
		{Host: mirror.Host(), PlainHTTP: true, Credential: auth.NewStatic(auth.Credential{Username: "robot", Password: "x"})},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ref := verifier.Reference{Registry: "docker.io", Repository: "library/nginx", Tag: "1.27"}
	subject, err := v.Resolve(t.Context(), ref)
	if err != nil || subject.Digest != image.Digest || subject.Reference != ref {
		t.Fatalf("%+v, %v", subject, err)
	}
	seen := look(t.Context(), v, subject, signatures)
	if len(seen.candidates) != 1 {
		t.Fatal(seen)
	}
	if data, err := v.Fetch(t.Context(), subject, seen.candidates[0].Manifest.Layers[0]); err != nil || string(data) != "envelope 1" {
		t.Errorf("%s, %v", data, err)
	}
	for _, q := range mirror.Requests() {
		if strings.HasPrefix(q.Path, "/v2/") && !strings.HasPrefix(q.Path, "/v2/hub/library/nginx/") {
			t.Errorf("asked for %s", q.Path)
		}
	}
}
