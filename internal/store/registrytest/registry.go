// Package registrytest is an OCI registry in memory, for tests and
// demonstrations: the distribution specification over real sockets, with the
// referrers API or without it, with token or Basic authentication, with every
// request recorded and any answer replaced by a fault.
//
// It is not a registry to keep images in, and it checks nothing that is pushed
// through its Go methods: a test may store any lie.
package registrytest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what kind of registry it is. The zero value speaks plain HTTP
// with the referrers API to anybody.
type Options struct {
	// TLS serves HTTPS with a certificate of the registry's own CA (see CA).
	TLS bool
	// Clients, with TLS, is the pool of authorities one of whose certificates a
	// client must show.
	Clients *x509.CertPool
	// NoReferrersAPI answers the referrers API as distribution does: 404 in
	// plain text. AttachReferrer then keeps the index of the referrers tag schema.
	NoReferrersAPI bool
	// NoFilter ignores ?artifactType=, as the specification allows.
	NoFilter bool
	// NoDigestHeader leaves Docker-Content-Digest out.
	NoDigestHeader bool
	// PageSize splits the referrers list into pages with Link; 0: one page.
	PageSize int
	// Auth is who may read.
	Auth Auth
	// Latency is added to every request.
	Latency time.Duration
}

// Registry is a running registry. Safe for concurrent use.
type Registry struct {
	options Options
	server  *httptest.Server
	door    *door
	ca      []byte
	journal journal
	tokens  tokens

	mu        sync.Mutex // guards all below
	fault     Fault
	blobs     map[string]map[digest.Digest][]byte   // by repository
	manifests map[string]map[digest.Digest]manifest // by repository
	tags      map[string]map[string]digest.Digest   // by repository
	referrers map[string]map[digest.Digest][]ocispec.Descriptor
	uploads   map[string][]byte
	images    int // number of images made, so that each is another
}

type manifest struct {
	mediaType string
	data      []byte
}

// New starts a registry on a loopback port. Close ends it.
func New(options Options) (*Registry, error) {
	r := &Registry{
		options:   options,
		blobs:     map[string]map[digest.Digest][]byte{},
		manifests: map[string]map[digest.Digest]manifest{},
		tags:      map[string]map[string]digest.Digest{},
		referrers: map[string]map[digest.Digest][]ocispec.Descriptor{},
		uploads:   map[string][]byte{},
	}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.door = newDoor(r.server.Listener)
	r.server.Listener = r.door
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that refuse our certificate are what tests want
	if !options.TLS {
		r.server.Start()
		return r, nil
	}
	ca, config, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	r.ca = ca
	if options.Clients != nil {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, options.Clients
	}
	r.server.TLS = config
	r.server.StartTLS()
	return r, nil
}

// TB is what Start needs of testing.TB, so that programs that embed the
// registry do not link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(string, ...any)
}

// Start is New for tests: the registry ends with the test.
func Start(t TB, options Options) *Registry {
	t.Helper()
	r, err := New(options)
	if err != nil {
		t.Fatalf("start a registry: %v", err)
	}
	t.Cleanup(r.Close)
	return r
}

// Close ends the registry and cuts its connections.
func (r *Registry) Close() {
	r.server.CloseClientConnections()
	r.server.Close()
}

// Host is the registry's part of a reference: "127.0.0.1:port".
func (r *Registry) Host() string { return r.server.Listener.Addr().String() }

// URL is where it listens, without a path.
func (r *Registry) URL() string { return r.server.URL }

// CA is the certificate, in PEM, that clients must trust; nil without TLS.
func (r *Registry) CA() []byte { return r.ca }

// Layer is a blob of an artifact.
type Layer struct {
	MediaType   string
	Data        []byte
	Annotations map[string]string
}

// Artifact is a manifest in the making.
type Artifact struct {
	// ArtifactType and ConfigMediaType: give one or both. Without
	// ConfigMediaType the config is the specification's empty one.
	ArtifactType    string
	ConfigMediaType string
	Layers          []Layer
	Annotations     map[string]string
}

// PushBlob stores a blob and gives its descriptor.
func (r *Registry) PushBlob(repo, mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.mu.Lock()
	defer r.mu.Unlock()
	put(r.blobs, repo, d.Digest, data)
	return d
}

// PushManifest stores bytes as a manifest, whatever they are, under their
// digest and, unless it is empty, a tag.
func (r *Registry) PushManifest(repo, tag, mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.mu.Lock()
	defer r.mu.Unlock()
	put(r.manifests, repo, d.Digest, manifest{mediaType, data})
	if tag != "" {
		put(r.tags, repo, tag, d.Digest)
	}
	return d
}

// PushImage makes an image of its own, the nth being the same in every run.
func (r *Registry) PushImage(repo, tag string) ocispec.Descriptor {
	r.mu.Lock()
	r.images++
	n := r.images
	r.mu.Unlock()
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{"Labels":{"n":"%d"}},"rootfs":{"type":"layers","diff_ids":[]}}`, n)
	return r.PushArtifact(repo, tag, ocispec.Manifest{
		Config: r.PushBlob(repo, ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{r.PushBlob(repo, ocispec.MediaTypeImageLayerGzip, fmt.Appendf(nil, "layer %d", n))},
	})
}

// PushArtifact stores a manifest that the caller made; schema version and
// media type are filled in.
func (r *Registry) PushArtifact(repo, tag string, m ocispec.Manifest) ocispec.Descriptor {
	m.Versioned = specs.Versioned{SchemaVersion: 2}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	return r.PushManifest(repo, tag, m.MediaType, encode(m))
}

// Build stores the artifact's blobs and gives its manifest, without a subject
// and not yet pushed.
func (r *Registry) Build(repo string, a Artifact) ocispec.Manifest {
	m := ocispec.Manifest{ArtifactType: a.ArtifactType, Annotations: a.Annotations}
	if a.ConfigMediaType == "" {
		m.Config = r.PushBlob(repo, ocispec.MediaTypeEmptyJSON, []byte("{}"))
	} else {
		m.Config = r.PushBlob(repo, a.ConfigMediaType, []byte("{}"))
	}
	for _, layer := range a.Layers {
		d := r.PushBlob(repo, layer.MediaType, layer.Data)
		d.Annotations = layer.Annotations
		m.Layers = append(m.Layers, d)
	}
	return m
}

// AttachReferrer stores an artifact whose subject is the given one, and lists
// it: in the referrers API, or without it in the referrers tag schema's index.
// The descriptor is as listed, with artifactType and annotations.
func (r *Registry) AttachReferrer(repo string, subject ocispec.Descriptor, a Artifact) ocispec.Descriptor {
	m := r.Build(repo, a)
	m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	d := r.PushArtifact(repo, "", m)
	d.ArtifactType = m.ArtifactType
	if d.ArtifactType == "" {
		d.ArtifactType = m.Config.MediaType
	}
	d.Annotations = m.Annotations
	r.ListReferrer(repo, subject.Digest, d)
	return d
}

// ListReferrer lists a descriptor as a referrer, true or not.
func (r *Registry) ListReferrer(repo string, subject digest.Digest, d ocispec.Descriptor) {
	r.mu.Lock()
	list := append(slices.Clone(r.referrers[repo][subject]), d)
	put(r.referrers, repo, subject, list)
	r.mu.Unlock()
	if r.options.NoReferrersAPI {
		r.PushReferrersTag(repo, subject, list...)
	}
}

// PushReferrersTag writes the index of the referrers tag schema, as an older
// client would have left it. With the API on, the list of the API is not touched.
func (r *Registry) PushReferrersTag(repo string, subject digest.Digest, list ...ocispec.Descriptor) ocispec.Descriptor {
	return r.PushManifest(repo, ReferrersTag(subject), ocispec.MediaTypeImageIndex, encode(index(list)))
}

// Tag points a tag at what was pushed.
func (r *Registry) Tag(repo, tag string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	put(r.tags, repo, tag, d)
}

// ReferrersTag is the tag of the referrers tag schema, "sha256-<hex>".
func ReferrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

func index(list []ocispec.Descriptor) ocispec.Index {
	if list == nil {
		list = []ocispec.Descriptor{} // "manifests": [] is required
	}
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
}

// encode never fails on the types of image-spec.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func put[K comparable, V any](m map[string]map[K]V, repo string, key K, value V) {
	if m[repo] == nil {
		m[repo] = map[K]V{}
	}
	m[repo][key] = value
}
