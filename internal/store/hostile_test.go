package store_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// subjectOf pins what was pushed.
func subjectOf(r *registrytest.Registry, image ocispec.Descriptor) verifier.Subject {
	return verifier.Subject{Reference: byDigest(r, image.Digest), Digest: image.Digest}
}

func TestL02_TheRegistryDoesNotChooseTheDigest(t *testing.T) {
	lie := digest.FromString("a lie")
	t.Run("manifest bytes", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{NoDigestHeader: true})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		r.AttachReferrer(repo, image, notation(1))
		good := r.AttachReferrer(repo, image, notation(2))
		r.SetFault(registrytest.On("/manifests/sha256:", registrytest.First(1, r.WrongBytes())))
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if !slices.Equal(got.broken, []verifier.Reason{verifier.ReasonRegistryInvalid}) || len(got.candidates) != 1 || got.list != nil {
			t.Errorf("got %+v; the other candidate is %s", got, good.Digest)
		}
	})
	t.Run("blob bytes", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		blob := r.PushBlob(repo, "text/plain", []byte("envelope"))
		r.SetFault(r.WrongBytes())
		if data, err := v.Fetch(t.Context(), subjectOf(r, image), blob); reason(err) != verifier.ReasonRegistryInvalid {
			t.Errorf("got %q, %v", data, err)
		}
		r.SetFault(nil)
		if data, err := v.Fetch(t.Context(), subjectOf(r, image), blob); string(data) != "envelope" || err != nil {
			t.Errorf("healed: %q, %v", data, err)
		}
	})
	for _, test := range []struct {
		name, path string
		ask        func(*store.View, *registrytest.Registry, ocispec.Descriptor) error
	}{
		{"Docker-Content-Digest of a blob", "/blobs/", func(v *store.View, r *registrytest.Registry, image ocispec.Descriptor) error {
			_, err := v.Fetch(t.Context(), subjectOf(r, image), r.PushBlob(repo, "text/plain", []byte("envelope")))
			return err
		}},
		{"Docker-Content-Digest of a manifest", "/manifests/", func(v *store.View, r *registrytest.Registry, image ocispec.Descriptor) error {
			_, err := v.Fetch(t.Context(), subjectOf(r, image), image)
			return err
		}},
		{"Docker-Content-Digest of a referrers tag", "/manifests/sha256-", func(v *store.View, r *registrytest.Registry, image ocispec.Descriptor) error {
			r.PushReferrersTag(repo, image.Digest)
			leftovers := verifier.Wanted{ArtifactTypes: signatures.ArtifactTypes, Leftovers: true}
			for _, err := range v.Candidates(t.Context(), subjectOf(r, image), leftovers).All {
				return err
			}
			return nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			r.SetFault(registrytest.On(test.path, r.LieDigest(lie)))
			if err := test.ask(v, r, image); reason(err) != verifier.ReasonRegistryInvalid {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a tag, where there are no bytes to hash", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		r.AttachReferrer(repo, image, notation(1))
		r.SetFault(registrytest.On("/manifests/v1", r.LieDigest(lie)))
		subject, err := v.Resolve(t.Context(), byTag(r, "v1"))
		if err != nil || subject.Digest != lie { // what is admitted is named, and nothing else is judged
			t.Fatalf("got %+v, %v", subject, err)
		}
		if got := look(t.Context(), v, subject, signatures); len(got.candidates) != 0 {
			t.Errorf("found another image's signature: %+v", got)
		}
	})
	t.Run("a tag, where there are", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{NoDigestHeader: true})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		if s, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil || s.Digest != image.Digest {
			t.Errorf("got %+v, %v", s, err)
		}
	})
	for name, options := range map[string]registrytest.Options{"referrers API": {}, "tag schema": {NoReferrersAPI: true}} {
		t.Run("a referrer of another image, "+name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			v := open(t, store.New(quick()), r, nil)
			signed, image := r.PushImage(repo, "signed"), r.PushImage(repo, "v1")
			foreign := r.AttachReferrer(repo, signed, notation(1))
			r.ListReferrer(repo, image.Digest, foreign)
			none := r.PushArtifact(repo, "", r.Build(repo, notation(2)))
			none.ArtifactType = signature
			r.ListReferrer(repo, image.Digest, none)
			got := look(t.Context(), v, subjectOf(r, image), signatures)
			if len(got.candidates) != 0 || !slices.Equal(got.broken, []verifier.Reason{verifier.ReasonSubjectMismatch, verifier.ReasonSubjectMismatch}) {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("a .sig tag of another image", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		signed, image := r.PushImage(repo, "signed"), r.PushImage(repo, "v1")
		m := r.Build(repo, notation(1))
		m.Subject = &signed
		r.PushArtifact(repo, "sha256-"+image.Digest.Encoded()+".sig", m)
		got := look(t.Context(), v, subjectOf(r, image), both)
		if len(got.candidates) != 0 || !slices.Equal(got.broken, []verifier.Reason{verifier.ReasonSubjectMismatch}) {
			t.Errorf("got %+v", got)
		}
	})
}

// heapDuring tells how far the heap grew at most while f ran.
func heapDuring(f func()) uint64 {
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var most uint64
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
	}()
	f()
	close(done)
	<-watched
	return most - min(most, before.HeapAlloc)
}

const heapBudget = 64 << 20

func TestL06_EndlessData(t *testing.T) {
	limited := []verifier.Reason{verifier.ReasonLimitExceeded}
	for _, test := range []struct {
		name  string
		fault func(good ocispec.Descriptor) registrytest.Fault
		good  bool // the good one is on what is read
		asked int  // referrers requests, at most
	}{
		{"100,000 referrers on one page", func(good ocispec.Descriptor) registrytest.Fault {
			return registrytest.GiantPage(100_000*250, good)
		}, true, 1},
		{"100,000 that may be wanted on one page", func(ocispec.Descriptor) registrytest.Fault {
			return junkPage(100_000)
		}, false, 1},
		{"a page of 1 GB", func(good ocispec.Descriptor) registrytest.Fault { return registrytest.GiantPage(1<<30, good) }, true, 1},
		{"a page of 1 GB that is one string", func(ocispec.Descriptor) registrytest.Fault { return oneString }, false, 1},
		{"Link for ever", func(ocispec.Descriptor) registrytest.Fault { return registrytest.EndlessPages(10) }, false, 8},
		{"Link for ever, empty pages", func(ocispec.Descriptor) registrytest.Fault { return registrytest.EndlessPages(0) }, false, 8},
		{"Link for ever, 1,000 a page", func(ocispec.Descriptor) registrytest.Fault { return registrytest.EndlessPages(1000) }, false, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			good := r.AttachReferrer(repo, image, notation(1))
			r.SetFault(registrytest.On("/referrers/", test.fault(good)))
			var got seen
			if heap := heapDuring(func() { got = look(t.Context(), v, subjectOf(r, image), signatures) }); heap > heapBudget {
				t.Errorf("the heap grew by %d MiB", heap>>20)
			}
			if !slices.Equal(got.list, limited) {
				t.Errorf("list errors %v", got.list)
			}
			if test.good != slices.Contains(got.digests(), good.Digest) {
				t.Errorf("candidates %v", got.digests())
			}
			pages := 0
			for _, q := range r.Requests() {
				if strings.Contains(q.Path, "/referrers/") {
					pages++
				}
			}
			if pages > test.asked {
				t.Errorf("%d pages were read", pages)
			}
		})
	}
	t.Run("one byte a second", func(t *testing.T) {
		options := quick()
		options.AttemptTimeout, options.Budget = 100*time.Millisecond, 300*time.Millisecond
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(options), r, nil)
		image := r.PushImage(repo, "v1")
		r.AttachReferrer(repo, image, notation(1))
		r.SetFault(r.Slow(time.Second))
		begun := time.Now()
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if took := time.Since(begun); took > 2*time.Second || !slices.Equal(got.list, []verifier.Reason{verifier.ReasonRegistryUnreachable}) {
			t.Errorf("got %+v after %s", got, took)
		}
	})
	t.Run("a referrers tag of 5 MiB", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{NoReferrersAPI: true})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		good := r.AttachReferrer(repo, image, notation(1))
		list := []ocispec.Descriptor{good}
		for i := range 500 {
			d := registrytest.Stranger(i)
			d.Annotations = map[string]string{"x": strings.Repeat("x", 10<<10)}
			list = append(list, d)
		}
		r.PushReferrersTag(repo, image.Digest, list...)
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if !slices.Equal(got.list, limited) || !slices.Contains(got.digests(), good.Digest) {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("manifests of 4 MiB that are all braces", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		for i := range 8 {
			data := fmt.Sprintf(`{"artifactType":%q,"n":%d,"layers":[{}%s]}`, signature, i, strings.Repeat(",{}", 1_390_000))
			d := r.PushManifest(repo, "", ocispec.MediaTypeImageManifest, []byte(data))
			d.ArtifactType = signature
			r.ListReferrer(repo, image.Digest, d)
		}
		var got seen
		if heap := heapDuring(func() { got = look(t.Context(), v, subjectOf(r, image), signatures) }); heap > 4*heapBudget { // 8 of 4 MiB are in flight on both sides
			t.Errorf("the heap grew by %d MiB", heap>>20)
		}
		if len(got.broken) != 8 || got.broken[0] != verifier.ReasonLimitExceeded {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("what a limit cut is asked for again in a while", func(t *testing.T) {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		r.SetFault(registrytest.On("/referrers/", registrytest.EndlessPages(10)))
		for range 5 {
			look(t.Context(), v, subjectOf(r, image), signatures)
		}
		if n := len(r.Requests()); n > 8 {
			t.Errorf("%d requests for five looks at an endless list", n)
		}
	})
}

// junkPage lists descriptors that lead nowhere, small enough that all are
// within a page's bytes.
func junkPage(n int) registrytest.Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = fmt.Fprint(w, `{"manifests":[{}`, strings.Repeat(`,{"artifactType":""}`, n), `]}`)
		return true
	}
}

func oneString(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = fmt.Fprint(w, `{"manifests":[{"mediaType":"`)
	chunk := []byte(strings.Repeat("x", 1<<16))
	for range 1 << 14 {
		if _, err := w.Write(chunk); err != nil {
			break
		}
	}
	return true
}

func TestL08_AGoodReferrerAfterJunkIsFound(t *testing.T) {
	for name, options := range map[string]registrytest.Options{
		"one page": {}, "pages": {PageSize: 50}, "tag schema": {NoReferrersAPI: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			for i := range 60 {
				switch i % 4 {
				case 0:
					d := registrytest.Stranger(i)
					d.ArtifactType = signature
					r.ListReferrer(repo, image.Digest, d)
				case 1:
					d := r.PushManifest(repo, "", ocispec.MediaTypeImageManifest, fmt.Appendf(nil, "junk %d", i))
					d.ArtifactType = signature
					r.ListReferrer(repo, image.Digest, d)
				case 2: // the good one's digest under a false size
					r.ListReferrer(repo, image.Digest, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: signature, Digest: digest.FromString("junk"), Size: int64(-i)})
				default:
					r.AttachReferrer(repo, image, notation(i))
				}
			}
			good := r.AttachReferrer(repo, image, notation(1000))
			got := look(t.Context(), v, subjectOf(r, image), signatures)
			if len(got.candidates) != 16 || got.candidates[15].Descriptor.Digest != good.Digest || got.list != nil {
				t.Errorf("%d candidates, %d broken, list %v", len(got.candidates), len(got.broken), got.list)
			}
		})
	}
}

func TestL09_SizesThatLie(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	data := []byte("an envelope of some bytes")
	blob := r.PushBlob(repo, "text/plain", data)
	attached := r.AttachReferrer(repo, image, notation(1))
	random := rand.New(rand.NewPCG(9, 9))
	sizes := []int64{-1, 0, 1, math.MinInt64, math.MaxInt64, 1 << 40, blob.Size - 1, blob.Size + 1, 32 << 20, 32<<20 + 1, 4 << 20, 4<<20 + 1}
	for range 40 {
		sizes = append(sizes, random.Int64()>>random.IntN(63), -random.Int64()>>random.IntN(63))
	}
	heap := heapDuring(func() {
		for _, size := range sizes {
			lying := blob
			if lying.Size = size; size == blob.Size {
				continue
			}
			if got, err := v.Fetch(t.Context(), subjectOf(r, image), lying); err == nil || got != nil || reason(err) == verifier.ReasonInternal {
				t.Errorf("a blob of %d bytes: %q, %v", size, got, err)
			} else if size > 32<<20 && reason(err) != verifier.ReasonLimitExceeded {
				t.Errorf("a blob of %d bytes was asked for: %v", size, err)
			}
			if lying = attached; size == attached.Size {
				continue
			}
			lying.Size = size
			r.ListReferrer(repo, image.Digest, lying)
		}
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if len(got.candidates) != 1 || len(got.broken) == 0 || slices.Contains(got.broken, verifier.ReasonInternal) || got.list != nil {
			t.Errorf("%d candidates, broken %v, list %v", len(got.candidates), got.broken, got.list)
		}
	})
	if heap > heapBudget {
		t.Errorf("the heap grew by %d MiB", heap>>20)
	}
	if got, err := v.Fetch(t.Context(), subjectOf(r, image), blob); string(got) != string(data) || err != nil {
		t.Errorf("the true descriptor: %q, %v", got, err)
	}
	// more than the descriptor says, though what it says is there
	more := r.PushBlob(repo, "text/plain", []byte("more"))
	r.SetFault(registrytest.On("/blobs/", func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write([]byte("more and more"))
		return true
	}))
	if _, err := v.Fetch(t.Context(), subjectOf(r, image), more); reason(err) != verifier.ReasonRegistryInvalid {
		t.Errorf("bytes after the end: %v", err)
	}
	r.SetFault(nil)
	// in memory by now: the claim is compared all the same
	lying := blob
	lying.Size++
	if _, err := v.Fetch(t.Context(), subjectOf(r, image), lying); reason(err) != verifier.ReasonRegistryInvalid {
		t.Errorf("a lie about what is in memory: %v", err)
	}
	for _, bad := range []digest.Digest{"", "sha256:", "sha256:zz", "md5:d41d8cd98f00b204e9800998ecf8427e", "../../etc/passwd", "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := v.Fetch(t.Context(), subjectOf(r, image), ocispec.Descriptor{Digest: bad, Size: 1}); reason(err) != verifier.ReasonFormatUnsupported {
			t.Errorf("digest %q: %v", bad, err)
		}
	}
}

func TestL11_ManifestsThatAreNone(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	subject := &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	layer := r.PushBlob(repo, "text/plain", []byte("x"))
	encode := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	text := func(v *ocispec.Descriptor) string { return encode(v) }
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, ArtifactType: signature, Subject: subject, Manifests: []ocispec.Descriptor{layer}}
	unnamed := index
	unnamed.MediaType = ""
	bad := map[string]string{
		"zero layers":        `{"artifactType":"` + signature + `","config":` + text(&layer) + `,"layers":[],"subject":` + text(subject) + `}`,
		"no layers":          `{"artifactType":"` + signature + `","config":` + text(&layer) + `,"subject":` + text(subject) + `}`,
		"null layers":        `{"artifactType":"` + signature + `","config":` + text(&layer) + `,"layers":null,"subject":` + text(subject) + `}`,
		"null config":        `{"artifactType":"` + signature + `","config":null,"layers":[` + text(&layer) + `],"subject":` + text(subject) + `}`,
		"null":               `null`,
		"an index":           encode(index),
		"an unnamed index":   encode(unnamed),
		"both":               `{"artifactType":"` + signature + `","config":` + text(&layer) + `,"layers":[` + text(&layer) + `],"manifests":[],"subject":` + text(subject) + `}`,
		"an array":           `[]`,
		"a string":           `"x"`,
		"a number too large": `{"layers":[{"size":1e99}]}`,
		"not JSON":           `<html>`,
		"nothing":            ``,
		"deep":               strings.Repeat(`{"layers":[`, 20_000),
		"two documents":      `{} {}`,
	}
	for name, data := range bad {
		d := r.PushManifest(repo, "", ocispec.MediaTypeImageManifest, []byte(data))
		d.ArtifactType = signature
		r.ListReferrer(repo, image.Digest, d)
		t.Logf("%s is %.19s", name, d.Digest)
	}
	d := r.PushManifest(repo, "", ocispec.MediaTypeImageIndex, []byte(encode(index)+" "))
	d.ArtifactType = signature
	r.ListReferrer(repo, image.Digest, d)
	good := r.AttachReferrer(repo, image, notation(1))
	got := look(t.Context(), v, subjectOf(r, image), signatures)
	if !slices.Equal(got.digests(), []digest.Digest{good.Digest}) || got.list != nil {
		t.Errorf("candidates %v, list %v", got.digests(), got.list)
	}
	if len(got.broken) != len(bad)+1 {
		t.Errorf("%d broken of %d", len(got.broken), len(bad)+1)
	}
	for _, reason := range got.broken {
		if reason != verifier.ReasonFormatUnsupported {
			t.Errorf("reason %s", reason)
		}
	}
	for suffix, data := range map[string]string{".a": "", ".b": "null", ".c": encode(index), ".d": `{"layers":[]}`} {
		r.PushManifest(repo, "sha256-"+image.Digest.Encoded()+suffix, ocispec.MediaTypeImageManifest, []byte(data))
		got := look(t.Context(), v, subjectOf(r, image), verifier.Wanted{TagSuffixes: []string{suffix}})
		if got.candidates != nil || len(got.broken) != 1 || got.list != nil {
			t.Errorf("%q at a tag: %+v", data, got)
		}
	}
}

func TestListsThatCannotBeRead(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON": "<html>", "nothing": "", "null": "null", "an array": "[]", "cut": `{"manifests":[{"digest":"sha256:`,
		"manifests is no array": `{"manifests":{}}`, "a size that is no number": `{"manifests":[{"size":"x"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			r.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
				_, _ = fmt.Fprint(w, body)
				return true
			}))
			got := look(t.Context(), v, subjectOf(r, image), signatures)
			if !slices.Equal(got.list, []verifier.Reason{verifier.ReasonRegistryInvalid}) {
				t.Errorf("got %+v", got)
			}
			r.SetFault(nil)
			r.AttachReferrer(repo, image, notation(1))
			if got := look(t.Context(), v, subjectOf(r, image), signatures); len(got.candidates) != 1 {
				t.Errorf("healed: %+v", got)
			}
		})
	}
}

func TestL07_NothingIsExpanded(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	zeros := make([]byte, 1<<20)
	blob := r.PushBlob(repo, "text/plain", zeros)
	r.SetFault(registrytest.On("/blobs/", func(w http.ResponseWriter, req *http.Request) bool {
		if got := req.Header.Get("Accept-Encoding"); got != "" {
			t.Errorf("accepts %q", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		_, _ = zip.Write(zeros)
		return zip.Close() == nil
	}))
	if _, err := v.Fetch(t.Context(), subjectOf(r, image), blob); reason(err) != verifier.ReasonRegistryInvalid {
		t.Errorf("got %v", err)
	}
}

func TestWhatWasFetchedIsTheCallersOwn(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	blob := r.PushBlob(repo, "text/plain", []byte("envelope"))
	for range 3 {
		data, err := v.Fetch(t.Context(), subjectOf(r, image), blob)
		if err != nil || string(data) != "envelope" {
			t.Fatalf("got %q, %v", data, err)
		}
		clear(data)
	}
}

func TestAPageThatIsMissingIsNotTheEnd(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{PageSize: 1})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	first := r.AttachReferrer(repo, image, notation(1))
	r.AttachReferrer(repo, image, notation(2))
	second := func(f registrytest.Fault) registrytest.Fault {
		return func(w http.ResponseWriter, req *http.Request) bool { return req.URL.Query().Has("from") && f(w, req) }
	}
	for status, want := range map[int]verifier.Reason{404: verifier.ReasonRegistryInvalid, 405: verifier.ReasonRegistryInvalid, 500: verifier.ReasonRegistryUnreachable} {
		r.SetFault(second(registrytest.Status(status)))
		got := look(t.Context(), v, subjectOf(r, image), signatures)
		if !slices.Equal(got.digests(), []digest.Digest{first.Digest}) || !slices.Equal(got.list, []verifier.Reason{want}) {
			t.Errorf("%d: %+v", status, got)
		}
	}
}

func TestWhatOneListClaimsOfADigestIsNotAnothers(t *testing.T) {
	s := store.New(quick())
	honest, hostile := registrytest.Start(t, registrytest.Options{}), registrytest.Start(t, registrytest.Options{})
	image := honest.PushImage(repo, "v1")
	good := honest.AttachReferrer(repo, image, notation(1))
	data, err := open(t, s, honest, nil).Fetch(t.Context(), subjectOf(honest, image), good)
	if err != nil {
		t.Fatal(err)
	}
	lying := hostile.PushManifest(repo, "", "application/vnd.docker.distribution.manifest.v2+json", data)
	lying.ArtifactType = signature
	hostile.ListReferrer(repo, image.Digest, lying)
	if got := look(t.Context(), open(t, s, hostile, nil), subjectOf(hostile, image), signatures); len(got.broken) != 1 {
		t.Errorf("the hostile one: %+v", got)
	}
	if got := look(t.Context(), open(t, s, honest, nil), subjectOf(honest, image), signatures); len(got.candidates) != 1 {
		t.Errorf("the honest one: %+v", got)
	}
}

func TestANextPageElsewhereIsNotFollowed(t *testing.T) {
	other := registrytest.Start(t, registrytest.Options{})
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	good := r.AttachReferrer(repo, image, notation(1))
	for _, link := range []string{
		`<` + other.URL() + `/v2/x>; rel="next"`, `<//` + other.Host() + `/v2/x>; rel=next`,
		`<http://user@` + r.Host() + `/v2/x>; rel="next"`, `</v2/prev>; rel="prev", <https://` + r.Host() + `/v2/x>; rel="next"`,
	} {
		r.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Link", link)
			return false
		}))
		got := look(context.Background(), v, subjectOf(r, image), signatures)
		if !slices.Equal(got.list, []verifier.Reason{verifier.ReasonRegistryInvalid}) || !slices.Equal(got.digests(), []digest.Digest{good.Digest}) {
			t.Errorf("%s: %+v", link, got)
		}
	}
	if n := len(other.Requests()); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}
