package store_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
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

const (
	repo      = "team/app"
	signature = "application/vnd.cncf.notary.signature"
	bundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

var (
	signatures = verifier.Wanted{ArtifactTypes: []string{signature}}
	both       = verifier.Wanted{ArtifactTypes: []string{signature, bundle}, TagSuffixes: []string{".sig"}}
)

// quick is for tests: it dials loopback, and pauses are short.
func quick() store.Options {
	o := store.Options{
		AllowLoopback: true, RetryBase: time.Millisecond, Jitter: func() float64 { return 0 },
		ContactWait: time.Minute, // requests are counted, and a loaded machine is slow
	}
	caches(&o)
	return o
}

// caches are on where test/shared, which runs the attack list with them, says so: on
// disk, in a directory that it removes, and where it gives a URL through a server.
func caches(o *store.Options) {
	url := os.Getenv("COUNTERSIGN_CACHES")
	if url == "" {
		return
	}
	dir, err := os.MkdirTemp(os.Getenv("COUNTERSIGN_CACHES_DIR"), "")
	if err == nil {
		o.Content, err = store.OpenDirectory(dir, 64<<20)
	}
	if err == nil && url != "disk" {
		o.Shared, err = store.NewShared(store.SharedOptions{URL: url, Secret: []byte(rand.Text() + rand.Text())})
	}
	if err != nil {
		panic(err)
	}
}

// open makes a view of the registry, over its own protocol and CA.
func open(t *testing.T, s *store.Store, r *registrytest.Registry, credential store.CredentialSource) *store.View {
	t.Helper()
	t.Cleanup(s.CloseIdleConnections)
	v, err := s.View(store.ViewOptions{Registries: []store.Registry{{
		Host: r.Host(), PlainHTTP: r.CA() == nil, CAs: r.CA(), Credential: credential,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func notation(n int) registrytest.Artifact {
	return registrytest.Artifact{
		ConfigMediaType: signature,
		Layers:          []registrytest.Layer{{MediaType: "application/jose+json", Data: fmt.Appendf(nil, "envelope %d", n)}},
	}
}

func byTag(r *registrytest.Registry, tag string) verifier.Reference {
	return verifier.Reference{Registry: r.Host(), Repository: repo, Tag: tag}
}

func byDigest(r *registrytest.Registry, d digest.Digest) verifier.Reference {
	return verifier.Reference{Registry: r.Host(), Repository: repo, Digest: d}
}

// seen is what a stream gave.
type seen struct {
	candidates []verifier.Candidate
	broken     []verifier.Reason // of single candidates
	list       []verifier.Reason // of the whole list
}

func (s seen) String() string {
	return fmt.Sprintf("%d candidates, broken %v, list %v", len(s.candidates), s.broken, s.list)
}

func (s seen) digests() []digest.Digest {
	var list []digest.Digest
	for _, c := range s.candidates {
		list = append(list, c.Descriptor.Digest)
	}
	return list
}

// look asks as the Chain does: what is left under the tag, and whether the image is
// there, when there is nothing else.
func look(ctx context.Context, v *store.View, subject verifier.Subject, wanted verifier.Wanted) seen {
	var s seen
	take := func(wanted verifier.Wanted) {
		for c, err := range v.Candidates(ctx, subject, wanted).All {
			switch {
			case err == nil:
				s.candidates = append(s.candidates, c)
			case c.Descriptor.Digest != "" || c.Descriptor.MediaType != "" || c.Descriptor.Size != 0:
				s.broken = append(s.broken, reason(err))
			default:
				s.list = append(s.list, reason(err))
			}
		}
	}
	take(wanted)
	if s.empty() && len(wanted.ArtifactTypes) > 0 {
		take(verifier.Wanted{ArtifactTypes: wanted.ArtifactTypes, Leftovers: true})
	}
	if s.empty() {
		if err := v.Exists(ctx, subject); err != nil {
			s.list = append(s.list, reason(err))
		}
	}
	return s
}

// reason of an error that must wrap an *Error.
func reason(err error) verifier.Reason { return verifier.AsError(err).Reason }

// decide does what a decision does: resolve, read candidates and their blobs.
func decide(t *testing.T, v *store.View, ref verifier.Reference, wanted verifier.Wanted) seen {
	t.Helper()
	subject, err := v.Resolve(t.Context(), ref)
	if err != nil {
		t.Fatalf("resolve: %v", err)
	}
	s := look(t.Context(), v, subject, wanted)
	for _, c := range s.candidates {
		for _, layer := range c.Manifest.Layers {
			if _, err := v.Fetch(t.Context(), subject, layer); err != nil {
				t.Fatalf("fetch: %v", err)
			}
		}
	}
	return s
}

func paths(r *registrytest.Registry) string {
	var lines []string
	for _, q := range r.Requests() {
		lines = append(lines, q.String())
	}
	return strings.Join(lines, "\n")
}

func TestRequestsOfADecision(t *testing.T) {
	for _, test := range []struct {
		name            string
		options         registrytest.Options
		tag             bool
		requests, trips int // of the first image on a host
		later           int // of further images on it
	}{
		{"by digest", registrytest.Options{}, false, 3, 3, 3},
		{"by digest, TLS", registrytest.Options{TLS: true}, false, 3, 3, 3},
		{"by tag", registrytest.Options{}, true, 4, 4, 4},
		{"by tag, no digest header", registrytest.Options{NoDigestHeader: true}, true, 5, 5, 5},
		{"without a referrers API", registrytest.Options{NoReferrersAPI: true}, false, 4, 4, 3},
		{"with a token", registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}}, false, 5, 5, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := registrytest.Start(t, test.options)
			v := open(t, store.New(quick()), r, nil)
			for n, want := range []int{test.requests, test.later} {
				tag := fmt.Sprint("v", n)
				image := r.PushImage(repo, tag)
				attached := r.AttachReferrer(repo, image, notation(n))
				ref := byDigest(r, image.Digest)
				if test.tag {
					ref = byTag(r, tag)
				}
				r.Reset()
				got := decide(t, v, ref, signatures)
				if !slices.Equal(got.digests(), []digest.Digest{attached.Digest}) || got.broken != nil || got.list != nil {
					t.Fatalf("got %+v", got)
				}
				if n := len(r.Requests()); n != want {
					t.Errorf("%d requests, want %d:\n%s", n, want, paths(r))
				}
				if n == 0 && r.RoundTrips() != test.trips {
					t.Errorf("%d in sequence, want %d:\n%s", r.RoundTrips(), test.trips, paths(r))
				}
				r.Reset()
				decide(t, v, ref, signatures)
				if n := len(r.Requests()); n != 0 {
					t.Errorf("a warm decision makes %d requests:\n%s", n, paths(r))
				}
			}
		})
	}
}

func TestReferrersAndTagsAreAskedForTogether(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	look(t.Context(), v, verifier.Subject{Reference: byTag(r, "x"), Digest: digest.FromString("none")}, both) // the first contact goes alone
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	r.AttachReferrer(repo, image, registrytest.Artifact{ArtifactType: bundle, Layers: []registrytest.Layer{{MediaType: bundle, Data: []byte("{}")}}})
	sig := r.PushArtifact(repo, "sha256-"+image.Digest.Encoded()+".sig", r.Build(repo, registrytest.Artifact{
		ConfigMediaType: ocispec.MediaTypeImageConfig,
		Layers:          []registrytest.Layer{{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Data: []byte("payload")}},
	}))
	r.SetFault(inPairs())
	r.Reset()
	got := look(t.Context(), v, verifier.Subject{Reference: byTag(r, "v1"), Digest: image.Digest}, both)
	if len(got.candidates) != 3 || got.broken != nil || got.list != nil {
		t.Fatalf("got %+v", got)
	}
	if last := got.candidates[2]; last.Descriptor.Digest != sig.Digest || last.Source != verifier.SourceTagSuffix {
		t.Errorf("the tag is not last: %+v", last)
	}
	if n, trips := len(r.Requests()), r.RoundTrips(); n != 4 || trips != 2 {
		t.Errorf("%d requests, %d in sequence; want 4 and 2:\n%s", n, trips, paths(r))
	}
}

// inPairs answers no request until the next is there too, so that two that
// wait for one another never end.
func inPairs() registrytest.Fault {
	pair := make(chan struct{})
	return func(_ http.ResponseWriter, req *http.Request) bool {
		select {
		case pair <- struct{}{}:
		case <-pair:
		case <-req.Context().Done():
		}
		return false
	}
}

func TestCosignAloneIsTwoRequests(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(quick()), r, nil)
	image := r.PushImage(repo, "v1")
	r.PushArtifact(repo, "sha256-"+image.Digest.Encoded()+".sig", r.Build(repo, notation(1)))
	got := decide(t, v, byDigest(r, image.Digest), verifier.Wanted{TagSuffixes: []string{".sig"}})
	if len(got.candidates) != 1 || len(r.Requests()) != 2 {
		t.Errorf("got %+v with\n%s", got, paths(r))
	}
}

func TestAStampedeIsTheTrafficOfOne(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}})
	image := r.PushImage(repo, "v1")
	r.AttachReferrer(repo, image, notation(1))
	v := open(t, store.New(quick()), r, nil)
	var wait sync.WaitGroup
	for range 100 {
		wait.Go(func() {
			if got := decide(t, v, byTag(r, "v1"), signatures); len(got.candidates) != 1 {
				t.Errorf("got %+v", got)
			}
		})
	}
	wait.Wait()
	if n := len(r.Requests()); n != 6 { // 401, token, tag, referrers, manifest, blob
		t.Errorf("%d requests:\n%s", n, paths(r))
	}
}

func TestATagIsPinnedOnceAndForTenSeconds(t *testing.T) {
	options := quick()
	options.TagTTL = time.Hour
	r := registrytest.Start(t, registrytest.Options{})
	v := open(t, store.New(options), r, nil)
	first := r.PushImage(repo, "v1")
	pinned := func(v *store.View) digest.Digest {
		t.Helper()
		s, err := v.Resolve(t.Context(), byTag(r, "v1"))
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest
	}
	if d := pinned(v); d != first.Digest {
		t.Errorf("v1 is %s, want %s", d, first.Digest)
	}
	second := r.PushImage(repo, "v1")
	if d := pinned(v); d != first.Digest {
		t.Errorf("within the time that a tag is believed, it moved")
	}
	options.TagTTL = time.Nanosecond
	v = open(t, store.New(options), r, nil)
	pinned(v)
	if d := pinned(v); d != second.Digest {
		t.Errorf("v1 is %s, want %s", d, second.Digest)
	}
}

func TestADigestNeedsNoRequest(t *testing.T) {
	v, err := store.New(store.Options{}).View(store.ViewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromString("x")
	ref := verifier.Reference{Registry: "registry.example.test", Repository: repo, Digest: d}
	s, err := v.Resolve(t.Context(), ref)
	if err != nil || s.Digest != d || s.Reference != ref {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, ref := range []verifier.Reference{{}, {Registry: "a.example.test", Repository: repo}, {Registry: "a.example.test", Repository: repo, Digest: "sha256:zz"}} {
		if _, err := v.Resolve(t.Context(), ref); reason(err) != verifier.ReasonReferenceInvalid {
			t.Errorf("%+v: %v", ref, err)
		}
	}
}

func TestAnImageThatIsNotThere(t *testing.T) {
	for name, options := range map[string]registrytest.Options{"referrers API": {}, "tag schema": {NoReferrersAPI: true}} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			v := open(t, store.New(quick()), r, nil)
			image := r.PushImage(repo, "v1")
			if _, err := v.Resolve(t.Context(), byTag(r, "v2")); reason(err) != verifier.ReasonImageNotFound {
				t.Errorf("a tag that is not there: %v", err)
			}
			got := look(t.Context(), v, verifier.Subject{Reference: byTag(r, "v1"), Digest: digest.FromString("none")}, both)
			if !slices.Equal(got.list, []verifier.Reason{verifier.ReasonImageNotFound}) || got.candidates != nil {
				t.Errorf("a digest that is not there: %+v", got)
			}
			other := byTag(r, "v1")
			other.Repository = "team/none"
			got = look(t.Context(), v, verifier.Subject{Reference: other, Digest: image.Digest}, signatures)
			if !slices.Equal(got.list, []verifier.Reason{verifier.ReasonImageNotFound}) {
				t.Errorf("a repository that is not there: %+v", got)
			}
			if got := look(t.Context(), v, verifier.Subject{Reference: byTag(r, "v1"), Digest: image.Digest}, both); !got.empty() {
				t.Errorf("an image without signatures: %+v", got)
			}
		})
	}
}

func (s seen) empty() bool { return s.candidates == nil && s.broken == nil && s.list == nil }

func TestNothingFoundIsBelievedForFiveSecondsOnly(t *testing.T) {
	options := quick()
	options.EmptyListTTL = time.Nanosecond
	for name, listed := range map[string]bool{"an empty list": false, "a list of which nothing is wanted": true} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, registrytest.Options{NoFilter: true})
			v := open(t, store.New(options), r, nil)
			image := r.PushImage(repo, "v1")
			if listed { // by a registry that does not tell the artifact type
				d := r.AttachReferrer(repo, image, registrytest.Artifact{ArtifactType: "application/vnd.example.sbom", Layers: []registrytest.Layer{{Data: []byte("x")}}})
				d.ArtifactType = ""
				r.ListReferrer(repo, image.Digest, d)
			}
			subject := verifier.Subject{Reference: byTag(r, "v1"), Digest: image.Digest}
			if got := look(t.Context(), v, subject, signatures); !got.empty() {
				t.Fatalf("unsigned: %+v", got)
			}
			r.AttachReferrer(repo, image, notation(1))
			if got := look(t.Context(), v, subject, signatures); len(got.candidates) != 1 {
				t.Errorf("signed since: %+v", got)
			}
		})
	}
}
