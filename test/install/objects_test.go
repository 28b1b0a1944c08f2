package install

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/cluster"
)

// signed pushes an image that a signer signed.
func (s *scene) signed(t *testing.T, image, by string) string {
	t.Helper()
	_, err := s.Signer(by)
	must(t, err)
	must(t, s.Push(t.Context(), image))
	must(t, s.Sign(t.Context(), image, by, notationtest.SignOptions{}))
	return s.Name(image)
}

// root is a signer's authority, as a document has it inline.
func (s *scene) root(t *testing.T, signer string) string {
	t.Helper()
	_, err := s.Signer(signer)
	must(t, err)
	content, err := os.ReadFile(filepath.Join(s.dir, signer+".crt"))
	must(t, err)
	return string(content)
}

// policy is a ClusterTrustPolicy that trusts one source of certificates.
func (s *scene) policy(name, images string, source map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "countersign.dev/v1beta1", "kind": "ClusterTrustPolicy", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"images": []any{s.Host + "/" + images}, "owner": "platform@example.com",
			"registries": []any{map[string]any{"host": s.Host, "plainHTTP": true}},
			"require": map[string]any{"name": "signer", "notation": map[string]any{
				"level": "strict", "trustedIdentities": []any{"*"}, "trustStores": map[string]any{"ca": []any{source}},
			}},
		},
	}}
}

// apply applies an object, which goes at the end of the test.
func (s *scene) apply(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	must(t, s.Apply(t.Context(), object))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), object) })
}

// eventually waits for a condition.
func eventually(t *testing.T, condition func(context.Context) error) {
	t.Helper()
	must(t, cluster.Eventually(t.Context(), patience, condition))
}

// ready waits for an object's condition Ready to have a reason, and gives its message.
func (s *scene) ready(t *testing.T, object *unstructured.Unstructured, reason string) string {
	t.Helper()
	var message string
	eventually(t, func(ctx context.Context) error {
		now := object.DeepCopy()
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(object), now); err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
		observed, _, _ := unstructured.NestedInt64(now.Object, "status", "observedGeneration")
		at := slices.IndexFunc(conditions, func(c any) bool { return c.(map[string]any)["type"] == "Ready" })
		if at < 0 || observed != now.GetGeneration() {
			return fmt.Errorf("%s: status %v", object.GetName(), now.Object["status"])
		}
		condition := conditions[at].(map[string]any)
		message, _ = condition["message"].(string)
		if condition["reason"] != reason {
			return fmt.Errorf("%s: %v: %s", object.GetName(), condition["reason"], message)
		}
		return nil
	})
	return message
}

// tryPod asks the API server to admit a Pod; it is not kept.
func (s *scene) tryPod(ctx context.Context, namespace, image string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "try-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
	return s.Client.Create(ctx, pod, client.DryRunAll)
}

// credentials are what helm test shows the provider, and what it trusts.
func (s *scene) credentials(t *testing.T) (certificate tls.Certificate, authority []byte) {
	t.Helper()
	secret := s.secret(t)
	certificate, err := tls.X509KeyPair(secret.Data["client.crt"], secret.Data["client.key"])
	must(t, err)
	return certificate, secret.Data["ca.crt"]
}

func (s *scene) secret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	must(t, s.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: release + "-tls"}, secret))
	return secret
}
