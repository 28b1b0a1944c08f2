package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/world"
)

// ratifyDocuments are what Ratify's users write, as its walkthrough for Azure has
// it, with inline certificates and keys in the place of a vault, and a docker
// configuration in that of Azure's identity.
const ratifyDocuments = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: Store
metadata: {name: store-oras}
spec:
  name: oras
  parameters:
    cosignEnabled: true
    useHttp: true
    authProvider:
      name: dockerConfig
      configPath: $DOCKERCONFIG
---
apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata: {name: keymanagementprovider-certs}
spec:
  type: inline
  parameters:
    contentType: certificate
    value: |
      $CERTIFICATE
---
apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata: {name: keymanagementprovider-keys}
spec:
  type: inline
  parameters:
    contentType: key
    value: |
      $KEY
---
apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata: {name: verifier-notation}
spec:
  name: notation
  artifactTypes: application/vnd.cncf.notary.signature
  parameters:
    verificationCertStores:
      certs:
        - keymanagementprovider-certs
    trustPolicyDoc:
      version: "1.0"
      trustPolicies:
        - name: default
          registryScopes: ["*"]
          signatureVerification: {level: strict}
          trustStores: ["ca:certs"]
          trustedIdentities: ["*"]
---
apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata: {name: verifier-cosign}
spec:
  name: cosign
  artifactTypes: application/vnd.dev.cosign.artifact.sig.v1+json
  parameters:
    trustPolicies:
      - name: default
        scopes: ["*"]
        keys:
          - provider: keymanagementprovider-keys
`

// TestRatifysDocuments as its users wrote them give what they promised: ISSUCCESS
// true, and Pods admitted and refused by Ratify's own templates.
func TestRatifysDocuments(t *testing.T) {
	s := in(t, "ratify")
	notation := s.signed(t, "ratify/notation:1", "wabbit")
	stranger := s.signed(t, "ratify/stranger:1", "mallory")
	must(t, s.Push(t.Context(), "ratify/unsigned:1"))
	cosign, forged, both, half := s.cosigned(t, "ratify/cosign:1", "ci"), s.cosigned(t, "ratify/forged:1", "nobody"), s.signed(t, "ratify/both:1", "wabbit"), s.signed(t, "ratify/half:1", "wabbit")
	must(t, s.CosignSign(t.Context(), "ratify/both:1", "ci", world.CosignOptions{}))
	must(t, s.CosignSign(t.Context(), "ratify/half:1", "nobody", world.CosignOptions{}))

	config := filepath.Join(s.dir, "config.json")
	must(t, os.WriteFile(config, []byte(`{"auths": {"`+s.Host+`": {"username": "robot", "password": "a password"}}}`), 0o600))
	text := strings.NewReplacer(
		"$DOCKERCONFIG", config,
		"$CERTIFICATE", strings.ReplaceAll(strings.TrimSpace(s.root(t, "wabbit")), "\n", "\n      "),
		"$KEY", strings.ReplaceAll(strings.TrimSpace(s.publicKey(t, "ci")), "\n", "\n      "),
	).Replace(ratifyDocuments)
	objects, err := kubeyaml.Parse([]byte(text))
	must(t, err)
	for _, object := range objects {
		s.apply(t, object)
	}
	for _, object := range objects {
		eventually(t, func(ctx context.Context) error { return s.success(ctx, object, true) })
	}
	for _, template := range []string{"default", "multi-tenancy", "notation-issuer"} {
		t.Run(template, func(t *testing.T) {
			s.enforceRatify(t, template)
			const failed = ": failed to verify the artifact"
			admitted := []string{notation, both, cosign}
			refused := map[string]string{stranger: failed, s.Name("ratify/unsigned:1"): failed, forged: failed, half: failed}
			if template == "notation-issuer" { // Cosign's signature has no issuer
				admitted = admitted[:2]
				refused[cosign] = ": no Notation signature by a certificate of the issuer CN=wabbit root"
			}
			for _, image := range admitted {
				eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "ratify", image) })
			}
			for image, words := range refused {
				eventually(t, func(ctx context.Context) error {
					err := s.tryPod(ctx, "ratify", image)
					if err == nil || !strings.Contains(err.Error(), image+words) {
						return fmt.Errorf("%s: %w", image, errors.Join(errors.New("not refused"), err))
					}
					t.Log(err)
					return nil
				})
			}
		})
	}

	// A Verifier that is wrong says so, where its users look.
	broken := objects[3].DeepCopy()
	must(t, unstructured.SetNestedSlice(broken.Object, []any{"nowhere"}, "spec", "parameters", "verificationCertStores", "certs"))
	must(t, s.Apply(t.Context(), broken))
	eventually(t, func(ctx context.Context) error { return s.success(ctx, broken, false) })
}

// cosigned pushes an image that a key signed, as Cosign does.
func (s *scene) cosigned(t *testing.T, image, by string) string {
	t.Helper()
	must(t, s.Push(t.Context(), image))
	must(t, s.CosignSign(t.Context(), image, by, world.CosignOptions{}))
	return s.Name(image)
}

// publicKey is a signer's, in PEM.
func (s *scene) publicKey(t *testing.T, signer string) string {
	t.Helper()
	_, err := s.Key(signer)
	must(t, err)
	content, err := os.ReadFile(filepath.Join(s.dir, signer+".pub"))
	must(t, err)
	return string(content)
}

// success is nil when an object's status says so, as its column ISSUCCESS does.
func (s *scene) success(ctx context.Context, object *unstructured.Unstructured, want bool) error {
	now := object.DeepCopy()
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(object), now); err != nil {
		return err
	}
	got, found, _ := unstructured.NestedBool(now.Object, "status", "issuccess")
	fetched, _, _ := unstructured.NestedString(now.Object, "status", "lastfetchedtime")
	brief, _, _ := unstructured.NestedString(now.Object, "status", "brieferror")
	if !found || got != want || (brief == "") != want || (fetched == "") == strings.Contains(object.GetKind(), "KeyManagement") {
		return fmt.Errorf("%s %s: %v", object.GetKind(), object.GetName(), now.Object["status"])
	}
	return nil
}

// enforceRatify applies one of Ratify's templates with its constraint, in the
// test's namespace and until its end, and lets our own constraint out of it.
func (s *scene) enforceRatify(t *testing.T, name string) {
	t.Helper()
	dir := "../../library/ratify/"
	must(t, s.ApplyFile(t.Context(), filepath.Join(dir, name+".yaml")))
	constraints, err := kubeyaml.Read(filepath.Join(dir, "samples", name+".yaml"))
	must(t, err)
	constraint := constraints[0]
	must(t, unstructured.SetNestedStringSlice(constraint.Object, []string{"ratify"}, "spec", "match", "namespaces"))
	if name == "notation-issuer" {
		must(t, unstructured.SetNestedField(constraint.Object, "CN=wabbit root,O=Notary,L=Seattle,ST=WA,C=US", "spec", "parameters", "issuer"))
	}
	must(t, cluster.Eventually(t.Context(), patience, func(ctx context.Context) error { return s.Apply(ctx, constraint) }))
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), constraint) })
	eventually(t, func(ctx context.Context) error { return s.Enforced(ctx, constraint) })
}
