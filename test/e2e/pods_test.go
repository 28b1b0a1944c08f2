package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// TestASignedImageRunsUnderItsDigest: what was verified is what the node pulls.
func TestASignedImageRunsUnderItsDigest(t *testing.T) {
	s := in(t, "signed", nil)
	image := s.signed(t, "signed/cart:1.4")
	made := pod("signed", "cart", image)
	made.Spec.InitContainers = []corev1.Container{{Name: "init", Image: image}}
	must(t, s.Client.Create(t.Context(), made))
	pinned := image + "@" + s.Digest("signed/cart:1.4").String()
	if main, init := made.Spec.Containers[0].Image, made.Spec.InitContainers[0].Image; main != pinned || init != pinned {
		t.Errorf("the Pod runs %s and %s, want %s", main, init, pinned)
	}
}

// TestRefusalsSayWhatToDo: the message that kubectl prints is ours.
func TestRefusalsSayWhatToDo(t *testing.T) {
	s := in(t, "refused", nil)
	unsigned := s.unsigned(t, "refused/unsigned:1")
	must(t, s.Push(t.Context(), "refused/stranger:1"))
	must(t, s.Sign(t.Context(), "refused/stranger:1", "mallory", notationtest.SignOptions{}))
	for _, test := range []struct {
		name, image string
		words       []string
	}{
		{"unsigned", unsigned, []string{"no signature found; policy production wants wabbit", "ask platform@example.com"}},
		{"a stranger's", s.Name("refused/stranger:1"), []string{`signed by "CN=mallory`}},
		{"missing", s.Name("refused/missing:1"), []string{"IMAGE_NOT_FOUND"}},
		{"of another registry", "elsewhere.example.com/tool:1", []string{"no ClusterTrustPolicy matches this image"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := s.Client.Create(t.Context(), pod("refused", "cart", test.image))
			wantDenial(t, err, append(test.words, "[trusted-images] "+strings.SplitN(test.image, "@", 2)[0])...)
			t.Log(err)
		})
	}
}

// TestL26_AnEphemeralContainerIsVerified: kubectl debug is no way around.
func TestL26_AnEphemeralContainerIsVerified(t *testing.T) {
	s := in(t, "ephemeral", nil)
	running := pod("ephemeral", "cart", s.signed(t, "ephemeral/cart:1.4"))
	must(t, s.Client.Create(t.Context(), running))

	debug := func(image string) error {
		now := &corev1.Pod{}
		must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(running), now))
		now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: image},
		})
		return s.Client.SubResource("ephemeralcontainers").Update(t.Context(), now)
	}
	wantDenial(t, debug(s.unsigned(t, "ephemeral/shell:1")), "no signature found")
	if err := debug(s.signed(t, "ephemeral/shell:2")); err != nil {
		t.Errorf("a signed shell: %v", err)
	}
}

// TestL26_WhatRunsCanBeChangedAndEnd: trust that was withdrawn from a running
// image holds up neither a label nor a finalizer, and lets no other image in.
func TestL26_WhatRunsCanBeChangedAndEnd(t *testing.T) {
	s := in(t, "finalizer", nil)
	image := s.signed(t, "finalizer/cart:1.4")
	running := pod("finalizer", "cart", image)
	running.Finalizers = []string{"example.com/flush"}
	must(t, s.Client.Create(t.Context(), running))
	other := s.signed(t, "finalizer/cart:1.5")
	s.distrust(t, "finalizer", image)

	update := func(change func(*corev1.Pod)) error {
		now := &corev1.Pod{}
		must(t, s.Client.Get(t.Context(), client.ObjectKeyFromObject(running), now))
		change(now)
		return s.Client.Update(t.Context(), now)
	}
	if err := update(func(p *corev1.Pod) { p.Labels = map[string]string{"owner": "shop"} }); err != nil {
		t.Errorf("a label: %v", err)
	}
	wantDenial(t, update(func(p *corev1.Pod) { p.Spec.Containers[0].Image = other }), other)
	must(t, s.Client.Delete(t.Context(), running))
	wantDenial(t, update(func(p *corev1.Pod) { p.Spec.Containers[0].Image = other }), other)
	if err := update(func(p *corev1.Pod) { p.Finalizers = nil }); err != nil {
		t.Errorf("the finalizer: %v", err)
	}
	if err := s.Client.Get(t.Context(), client.ObjectKeyFromObject(running), running); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("the Pod is still there: %v", err)
	}
}

// TestNamespacesWithPoliciesOfTheirOwn: one image, asked for in two namespaces
// within the time that Gatekeeper remembers answers.
func TestNamespacesWithPoliciesOfTheirOwn(t *testing.T) {
	s := in(t, "team-a", nil)
	in(t, "team-b", nil)
	image := s.signed(t, "teams/cart:1.4")
	_, err := s.Signer("ci")
	must(t, err)
	policy := strings.NewReplacer("{name: production}", "{name: team-b}", "$REGISTRY/**", "$REGISTRY/teams/**",
		"spec:\n", "spec:\n  namespaces: [team-b]\n", "wabbit", "ci").Replace(production)
	must(t, s.Policy("team-b.yaml", policy))
	s.eventuallyDenied(t, "team-b", image, "policy team-b wants ci")
	for range 3 {
		if err := s.tryPod(t.Context(), "team-a", image); err != nil {
			t.Errorf("team-a: %v", err)
		}
		wantDenial(t, s.tryPod(t.Context(), "team-b", image), `signed by "CN=wabbit`)
	}
}
