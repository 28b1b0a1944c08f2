package verifiertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Scheme is what Run needs to know of a scheme.
type Scheme struct {
	// Verifier trusts who makes the evidence of Sign, and nobody else.
	Verifier verifier.Verifier
	Kind     verifier.Kind
	// Sign makes good evidence about the subject.
	Sign func(subject ocispec.Descriptor) Signed
	// Stranger makes evidence as good as Sign's, by someone who is not trusted.
	Stranger func(subject ocispec.Descriptor) Signed
	// Regions are the parts of the evidence of which each byte matters.
	Regions func(Signed) []Region
}

// Signed is a candidate with the blobs that its manifest names.
type Signed struct {
	Candidate verifier.Candidate
	Blobs     map[digest.Digest][]byte
}

// Region is a part of evidence that must not be changed.
type Region struct {
	Name string
	// Size is how many positions it has.
	Size int
	// Flip gives the evidence with the byte at the position changed.
	Flip func(position int) Signed
}

// LayerRegion is the part of a layer's blob from one byte up to another.
func LayerRegion(name string, s Signed, layer, from, to int) Region {
	return Region{Name: name, Size: to - from, Flip: func(position int) Signed {
		blob := bytes.Clone(s.layer(layer))
		blob[from+position] ^= 1
		return s.WithLayer(layer, blob)
	}}
}

func (s Signed) layer(i int) []byte { return s.Blobs[s.Candidate.Manifest.Layers[i].Digest] }

// WithLayer is the evidence with another blob in a layer, and all descriptors
// to match: what someone who may push can always do.
func (s Signed) WithLayer(i int, blob []byte) Signed {
	s.Blobs = maps.Clone(s.Blobs)
	d := digest.FromBytes(blob)
	s.Blobs[d] = blob
	return s.WithManifest(func(m *ocispec.Manifest) {
		m.Layers = slices.Clone(m.Layers)
		m.Layers[i].Digest, m.Layers[i].Size = d, int64(len(blob))
	})
}

// WithManifest is the evidence with its manifest changed.
func (s Signed) WithManifest(change func(*ocispec.Manifest)) Signed {
	change(&s.Candidate.Manifest)
	data, err := json.Marshal(s.Candidate.Manifest)
	if err != nil {
		panic(err)
	}
	s.Candidate.Descriptor.Digest, s.Candidate.Descriptor.Size = digest.FromBytes(data), int64(len(data))
	return s
}

const (
	// parallelCalls is how many calls of Verify are under way at once; a tenth of
	// it in short runs.
	parallelCalls = 1000
	// flipsPerRegion is how many positions of a region are tried, first and
	// last among them.
	flipsPerRegion = 24
	// maxValidity is how long the Chain remembers a finding at most.
	maxValidity = time.Hour
	// largestFetch is a decision's whole byte budget.
	largestFetch = 32 << 20
)

// Run holds a scheme to the contract: it proves what is good, proves nothing
// else, tells "no" from "could not find out", and does so for many at once.
func Run(t *testing.T, s Scheme) {
	t.Helper()
	// Of one size, so that nothing but the digest tells them apart.
	image, other := contractSubject("one image"), contractSubject("two image")

	t.Run("candidates", func(t *testing.T) { s.testCandidates(t, s.Sign(image)) })
	t.Run("good evidence", func(t *testing.T) {
		if f := s.only(t, image, s.Sign(image)); f.Err != nil {
			t.Errorf("refused: %v", f.Err)
		}
	})
	t.Run("a stranger's", func(t *testing.T) { s.refused(t, image, s.Stranger(image)) })
	t.Run("transplanted", func(t *testing.T) {
		s.refused(t, other, s.Sign(image))
		s.refused(t, other, attachedTo(s.Sign(image), other))
		// The other way round: our manifest, what another image's signature says.
		s.refused(t, image, attachedTo(s.Sign(other), image))
	})
	t.Run("tampered", func(t *testing.T) { s.testTampered(t, image) })
	t.Run("garbage", func(t *testing.T) { s.testGarbage(t, image) })
	t.Run("hollow manifests", func(t *testing.T) { s.testHollow(t, image) })
	t.Run("oversize", func(t *testing.T) { s.testOversize(t, image) })
	t.Run("blob unreadable", func(t *testing.T) {
		unreachable := &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "the registry is away"}
		for _, f := range s.verify(t.Context(), t, image, s.Sign(image), func(context.Context, ocispec.Descriptor) ([]byte, error) {
			return nil, fmt.Errorf("fetch: %w", unreachable)
		}) {
			if f.Err == nil || f.Err.Reason != verifier.ReasonRegistryUnreachable {
				t.Errorf("not undecided for the registry: %+v", f)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, f := range s.verify(ctx, t, image, s.Sign(image), func(ctx context.Context, _ ocispec.Descriptor) ([]byte, error) {
			return nil, &verifier.Error{Reason: verifier.ReasonTimeout, Message: "out of time", Err: ctx.Err()}
		}) {
			if f.Err == nil || !f.Err.Reason.Undecided() {
				t.Errorf("decided: %+v", f)
			}
		}
	})
	t.Run("many at once", func(t *testing.T) { s.testParallel(t, image, other) })
}

func contractSubject(content string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content)),
	}
}

func attachedTo(s Signed, subject ocispec.Descriptor) Signed {
	if s.Candidate.Manifest.Subject == nil {
		return s
	}
	return s.WithManifest(func(m *ocispec.Manifest) { m.Subject = &subject })
}

// testCandidates: Wants and Handles agree, are stable and forget what their
// callers do.
func (s Scheme) testCandidates(t *testing.T, signed Signed) {
	before := s.Verifier.Wants()
	if len(before.ArtifactTypes)+len(before.TagSuffixes) == 0 {
		t.Error("wants nothing")
	}
	mine := s.Verifier.Wants()
	for i := range mine.ArtifactTypes {
		mine.ArtifactTypes[i] = "overwritten"
	}
	for i := range mine.TagSuffixes {
		mine.TagSuffixes[i] = "overwritten"
	}
	if after := s.Verifier.Wants(); !reflect.DeepEqual(before, after) {
		t.Errorf("wants %v and then %v", before, after)
	}
	for range 2 {
		if !s.Verifier.Handles(signed.Candidate) {
			t.Error("does not handle its own")
		}
	}
	foreign := signed.Candidate
	foreign.ArtifactType, foreign.Source = "application/vnd.example.foreign", verifier.SourceReferrersAPI
	foreign.Manifest.ArtifactType = foreign.ArtifactType
	if s.Verifier.Handles(foreign) || s.Verifier.Handles(verifier.Candidate{}) {
		t.Error("handles what is not its own")
	}
}

// testTampered: no byte of a region can be changed; elsewhere a change may
// pass, if what is proved stays the same.
func (s Scheme) testTampered(t *testing.T, image ocispec.Descriptor) {
	signed := s.Sign(image)
	regions := s.Regions(signed)
	if len(regions) == 0 {
		t.Error("no regions")
	}
	for _, region := range regions {
		t.Run(region.Name, func(t *testing.T) {
			for _, position := range spread(region.Size, flipsPerRegion) {
				if s.refused(t, image, region.Flip(position)); t.Failed() {
					t.Fatalf("at position %d of %d", position, region.Size)
				}
			}
		})
	}
	good := s.only(t, image, signed).Claims
	for i := range signed.Candidate.Manifest.Layers {
		everywhere := LayerRegion("", signed, i, 0, len(signed.layer(i)))
		for _, position := range spread(everywhere.Size, 5*flipsPerRegion) {
			for _, f := range s.findings(t, image, everywhere.Flip(position)) {
				if f.Err == nil && (f.Claims.SubjectDigest != good.SubjectDigest || f.Claims.Signer.ID != good.Signer.ID || f.Claims.Kind != good.Kind) {
					t.Errorf("layer %d, byte %d: proves something else: %+v", i, position, f.Claims)
				}
			}
		}
	}
}

func (s Scheme) testGarbage(t *testing.T, image ocispec.Descriptor) {
	signed := s.Sign(image)
	for name, blob := range map[string][]byte{
		"empty":        {},
		"a zero byte":  {0},
		"text":         []byte("this is no signature"),
		"null":         []byte("null"),
		"empty object": []byte("{}"),
		"empty list":   []byte("[]"),
		"deep lists":   bytes.Repeat([]byte("["), 1<<18),
		"deep CBOR":    bytes.Repeat([]byte{0x81}, 1<<18),
		"huge CBOR":    {0xd2, 0x84, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"half":         signed.layer(0)[:len(signed.layer(0))/2],
		"twice":        bytes.Repeat(signed.layer(0), 2),
	} {
		t.Run(name, func(t *testing.T) { s.refused(t, image, signed.WithLayer(0, blob)) })
	}
}

func (s Scheme) testHollow(t *testing.T, image ocispec.Descriptor) {
	for name, change := range map[string]func(*ocispec.Manifest){
		"empty":       func(m *ocispec.Manifest) { *m = ocispec.Manifest{} },
		"no layer":    func(m *ocispec.Manifest) { m.Layers = nil },
		"blank layer": func(m *ocispec.Manifest) { m.Layers = make([]ocispec.Descriptor, 1) },
		"no media type": func(m *ocispec.Manifest) {
			m.Layers = slices.Clone(m.Layers)
			m.Layers[0].MediaType = ""
		},
		"10,000 blank layers": func(m *ocispec.Manifest) { m.Layers = make([]ocispec.Descriptor, 10000) },
	} {
		t.Run(name, func(t *testing.T) { s.refused(t, image, s.Sign(image).WithManifest(change)) })
	}
}

// testOversize: what a descriptor claims is not believed, and what is large is
// refused.
func (s Scheme) testOversize(t *testing.T, image ocispec.Descriptor) {
	for _, size := range []int64{1 << 40, -1, -1 << 63} {
		signed := s.Sign(image).WithManifest(func(m *ocispec.Manifest) {
			m.Layers = slices.Clone(m.Layers)
			m.Layers[0].Size = size
		})
		for _, f := range s.verify(t.Context(), t, image, signed, func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
			if d.Size < 0 || d.Size > largestFetch {
				t.Errorf("wants to fetch %d bytes", d.Size)
			}
			return nil, &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: "too large"}
		}) {
			if f.Err == nil {
				t.Errorf("size %d: proved", size)
			}
		}
	}
	// A parser that is quadratic in this would outlast the tests.
	s.refused(t, image, s.Sign(image).WithLayer(0, bytes.Repeat([]byte(`{"a":`), 2<<20)))
}

// testParallel mixes good and bad evidence; none may take from another.
func (s Scheme) testParallel(t *testing.T, image, other ocispec.Descriptor) {
	good, stranger := s.Sign(image), s.Stranger(image)
	transplanted := attachedTo(s.Sign(other), image)
	var wrong atomic.Int64
	var wg sync.WaitGroup
	start := make(chan struct{})
	calls := parallelCalls
	if testing.Short() {
		calls /= 10
	}
	for i := range calls {
		wg.Go(func() {
			<-start
			signed, proved := good, true
			switch i % 3 {
			case 1:
				signed, proved = stranger, false
			case 2:
				signed, proved = transplanted, false
			}
			for _, f := range s.findings(t, image, signed) {
				if (f.Err == nil) != proved {
					wrong.Add(1)
				}
			}
		})
	}
	close(start)
	wg.Wait()
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d of %d wrong", n, calls)
	}
}

// refused fails unless the evidence is decidedly no proof.
func (s Scheme) refused(t *testing.T, image ocispec.Descriptor, signed Signed) {
	t.Helper()
	for _, f := range s.findings(t, image, signed) {
		switch {
		case f.Err == nil:
			t.Errorf("proved: %+v", f.Claims)
		case f.Err.Reason.Undecided():
			t.Errorf("undecided: %v", f.Err)
		}
	}
}

func (s Scheme) only(t *testing.T, image ocispec.Descriptor, signed Signed) verifier.Finding {
	t.Helper()
	list := s.findings(t, image, signed)
	if len(list) != 1 {
		t.Fatalf("%d findings of one signature", len(list))
	}
	return list[0]
}

func (s Scheme) findings(t *testing.T, image ocispec.Descriptor, signed Signed) []verifier.Finding {
	t.Helper()
	return s.verify(t.Context(), t, image, signed, func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		blob, ok := signed.Blobs[d.Digest]
		if !ok || int64(len(blob)) != d.Size {
			return nil, &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: "no such blob"}
		}
		return blob, nil
	})
}

// verify asks the scheme and holds each finding to the form that all have.
func (s Scheme) verify(ctx context.Context, t *testing.T, image ocispec.Descriptor, signed Signed,
	fetch func(context.Context, ocispec.Descriptor) ([]byte, error)) []verifier.Finding {
	t.Helper()
	evidence := verifier.Evidence{
		Subject: verifier.Subject{
			Reference: verifier.Reference{Registry: "registry.example.test", Repository: "shop/cart", Digest: image.Digest},
			Digest:    image.Digest,
		},
		Candidate: signed.Candidate,
		Fetch:     fetch,
	}
	list := s.Verifier.Verify(ctx, evidence)
	for _, f := range list {
		for _, fault := range faults(f, s.Kind, image.Digest) {
			t.Errorf("%s: %+v", fault, f)
		}
	}
	return list
}

// faults says how a finding is not as the Chain may expect it.
func faults(f verifier.Finding, kind verifier.Kind, subject digest.Digest) []string {
	var list []string
	add := func(wrong bool, fault string) {
		if wrong {
			list = append(list, fault)
		}
	}
	now := time.Now()
	add(f.ValidUntil.After(now.Add(maxValidity+time.Minute)), "holds for longer than anything is remembered")
	if f.Err == nil {
		add(f.Claims.SubjectDigest != subject, "proof about another subject")
		add(f.Claims.Kind != kind, "proof of another kind")
		add(f.Claims.Signer.ID == "", "proof by nobody")
		add(len(f.Claims.Parties) == 0 || slices.Contains(f.Claims.Parties, ""), "proof by no entry of the policy")
		add(!f.ValidUntil.After(now), "proof that has ended")
		return list
	}
	add(f.Err.Reason == "", "refusal without a reason")
	add(f.Err.Message == "" || strings.ContainsAny(f.Err.Message, "\r\n"), "refusal without one line that says why")
	add(strings.HasSuffix(f.Err.Message, ".") || strings.HasSuffix(f.Err.Remedy, "."), "refusal that ends its own sentence")
	add(f.Err.Reason.Undecided() && !f.ValidUntil.IsZero(), "undecided, and to be remembered")
	add(!f.Err.Reason.Undecided() && !f.ValidUntil.After(now), "refusal that has ended")
	return list
}

// spread gives up to n positions of a size, the first and the last among them.
func spread(size, n int) []int {
	if size <= n {
		n = size
	}
	positions := make([]int, 0, n)
	for i := range n {
		position := 0
		if n > 1 {
			position = i * (size - 1) / (n - 1)
		}
		positions = append(positions, position)
	}
	return positions
}
