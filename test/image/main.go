// Command image makes the container image, without a daemon and without a base:
// one static binary for each architecture, as an OCI layout in a tar file. The
// same sources give the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// user is nobody's. OpenShift runs us as another, of the group 0: there is
	// nothing in the image that any user may not read.
	user = "65532:65532"
	// entrypoint is where the binary is.
	entrypoint = "/countersign"
)

func main() {
	source := flag.String("source", "../", "the product's module")
	out := flag.String("out", "../dist/countersign.tar", "the file to write: an OCI layout, as skopeo and crane copy it")
	version := flag.String("version", "devel", "the version that the binary says")
	flags := flag.String("flags", "-trimpath", "build flags, as the Makefile has them")
	flag.Parse()
	if err := run(context.Background(), *source, *out, *version, *flags); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, source, out, version, flags string) error {
	dir, err := os.MkdirTemp("", "countersign-image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	l := layout{blobs: map[digest.Digest][]byte{}}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, architecture := range []string{"amd64", "arm64"} {
		_, _ = fmt.Fprintf(os.Stderr, "building for linux/%s\n", architecture)
		binary, err := build(ctx, source, filepath.Join(dir, architecture), architecture, version, flags)
		if err != nil {
			return err
		}
		manifest, err := l.image(binary, architecture, version)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, manifest)
	}
	root, err := l.add(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	root.Annotations = map[string]string{ocispec.AnnotationRefName: version}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := errors.Join(l.write(file, root), file.Close()); err != nil {
		return err
	}
	fmt.Println(root.Digest)
	return nil
}

// build makes the static binary for an architecture.
func build(ctx context.Context, source, path, architecture, version, flags string) ([]byte, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	arguments := append([]string{"build", "-buildvcs=false", "-ldflags", "-s -w -funcalign=16 -X main.version=" + version, "-o", path}, strings.Fields(flags)...)
	command := exec.CommandContext(ctx, "go", append(arguments, "./cmd/provider")...)
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOFLAGS=")
	command.Stderr = os.Stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("build for %s: %w", architecture, err)
	}
	return os.ReadFile(path)
}

// layout is an OCI image layout in memory.
type layout struct {
	blobs map[digest.Digest][]byte
	order []digest.Digest
}

func (l *layout) put(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	if _, known := l.blobs[d]; !known {
		l.blobs[d] = content
		l.order = append(l.order, d)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (l *layout) add(mediaType string, v any) (ocispec.Descriptor, error) {
	content, err := json.Marshal(v)
	return l.put(mediaType, content), err
}

// image puts the binary into an image of one layer.
func (l *layout) image(binary []byte, architecture, version string) (ocispec.Descriptor, error) {
	files, err := layer(binary)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed) // no name and no time in its head
	_, err = zip.Write(files)
	if err := errors.Join(err, zip.Close()); err != nil {
		return ocispec.Descriptor{}, err
	}
	platform := ocispec.Platform{Architecture: architecture, OS: "linux"}
	config, err := l.add(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: platform,
		Config: ocispec.ImageConfig{
			User: user, Entrypoint: []string{entrypoint}, WorkingDir: "/",
			ExposedPorts: map[string]struct{}{"6001/tcp": {}, "8888/tcp": {}, "9099/tcp": {}},
			Labels: map[string]string{
				ocispec.AnnotationTitle: "countersign", ocispec.AnnotationVersion: version, ocispec.AnnotationLicenses: "Apache-2.0",
				ocispec.AnnotationSource: "https://github.com/countersign-dev/countersign",
			},
		},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(files)}},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, err := l.add(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{l.put(ocispec.MediaTypeImageLayerGzip, packed.Bytes())},
	})
	manifest.Platform = &platform
	return manifest, err
}

// layer is the file system: the binary, and who the users are.
func layer(binary []byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, file := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/\nnobody:x:65532:65532:nobody:/:/\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nnobody:x:65532:\n")},
		{entrypoint[1:], 0o755, binary},
	} {
		// The epoch, so that the same binary gives the same layer.
		header := &tar.Header{Name: file.name, Mode: file.mode, Size: int64(len(file.content)), ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.content); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// write writes the layout as a tar file.
func (l *layout) write(to io.Writer, root ocispec.Descriptor) error {
	w := tar.NewWriter(to)
	write := func(name string, content []byte) error {
		header := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	marker, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{root},
	})
	if err != nil {
		return err
	}
	if err := errors.Join(write(ocispec.ImageLayoutFile, marker), write(ocispec.ImageIndexFile, index)); err != nil {
		return err
	}
	for _, d := range l.order {
		if err := write("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), l.blobs[d]); err != nil {
			return err
		}
	}
	return w.Close()
}
