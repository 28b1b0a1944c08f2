package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content/oci"
)

// TestTheImage is whole, the same each time, and has a binary that runs.
func TestTheImage(t *testing.T) {
	if testing.Short() {
		t.Skip("builds for two architectures")
	}
	var files [2]string
	for i := range files {
		files[i] = filepath.Join(t.TempDir(), "image.tar")
		if err := run(t.Context(), "../..", files[i], "v1.2.3", "-trimpath"); err != nil {
			t.Fatal(err)
		}
	}
	first, second := read(t, files[0]), read(t, files[1])
	if !bytes.Equal(first, second) {
		t.Error("built twice, it differs")
	}
	store, err := oci.NewFromTar(t.Context(), files[0])
	if err != nil {
		t.Fatal(err)
	}
	root, err := store.Resolve(t.Context(), "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	decode(t, store, root, &index)
	if len(index.Manifests) != 2 {
		t.Fatalf("%d platforms", len(index.Manifests))
	}
	for _, descriptor := range index.Manifests {
		var manifest ocispec.Manifest
		decode(t, store, descriptor, &manifest)
		var config ocispec.Image
		decode(t, store, manifest.Config, &config)
		if config.Config.User != user || config.Architecture != descriptor.Platform.Architecture || len(manifest.Layers) != 1 {
			t.Errorf("%+v", config)
		}
		if descriptor.Platform.Architecture == runtime.GOARCH {
			runs(t, store, manifest.Layers[0])
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// fetch reads a blob, which has to be what its descriptor says.
func fetch(t *testing.T, store *oci.ReadOnlyStore, d ocispec.Descriptor) []byte {
	t.Helper()
	r, err := store.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil || d.Digest.Algorithm().FromBytes(content) != d.Digest {
		t.Fatalf("%s: %v", d.Digest, err)
	}
	return content
}

func decode(t *testing.T, store *oci.ReadOnlyStore, d ocispec.Descriptor, v any) {
	t.Helper()
	if err := json.Unmarshal(fetch(t, store, d), v); err != nil {
		t.Fatal(err)
	}
}

// runs starts the layer's binary.
func runs(t *testing.T, store *oci.ReadOnlyStore, layer ocispec.Descriptor) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(fetch(t, store, layer)))
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err != nil {
			t.Fatal(err)
		}
		if "/"+header.Name != entrypoint {
			continue
		}
		if header.Mode != 0o755 {
			t.Errorf("mode %o", header.Mode)
		}
		path := filepath.Join(t.TempDir(), "countersign")
		content, err := io.ReadAll(files)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o700); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), path, "version").CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("v1.2.3")) {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
}
