package watch

import (
	"context"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

const image = "shop.example.com/cart:1.4"

// The digests of an image for two platforms.
var (
	indexDigest = digest.FromString("index")
	amd64       = digest.FromString("amd64")
	arm64       = digest.FromString("arm64")
	amd64Config = digest.FromString("amd64 config")
	arm64Config = digest.FromString("arm64 config")
	moved       = digest.FromString("moved")
)

// registry is a store with the image, of which somebody trusted or somebody else
// has signed some digests.
func registry(tag digest.Digest, trusted, strange []digest.Digest) *verifiertest.Store {
	s := &verifiertest.Store{}
	s.Tag(image, tag)
	s.Make(indexDigest, verifier.Contents{Manifests: []ocispec.Descriptor{
		{Digest: amd64, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}},
		{Digest: arm64, Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}},
		{Digest: digest.FromString("attestation"), Platform: &ocispec.Platform{OS: "unknown", Architecture: "unknown"}},
	}})
	s.Make(amd64, verifier.Contents{Config: ocispec.Descriptor{Digest: amd64Config}})
	s.Make(arm64, verifier.Contents{Config: ocispec.Descriptor{Digest: arm64Config}})
	for _, d := range trusted {
		s.Sign(subject(d), "wabbit")
	}
	for _, d := range strange {
		s.Sign(subject(d), "mallory")
	}
	return s
}

func subject(d digest.Digest) verifier.Subject {
	return verifier.Subject{Reference: named(), Digest: d}
}

func named() verifier.Reference {
	ref, err := verifier.ParseReference(image)
	if err != nil {
		panic(err)
	}
	return ref
}

func trusting(s verifier.Store) *verifier.Chain {
	return verifier.NewChain([]verifier.Policy{{Name: "production", Require: verifiertest.Check("signed", "wabbit")}}, s, verifier.NewMemory(1<<20))
}

// TestWhatRunsIsOneImageByAllItsDigests: its index, the manifest of the node's
// platform and that one's config.
func TestWhatRunsIsOneImageByAllItsDigests(t *testing.T) {
	list := func(d ...digest.Digest) []digest.Digest { return d }
	pulled := func(d digest.Digest) string { return "shop.example.com/cart@" + d.String() }
	for name, c := range map[string]struct {
		tag              digest.Digest
		trusted, strange []digest.Digest
		imageID          string
		platform         string
		want             Status
	}{
		"the index runs and is signed":              {indexDigest, list(indexDigest), nil, pulled(indexDigest), "linux/amd64", "TRUSTED"},
		"by Docker's shim":                          {indexDigest, list(indexDigest), nil, "docker-pullable://" + pulled(indexDigest), "linux/amd64", "TRUSTED"},
		"the platform's manifest is signed":         {indexDigest, list(amd64), nil, pulled(indexDigest), "linux/amd64", "TRUSTED"},
		"another platform's is":                     {indexDigest, list(amd64), nil, pulled(indexDigest), "linux/arm64", "UNKNOWN"},
		"another platform's is, this one's not":     {indexDigest, list(amd64), list(arm64), pulled(indexDigest), "linux/arm64", "UNTRUSTED"},
		"a stranger's hides nothing":                {indexDigest, list(indexDigest), list(amd64), pulled(indexDigest), "linux/amd64", "TRUSTED"},
		"nobody knows the platform":                 {indexDigest, list(amd64), nil, pulled(indexDigest), "", "UNKNOWN"},
		"the manifest runs, the index is signed":    {indexDigest, list(indexDigest), nil, pulled(amd64), "linux/amd64", "TRUSTED"},
		"the manifest runs, the tag has moved":      {moved, list(indexDigest), nil, pulled(amd64), "linux/amd64", "UNKNOWN"},
		"what the tag names now proves nothing":     {moved, list(moved), nil, pulled(amd64), "linux/amd64", "UNKNOWN"},
		"a bare config":                             {indexDigest, list(indexDigest), nil, amd64Config.String(), "linux/amd64", "TRUSTED"},
		"a config of Docker's":                      {indexDigest, list(amd64), nil, "docker://" + amd64Config.String(), "linux/amd64", "TRUSTED"},
		"a config of CRI-O's":                       {indexDigest, list(arm64), nil, arm64Config.Encoded(), "linux/arm64", "TRUSTED"},
		"a config, where nobody knows the platform": {indexDigest, list(arm64), nil, arm64Config.String(), "", "TRUSTED"},
		"another platform's config is signed":       {indexDigest, list(arm64), nil, amd64Config.String(), "linux/amd64", "UNKNOWN"},
		"a config that the tag has left":            {moved, list(moved), nil, amd64Config.String(), "linux/amd64", StatusError},
		"a bare digest that is a manifest's":        {amd64, list(amd64), nil, amd64.String(), "linux/amd64", "TRUSTED"},
		"nothing runs yet":                          {indexDigest, list(indexDigest), nil, "", "linux/amd64", "TRUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := runningOf(image, c.imageID, c.platform)
			if err != nil {
				t.Fatal(err)
			}
			if got := verify(t.Context(), trusting(registry(c.tag, c.trusted, c.strange)), r); got.Status != c.want {
				t.Errorf("%s: %s, want %s", got.Status, got.Message, c.want)
			}
		})
	}
}

// TestWhatIsNotKnownIsNoVerdict: where the index cannot be read that may be signed.
func TestWhatIsNotKnownIsNoVerdict(t *testing.T) {
	s := registry(indexDigest, []digest.Digest{indexDigest}, nil)
	away := &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry does not answer"}
	r, err := runningOf(image, "shop.example.com/cart@"+amd64.String(), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	s.BeforeResolve = func(_ context.Context, ref verifier.Reference) error {
		if ref.Digest == "" {
			return away
		}
		return nil
	}
	if got := verify(t.Context(), trusting(s), r); got.Status != StatusError || got.Reason != verifier.ReasonRegistryUnreachable {
		t.Errorf("%+v", got)
	}
}

func TestImageIDsThatAreNone(t *testing.T) {
	for _, id := range []string{"latest", "sha256:short", "docker://x", "shop.example.com/cart@sha256:zz", "md5:d41d8cd98f00b204e9800998ecf8427e", "<img onerror=alert(1)>"} {
		if r, err := runningOf(image, id, ""); err == nil {
			t.Errorf("%s is %+v", id, r)
		}
	}
}

// TestWhatEachRuleCameToIsShown, a policy before its rules.
func TestWhatEachRuleCameToIsShown(t *testing.T) {
	r, err := runningOf(image, "shop.example.com/cart@"+indexDigest.String(), "")
	if err != nil {
		t.Fatal(err)
	}
	o := verify(context.Background(), trusting(registry(indexDigest, nil, []digest.Digest{indexDigest})), r)
	if len(o.Rules) != 2 || o.Rules[0].Rule != "policy" || o.Rules[0].Name != "production" || o.Rules[0].Depth != 0 || o.Rules[0].Outcome != "denied" ||
		o.Rules[1].Name != "signed" || o.Rules[1].Depth != 1 || o.Rules[1].Message == "" {
		t.Errorf("%+v", o.Rules)
	}
}
