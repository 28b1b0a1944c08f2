package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxUpload bounds what a client may push in one request.
const maxUpload = 64 << 20

// route splits /v2/<repository>/<kind>/<rest>.
var route = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs|referrers|tags)/(.*)$`)

func (r *Registry) serve(w http.ResponseWriter, req *http.Request) {
	recorded := r.journal.begin(req)
	status := &statusWriter{ResponseWriter: w, status: http.StatusOK, answered: func() { r.journal.answered(recorded) }}
	defer func() { r.journal.end(recorded, status.status) }()
	if r.options.Latency > 0 {
		select {
		case <-time.After(r.options.Latency):
		case <-req.Context().Done():
			return
		}
	}
	r.mu.Lock()
	fault := r.fault
	r.mu.Unlock()
	if fault != nil && fault(status, req) {
		return
	}
	r.answer(status, req)
}

// answer is the registry without faults.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == tokenPath {
		r.serveToken(w, req)
		return
	}
	match := route.FindStringSubmatch(req.URL.Path)
	repo := ""
	if match != nil {
		repo = match[1]
	}
	if !r.authorized(w, req, repo) {
		return
	}
	switch {
	case req.URL.Path == "/v2/" || req.URL.Path == "/v2":
		w.WriteHeader(http.StatusOK)
	case match == nil:
		http.NotFound(w, req)
	case match[2] == "manifests":
		r.serveManifest(w, req, repo, match[3])
	case match[2] == "referrers":
		r.serveReferrers(w, req, repo, match[3])
	case match[2] == "tags":
		r.serveTags(w, repo)
	case strings.HasPrefix(match[3], "uploads/"):
		r.serveUpload(w, req, repo, strings.TrimPrefix(match[3], "uploads/"))
	default:
		r.serveBlob(w, req, repo, match[3])
	}
}

func (r *Registry) serveManifest(w http.ResponseWriter, req *http.Request, repo, reference string) {
	if req.Method == http.MethodPut {
		r.putManifest(w, req, repo, reference)
		return
	}
	r.mu.Lock()
	d, tagged := r.tags[repo][reference]
	if !tagged {
		d = digest.Digest(reference)
	}
	m, found := r.manifests[repo][d]
	known := r.manifests[repo] != nil
	if req.Method == http.MethodDelete && tagged {
		delete(r.tags[repo], reference)
	} else if req.Method == http.MethodDelete {
		delete(r.manifests[repo], d)
	}
	r.mu.Unlock()
	switch {
	case !known:
		registryError(w, http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry")
	case !found:
		registryError(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
	case req.Method == http.MethodDelete:
		w.WriteHeader(http.StatusAccepted)
	default:
		r.serveContent(w, req, m.mediaType, d, m.data)
	}
}

func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, repo, reference string) {
	data, err := io.ReadAll(io.LimitReader(req.Body, maxUpload))
	if err != nil {
		registryError(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	tag := reference
	if _, err := digest.Parse(reference); err == nil {
		tag = ""
		if digest.FromBytes(data) != digest.Digest(reference) {
			registryError(w, http.StatusBadRequest, "DIGEST_INVALID", "the manifest does not hash to its digest")
			return
		}
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		registryError(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	d := r.PushManifest(repo, tag, req.Header.Get("Content-Type"), data)
	if m.Subject != nil && !r.options.NoReferrersAPI {
		listed := d
		listed.ArtifactType, listed.Annotations = m.ArtifactType, m.Annotations
		if listed.ArtifactType == "" {
			listed.ArtifactType = m.Config.MediaType
		}
		r.ListReferrer(repo, m.Subject.Digest, listed)
		w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	w.Header().Set("Docker-Content-Digest", d.Digest.String())
	w.Header().Set("Location", "/v2/"+repo+"/manifests/"+d.Digest.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) serveBlob(w http.ResponseWriter, req *http.Request, repo, reference string) {
	r.mu.Lock()
	data, ok := r.blobs[repo][digest.Digest(reference)]
	r.mu.Unlock()
	if !ok {
		registryError(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	r.serveContent(w, req, "application/octet-stream", digest.Digest(reference), data)
}

func (r *Registry) serveContent(w http.ResponseWriter, req *http.Request, mediaType string, d digest.Digest, data []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if !r.options.NoDigestHeader {
		w.Header().Set("Docker-Content-Digest", d.String())
	}
	w.WriteHeader(http.StatusOK)
	if req.Method != http.MethodHead {
		_, _ = w.Write(data) // a client that went away is its own business
	}
}

func (r *Registry) serveReferrers(w http.ResponseWriter, req *http.Request, repo, subject string) {
	if r.options.NoReferrersAPI {
		http.NotFound(w, req)
		return
	}
	r.mu.Lock()
	list := slices.Clone(r.referrers[repo][digest.Digest(subject)])
	r.mu.Unlock()
	query := req.URL.Query()
	if want := query.Get("artifactType"); want != "" && !r.options.NoFilter {
		list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.ArtifactType != want })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if size := r.options.PageSize; size > 0 {
		from, _ := strconv.Atoi(query.Get("from"))
		from = min(max(from, 0), len(list))
		if from+size < len(list) {
			query.Set("from", strconv.Itoa(from+size))
			w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, req.URL.Path, query.Encode()))
			list = list[:from+size]
		}
		list = list[from:]
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_, _ = w.Write(encode(index(list)))
}

func (r *Registry) serveTags(w http.ResponseWriter, repo string) {
	r.mu.Lock()
	tags := []string{}
	for tag := range r.tags[repo] {
		tags = append(tags, tag)
	}
	r.mu.Unlock()
	slices.Sort(tags)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(map[string]any{"name": repo, "tags": tags}))
}

// serveUpload takes a blob in one piece or in chunks: POST, PATCH…, PUT.
func (r *Registry) serveUpload(w http.ResponseWriter, req *http.Request, repo, id string) {
	data, err := io.ReadAll(io.LimitReader(req.Body, maxUpload))
	if err != nil {
		registryError(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", err.Error())
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == "" {
		id = strconv.Itoa(len(r.uploads) + 1)
	}
	data = append(bytes.Clone(r.uploads[id]), data...)
	r.uploads[id] = data
	want := digest.Digest(req.URL.Query().Get("digest"))
	if want == "" {
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id)
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(data)-1, 0)))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if digest.FromBytes(data) != want {
		registryError(w, http.StatusBadRequest, "DIGEST_INVALID", "the blob does not hash to its digest")
		return
	}
	put(r.blobs, repo, want, data)
	r.uploads[id] = nil
	w.Header().Set("Location", "/v2/"+repo+"/blobs/"+want.String())
	w.Header().Set("Docker-Content-Digest", want.String())
	w.WriteHeader(http.StatusCreated)
}

func registryError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}}))
}
