package memory

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
	"testing"
)

// attack is what a hostile registry has attached to every image that it is asked for.
// Whatever it sends differs from image to image, so that no cache makes it cheap.
type attack struct {
	// referrers of each image, with manifests of that many bytes.
	referrers, manifest int
	// types of the referrers, in turn.
	types []string
	// layers of each manifest, with that many bytes, of that media type.
	layers, blob int
	layerType    string
	// tag is how many bytes the manifest at Cosign's tag has, with tagLayers layers.
	tag, tagLayers int
	// pages of referrers, padded to that many bytes each; 0: one, as it is.
	pages, page int
	// chunked sends bodies without their length.
	chunked bool
}

const (
	notationType = "application/vnd.cncf.notary.signature"
	bundleType   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// hostile is a registry of that attack. An image is REPOSITORY@sha256:N, with N in hex.
type hostile struct {
	attack
	host string
	sent atomic.Int64
	pad  []byte

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

func newHostile(t *testing.T, a attack) *hostile {
	h := &hostile{attack: a, pad: bytes.Repeat([]byte("a"), 64<<10), content: map[string]content{}, states: map[string][]byte{}}
	server := httptest.NewServer(h)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

func image(n int) string { return fmt.Sprintf("sha256:%064x", n+1) }

// name of the n-th image.
func (h *hostile) name(n int) string { return h.host + "/team/app@" + image(n) }

// digest of the content, which is served from then on. Equal heads and fillings are
// hashed once.
func (h *hostile) digest(c content) string {
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
func (h *hostile) manifestOf(subject, artifactType string, size, layers int, unique string) content {
	var list []descriptor
	for i := range layers {
		tail := fmt.Appendf(nil, "%-160s", fmt.Sprintf("%s %s %d", subject, unique, i)) // of one length
		blob := content{mediaType: "application/octet-stream", fill: max(h.blob-len(tail), 0), tail: tail}
		list = append(list, descriptor{MediaType: h.layerType, Digest: h.digest(blob), Size: blob.size(),
			Annotations: map[string]string{"dev.cosignproject.cosign/signature": strings.Repeat("A", 96)}})
	}
	if layers == 0 {
		list = []descriptor{{MediaType: h.layerType, Digest: image(0), Size: 1000}}
	}
	c := content{mediaType: manifestType, head: []byte(`{"schemaVersion":2,"mediaType":"` + manifestType + `","annotations":{"pad":"`)}
	c.tail = fmt.Appendf(nil, `","unique":%q},"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":%s,"subject":%s}`,
		unique, artifactType, artifactType, image(0), encode(list), encode(descriptor{MediaType: manifestType, Digest: subject, Size: 500}))
	c.fill = max(size-len(c.head)-len(c.tail), 0)
	return c
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/")
	last := parts[len(parts)-1]
	switch {
	case strings.Contains(r.URL.Path, "/referrers/"):
		h.list(w, r, last)
	case strings.Contains(r.URL.Path, "/manifests/sha256-"):
		hex, suffix, _ := strings.Cut(strings.TrimPrefix(last, "sha256-"), ".")
		if suffix != "sig" || h.tag == 0 {
			http.NotFound(w, r)
			return
		}
		c := h.manifestOf("sha256:"+hex, "application/vnd.oci.image.config.v1+json", h.tag, h.tagLayers, "tag")
		w.Header().Set("Docker-Content-Digest", h.digest(c))
		h.send(w, c)
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
		h.send(w, c)
	}
}

func (h *hostile) list(w http.ResponseWriter, r *http.Request, subject string) {
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	list := []descriptor{}
	for i := range h.referrers {
		artifactType := h.types[i%len(h.types)]
		c := h.manifestOf(subject, artifactType, h.manifest, h.layers, fmt.Sprintf("%3d of page %d", i, page))
		list = append(list, descriptor{MediaType: manifestType, Digest: h.digest(c), Size: c.size(), ArtifactType: artifactType})
	}
	c := content{mediaType: indexType, head: []byte(`{"schemaVersion":2,"pad":"`)}
	c.tail = append(append([]byte(`","manifests":`), encode(list)...), '}')
	c.fill = max(h.page-len(c.head)-len(c.tail), 0)
	if page++; page < h.pages {
		w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page))
	}
	h.send(w, c)
}

func (h *hostile) send(w http.ResponseWriter, c content) {
	w.Header().Set("Content-Type", c.mediaType)
	if !h.chunked {
		w.Header().Set("Content-Length", strconv.Itoa(c.size()))
	}
	_, _ = w.Write(c.head)
	for rest := c.fill; rest > 0; rest -= len(h.pad) {
		if _, err := w.Write(h.pad[:min(rest, len(h.pad))]); err != nil {
			return
		}
	}
	_, _ = w.Write(c.tail)
	h.sent.Add(int64(c.size()))
}
