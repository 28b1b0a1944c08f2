package shared

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestL52_SomethingUnwantedIsAttached: the registry lists a referrer without an
// artifact type, and its manifest is of a type that no policy wants. The list that the
// replicas share is older than an empty list may be. One look requests it from the
// registry once more, and reads the shared cache a few times.
func TestL52_SomethingUnwantedIsAttached(t *testing.T) {
	for name, attached := range map[string]int{"one": 1, "twenty": 20} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			r := registrytest.Start(t, registrytest.Options{NoReferrersAPI: true})
			image := r.PushImage(repo, "v1")
			var listed []ocispec.Descriptor
			for i := range attached {
				d := r.AttachReferrer(repo, image, registrytest.Artifact{
					ConfigMediaType: "application/vnd.example.sbom",
					Layers:          []registrytest.Layer{{MediaType: "text/plain", Data: []byte(strconv.Itoa(i))}},
				})
				d.ArtifactType = ""
				listed = append(listed, d)
			}
			r.PushReferrersTag(repo, image.Digest, listed...)

			through := shared(t, "redis://"+s.address)
			made := store.New(store.Options{AllowLoopback: true, Shared: through, RetryBase: time.Millisecond, EmptyListTTL: time.Nanosecond})
			t.Cleanup(made.CloseIdleConnections)
			v, err := made.View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), PlainHTTP: true}}})
			must(t, err)
			subject := verifier.Subject{Reference: verifier.Reference{Registry: r.Host(), Repository: repo, Digest: image.Digest}, Digest: image.Digest}
			look := func() {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				for c, err := range v.Candidates(ctx, subject, wanted).All {
					t.Fatal(c, err)
				}
			}
			eventually(t, func() error { // until the list is shared
				look()
				if n := len(s.keys(t, "countersign:1:entry:*")); n == 0 {
					return errors.New("no list is shared")
				}
				return nil
			})
			lists := func() (n int) {
				for _, q := range r.Requests() {
					if strings.Contains(q.Path, "/referrers/") || strings.Contains(q.Path, "/manifests/"+registrytest.ReferrersTag(image.Digest)) {
						n++
					}
				}
				return n
			}
			for range 3 {
				r.Reset()
				before := s.reads(t)
				look()
				if n := s.reads(t) - before; n > 4+attached {
					t.Errorf("one look read the shared cache %d times", n)
				}
				if n := lists(); n == 0 || n > 2 {
					t.Errorf("one look requested the lists %d times", n)
				}
			}
		})
	}
}

// reads is how often the server was read from.
func (s *server) reads(t *testing.T) int {
	t.Helper()
	_, after, ok := strings.Cut(s.cli(t, "INFO", "commandstats"), "cmdstat_getrange:calls=")
	if !ok {
		return 0
	}
	count, _, _ := strings.Cut(after, ",")
	n, err := strconv.Atoi(count)
	must(t, err)
	return n
}
