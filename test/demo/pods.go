package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
)

// row is something that a user does to a Pod.
type row struct {
	pod    string
	images string // as the table shows them
	object *unstructured.Unstructured
	old    *unstructured.Unstructured // of an update
	// want says what has to come of it: "" for admitted, else what the refusal
	// has to say.
	want string
}

// result is what came of a row.
type result struct {
	admitted bool
	right    bool
	message  string
	// first and again are how long it took, and took the second time.
	first, again time.Duration
}

// rows are what the demo shows, in this order.
func rows(c *cluster) []row {
	create := func(pod, want string, images ...string) row {
		names := make([]string, len(images))
		for i, image := range images {
			names[i] = image
			if !strings.HasPrefix(image, "elsewhere.") {
				names[i] = c.Name(image)
			}
		}
		return row{pod: pod, images: strings.Join(images, " "), object: podOf(pod, names...), want: want}
	}
	running := podOf("kubectl-debug", c.Name("cart:1.4@"+c.Digest("cart:1.4").String()))
	debugged := running.DeepCopy()
	_ = unstructured.SetNestedSlice(debugged.Object, []any{map[string]any{"name": "debugger", "image": c.Name("unsigned:1")}}, "spec", "ephemeralContainers")
	going := podOf("no-finalizer", c.Name("unsigned:1"))
	going.SetFinalizers([]string{"example.com/drain"})
	gone := going.DeepCopy()
	gone.SetFinalizers(nil)

	return []row{
		create("signed", "", "cart:1.4"),
		create("signed-cose", "", "till:2.0"),
		create("unsigned", "no signature found", "unsigned:1"),
		create("stranger", "not in trust store", "stranger:1"),
		create("expired", "expired", "expired:1"),
		create("tampered", "signature", "tampered:1"),
		create("transplanted", "another image", "transplanted:1"),
		create("cosign", "", "oven:3"),
		create("cosign-bundle", "", "scale:1"),
		create("cosign-stranger", "none of the trusted keys", "key:1"),
		create("cosign-copied", "another image", "copied:1"),
		create("cosign-attested", "attestation", "attested:1"),
		create("both-schemes", "", "vault/both:1"),
		create("one-scheme", "policy vault wants wabbit and release", "vault/one:1"),
		create("one-of-two", "no signature found", "cart:1.4", "unsigned:1"),
		create("elsewhere", "no ClusterTrustPolicy", "elsewhere.example.com/tool:1"),
		{pod: "kubectl-debug", images: "cart:1.4 + unsigned:1", old: running, object: debugged, want: "no signature found"},
		{pod: "no-finalizer", images: "unsigned:1, which ran before", old: going, object: gone},
	}
}

// judge does what the API server does: the Pod is mutated, then validated. Twice,
// to see what is remembered.
func (c *cluster) judge(ctx context.Context, r row) (result, error) {
	var out result
	for _, took := range []*time.Duration{&out.first, &out.again} {
		started := time.Now()
		decision, pinned, err := c.admit(ctx, r)
		if err != nil {
			return result{}, err
		}
		*took = time.Since(started)
		out.admitted, out.message = decision.Allowed, decision.Text
		if decision.Allowed {
			out.message = pinned
		}
	}
	out.right = out.admitted == (r.want == "") && strings.Contains(out.message, r.want)
	return out, nil
}

// admit gives the decision, and what a new Pod's image was pinned to.
func (c *cluster) admit(ctx context.Context, r row) (engine.Decision, string, error) {
	request := func(object *unstructured.Unstructured) *admissionv1.AdmissionRequest {
		if r.old != nil {
			return engine.Update("shop", r.old, object)
		}
		return engine.Create("shop", object)
	}
	mutated, changed, err := c.engine.Mutate(ctx, request(r.object))
	if err != nil {
		return engine.Decision{}, "", err
	}
	decision, err := c.engine.Admit(ctx, request(mutated))
	if err != nil || !changed {
		return decision, "", err
	}
	containers, _, err := unstructured.NestedSlice(mutated.Object, "spec", "containers")
	if err != nil || len(containers) == 0 {
		return decision, "", err
	}
	return decision, fmt.Sprint("runs as ", containers[0].(map[string]any)["image"]), nil
}

// podOf is a Pod with a container for each image.
func podOf(name string, images ...string) *unstructured.Unstructured {
	var containers []any
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name},
		"spec":     map[string]any{"containers": containers},
	}}
}
