package install

import (
	"context"
	"encoding/base64"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type secretObject = corev1.Secret

func decode(text string) ([]byte, error) { return base64.StdEncoding.DecodeString(text) }

// uninstall is `helm uninstall`, once.
func (s *scene) uninstall(t *testing.T) {
	t.Helper()
	if _, err := s.run(t.Context(), "helm status "+release+" --namespace "+namespace); err != nil {
		return
	}
	for _, r := range s.replicas { // helm uninstall ends the pods as well
		must(t, r.Stop())
		r.Server = nil
	}
	s.command(t, "helm uninstall countersign ")
}

// TestZUninstall is the last of its installation: it leaves nothing but the definitions, until they are
// deleted as well.
func TestZUninstall(t *testing.T) {
	s := in(t, "uninstall")
	s.uninstall(t)
	for _, left := range []struct{ apiVersion, kind, namespace, name string }{
		{"externaldata.gatekeeper.sh/v1beta1", "Provider", "", "countersign"},
		{"v1", "Secret", namespace, release + "-tls"},
		{"coordination.k8s.io/v1", "Lease", namespace, release},
		{"constraints.gatekeeper.sh/v1beta1", "CountersignTrustedImagesV1", "", "trusted-images"},
	} {
		object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": left.apiVersion, "kind": left.kind}}
		eventually(t, func(ctx context.Context) error {
			err := s.Client.Get(ctx, client.ObjectKey{Namespace: left.namespace, Name: left.name}, object)
			if err == nil {
				return fmt.Errorf("%s %s is still there", left.kind, left.name)
			}
			// A constraint's kind goes with its template.
			if apierrors.IsNotFound(err) || left.kind == "CountersignTrustedImagesV1" {
				return nil
			}
			return err
		})
	}
	definition := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}}
	must(t, s.Client.Get(t.Context(), client.ObjectKey{Name: "clustertrustpolicies.countersign.dev"}, definition))
	s.command(t, "kubectl delete crd ")
	eventually(t, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, client.ObjectKey{Name: "clustertrustpolicies.countersign.dev"}, definition); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the definition is still there: %w", err)
		}
		return nil
	})
}
