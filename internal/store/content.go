package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// forever is for content, which is what its digest says until it is evicted.
func forever() time.Time { return time.Now().AddDate(1, 0, 0) }

// limitOf is how large content of the descriptor's media type may be.
func limitOf(d ocispec.Descriptor) int64 {
	if isManifest(d.MediaType) || isIndex(d.MediaType) {
		return maxManifestBytes
	}
	return maxBlobBytes
}

// check refuses a descriptor before anything is made of what it claims.
func check(d ocispec.Descriptor, limit int64) error {
	if err := d.Digest.Validate(); err != nil {
		return &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: "a descriptor names content by a digest that cannot be checked", Err: err}
	}
	switch {
	case d.Size < 0:
		return &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: fmt.Sprintf("a descriptor claims a size of %d bytes", d.Size)}
	case d.Size > limit:
		return &verifier.Error{
			Reason:  verifier.ReasonLimitExceeded,
			Message: fmt.Sprintf("content of %d bytes is larger than the limit of %d", d.Size, limit),
		}
	}
	return nil
}

func wrongSize(d ocispec.Descriptor, size int64) error {
	return &verifier.Error{
		Reason:  verifier.ReasonRegistryInvalid,
		Message: fmt.Sprintf("%.19s… has not the %d bytes that its descriptor says", d.Digest, d.Size),
		Err:     fmt.Errorf("%d bytes", size),
	}
}

// content gives content by digest from disk, from another replica, or else from
// the registry. The caller counts its bytes, see reading.
func (c *client) content(ctx context.Context, repository string, d ocispec.Descriptor) ([]byte, error) {
	if data, ok := c.store.options.Content.get(d.Digest, d.Size); ok {
		return data, nil
	}
	if data, ok := c.store.options.Shared.content(ctx, d.Digest, d.Size); ok && int64(len(data)) == d.Size {
		c.store.options.Content.put(d.Digest, data)
		return data, nil
	}
	data, err := c.fetch(ctx, repository, d)
	if err == nil {
		c.store.options.Content.put(d.Digest, data)
		c.store.options.Shared.putContent(d.Digest, data)
	}
	return data, err
}

// fetch reads content by digest, whole, through oras-go, which compares what
// the headers say with the descriptor. The bytes are compared here.
func (c *client) fetch(ctx context.Context, repository string, d ocispec.Descriptor) ([]byte, error) {
	through := &contentClient{client: c, repository: repository, size: d.Size, kind: "blob"}
	if isManifest(d.MediaType) || isIndex(d.MediaType) {
		through.kind = "manifest"
	}
	repo := &remote.Repository{Client: through, Reference: reference(c.registry.Host, repository), PlainHTTP: c.registry.PlainHTTP}
	body, err := repo.Fetch(ctx, d)
	if err != nil {
		return nil, c.notFetched(d, err)
	}
	_ = body.Close()
	data := through.answer.body
	if through.answer.longer || int64(len(data)) != d.Size {
		return nil, wrongSize(d, int64(len(data)))
	}
	if actual := d.Digest.Algorithm().FromBytes(data); actual != d.Digest {
		return nil, &verifier.Error{
			Reason:  verifier.ReasonRegistryInvalid,
			Message: fmt.Sprintf("the registry %s sent other bytes than %.19s… names", c.host, d.Digest),
			Err:     fmt.Errorf("the bytes hash to %s", actual),
		}
	}
	return data, nil
}

func (c *client) notFetched(d ocispec.Descriptor, err error) error {
	var known *verifier.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, errdef.ErrNotFound):
		return &verifier.Error{
			Reason:  verifier.ReasonRegistryInvalid,
			Message: fmt.Sprintf("the registry %s lists %.19s… and does not have it", c.host, d.Digest),
			Remedy:  "Sign the image again, or remove what is left of the old signature",
			Err:     redact.Error(err),
		}
	}
	return &verifier.Error{
		Reason:  verifier.ReasonRegistryInvalid,
		Message: fmt.Sprintf("the registry %s sent headers that contradict the descriptor of %.19s…", c.host, d.Digest),
		Err:     redact.Error(err),
	}
}

// contentClient lends the client to one fetch of oras-go, and keeps the answer.
type contentClient struct {
	client     *client
	repository string
	size       int64
	kind       string
	answer     *answer
}

// Do implements remote.Client.
func (l *contentClient) Do(req *http.Request) (*http.Response, error) {
	a, err := l.client.ask(req.Context(), question{
		method:     req.Method,
		url:        req.URL,
		repository: l.repository,
		accept:     req.Header.Get("Accept"),
		kind:       l.kind,
		limit:      l.size,
		size:       l.size,
	})
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK && a.status != http.StatusNotFound {
		return nil, l.client.unexpected(a.url.Host, a.status).err
	}
	l.answer = a
	a.header.Del("Accept-Ranges") // the body is read; there is nothing to seek in
	return &http.Response{
		StatusCode:    a.status,
		Header:        a.header,
		Body:          io.NopCloser(bytes.NewReader(a.body)),
		ContentLength: int64(len(a.body)),
		Request:       req,
	}, nil
}

// resolve asks what a tag names: a HEAD, and a GET whose bytes are hashed where
// the registry does not say.
func (c *client) resolve(ctx context.Context, repository, tag string) (digest.Digest, error) {
	a, err := c.head(ctx, repository, tag)
	if err != nil {
		return "", err
	}
	if said, err := digest.Parse(a.header.Get("Docker-Content-Digest")); err == nil && a.status == http.StatusOK {
		return said, nil
	}
	ctx, done := withBodies(ctx)
	defer done()
	d, _, err := c.tagged(ctx, repository, tag)
	if err != nil {
		return "", err
	}
	if d == nil {
		return "", c.noImage("tag")
	}
	return d.Digest, nil
}

// head asks for a manifest's header. A registry that knows no HEAD answers 405.
func (c *client) head(ctx context.Context, repository, reference string) (*answer, error) {
	a, err := c.ask(ctx, question{
		method:     http.MethodHead,
		url:        c.endpoint(repository, "manifests/"+reference),
		repository: repository,
		accept:     acceptManifests,
		kind:       "tag",
	})
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusNotFound:
		return nil, c.noImage("tag or digest")
	case a.status != http.StatusOK && a.status != http.StatusMethodNotAllowed:
		return nil, c.unexpected(a.url.Host, a.status).err
	}
	return a, nil
}

func (c *client) noImage(what string) error {
	return &verifier.Error{
		Reason:  verifier.ReasonImageNotFound,
		Message: fmt.Sprintf("the registry %s has no such %s in this repository", c.host, what),
		Remedy:  "Check the reference, and that the image was pushed",
	}
}

// tagged reads what a tag or digest names, up to 4 MiB; nil where there is no such
// thing. Beyond the limit the descriptor's size is -1 and it has no digest. The bytes
// are counted while the work that the caller began withBodies goes on.
func (c *client) tagged(ctx context.Context, repository, tag string) (*ocispec.Descriptor, []byte, error) {
	a, err := c.ask(ctx, question{
		method:     http.MethodGet,
		url:        c.endpoint(repository, "manifests/"+tag),
		repository: repository,
		accept:     acceptManifests,
		kind:       "tag",
		limit:      maxManifestBytes,
	})
	switch {
	case err != nil:
		return nil, nil, err
	case a.status == http.StatusNotFound:
		return nil, nil, nil
	case a.status != http.StatusOK:
		return nil, nil, c.unexpected(a.url.Host, a.status).err
	}
	d := &ocispec.Descriptor{MediaType: mediaType(a.header), Size: -1}
	if a.longer {
		return d, a.body, nil
	}
	d.Size = int64(len(a.body))
	said, err := digest.Parse(a.header.Get("Docker-Content-Digest"))
	if err != nil {
		d.Digest = digest.FromBytes(a.body)
		return d, a.body, nil
	}
	d.Digest = said.Algorithm().FromBytes(a.body)
	if d.Digest != said {
		return nil, nil, &verifier.Error{
			Reason:  verifier.ReasonRegistryInvalid,
			Message: fmt.Sprintf("the registry %s sent other bytes than its Docker-Content-Digest names", c.host),
			Err:     fmt.Errorf("%s said, %s sent", said, d.Digest),
		}
	}
	return d, a.body, nil
}

// exists finds out whether the registry has the subject at all.
func (c *client) exists(ctx context.Context, repository string, subject digest.Digest) error {
	s, key := c.store, c.key("subject", repository, subject.String())
	if _, ok := remembered(ctx, s.subjects, key); ok {
		return nil
	}
	_, err := s.subjectFlights.Do(ctx, class(ctx, key), s.options.Budget, func(ctx context.Context) (struct{}, error) {
		if _, ok := remembered(ctx, s.subjects, key); ok {
			return struct{}{}, nil
		}
		if _, err := c.head(ctx, repository, subject.String()); err != nil {
			return struct{}{}, err
		}
		s.subjects.Put(key, struct{}{}, 0, time.Now().Add(s.options.ListTTL))
		return struct{}{}, nil
	})
	return err
}
