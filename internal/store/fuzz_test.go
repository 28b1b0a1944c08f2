package store

import (
	"encoding/json"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

var robotForTests = auth.Credential{Username: "robot", Password: "x"}

func FuzzManifest(f *testing.F) {
	good, err := json.Marshal(ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "a/b", Config: ocispec.DescriptorEmptyJSON,
		Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON}, Subject: &ocispec.DescriptorEmptyJSON,
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(good), "", "null", "{}", "[]", `{"layers":null,"config":null}`, `{"layers":[{"size":-1}],"config":{"mediaType":"x","digest":"y"}}`,
		`{"manifests":[],"layers":[{}]}`, `{"subject":{"digest":"sha256:x","size":1e3}}`, `{"layers":[` + strings.Repeat("{},", 100), strings.Repeat("[", 10_001),
		`{"Layers":[{}],"LAYERS":[],"config":{"mediaType":"x","digest":"y"}}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		m := decodeManifest(ocispec.MediaTypeImageManifest, []byte(data))
		if m.size != int64(len(data)) || m.cost() < m.size {
			t.Errorf("size %d, cost %d", m.size, m.cost())
		}
		if m.malformed != nil {
			if m.malformed.Message == "" {
				t.Error("malformed, and no word why")
			}
			return
		}
		if len(m.content.Layers) == 0 || len(m.content.Layers) > maxManifestValues+1 || m.content.Config.MediaType == "" || m.artifactType == "" {
			t.Errorf("passed: %+v", m.content)
		}
		subject := ocispec.DescriptorEmptyJSON.Digest
		if m.about(subject) == nil && (m.content.Subject == nil || m.content.Subject.Digest != subject) {
			t.Error("about a subject that it does not name")
		}
		for _, layer := range m.content.Layers {
			if err := check(layer, maxBlobBytes); err == nil && (layer.Size < 0 || layer.Size > maxBlobBytes || layer.Digest.Validate() != nil) {
				t.Errorf("would be fetched: %+v", layer)
			}
		}
	})
}

func FuzzReferrersPage(f *testing.F) {
	good, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON, {ArtifactType: "a/b", Digest: "x"}}})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(good), "", "{}", "null", `{"manifests":null}`, `{"manifests":[{}]`, `{"manifests":[` + strings.Repeat(`{"digest":"a"},`, 1100) + `{}]}`,
		`{"manifests":[],"manifests":[{"digest":"b"}]}`, `{"manifests":[{"size":1e400}]}`, `{"x":{"manifests":[{}]}}`,
	} {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	wanted := verifier.Wanted{ArtifactTypes: []string{"a/b"}}
	f.Fuzz(func(t *testing.T, data string, truncated bool) {
		l := collector{wanted: wanted}
		err := l.page([]byte(data), truncated)
		if truncated && err == nil {
			t.Error("a page that went on was read as whole")
		}
		if len(l.entries) > l.read || l.read > maxReferrers {
			t.Errorf("%d entries of %d read", len(l.entries), l.read)
		}
		for _, e := range l.entries {
			if e.descriptor.Digest == "" || !selects(wanted, e.descriptor.ArtifactType) && !undetermined(e.descriptor.ArtifactType) {
				t.Errorf("kept %+v", e.descriptor)
			}
			if e.descriptor.Annotations != nil || e.descriptor.Data != nil {
				t.Errorf("kept what nobody checked: %+v", e.descriptor)
			}
		}
	})
}

func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{`Bearer realm="https://x.example.test/token",service="s",scope="repository:a/b:pull"`, "Basic", `Bearer realm="\`, "Bearer =,="} {
		f.Add(seed)
	}
	c, err := New(Options{}).newClient(Registry{Host: "registry.example.test"}, true, &ViewOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header string) {
		wants, scope := parseChallenge([]string{header})
		if got := pullScope("a/b", scope); got != "repository:a/b:pull" && got != "repository:a/b:metadata_read,pull" {
			t.Errorf("scope %q", got)
		}
		if !wants.bearer {
			return
		}
		if realm, f := c.realm(wants, robotForTests); f == nil && (realm.Scheme != "https" || realm.Hostname() != "registry.example.test" && !strings.EqualFold(realm.Hostname(), "registry.example.test")) {
			t.Errorf("the credential would go to %s", realm)
		}
	})
}
