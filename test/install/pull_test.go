package install

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pulling is the namespace in which the chart lets pull secrets be read.
const pulling = "pulling"

// private is a registry with the same images that lets one user in, by its host.
func (s *scene) private(t *testing.T, user, password string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.Host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, ok := req.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		req.Header.Del("Authorization")
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func pullSecret(namespace, name, host, password string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: fmt.Appendf(nil, `{"auths":{%q:{"username":"robot","password":%q}}}`, host, password)},
	}
}

// TestPodsAreVerifiedWithTheirOwnPullSecrets: a private registry is asked with what
// the kubelet would pull with, in the namespaces in which the chart allows it.
func TestPodsAreVerifiedWithTheirOwnPullSecrets(t *testing.T) {
	s := in(t, pulling)
	in(t, "elsewhere")
	s.signed(t, "pulling/cart:1.4", "wabbit")
	host := s.private(t, "robot", "hunter2")
	image := host + "/pulling/cart:1.4"
	policy := s.policy("pulling", "pulling/**", map[string]any{"inline": s.root(t, "wabbit")})
	spec := policy.Object["spec"].(map[string]any)
	spec["images"] = []any{host + "/pulling/**"}
	spec["registries"] = []any{map[string]any{"host": host, "plainHTTP": true, "auth": map[string]any{"podPullSecrets": map[string]any{}}}}
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	for _, secret := range []*corev1.Secret{
		pullSecret(pulling, "robot", host, "hunter2"), pullSecret(pulling, "wrong", host, "guess"), pullSecret("elsewhere", "robot", host, "hunter2"),
	} {
		must(t, s.Client.Create(t.Context(), secret))
	}
	eventually(t, func(ctx context.Context) error { // which lets no Pod in before
		return s.Client.Get(ctx, client.ObjectKey{Namespace: pulling, Name: "default"}, &corev1.ServiceAccount{})
	})
	try := func(ctx context.Context, namespace string, secrets ...string) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "cart-"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "cart", Image: image}}}}
		for _, name := range secrets {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		}
		return s.Client.Create(ctx, pod)
	}
	refused := func(says, namespace string, secrets ...string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			err := try(ctx, namespace, secrets...)
			if err == nil || !strings.Contains(err.Error(), says) {
				return fmt.Errorf("%s %v: %w", namespace, secrets, err)
			}
			t.Log(err)
			return nil
		})
	}
	refused("Let a pull secret of namespace pulling read "+host, pulling)
	refused("Let a pull secret of namespace pulling read "+host, pulling, "wrong")
	refused("in namespace elsewhere may not be read. Name the namespace in the chart's rbac.podPullSecrets", "elsewhere", "robot")
	eventually(t, func(ctx context.Context) error { return try(ctx, pulling, "robot") })

	// The ServiceAccount's count as well, and the API server writes them into its Pods.
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pulling, Name: "default"}}
	must(t, s.Client.Patch(t.Context(), account, client.RawPatch(types.MergePatchType, []byte(`{"imagePullSecrets":[{"name":"robot"}]}`))))
	eventually(t, func(ctx context.Context) error { return try(ctx, pulling) })
	a := s.asker(t, s.addresses()[0])
	eventually(t, func(ctx context.Context) error { return wants(ctx, a, "[pulling;sa=default]"+image, "TRUSTED") })
	must(t, wants(t.Context(), a, "[pulling]"+image, "REGISTRY_UNAUTHORIZED"))
}
