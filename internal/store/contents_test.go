package store_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// index pushes an index of the manifests.
func index(t *testing.T, r *registrytest.Registry, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		t.Fatal(err)
	}
	return r.PushManifest(repo, "", ocispec.MediaTypeImageIndex, data)
}

// TestWhatAnImageIsMadeOf is read once, by its digest.
func TestWhatAnImageIsMadeOf(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	both := index(t, r, image, r.PushImage(repo, "v2"))
	for range 2 {
		contents, err := v.Contents(t.Context(), subjectOf(r, both))
		if err != nil || len(contents.Manifests) != 2 || contents.Manifests[0].Digest != image.Digest {
			t.Fatalf("%+v, %v", contents, err)
		}
		contents, err = v.Contents(t.Context(), subjectOf(r, image))
		if err != nil || contents.Config.Digest == "" || contents.Manifests != nil {
			t.Fatalf("%+v, %v", contents, err)
		}
	}
	if n := len(r.Requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// TestContentsThatAreNotBelieved say why.
func TestContentsThatAreNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		digest digest.Digest
		data   string
		fault  func(*registrytest.Registry) registrytest.Fault
		reason verifier.Reason
	}{
		"other bytes": {"", "", (*registrytest.Registry).WrongBytes, verifier.ReasonRegistryInvalid},
		"no image":    {digest.FromString("none"), "", nil, verifier.ReasonImageNotFound},
		"no digest":   {"sha256:short", "", nil, verifier.ReasonFormatUnsupported},
		"not JSON":    {"", "text", nil, verifier.ReasonFormatUnsupported},
		"neither":     {"", "{}", nil, verifier.ReasonFormatUnsupported},
		"too many":    {"", `{"manifests":[` + strings.Repeat("{},", 100_000) + `{}]}`, nil, verifier.ReasonLimitExceeded},
		"without an end": {"", "", func(*registrytest.Registry) registrytest.Fault {
			return func(w http.ResponseWriter, _ *http.Request) bool {
				for range 5 << 10 {
					_, _ = w.Write(make([]byte, 1<<10))
				}
				return true
			}
		}, verifier.ReasonLimitExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{NoDigestHeader: true})
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			if c.data != "" {
				image = r.PushManifest(repo, "", ocispec.MediaTypeImageIndex, []byte(c.data))
			}
			if c.digest != "" {
				image.Digest = c.digest
			}
			if c.fault != nil {
				r.SetFault(c.fault(r))
			}
			if _, err := v.Contents(t.Context(), subjectOf(r, image)); err == nil || verifier.AsError(err).Reason != c.reason {
				t.Errorf("%v, want %s", err, c.reason)
			}
		})
	}
}

// TestWhoAsksAfreshAsksForAllThatCanChange, and for no content by digest; what is
// found is there for others.
func TestWhoAsksAfreshAsksForAllThatCanChange(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	look := func(afresh bool) []string {
		ctx := t.Context()
		if afresh {
			ctx = verifier.Afresh(ctx)
		}
		r.Reset()
		subject, err := v.Resolve(ctx, verifier.Reference{Registry: r.Host(), Repository: repo, Tag: "v1"})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range v.Candidates(ctx, subject, signatures).All {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if err := v.Exists(ctx, subject); err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, request := range r.Requests() {
			kinds = append(kinds, request.Method+" "+request.Path)
		}
		return append(kinds, string(rune('0'+n)))
	}
	if got := look(false); len(got) != 4 || got[3] != "1" { // tag, list, manifest
		t.Fatal(got)
	}
	if got := look(false); len(got) != 1 {
		t.Errorf("what is remembered was asked for: %v", got)
	}
	r.AttachReferrer(repo, image, notation(2))
	if got := look(true); len(got) != 5 || got[4] != "2" { // tag, list, the new manifest, exists
		t.Errorf("%v", got)
	}
	if got := look(false); len(got) != 1 || got[0] != "2" {
		t.Errorf("what was found afresh is not remembered: %v", got)
	}
}
