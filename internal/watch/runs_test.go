package watch

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// TestL46_WhatRunsIsWhatIsJudged: of an index with the attacker's manifest and one that
// is signed, what the node may run has to be signed, all of it.
func TestL46_WhatRunsIsWhatIsJudged(t *testing.T) {
	good, bad := digest.FromString("signed"), digest.FromString("the attacker's")
	nested := digest.FromString("nested")
	platform := func(p ocispec.Platform) *ocispec.Platform { return &p }
	plain := platform(ocispec.Platform{OS: "linux", Architecture: "amd64"})
	of := func(d digest.Digest, p *ocispec.Platform) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Platform: p}
	}
	list := func(m ...ocispec.Descriptor) []ocispec.Descriptor { return m }
	inside := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: nested}
	signed := of(good, plain)
	many := list(signed)
	for i := range maxPlatforms {
		many = append(many, of(digest.FromString(fmt.Sprint(i)), plain))
	}
	index := "shop.example.com/cart@" + indexDigest.String()
	config := func(d digest.Digest) string { return digest.FromString(d.String() + " config").String() }
	for name, c := range map[string]struct {
		manifests, nested []ocispec.Descriptor
		imageID, platform string
		signed            []digest.Digest
		want              Status
	}{
		"signed alone":                         {list(signed), nil, index, "linux/amd64", nil, "TRUSTED"},
		"the attacker's first":                 {list(of(bad, plain), signed), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"the attacker's second":                {list(signed, of(bad, plain)), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"both are signed":                      {list(signed, of(bad, plain)), nil, index, "linux/amd64", []digest.Digest{bad}, "TRUSTED"},
		"the index is signed":                  {list(signed, of(bad, plain)), nil, index, "linux/amd64", []digest.Digest{indexDigest}, "TRUSTED"},
		"a variant":                            {list(signed, of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}))), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"another version of the system":        {list(signed, of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "amd64", OSVersion: "10.0"}))), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"features":                             {list(signed, of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "amd64", OSFeatures: []string{"x"}}))), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"another spelling":                     {list(of(bad, platform(ocispec.Platform{OS: "Linux", Architecture: "x86_64"})), signed), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"no platform":                          {list(of(bad, nil), signed), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"an empty platform":                    {list(of(bad, platform(ocispec.Platform{})), signed), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"no architecture":                      {list(of(bad, platform(ocispec.Platform{OS: "linux"})), signed), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"the signed one has no platform":       {list(of(good, nil)), nil, index, "linux/amd64", nil, "TRUSTED"},
		"another platform's":                   {list(of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "arm64"})), signed), nil, index, "linux/amd64", nil, "TRUSTED"},
		"an older architecture":                {list(of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "386"})), signed), nil, index, "linux/amd64", nil, "TRUSTED"},
		"an older one, and no plain one":       {list(of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "386"})), of(good, nil)), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"an older one, and a variant":          {list(of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "386"})), of(good, platform(ocispec.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}))), nil, index, "linux/amd64", nil, "UNKNOWN"},
		"an attestation":                       {list(signed, of(bad, platform(ocispec.Platform{OS: "unknown", Architecture: "unknown"}))), nil, index, "linux/amd64", nil, "TRUSTED"},
		"a nested index":                       {list(inside, signed), list(of(bad, plain)), index, "linux/amd64", nil, "UNKNOWN"},
		"a nested index, signed in it":         {list(inside), list(signed), index, "linux/amd64", nil, "TRUSTED"},
		"a nested index that is signed":        {list(inside), list(of(bad, plain)), index, "linux/amd64", []digest.Digest{nested}, "TRUSTED"},
		"a nested index with none":             {list(inside, signed), list(of(bad, platform(ocispec.Platform{OS: "windows", Architecture: "amd64"}))), index, "linux/amd64", nil, "UNKNOWN"},
		"an index in itself":                   {list(inside, signed), list(inside), index, "linux/amd64", nil, "ERROR"},
		"more than are looked into":            {many, nil, index, "linux/amd64", nil, "UNKNOWN"},
		"none for the platform":                {list(signed), nil, index, "linux/arm64", nil, "UNKNOWN"},
		"any platform, one unsigned":           {list(signed, of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "arm64"}))), nil, index, "", nil, "UNKNOWN"},
		"any platform, all signed":             {list(signed, of(bad, platform(ocispec.Platform{OS: "linux", Architecture: "arm64"}))), nil, index, "", []digest.Digest{bad}, "TRUSTED"},
		"the node names the signed config":     {list(of(bad, plain), signed), nil, config(good), "linux/amd64", nil, "TRUSTED"},
		"the node names the other config":      {list(of(bad, plain), signed), nil, config(bad), "linux/amd64", nil, "UNKNOWN"},
		"the node names the signed manifest":   {list(of(bad, plain), signed), nil, "shop.example.com/cart@" + good.String(), "linux/amd64", nil, "TRUSTED"},
		"the node names the other manifest":    {list(of(bad, plain), signed), nil, "shop.example.com/cart@" + bad.String(), "linux/amd64", nil, "UNKNOWN"},
		"the node names a config in a nested":  {list(inside), list(of(bad, plain), signed), config(good), "linux/amd64", nil, "TRUSTED"},
		"a manifest in a nested, index signed": {list(inside), list(of(bad, plain)), "shop.example.com/cart@" + bad.String(), "linux/amd64", []digest.Digest{indexDigest}, "TRUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &verifiertest.Store{}
			s.Tag(image, indexDigest)
			s.Make(indexDigest, verifier.Contents{Manifests: c.manifests})
			s.Make(nested, verifier.Contents{Manifests: c.nested})
			for _, d := range []digest.Digest{good, bad} {
				s.Make(d, verifier.Contents{Config: ocispec.Descriptor{Digest: digest.Digest(config(d))}})
			}
			for _, d := range append(c.signed, good) {
				s.Sign(subject(d), "wabbit")
			}
			r, err := runningOf(image, c.imageID, c.platform)
			if err != nil {
				t.Fatal(err)
			}
			if got := verify(t.Context(), trusting(s), r); got.Status != c.want {
				t.Errorf("%s: %s, want %s", got.Status, got.Message, c.want)
			}
		})
	}
}

// TestL46_ADocumentOfTwoKindsIsNotTrusted: a node may run its config where we judge its
// manifests.
func TestL46_ADocumentOfTwoKindsIsNotTrusted(t *testing.T) {
	s := registry(indexDigest, []digest.Digest{amd64}, nil)
	s.Make(indexDigest, verifier.Contents{
		Manifests: []ocispec.Descriptor{{Digest: amd64, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}},
		Config:    ocispec.Descriptor{Digest: digest.FromString("the attacker's config")},
	})
	r, err := runningOf(image, "shop.example.com/cart@"+indexDigest.String(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got := verify(t.Context(), trusting(s), r); got.Status != StatusError || got.Reason != verifier.ReasonFormatUnsupported {
		t.Errorf("%s %s: %s", got.Status, got.Reason, got.Message)
	}
}

// TestL46_AnImageVolumeIsWhatTheNodeMounted: by the digest in the pod's status, each of
// them where containers have mounted different ones.
func TestL46_AnImageVolumeIsWhatTheNodeMounted(t *testing.T) {
	mount := func(ref string) []corev1.VolumeMountStatus {
		return []corev1.VolumeMountStatus{{Name: "other"}, {Name: "model", MountPath: "/m", VolumeStatus: &corev1.VolumeStatus{Image: &corev1.ImageVolumeStatus{ImageRef: ref}}}}
	}
	one, two := "shop.example.com/model@"+amd64.String(), "shop.example.com/model@"+arm64.String()
	for name, c := range map[string]struct {
		init, container, ephemeral string
		want                       []string
	}{
		"nowhere":             {"", "", "", []string{""}},
		"in a container":      {"", one, "", []string{one}},
		"in an init one":      {one, "", "", []string{one}},
		"in an ephemeral one": {"", "", one, []string{one}},
		"the same twice":      {one, one, "", []string{one}},
		"different ones":      {one, two, "", []string{one, two}},
	} {
		t.Run(name, func(t *testing.T) {
			p := podRunning("shop", "cart", indexDigest)
			p.Spec.Volumes = []corev1.Volume{{Name: "model", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "shop.example.com/model:1"}}}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", VolumeMounts: mount(c.init)}}
			p.Status.ContainerStatuses[0].VolumeMounts = mount(c.container)
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "e", VolumeMounts: mount(c.ephemeral)}}
			var got []string
			for _, use := range podOf(trim(p)).containers {
				if use.use == UseVolume {
					got = append(got, use.imageID)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
