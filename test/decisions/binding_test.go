package decisions

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// TestL01_OneResolution: the tag answers with the signed image once, and with an
// unsigned one ever after. One look-up is made for a decision, and what the Pod
// is given to run is what was verified.
func TestL01_OneResolution(t *testing.T) {
	s := newScene(t, options{pin: true})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Push(ctx, "cart:unsigned"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	signed, unsigned := s.Digest("cart:1.4"), s.Digest("cart:unsigned")
	var lookups atomic.Int32
	s.registry.SetFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead && r.Method != http.MethodGet {
			return false
		}
		if strings.HasSuffix(r.URL.Path, "/manifests/1.4") {
			if lookups.Add(1) > 1 {
				s.registry.Tag("cart", "1.4", unsigned)
			}
		}
		return false
	})
	pinned := s.mutate(t, s.Name("cart:1.4"))[0]
	if want := s.Name("cart:1.4@" + signed.String()); pinned != want {
		t.Fatalf("pinned to %s, want %s", pinned, want)
	}
	s.registry.Tag("cart", "1.4", unsigned)
	s.wantAdmitted(t, pinned)
	if n := lookups.Load(); n != 1 {
		t.Errorf("the tag was looked up %d times", n)
	}
	for _, request := range s.registry.Requests() {
		if strings.Contains(request.Path, unsigned.Encoded()) {
			t.Errorf("asked about the other digest: %s", request)
		}
	}
}

// TestL03_TagMovesWithinTTL: every cache is warm when the tag moves to an unsigned
// image. What is pinned runs the verified image; a tag alone is refused as soon
// as the provider looks it up again.
func TestL03_TagMovesWithinTTL(t *testing.T) {
	s := newScene(t, options{pin: true})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Push(ctx, "cart:unsigned"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	signed := s.Digest("cart:1.4")
	s.wantAdmitted(t, s.Name("cart:1.4"))
	pinned := s.mutate(t, s.Name("cart:1.4"))[0]

	do(t, s.Move(ctx, "cart:1.4", "cart:unsigned"))
	s.wantAdmitted(t, pinned)
	s.wantDenied(t, s.Name("cart@"+s.Digest("cart:unsigned").String()), "no signature found")
	if again := s.mutate(t, s.Name("cart:1.4"))[0]; again == pinned {
		s.wantAdmitted(t, again) // still the verified image
	} else if strings.Contains(again, signed.String()) {
		t.Errorf("pinned to %s", again)
	}
	eventually(t, "the moved tag is refused", func() bool { return !s.admit(t, s.Name("cart:1.4")).Allowed })
	s.wantDenied(t, s.Name("cart:1.4"), "no signature found", s.Digest("cart:1.4").Encoded()[:12])
	s.wantAdmitted(t, pinned)
}

// TestL05b_TransplantedSignature: another image's good signature, byte for byte,
// in both envelopes and on both kinds of registry.
func TestL05b_TransplantedSignature(t *testing.T) {
	for name, o := range registries {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, o)
			ctx := t.Context()
			do(t, s.Push(ctx, "good:1"))
			for image, envelope := range map[string]string{"jws:1": notationtest.JWS, "cose:1": notationtest.COSE} {
				signature, err := s.Envelope("good:1", "wabbit", notationtest.SignOptions{Envelope: envelope})
				do(t, err, s.Push(ctx, image), s.Attach(ctx, image, envelope, signature))
				s.wantDenied(t, s.Name(image), "another image", s.Digest("good:1").Encoded()[:12])
			}
			do(t, s.Sign(ctx, "good:1", "wabbit", notationtest.SignOptions{}))
			s.wantAdmitted(t, s.Name("good:1"))
		})
	}
}
