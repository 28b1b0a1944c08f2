package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// bulky says no at length, as a scheme does of a certificate of a megabyte.
type bulky struct{ verifiertest.Verifier }

type bulkyError struct{ certificate []byte }

func (e *bulkyError) Error() string { return string(e.certificate) }

func (bulky) Verify(_ context.Context, e verifier.Evidence) []verifier.Finding {
	long := strings.Repeat("x", 1<<20) + string(e.Candidate.Descriptor.Digest)
	return []verifier.Finding{{
		Claims: verifier.Claims{Signer: verifier.Signer{ID: "x", Name: "a" + long, Issuer: "b" + long},
			Logged: []*verifier.Error{{Reason: verifier.ReasonCertificateNotTrusted, Message: "c" + long, Err: &bulkyError{[]byte(long)}}}},
		Err:        &verifier.Error{Reason: verifier.ReasonCertificateNotTrusted, Message: "d" + long, Remedy: "e" + long, Err: &bulkyError{[]byte(long)}},
		ValidUntil: time.Now().Add(time.Hour),
	}}
}

// TestL47_WhatIsRememberedIsSmall: an answer, its reports and the findings of an hour
// keep neither manifests nor whatever a scheme's error holds.
func TestL47_WhatIsRememberedIsSmall(t *testing.T) {
	f := newFixture(&verifier.Check{Name: "bulky", Kind: verifier.KindSignature, Verifier: bulky{}, Fingerprint: "b"})
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const candidates = 40
	before := heap()
	var verdicts []verifier.Verdict
	for n := range candidates {
		name := fmt.Sprintf("shop.example.com/cart:%d", n)
		subject := f.store.Tag(name, digest.FromString(name))
		f.store.List(subject, verifier.Candidate{
			Descriptor:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("of " + name), Size: 1},
			ArtifactType: verifiertest.FakeArtifactType, Source: verifier.SourceReferrersAPI,
		}, nil)
		v, err := f.chain.Verify(t.Context(), verifier.Request{Image: reference(t, name)})
		if err != nil || v.Status() != verifier.StatusUntrusted {
			t.Fatal(answer(v, err))
		}
		verdicts = append(verdicts, v)
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("%d answers hold %d MiB", candidates, grown>>20)
	}
	for _, r := range verdicts[0].Tree().AllReports() {
		if r.Candidate.Manifest.Layers != nil || r.Candidate.Descriptor.Digest == "" || !strings.HasPrefix(r.Finding.Err.Message, "dxxx") {
			t.Errorf("%+v", r.Candidate)
		}
	}
	runtime.KeepAlive(f.chain)
}

// TestL47_ManifestsCountToADecision: what a decision reads is bounded with them.
func TestL47_ManifestsCountToADecision(t *testing.T) {
	f := newFixture(&verifier.Check{Name: "silent", Kind: verifier.KindSignature, Verifier: silent{}, Fingerprint: "s"})
	for n := range 9 {
		f.store.List(f.subject, verifier.Candidate{
			Descriptor:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(n)), Size: 4 << 20},
			ArtifactType: verifiertest.FakeArtifactType, Source: verifier.SourceReferrersAPI,
		}, nil)
	}
	v, err := f.verify(t)
	if got := answer(v, err); got != "undecided/LIMIT_EXCEEDED" {
		t.Error(got)
	}
}

// TestL47_AHoldIsTakenOnceAndGivenBack, by whoever comes first and last.
func TestL47_AHoldIsTakenOnceAndGivenBack(t *testing.T) {
	ctx, done := verifier.WithHold(t.Context(), 7)
	hold := verifier.HoldOf(ctx)
	taken, released := 0, 0
	take := func() (func(), error) { taken++; return func() { released++ }, nil }
	if hold.Need != 7 || hold.Once(take) != nil || hold.Once(take) != nil || taken != 1 || released != 0 {
		t.Errorf("need %d, taken %d times, released %d times", hold.Need, taken, released)
	}
	done()
	done()
	if hold.Once(take) != nil || taken != 1 || released != 1 {
		t.Errorf("after its end: taken %d times, released %d times", taken, released)
	}
	ctx, done = verifier.WithHold(t.Context(), 0)
	defer done()
	refused := errors.New("refused")
	for range 2 {
		if err := verifier.HoldOf(ctx).Once(func() (func(), error) { return nil, refused }); !errors.Is(err, refused) {
			t.Error(err)
		}
	}
	if verifier.HoldOf(t.Context()) != nil {
		t.Error("work that nobody began")
	}
}
