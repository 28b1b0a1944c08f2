package store_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// exported is a signed image in an OCI layout, and the name by which it is asked for.
func exported(t *testing.T, options registrytest.Options) (name string, ref verifier.Reference, signed ocispec.Descriptor) {
	t.Helper()
	r := registrytest.Start(t, options)
	image := r.PushImage(repo, "1.4")
	signed = r.AttachReferrer(repo, image, notation(1))
	other := r.PushImage(repo, "other")
	r.AttachReferrer(repo, other, notation(2))
	tag := strings.Replace(image.Digest.String(), ":", "-", 1) + ".sig"
	artifact := r.Build(repo, registrytest.Artifact{ConfigMediaType: "application/vnd.oci.image.config.v1+json", Layers: []registrytest.Layer{{MediaType: "application/vnd.dev.cosign.simplesigning.v1+json", Data: []byte("{}")}}})
	r.PushArtifact(repo, tag, artifact)
	name = t.TempDir()
	if err := r.Export(t.Context(), repo, "1.4", name, tag, "other"); err != nil {
		t.Fatal(err)
	}
	return name, verifier.Reference{Registry: "shop.example.com", Repository: "cart", Tag: "1.4"}, signed
}

func layout(t *testing.T, name string) *store.Layout {
	t.Helper()
	l, err := store.OpenLayout(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestALayoutStandsInForARegistry: the image by its tag, what is attached to it, and
// not what is attached to another one.
func TestALayoutStandsInForARegistry(t *testing.T) {
	for name, options := range map[string]registrytest.Options{"referrers": {}, "fallback tag": {NoReferrersAPI: true}} {
		t.Run(name, func(t *testing.T) {
			dir, ref, signed := exported(t, options)
			l := layout(t, dir)
			subject, err := l.Resolve(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			var found []verifier.Candidate
			for c, err := range l.Candidates(t.Context(), subject, both).All {
				if err != nil {
					t.Fatal(err)
				}
				found = append(found, c)
			}
			if len(found) != 2 || found[0].Descriptor.Digest != signed.Digest || found[0].ArtifactType != signature || found[1].TagSuffix != ".sig" {
				t.Fatalf("%+v", found)
			}
			if data, err := l.Fetch(t.Context(), subject, found[0].Manifest.Layers[0]); err != nil || string(data) != "envelope 1" {
				t.Errorf("%s, %v", data, err)
			}
			if err := l.Exists(t.Context(), subject); err != nil {
				t.Error(err)
			}
			for _, tag := range []string{"1.5", ""} {
				ref.Tag = tag
				if s, err := l.Resolve(t.Context(), ref); reason(err) != verifier.ReasonImageNotFound {
					t.Errorf("%s: %v, %v", tag, s, err)
				}
			}
		})
	}
}

// TestWhatCosignSaves has no tags, but says of each part what it is.
func TestWhatCosignSaves(t *testing.T) {
	dir, ref, _ := exported(t, registrytest.Options{})
	edit(t, dir, func(d *ocispec.Descriptor) {
		switch called := d.Annotations[ocispec.AnnotationRefName]; {
		case strings.HasSuffix(called, ".sig"):
			d.Annotations = map[string]string{"kind": "dev.cosignproject.cosign/sigs"}
		case called == "1.4":
			d.Annotations = map[string]string{"kind": "dev.cosignproject.cosign/image"}
		}
	})
	l := layout(t, dir)
	if _, err := l.Resolve(t.Context(), ref); reason(err) != verifier.ReasonImageNotFound {
		t.Errorf("it has no name: %v", err)
	}
	image := verifier.Subject{Reference: ref}
	edit(t, dir, func(d *ocispec.Descriptor) {
		if d.Annotations["kind"] == "dev.cosignproject.cosign/image" {
			image.Digest = d.Digest
		}
	})
	n := 0
	for c, err := range l.Candidates(t.Context(), image, verifier.Wanted{TagSuffixes: []string{".sig"}}).All {
		if err != nil || c.TagSuffix != ".sig" {
			t.Errorf("%+v, %v", c, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d candidates", n)
	}
}

// edit changes the entries of index.json.
func edit(t *testing.T, dir string, change func(*ocispec.Descriptor)) {
	t.Helper()
	path := filepath.Join(dir, "index.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	for i := range index.Manifests {
		change(&index.Manifests[i])
	}
	if data, err = json.Marshal(index); err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestL02_ALayoutIsNotBelieved: what is not what its digest says is no evidence.
func TestL02_ALayoutIsNotBelieved(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"other bytes":    func(path string) error { return os.WriteFile(path, []byte("envelope 2"), 0o600) },
		"cut short":      func(path string) error { return os.Truncate(path, 3) },
		"endless":        func(path string) error { return os.Truncate(path, 1<<40) },
		"a link outside": func(path string) error { _ = os.Remove(path); return os.Symlink("/etc/passwd", path) },
		"a pipe":         func(path string) error { _ = os.Remove(path); return syscall.Mkfifo(path, 0o600) },
		"missing":        os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir, ref, _ := exported(t, registrytest.Options{})
			l := layout(t, dir)
			subject, err := l.Resolve(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			for c, err := range l.Candidates(t.Context(), subject, signatures).All {
				if err != nil {
					t.Fatal(err)
				}
				layer := c.Manifest.Layers[0]
				path := filepath.Join(dir, "blobs", "sha256", layer.Digest.Encoded())
				_ = os.Chmod(path, 0o600) // oras writes files that nobody may change
				if err := harm(path); err != nil {
					t.Fatal(err)
				}
				if data, err := l.Fetch(t.Context(), subject, layer); !reason(err).Undecided() {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	empty := t.TempDir()
	if _, err := store.OpenLayout(empty); err == nil {
		t.Error("a directory without index.json is no layout")
	}
	if err := os.WriteFile(filepath.Join(empty, "index.json"), []byte("["), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenLayout(empty); err == nil {
		t.Error("what is no JSON is no layout")
	}
}
