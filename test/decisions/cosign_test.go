package decisions

import (
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/world"
)

// cosigned trusts the key ci in the whole registry.
const cosigned = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  owner: platform@example.com
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    name: ci
    cosign: {transparencyLog: ignored, keys: [{name: ci, file: ../ci.pub}]}
`

// mixed wants wabbit's certificate and ci's key, or two of three keys.
const mixed = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: production}
spec:
  images: ["$REGISTRY/**"]
  registries: [{host: "$REGISTRY", plainHTTP: true}]
  require:
    any:
      - all:
          - {name: wabbit, notation: {level: strict, trustStores: {ca: [{file: ../wabbit.crt}]}, trustedIdentities: ["*"]}}
          - {name: ci, cosign: {transparencyLog: ignored, keys: [{name: ci, file: ../ci.pub}]}}
      - atLeast:
          count: 2
          of:
            - {name: alice, cosign: {transparencyLog: ignored, keys: [{name: alice, file: ../alice.pub}]}}
            - {name: bob, cosign: {transparencyLog: ignored, keys: [{name: bob, file: ../bob.pub}]}}
`

// TestL13_CosignPods: each format by each way to find it, on both kinds of
// registry: the Pod of the good image is admitted, that of each bad one refused
// for its own reason.
func TestL13_CosignPods(t *testing.T) {
	forms := map[string]world.CosignOptions{"tag": {}, "referrer": {Referrer: true}, "bundle": {Bundle: true}}
	for name, o := range registries {
		t.Run(name, func(t *testing.T) {
			o.policy, o.keys = cosigned, []string{"ci"}
			s := newScene(t, o)
			ctx := t.Context()
			do(t, s.Push(ctx, "good:1"))
			for form, sign := range forms {
				image := func(what string) string {
					do(t, s.Push(ctx, form+"/"+what+":1"))
					return form + "/" + what + ":1"
				}
				good, stranger, tampered, transplanted, none := image("good"), image("stranger"), image("tampered"), image("transplanted"), image("none")
				broken, other := sign, sign
				broken.Tamper, other.Of = true, "good:1"
				do(t,
					s.CosignSign(ctx, good, "ci", sign), s.CosignSign(ctx, stranger, "mallory", sign),
					s.CosignSign(ctx, tampered, "ci", broken), s.CosignSign(ctx, transplanted, "ci", other),
				)
				s.wantAdmitted(t, s.Name(good))
				s.wantDenied(t, s.Name(stranger), "none of the trusted keys made this signature")
				s.wantDenied(t, s.Name(tampered), "signature")
				s.wantDenied(t, s.Name(transplanted), "another image", s.Digest("good:1").Encoded()[:12])
				s.wantDenied(t, s.Name(none), "no signature found; policy production wants ci")
			}
		})
	}
}

// TestL12_AnAttestationAdmitsNoPod, whoever signed it.
func TestL12_AnAttestationAdmitsNoPod(t *testing.T) {
	s := newScene(t, options{policy: cosigned, keys: []string{"ci"}})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1"), s.CosignSign(ctx, "cart:1", "ci", world.CosignOptions{Bundle: true, Attestation: true}))
	s.wantDenied(t, s.Name("cart:1"), "attestation")
}

// TestL16_SignersAreCounted over both schemes in one tree: who signs twice is one.
func TestL16_SignersAreCounted(t *testing.T) {
	s := newScene(t, options{policy: mixed, keys: []string{"ci", "alice", "bob"}})
	ctx := t.Context()
	for _, image := range []string{"both:1", "certificate:1", "key:1", "two:1", "twice:1"} {
		do(t, s.Push(ctx, image))
	}
	bundle := world.CosignOptions{Bundle: true}
	do(t,
		s.Sign(ctx, "both:1", "wabbit", notationtest.SignOptions{}), s.CosignSign(ctx, "both:1", "ci", world.CosignOptions{}),
		s.Sign(ctx, "certificate:1", "wabbit", notationtest.SignOptions{}),
		s.CosignSign(ctx, "key:1", "ci", bundle),
		s.CosignSign(ctx, "two:1", "alice", bundle), s.CosignSign(ctx, "two:1", "bob", world.CosignOptions{}),
		s.CosignSign(ctx, "twice:1", "alice", bundle), s.CosignSign(ctx, "twice:1", "alice", world.CosignOptions{}),
	)
	s.wantAdmitted(t, s.Name("both:1"))
	s.wantAdmitted(t, s.Name("two:1"))
	s.wantDenied(t, s.Name("certificate:1"), "policy production wants")
	s.wantDenied(t, s.Name("key:1"), "policy production wants")
	s.wantDenied(t, s.Name("twice:1"), "policy production wants")
}
