package library

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/test/fake"
)

// TestL19_ExemptImagesAreAnchored builds names around exempt hosts: what is
// admitted unasked is, as the container runtime reads it, on an exempt host, in
// an exempt path.
func TestL19_ExemptImagesAreAnchored(t *testing.T) {
	s, _ := withTemplate(t)
	parts := rapid.SampledFrom([]string{
		"registry.k8s.io", "docker.io", "localhost", "attacker.example", "REGISTRY.k8s.io", "index.docker.io", "a", "B", "pause", "team",
		"/", "/", "/", ":", ":5000", ":443", ".", "@", "-", "*", "%2f", "\\", " ", "\n", "..", "@sha256:9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c",
	})
	exempted := 0
	rapid.Check(t, func(r *rapid.T) {
		image := strings.Join(rapid.SliceOfN(parts, 1, 6).Draw(r, "image"), "")
		got, err := s.judge(t.Context(), Case{
			Parameters: map[string]any{"exemptImages": []any{"registry.k8s.io/pause", "docker.io/team/*", "docker.io/library/**"}},
			Object: map[string]any{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": map[string]any{"name": "p", "namespace": "shop"},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": image}}},
			},
			Answer: fake.Answer{SystemError: "down"},
		}, kind)
		if err != nil {
			r.Fatal(err)
		}
		if len(got.Messages) > 0 {
			return
		}
		named, err := reference.ParseDockerRef(image)
		if err != nil {
			return // no runtime starts it
		}
		exempted++
		repository := named.Name()
		path, inTeam := strings.CutPrefix(repository, "docker.io/team/")
		if repository != "registry.k8s.io/pause" && !strings.HasPrefix(repository, "docker.io/library/") && (!inTeam || strings.Contains(path, "/")) {
			r.Fatalf("%q is exempt, and names %s", image, repository)
		}
	})
	if exempted == 0 {
		t.Error("no name was exempt: the test shows nothing")
	}
}
