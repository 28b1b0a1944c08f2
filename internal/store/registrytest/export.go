package registrytest

import (
	"context"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
)

// Export writes an image with all that is attached to it, and what is at further
// tags, into an OCI image layout, as oras copy --recursive does.
func (r *Registry) Export(ctx context.Context, repo, tag, dir string, tags ...string) error {
	target, err := oci.New(dir)
	if err != nil {
		return err
	}
	source := &remote.Repository{Reference: registry.Reference{Registry: r.Host(), Repository: repo}, PlainHTTP: r.CA() == nil}
	if _, err := oras.ExtendedCopy(ctx, source, tag, target, tag, oras.DefaultExtendedCopyOptions); err != nil {
		return err
	}
	for _, tag := range tags {
		if _, err := oras.Copy(ctx, source, tag, target, tag, oras.DefaultCopyOptions); err != nil {
			return err
		}
	}
	return nil
}
