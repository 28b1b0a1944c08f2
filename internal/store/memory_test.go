package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// padded is a manifest about the subject of that many bytes, all of them in an annotation.
func padded(t *testing.T, subject ocispec.Descriptor, size int) []byte {
	t.Helper()
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: signature, Subject: &subject,
		Config:      ocispec.DescriptorEmptyJSON,
		Layers:      []ocispec.Descriptor{{MediaType: "application/jose+json", Digest: subject.Digest, Size: 1}},
		Annotations: map[string]string{"pad": ""},
	}
	bare, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	m.Annotations["pad"] = strings.Repeat("a", size-len(bare))
	data, err := json.Marshal(m)
	if err != nil || len(data) != size {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	return data
}

// TestL47_ManifestsLargerThanEvidence end the candidate, and nothing is requested of it.
func TestL47_ManifestsLargerThanEvidence(t *testing.T) {
	const limit = 256 << 10
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	for _, size := range []int{limit, limit + 1, 4_000_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			image := r.PushImage(repo, fmt.Sprint("v", size))
			good := r.AttachReferrer(repo, image, notation(size))
			large := r.PushManifest(repo, "", ocispec.MediaTypeImageManifest, padded(t, image, size))
			large.ArtifactType = signature
			r.ListReferrer(repo, image.Digest, large)
			r.Reset()
			got := look(t.Context(), v, subjectOf(r, image), signatures)
			asked := strings.Contains(paths(r), large.Digest.String())
			if !slices.Contains(got.digests(), good.Digest) || got.list != nil {
				t.Errorf("beside it: %v, %v", got.digests(), got.list)
			}
			if read := slices.Contains(got.digests(), large.Digest); read != (size == limit) || asked != (size == limit) {
				t.Errorf("read: %t, requested: %t", read, asked)
			}
			if size > limit && !slices.Equal(got.broken, []verifier.Reason{verifier.ReasonLimitExceeded}) {
				t.Errorf("broken: %v", got.broken)
			}
			// what is at a tag of Cosign's holds the signatures themselves
			r.PushManifest(repo, "sha256-"+image.Digest.Encoded()+".sig", ocispec.MediaTypeImageManifest, padded(t, image, size))
			got = look(t.Context(), v, subjectOf(r, image), verifier.Wanted{TagSuffixes: []string{".sig"}})
			if len(got.candidates) != 1 || got.list != nil {
				t.Errorf("at a tag: %+v", got)
			}
		})
	}
}

// TestL47_ManifestsThatGrowWhenDecoded are not decoded: descriptors of two bytes would be a
// hundred times as large.
func TestL47_ManifestsThatGrowWhenDecoded(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	subject, err := json.Marshal(image)
	if err != nil {
		t.Fatal(err)
	}
	for name, layers := range map[string]string{
		"descriptors": strings.Repeat("{},", 30_000), "urls": `{"urls":[` + strings.Repeat(`"",`, 30_000) + `""]},`,
		"platforms": strings.Repeat(`{"platform":{}},`, 10_000),
	} {
		body := fmt.Sprintf(`{"artifactType":%q,"config":{"mediaType":"a","digest":%q,"size":1},"layers":[%s{}],"subject":%s}`, signature, image.Digest, layers, subject)
		d := r.PushManifest(repo, "", ocispec.MediaTypeImageManifest, []byte(body))
		d.ArtifactType = signature
		r.ListReferrer(repo, image.Digest, d)
		t.Logf("%s: %d bytes", name, len(body))
	}
	heap := heapDuring(func() {
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if got.candidates != nil || len(got.broken) != 3 || got.list != nil {
			t.Errorf("%+v", got)
		}
	})
	if heap > 8<<20 {
		t.Errorf("the heap grew by %d MiB", heap>>20)
	}
}

// TestL47_ListsLargerThanMemory: what a list says of its entries is kept as far as it can
// mean something, and all pages together are bounded.
func TestL47_ListsLargerThanMemory(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	long := strings.Repeat("x", 3<<20)
	var pages atomic.Int64 // the last that was requested; on a slow machine one is requested twice
	r.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, q *http.Request) bool {
		page, _ := strconv.ParseInt(q.URL.Query().Get("n"), 10, 64)
		page++
		pages.Store(max(pages.Load(), page))
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=%d>; rel="next"`, q.URL.Path, page))
		entry := ocispec.Descriptor{MediaType: long + fmt.Sprint(page), Digest: image.Digest, Size: 1, ArtifactType: signature}
		data, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry}})
		if err != nil {
			t.Error(err)
		}
		_, _ = bytes.NewReader(data).WriteTo(w)
		return true
	}))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	{
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if !slices.Contains(got.list, verifier.ReasonLimitExceeded) || len(got.broken) != 1 || len(got.candidates) != 0 {
			t.Errorf("%d candidates, broken %v, list %v", len(got.candidates), got.broken, got.list)
		}
	}
	if pages.Load() != 3 {
		t.Errorf("%d pages were read", pages.Load())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if after.HeapAlloc > before.HeapAlloc+2<<20 {
		t.Errorf("%d MiB are kept", (after.HeapAlloc-before.HeapAlloc)>>20)
	}
	runtime.KeepAlive(v)
}
