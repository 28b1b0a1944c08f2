// Package hostile is a registry that sends as much as it may, to fill the memory of
// whoever verifies its images. It keeps next to nothing of it.
package hostile

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Attack is what a hostile registry has attached to every image that it is asked for.
// Whatever it sends differs from image to image, so that no cache makes it cheap.
type Attack struct {
	// Referrers of each image, with manifests of that many bytes.
	Referrers, Manifest int
	// Types of the referrers, in turn.
	Types []string
	// Layers of each manifest, with that many bytes, of that media type.
	Layers, Blob int
	LayerType    string
	// Tag is how many bytes the manifest at Cosign's tag has, with TagLayers layers.
	Tag, TagLayers int
	// Pages of referrers, padded to that many bytes each; 0: one, as it is.
	Pages, Page int
	// Image is how many bytes the manifest of an image has; 0: it has none.
	Image int
	// Stall sends the last bytes of no body that was filled up.
	Stall bool
	// Chunked sends bodies without their length.
	Chunked bool
}

// Types of referrers and manifests.
const (
	NotationType = "application/vnd.cncf.notary.signature"
	BundleType   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	ManifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// Registry is one of an attack, over plain HTTP. Safe for concurrent use.
type Registry struct {
	// Attack as it was started with.
	Attack Attack
	// Host as images name it.
	Host string
	// Sent counts the bytes of its bodies.
	Sent atomic.Int64

	server *httptest.Server
	pad    []byte

	mu      sync.Mutex // guards all below
	content map[string]content
	states  map[string][]byte // of SHA-256, after a head and its filling
}

// content is a prefix, filling and a suffix: nothing of it is kept but what differs.
type content struct {
	mediaType string
	head      []byte
	fill      int
	tail      []byte
}

// Start starts a registry. Its user closes it.
func Start(a Attack) *Registry {
	h := &Registry{Attack: a, pad: bytes.Repeat([]byte("a"), 64<<10), content: map[string]content{}, states: map[string][]byte{}}
	h.server = httptest.NewServer(h)
	h.Host = strings.TrimPrefix(h.server.URL, "http://")
	return h
}

// Close ends it.
func (h *Registry) Close() {
	h.server.CloseClientConnections()
	h.server.Close()
}

func number(n int) string { return fmt.Sprintf("sha256:%064x", n+1) }

// Name of the n-th image. It has a digest of that number, or where the attack has a size
// for them a manifest.
func (h *Registry) Name(n int) string {
	if h.Attack.Image == 0 {
		return h.Host + "/team/app@" + number(n)
	}
	list := make([]descriptor, h.Attack.Image/1000)
	for i := range list {
		list[i] = descriptor{MediaType: ManifestType, Digest: number(i), Size: 500}
	}
	c := content{mediaType: indexType, head: []byte(`{"schemaVersion":2,"mediaType":"` + indexType + `","pad":"`)}
	c.tail = fmt.Appendf(nil, `","n":%d,"manifests":%s}`, n, encode(list))
	c.fill = max(h.Attack.Image-len(c.head)-len(c.tail), 0)
	return h.Host + "/team/app@" + h.digest(c)
}

// digest of the content, which is served from then on. Equal heads and fillings are
// hashed once.
func (h *Registry) digest(c content) string {
	key := strconv.Itoa(c.fill) + string(c.head)
	h.mu.Lock()
	saved := h.states[key]
	h.mu.Unlock()
	if saved == nil {
		state := sha256.New()
		_, _ = state.Write(c.head)
		for rest := c.fill; rest > 0; rest -= len(h.pad) {
			_, _ = state.Write(h.pad[:min(rest, len(h.pad))])
		}
		var err error
		if saved, err = state.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			panic(err)
		}
	}
	sum := sha256.New()
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(saved); err != nil {
		panic(err)
	}
	_, _ = sum.Write(c.tail)
	digest := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.content[digest], h.states[key] = c, saved
	return digest
}

func (c content) size() int { return len(c.head) + c.fill + len(c.tail) }

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int               `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// manifestOf makes a manifest about the image, of that size.
func (h *Registry) manifestOf(subject, artifactType string, size, layers int, unique string) content {
	var list []descriptor
	for i := range layers {
		tail := fmt.Appendf(nil, "%-160s", fmt.Sprintf("%s %s %d", subject, unique, i)) // of one length
		blob := content{mediaType: "application/octet-stream", fill: max(h.Attack.Blob-len(tail), 0), tail: tail}
		list = append(list, descriptor{MediaType: h.Attack.LayerType, Digest: h.digest(blob), Size: blob.size(),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": strings.Repeat("A", 96)}})
	}
	if layers == 0 {
		list = []descriptor{{MediaType: h.Attack.LayerType, Digest: number(0), Size: 1000}}
	}
	c := content{mediaType: ManifestType, head: []byte(`{"schemaVersion":2,"mediaType":"` + ManifestType + `","annotations":{"pad":"`)}
	c.tail = fmt.Appendf(nil, `","unique":%q},"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":%s,"subject":%s}`,
		unique, artifactType, artifactType, number(0), encode(list), encode(descriptor{MediaType: ManifestType, Digest: subject, Size: 500}))
	c.fill = max(size-len(c.head)-len(c.tail), 0)
	return c
}

func (h *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	last := parts[len(parts)-1]
	switch {
	case strings.Contains(r.URL.Path, "/referrers/"):
		h.list(w, r, last)
	case strings.Contains(r.URL.Path, "/manifests/sha256-"):
		hex, suffix, _ := strings.Cut(strings.TrimPrefix(last, "sha256-"), ".")
		if suffix != "sig" || h.Attack.Tag == 0 {
			http.NotFound(w, r)
			return
		}
		c := h.manifestOf("sha256:"+hex, "application/vnd.oci.image.config.v1+json", h.Attack.Tag, h.Attack.TagLayers, "tag")
		w.Header().Set("Docker-Content-Digest", h.digest(c))
		h.send(w, r, c)
	default:
		h.mu.Lock()
		c, ok := h.content[last]
		h.mu.Unlock()
		if !ok {
			w.Header().Set("Docker-Content-Digest", last)
			if r.Method != http.MethodHead {
				http.NotFound(w, r)
			}
			return
		}
		h.send(w, r, c)
	}
}

func (h *Registry) list(w http.ResponseWriter, r *http.Request, subject string) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	list := []descriptor{}
	for i := range h.Attack.Referrers {
		artifactType := h.Attack.Types[i%len(h.Attack.Types)]
		c := h.manifestOf(subject, artifactType, h.Attack.Manifest, h.Attack.Layers, fmt.Sprintf("%3d of page %d", i, page))
		list = append(list, descriptor{MediaType: ManifestType, Digest: h.digest(c), Size: c.size(), ArtifactType: artifactType})
	}
	c := content{mediaType: indexType, head: []byte(`{"schemaVersion":2,"pad":"`)}
	c.tail = append(append([]byte(`","manifests":`), encode(list)...), '}')
	c.fill = max(h.Attack.Page-len(c.head)-len(c.tail), 0)
	if page++; page < h.Attack.Pages {
		w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page))
	}
	h.send(w, r, c)
}

func (h *Registry) send(w http.ResponseWriter, r *http.Request, c content) {
	w.Header().Set("Content-Type", c.mediaType)
	if !h.Attack.Chunked {
		w.Header().Set("Content-Length", strconv.Itoa(c.size()))
	}
	_, _ = w.Write(c.head)
	for rest := c.fill; rest > 0; rest -= len(h.pad) {
		if _, err := w.Write(h.pad[:min(rest, len(h.pad))]); err != nil {
			return
		}
	}
	if h.Attack.Stall && c.fill > 0 {
		_ = http.NewResponseController(w).Flush()
		h.Sent.Add(int64(c.fill))
		<-r.Context().Done()
		return
	}
	_, _ = w.Write(c.tail)
	h.Sent.Add(int64(c.size()))
}
