package library

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

const refusal = "registry.example.com/cart:1.4: no signature found"

// refuse makes the provider refuse registry.example.com/cart:1.4, and nothing
// else, in the namespace shop.
func (s *suite) refuse() {
	s.provider.Say(fake.Answer{Items: []fake.Item{{
		Key: "[shop]registry.example.com/cart:1.4", Value: map[string]any{"status": "UNKNOWN", "message": refusal},
	}}})
}

// TestPodsSample: Pods are refused, where the constraint applies and nowhere else.
func TestPodsSample(t *testing.T) {
	s := newSuite(t, 0)
	s.apply(t, "trusted-images", "template.yaml")
	s.apply(t, "trusted-images", "samples", "pods.yaml")
	pod := object(podOf("registry.example.com/cart:1.4"))

	s.refuse()
	decision, err := s.engine.Admit(t.Context(), engine.Create("shop", pod))
	must(t, err)
	if want := "[trusted-images] " + refusal; decision.Allowed || decision.Text != want {
		t.Errorf("got %+v, want a refusal that reads %q", decision, want)
	}
	for _, namespace := range []string{"kube-system", "gatekeeper-system", "countersign-system"} {
		decision, err := s.engine.Admit(t.Context(), engine.Create(namespace, pod))
		must(t, err)
		if !decision.Allowed {
			t.Errorf("in %s: %s", namespace, decision.Text)
		}
	}
	if asked := s.provider.Asked(); len(asked) != 1 {
		t.Errorf("asked %q, want shop alone", asked)
	}
}

// TestWorkloadsSample: whoever applies a workload is warned, and what Kubernetes
// itself writes is left alone.
func TestWorkloadsSample(t *testing.T) {
	s := newSuite(t, 0)
	s.apply(t, "trusted-images", "template.yaml")
	s.apply(t, "trusted-images", "samples", "workloads.yaml")
	for _, c := range workloads(t) {
		t.Run(c.GetKind(), func(t *testing.T) {
			s.refuse()
			decision, err := s.engine.Admit(t.Context(), engine.Update("shop", c, c))
			must(t, err)
			want := []string{refusal}
			if c.GetKind() == "ReplicaSet" {
				want = nil
			}
			if !decision.Allowed || !slices.Equal(decision.Warnings, want) {
				t.Errorf("got %+v, want the warnings %q", decision, want)
			}
		})
	}
}

// TestExpansionSample: a workload shows the Pod that it will make to the
// constraint on Pods. Its update is verified like its creation.
func TestExpansionSample(t *testing.T) {
	s := newSuite(t, 0)
	s.apply(t, "trusted-images", "template.yaml")
	s.apply(t, "trusted-images", "samples", "pods.yaml")
	s.apply(t, "trusted-images", "samples", "expansion.yaml")
	for _, c := range workloads(t) {
		t.Run(c.GetKind(), func(t *testing.T) {
			s.refuse()
			decision, err := s.engine.Admit(t.Context(), engine.Update("shop", c, c))
			must(t, err)
			var want []string
			switch c.GetKind() {
			case "CronJob":
				want = []string{"[Implied by countersign-cronjobs] " + refusal}
			case "ReplicaSet":
			default:
				want = []string{"[Implied by countersign-workloads] " + refusal}
			}
			if !decision.Allowed || !slices.Equal(decision.Warnings, want) {
				t.Errorf("got %+v, want the warnings %q", decision, want)
			}
		})
	}
}

// TestOneRequestForAReview: several constraints of the kind ask once.
func TestOneRequestForAReview(t *testing.T) {
	s := newSuite(t, 0)
	s.apply(t, "trusted-images", "template.yaml")
	s.apply(t, "trusted-images", "samples", "pods.yaml")
	second := sample(t, "pods.yaml")
	second.SetName("also-trusted-images")
	must(t, unstructured.SetNestedField(second.Object, true, "spec", "parameters", "requireDigest"))
	must(t, s.engine.Apply(t.Context(), second))

	s.refuse()
	decision, err := s.engine.Admit(t.Context(), engine.Create("shop", object(podOf("registry.example.com/cart:1.4"))))
	must(t, err)
	if asked := s.provider.Asked(); len(asked) != 1 || len(decision.Denials) != 3 {
		t.Errorf("asked %q for %q, want one request for three denials", asked, decision.Denials)
	}
}

// TestProviderSamples: a provider that outlives the webhook's patience lets
// everything in.
func TestProviderSamples(t *testing.T) {
	for policy, want := range map[string]struct {
		name, url string
		timeout   int64 // below the webhook's: 3 s to validate, 2 s to mutate
	}{
		"trusted-images": {"countersign", "https://countersign.countersign-system.svc:8443/v1/verify", 2},
		"pin-digests":    {"countersign-mutation", "https://countersign.countersign-system.svc:8443/v1/mutate", 1},
	} {
		objects, err := kubeyaml.Read(file(policy, "samples", "provider.yaml"))
		must(t, err)
		url, _, _ := unstructured.NestedString(objects[0].Object, "spec", "url")
		timeout, _, _ := unstructured.NestedInt64(objects[0].Object, "spec", "timeout")
		if name := objects[0].GetName(); name != want.name || url != want.url || timeout != want.timeout {
			t.Errorf("%s: got %s, %s, %d s; want %+v", policy, name, url, timeout, want)
		}
	}
}

// sample is the only object of a sample.
func sample(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	objects, err := kubeyaml.Read(file("trusted-images", "samples", name))
	must(t, err)
	if len(objects) != 1 {
		t.Fatalf("%s has %d objects", name, len(objects))
	}
	return objects[0]
}

// workloads are those of Kubernetes, each with a Pod that is refused.
func workloads(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	template := map[string]any{"spec": podOf("registry.example.com/cart:1.4")["spec"]}
	var out []*unstructured.Unstructured
	for kind, apiVersion := range map[string]string{
		"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1",
		"Job": "batch/v1", "CronJob": "batch/v1", "ReplicationController": "v1",
	} {
		spec := map[string]any{"template": template}
		if kind == "CronJob" {
			spec = map[string]any{"jobTemplate": map[string]any{"spec": spec}}
		}
		out = append(out, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": apiVersion, "kind": kind,
			"metadata": map[string]any{"name": "cart", "namespace": "shop"}, "spec": spec,
		}})
	}
	return out
}
