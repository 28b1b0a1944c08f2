package store_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestCandidatesComeInTheListsOrder(t *testing.T) {
	for name, options := range map[string]registrytest.Options{
		"one page": {}, "pages": {PageSize: 10}, "pages without a filter": {PageSize: 10, NoFilter: true}, "tag schema": {NoReferrersAPI: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			var want []digest.Digest
			for i := range 40 {
				want = append(want, r.AttachReferrer(repo, image, notation(i)).Digest)
				r.AttachReferrer(repo, image, registrytest.Artifact{ArtifactType: "application/vnd.example.sbom", Layers: []registrytest.Layer{{Data: []byte("x")}}})
			}
			for range 2 {
				got := look(t.Context(), v, subjectOf(r, image), signatures)
				if !slices.Equal(got.digests(), want) || got.broken != nil || got.list != nil {
					t.Fatalf("got %d candidates, %+v", len(got.candidates), got)
				}
			}
			for _, c := range look(t.Context(), v, subjectOf(r, image), signatures).candidates {
				if c.ArtifactType != signature || c.Manifest.Subject.Digest != image.Digest || c.Source == "" || len(c.Manifest.Layers) != 1 {
					t.Fatalf("got %+v", c)
				}
			}
		})
	}
}

func TestManifestsAreFetchedSixteenAhead(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	for i := range 50 {
		r.AttachReferrer(repo, image, notation(i))
	}
	release := make(chan struct{})
	r.SetFault(registrytest.On("/manifests/sha256:", registrytest.Hang(release)))
	done := make(chan seen)
	go func() { done <- look(t.Context(), v, subjectOf(r, image), signatures) }()
	for r.InFlight() < 16 {
		runtime.Gosched()
	}
	close(release)
	if got := <-done; len(got.candidates) != 50 {
		t.Errorf("got %+v", got)
	}
	if n := r.MaxInFlight(); n != 16 {
		t.Errorf("%d in flight", n)
	}
}

func TestAConsumerWhoStopsStopsTheFetching(t *testing.T) {
	before := runtime.NumGoroutine()
	r := registrytest.Start(t, registrytest.Options{})
	s := store.New(quick())
	v := open(t, s, r, nil)
	image := r.PushImage(repo, "v1")
	for i := range 200 {
		r.AttachReferrer(repo, image, notation(i))
	}
	n := 0
	for _, err := range v.Candidates(t.Context(), subjectOf(r, image), signatures).All {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			break
		}
	}
	for r.InFlight() > 0 {
		runtime.Gosched()
	}
	asked := len(r.Requests())
	if asked > 1+3+16 {
		t.Errorf("%d requests for three candidates", asked)
	}
	r.Close()
	s.CloseIdleConnections()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before+5; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

func TestACallerWhoGivesUpBetweenCandidates(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	for i := range 40 {
		r.AttachReferrer(repo, image, notation(i))
	}
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	var last error
	n := 0
	for _, err := range v.Candidates(ctx, subjectOf(r, image), signatures).All {
		if n++; n == 1 {
			giveUp()
		}
		last = err
	}
	if reason(last) != verifier.ReasonTimeout || n > 3 {
		t.Errorf("%d pairs, the last %v", n, last)
	}
}

func TestTheServerFiltersWhereOneTypeIsWanted(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	query := func(wanted verifier.Wanted) string {
		r.Reset()
		look(t.Context(), v, subjectOf(r, image), wanted)
		for _, q := range r.Requests() {
			if strings.Contains(q.Path, "/referrers/") {
				return q.Query
			}
		}
		return "nothing was asked"
	}
	if q := query(signatures); q != "artifactType=application%2Fvnd.cncf.notary.signature" {
		t.Errorf("one type: %q", q)
	}
	if q := query(both); q != "" {
		t.Errorf("two types: %q", q)
	}
	if q := query(verifier.Wanted{ArtifactTypes: []string{verifier.AnyArtifactType}}); q != "" {
		t.Errorf("any type: %q", q)
	}
	if q := query(verifier.Wanted{TagSuffixes: []string{".sig"}}); q != "nothing was asked" {
		t.Errorf("no type: %q", q)
	}
}

func TestTheManifestSaysOfWhatTypeItIs(t *testing.T) {
	for name, options := range map[string]registrytest.Options{"filtered there": {}, "filtered here": {NoFilter: true}, "tag schema": {NoReferrersAPI: true}} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			subject := &ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
			list := func(listed string, a registrytest.Artifact) digest.Digest {
				a.Layers = []registrytest.Layer{{MediaType: "text/plain", Data: []byte(listed + a.ArtifactType + a.ConfigMediaType)}}
				m := r.Build(repo, a)
				m.Subject = subject
				d := r.PushArtifact(repo, "", m)
				d.ArtifactType = listed
				r.ListReferrer(repo, image.Digest, d)
				return d.Digest
			}
			const sbom = "application/vnd.example.sbom"
			unnamed := list("", registrytest.Artifact{ConfigMediaType: signature})
			empty := list(ocispec.MediaTypeEmptyJSON, registrytest.Artifact{ArtifactType: signature})
			list("", registrytest.Artifact{ArtifactType: sbom})
			list(ocispec.MediaTypeEmptyJSON, registrytest.Artifact{ArtifactType: sbom})
			list(signature, registrytest.Artifact{ArtifactType: sbom, ConfigMediaType: signature})
			list(sbom, registrytest.Artifact{ArtifactType: signature})
			named := list(signature, registrytest.Artifact{ArtifactType: signature})
			want := []digest.Digest{unnamed, empty, named}
			if name == "filtered there" { // what it does not list is not seen
				want = []digest.Digest{named}
			}
			if got := look(t.Context(), v, subjectOf(r, image), signatures); !slices.Equal(got.digests(), want) || got.broken != nil || got.list != nil {
				t.Errorf("got %+v, want %v", got, want)
			}
			for _, q := range r.Requests() {
				if strings.HasSuffix(q.Path, list(sbom, registrytest.Artifact{ArtifactType: signature}).String()) {
					t.Error("what is listed as another type was fetched")
				}
			}
		})
	}
}

func TestWhatIsLeftUnderTheTagIsFound(t *testing.T) {
	sbom := registrytest.Artifact{ArtifactType: "application/vnd.example.sbom", Layers: []registrytest.Layer{{MediaType: "text/plain", Data: []byte("x")}}}
	for name, wanted := range map[string]verifier.Wanted{"one type": signatures, "several types": both} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{})
			v := open(t, store.New(quick()), r, nil)
			image, elsewhere := r.PushImage(repo, "v1"), r.PushImage("elsewhere", "")
			old := r.AttachReferrer(repo, image, notation(1))
			r.PushReferrersTag(repo, image.Digest, old)
			r.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, req *http.Request) bool {
				// given the API since, it lists only what was attached since
				w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
				_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1,"artifactType":%q}]}`, image.MediaType, elsewhere.Digest, sbom.ArtifactType)
				return true
			}))
			got := look(t.Context(), v, subjectOf(r, image), wanted)
			if len(got.candidates) != 1 || got.candidates[0].Source != verifier.SourceReferrersTag || got.list != nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestATagThatLeadsToTheImageListsNothing(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{NoReferrersAPI: true})
	v := open(t, store.New(quick()), r, nil)
	child := r.PushImage(repo, "")
	index := r.PushReferrersTag(repo, child.Digest, child) // a multi-platform image, as it happens
	r.Tag(repo, registrytest.ReferrersTag(index.Digest), index.Digest)
	if got := look(t.Context(), v, subjectOf(r, index), verifier.Wanted{ArtifactTypes: []string{verifier.AnyArtifactType}}); !got.empty() {
		t.Errorf("got %+v", got)
	}
	manifest := r.PushImage(repo, "v1")
	r.Tag(repo, registrytest.ReferrersTag(manifest.Digest), child.Digest)
	if got := look(t.Context(), v, subjectOf(r, manifest), signatures); !got.empty() {
		t.Errorf("got %+v", got)
	}
}

func TestTheMemoryOfTheReferrersAPIHidesNothing(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	images := 0
	attach := func() (attached ocispec.Descriptor, subject verifier.Subject) {
		images++
		image := r.PushImage(repo, "")
		return r.AttachReferrer(repo, image, notation(images)), subjectOf(r, image)
	}
	finds := func(subject verifier.Subject) {
		t.Helper()
		if got := look(t.Context(), v, subject, signatures); len(got.candidates) != 1 || got.list != nil {
			t.Errorf("got %+v", got)
		}
	}
	gone := registrytest.On("/referrers/", registrytest.Status(http.StatusNotFound))

	// No API: remembered, and not asked for while the tag has something.
	r.SetFault(gone)
	for range 3 {
		attached, subject := attach()
		r.PushReferrersTag(repo, subject.Digest, attached)
		finds(subject)
	}
	if n := strings.Count(paths(r), "/referrers/"); n != 1 {
		t.Errorf("the API was asked %d times", n)
	}

	// The API appears meanwhile: what only it knows is found all the same, and
	// from then on it is asked first.
	r.SetFault(nil)
	for _, want := range []int{3, 2} {
		_, subject := attach()
		r.Reset()
		finds(subject)
		if n := len(r.Requests()); n != want {
			t.Errorf("%d requests, want %d:\n%s", n, want, paths(r))
		}
	}

	// An API that is known, and then a 404: that says nothing about the next image.
	v = open(t, store.New(quick()), r, nil)
	_, subject := attach()
	finds(subject)
	r.SetFault(gone)
	look(t.Context(), v, subjectOf(r, r.PushImage(repo, "")), signatures)
	r.SetFault(nil)
	_, subject = attach()
	r.Reset()
	finds(subject)
	if n := len(r.Requests()); n != 2 {
		t.Errorf("%d requests:\n%s", n, paths(r))
	}
}

func TestWhetherThereIsAnAPIIsForgottenInTime(t *testing.T) {
	options := quick()
	options.ReferrersAPITTL = time.Nanosecond
	r := registrytest.Start(t, registrytest.Options{NoReferrersAPI: true})
	v := open(t, store.New(options), r, nil)
	for n := range 3 {
		image := r.PushImage(repo, "")
		r.AttachReferrer(repo, image, notation(n))
		r.Reset()
		decide(t, v, byDigest(r, image.Digest), signatures)
		if n := len(r.Requests()); n != 4 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestAnOlderAPIIsNoAPI(t *testing.T) {
	html := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<html>")
		return true
	}
	for name, fault := range map[string]registrytest.Fault{
		"404": registrytest.Status(404), "405": registrytest.Status(405), "501": registrytest.Status(501), "a page for people": html,
	} {
		r := registrytest.Start(t, registrytest.Options{})
		v := open(t, store.New(quick()), r, nil)
		image := r.PushImage(repo, "v1")
		r.PushReferrersTag(repo, image.Digest, r.AttachReferrer(repo, image, notation(1)))
		r.SetFault(registrytest.On("/referrers/", fault))
		if got := look(t.Context(), v, subjectOf(r, image), signatures); len(got.candidates) != 1 || got.list != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestOneWayThatFailsDoesNotHideTheOther(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	r.PushArtifact(repo, "sha256-"+image.Digest.Encoded()+".sig", r.Build(repo, notation(2)))
	var v *store.View
	for path, source := range map[string]verifier.Source{"/referrers/": verifier.SourceTagSuffix, ".sig": verifier.SourceReferrersAPI} {
		v = open(t, store.New(quick()), r, nil)
		r.SetFault(registrytest.On(path, registrytest.Status(500)))
		got := look(t.Context(), v, subjectOf(r, image), both)
		if len(got.candidates) != 1 || got.candidates[0].Source != source || !slices.Equal(got.list, []verifier.Reason{verifier.ReasonRegistryUnreachable}) {
			t.Errorf("%s fails: %+v", path, got)
		}
	}
	r.SetFault(nil) // nothing of that was remembered
	if got := look(t.Context(), v, subjectOf(r, image), both); len(got.candidates) != 2 || got.list != nil {
		t.Errorf("healed: %+v", got)
	}
}

func TestAManifestThatIsGoneBreaksItselfOnly(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	d := registrytest.Stranger(1)
	d.ArtifactType = signature
	r.ListReferrer(repo, image.Digest, d)
	r.AttachReferrer(repo, image, notation(1))
	got := look(t.Context(), v, subjectOf(r, image), signatures)
	if len(got.candidates) != 1 || !slices.Equal(got.broken, []verifier.Reason{verifier.ReasonRegistryInvalid}) || got.list != nil {
		t.Errorf("got %+v", got)
	}
}

func TestObserveIsToldOfEachExchange(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
	options := quick()
	var mu sync.Mutex
	kinds := map[string]int{}
	options.Observe = func(e store.Exchange) {
		mu.Lock()
		defer mu.Unlock()
		kinds[fmt.Sprint(e.Kind, " ", e.Status, " ", e.Attempt)]++
		if e.Host != r.Host() || e.Duration <= 0 {
			t.Errorf("%+v", e)
		}
	}
	s := store.New(options)
	v := open(t, s, r, nil)
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	r.SetFault(registrytest.On("/blobs/", registrytest.First(1, registrytest.Status(500))))
	decide(t, v, byTag(r, "v1"), signatures)
	decide(t, v, byTag(r, "v1"), signatures)
	want := map[string]int{"tag 200 1": 1, "token 200 1": 1, "referrers 200 1": 1, "manifest 200 1": 1, "blob 500 1": 1, "blob 200 2": 1}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
	stats := s.Stats()
	if stats["blobs"].Hits != 1 || stats["manifests"].Hits != 1 || stats["candidates"].Hits != 1 || stats["tags"].Hits != 1 || stats["tokens"].Entries != 1 {
		t.Errorf("%+v", stats)
	}
}

// BenchmarkWarm is what a decision costs once all is remembered.
func BenchmarkWarm(b *testing.B) {
	r := registrytest.Start(b, registrytest.Options{})
	v, err := store.New(quick()).View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), PlainHTTP: true}}})
	if err != nil {
		b.Fatal(err)
	}
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	b.ReportAllocs()
	for b.Loop() {
		subject, err := v.Resolve(b.Context(), byTag(r, "v1"))
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range v.Candidates(b.Context(), subject, signatures).All {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
