package decisions

import (
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// registries are both kinds that there are: with the referrers API, and
// Distribution 3, which has none.
var registries = map[string]options{
	"with the referrers API":         {pin: true},
	"Distribution, without that API": {pin: true, distribution: true},
}

// TestSignedImagesRunAndOthersDoNot: what a Notation user can do to an image, on
// both kinds of registry.
func TestSignedImagesRunAndOthersDoNot(t *testing.T) {
	for name, o := range registries {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, o)
			ctx := t.Context()
			for _, image := range []string{"jws:1", "cose:1", "stranger:1", "expired:1", "tampered:1", "transplanted:1", "unsigned:1", "both:1"} {
				do(t, s.Push(ctx, image))
			}
			tampered, err := s.Envelope("tampered:1", "wabbit", notationtest.SignOptions{})
			must(t, err)
			tampered[len(tampered)/3] ^= 1
			transplanted, err := s.Envelope("jws:1", "wabbit", notationtest.SignOptions{})
			must(t, err)
			longAgo := time.Now().Add(-20 * time.Minute)
			do(t,
				s.Sign(ctx, "jws:1", "wabbit", notationtest.SignOptions{}),
				s.Sign(ctx, "cose:1", "wabbit", notationtest.SignOptions{Envelope: notationtest.COSE}),
				s.Sign(ctx, "stranger:1", "mallory", notationtest.SignOptions{}),
				s.Sign(ctx, "expired:1", "wabbit", notationtest.SignOptions{Time: longAgo, Expiry: longAgo.Add(10 * time.Minute)}),
				s.Attach(ctx, "tampered:1", notationtest.JWS, tampered),
				s.Attach(ctx, "transplanted:1", notationtest.JWS, transplanted),
				s.Sign(ctx, "both:1", "mallory", notationtest.SignOptions{}),
				s.Sign(ctx, "both:1", "wabbit", notationtest.SignOptions{Envelope: notationtest.COSE}),
			)
			s.wantAdmitted(t, s.Name("jws:1"))
			s.wantAdmitted(t, s.Name("cose:1"), s.Name("both:1"))
			s.wantAdmitted(t, s.Name("jws:1@"+s.Digest("jws:1").String()))
			for image, words := range map[string]string{
				"stranger:1":     "not in trust store",
				"expired:1":      "expired",
				"tampered:1":     "signature",
				"transplanted:1": "another image",
				"unsigned:1":     "no signature found",
			} {
				s.wantDenied(t, s.Name(image), words, s.Digest(image).Encoded()[:12])
			}
			s.wantDenied(t, s.Name("unsigned:1"), "policy production wants wabbit", "platform@example.com")
			decision := s.admit(t, s.Name("jws:1"), s.Name("unsigned:1"), s.Name("stranger:1"))
			if len(decision.Denials) != 2 {
				t.Errorf("want two denials of three images: %q", decision.Denials)
			}
			s.wantDenied(t, s.Name("nowhere:1"), "undecided", "IMAGE_NOT_FOUND")
		})
	}
}

// TestPinnedImagesAreTheOnesVerified: mutation writes the digest behind the tag,
// writes it once, and leaves alone what is not the provider's.
func TestPinnedImagesAreTheOnesVerified(t *testing.T) {
	for name, o := range registries {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, o)
			do(t, s.Push(t.Context(), "cart:1.4"), s.Sign(t.Context(), "cart:1.4", "wabbit", notationtest.SignOptions{}))
			pinned := s.Name("cart:1.4@" + s.Digest("cart:1.4").String())

			images := []string{s.Name("cart:1.4"), pinned, "elsewhere.example.com/x:1", s.Name("nowhere:1"), "not a reference"}
			want := []string{pinned, pinned, "elsewhere.example.com/x:1", s.Name("nowhere:1"), "not a reference"}
			once := s.mutate(t, images...)
			wantImages(t, once, want)
			wantImages(t, s.mutate(t, once...), want)
			s.wantAdmitted(t, pinned)

			s.engine.RemoveProvider("countersign-mutation")
			wantImages(t, s.mutate(t, images...), images)
		})
	}
}

func wantImages(t *testing.T, got, want []string) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %s, want %s", got[i], want[i])
		}
	}
}
