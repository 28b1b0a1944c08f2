package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Contents implements verifier.Store.
func (v *View) Contents(ctx context.Context, subject verifier.Subject) (verifier.Contents, error) {
	if err := check(ocispec.Descriptor{Digest: subject.Digest}, maxManifestBytes); err != nil {
		return verifier.Contents{}, err
	}
	c := v.client(subject.Reference.Registry)
	repository, key := c.repository(subject.Reference), subject.Digest.String()
	data, ok := v.store.blobs.Get(key)
	if !ok {
		var err error
		data, err = v.store.blobFlights.Do(ctx, class(ctx, c.key("contents", repository, key)), v.store.options.Budget, func(ctx context.Context) ([]byte, error) {
			data, err := c.whole(ctx, repository, subject)
			if err == nil {
				v.store.blobs.Put(key, data, int64(len(data)), forever())
			}
			return data, err
		})
		if err != nil {
			return verifier.Contents{}, gaveUp(c.host, err)
		}
	}
	return decodeContents(data)
}

// whole reads a manifest or index of which only the digest is known.
func (c *client) whole(ctx context.Context, repository string, subject verifier.Subject) ([]byte, error) {
	if data, err := c.kept(ctx, subject.Digest); data != nil || err != nil {
		return data, err
	}
	ctx, done := withBodies(ctx)
	defer done()
	caches := c.store.options
	d, data, err := c.tagged(ctx, repository, subject.Digest.String())
	switch {
	case err != nil:
		return nil, err
	case d == nil:
		return nil, c.noImage("digest")
	case d.Size < 0:
		return nil, &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: "the image's manifest is larger than 4 MiB"}
	case subject.Digest.Algorithm().FromBytes(data) != subject.Digest:
		return nil, &verifier.Error{
			Reason:  verifier.ReasonRegistryInvalid,
			Message: fmt.Sprintf("the registry %s sent other bytes than %.19s… names", c.host, subject.Digest),
		}
	}
	caches.Content.put(subject.Digest, data)
	caches.Shared.putContent(subject.Digest, data)
	return data, nil
}

// kept gives content of an unknown size that is on disk or shared; nil: it is not.
func (c *client) kept(ctx context.Context, of digest.Digest) ([]byte, error) {
	caches := c.store.options
	onDisk, shared := caches.Content.size(of), int64(0)
	if onDisk > maxManifestBytes {
		onDisk = 0
	}
	if caches.Shared != nil {
		shared = maxSharedBytes
	}
	if onDisk+shared == 0 {
		return nil, nil
	}
	release, err := c.reading(ctx, max(onDisk, shared))
	if err != nil {
		return nil, err
	}
	defer release()
	if onDisk > 0 {
		if data, ok := caches.Content.get(of, onDisk); ok {
			return data, nil
		}
	}
	if data, ok := caches.Shared.content(ctx, of, maxSharedBytes); ok {
		return data, nil
	}
	return nil, nil
}

// decodeContents reads bytes that match their digest.
func decodeContents(data []byte) (verifier.Contents, error) {
	if values, objects := shape(data); values > maxManifestValues || padded(len(data), values, objects) {
		return verifier.Contents{}, &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: "the image's manifest has more parts than are read"}
	}
	var form struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    ocispec.Descriptor   `json:"config"`
	}
	if err := json.Unmarshal(data, &form); err != nil || len(form.Manifests) == 0 && form.Config.Digest == "" {
		return verifier.Contents{}, &verifier.Error{Reason: verifier.ReasonFormatUnsupported, Message: "the image is neither a manifest nor an index that is known", Err: err}
	}
	return verifier.Contents{Manifests: form.Manifests, Config: form.Config}, nil
}
