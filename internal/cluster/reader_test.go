package cluster

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/config"
)

// everywhere is a reader that finds what it is given in each namespace, as a cache does
// that holds more than it should.
type everywhere struct {
	client.Reader
	secret corev1.Secret
	asked  []client.ObjectKey
}

func (e *everywhere) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	e.asked = append(e.asked, key)
	switch into := into.(type) {
	case *corev1.Secret:
		*into = e.secret
	case *corev1.ConfigMap:
		into.BinaryData = e.secret.Data
	default:
		return errors.New("another kind")
	}
	return nil
}

// TestL25_ObjectsOfNamedNamespacesAlone are read, whatever the cache would give.
func TestL25_ObjectsOfNamedNamespacesAlone(t *testing.T) {
	for _, kind := range []config.ObjectKind{config.KindSecret, config.KindConfigMap} {
		for namespace, allowed := range map[string]bool{"countersign": true, "shop": true, "victim": false, "": false, "countersign-": false, "sho": false, "*": false} {
			r := NewReader("countersign", []string{"shop"})
			cache := &everywhere{secret: corev1.Secret{Data: map[string][]byte{"key": []byte("value")}}}
			r.follow(cache)
			data, err := r.ReadObject(config.Object{Kind: kind, Namespace: namespace, Name: "x"})
			switch {
			case allowed && (err != nil || string(data["key"]) != "value"):
				t.Errorf("%s in %q: %q, %v", kind, namespace, data, err)
			case !allowed && (!errors.Is(err, fs.ErrPermission) || len(data) > 0 || len(cache.asked) > 0):
				t.Errorf("%s in %q: %q, %v; asked for %v", kind, namespace, data, err, cache.asked)
			}
		}
	}
	r := NewReader("countersign", []string{AllNamespaces})
	r.follow(&everywhere{})
	if _, err := r.ReadObject(config.Object{Kind: config.KindSecret, Namespace: "any", Name: "x"}); err != nil {
		t.Errorf("all namespaces are named: %v", err)
	}
}

// TestL25_PullSecretsAreOfTheirTypes: a Secret of another type is none, whatever keys it
// has.
func TestL25_PullSecretsAreOfTheirTypes(t *testing.T) {
	data := map[string][]byte{
		corev1.DockerConfigJsonKey: []byte(`{"auths":{"json.example.com":{}}}`), corev1.DockerConfigKey: []byte(`{"old.example.com":{}}`), "token": []byte("t"),
	}
	for kind, want := range map[corev1.SecretType]string{
		corev1.SecretTypeDockerConfigJson: `{"auths":{"json.example.com":{}}}`, corev1.SecretTypeDockercfg: `{"auths":{"old.example.com":{}}}`,
		"": "", corev1.SecretTypeOpaque: "", corev1.SecretTypeServiceAccountToken: "", corev1.SecretTypeBasicAuth: "", corev1.SecretTypeSSHAuth: "",
		corev1.SecretTypeTLS: "", corev1.SecretTypeBootstrapToken: "", "helm.sh/release.v1": "", "kubernetes.io/dockerconfigjson2": "",
	} {
		p := &PullSecrets{&everywhere{secret: corev1.Secret{Type: kind, Data: data}}}
		got, err := p.PullSecret(t.Context(), "shop", "pull")
		if string(got) != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %q, %v", kind, got, err)
		}
	}
}
