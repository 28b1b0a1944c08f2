package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/azurepolicy"
	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/world"
)

// azureWorld is what an AKS cluster has around it: its replicas are pods whose
// ServiceAccount is federated.
type azureWorld struct {
	*azure.Cloud
	identity  *azure.Identity
	acr       *azure.Registry
	vault     *azure.Vault
	variables []string
}

const azureClient = "5c1de3b2-0000-4000-8000-000000000001"

func newAzureWorld(dir, registry string) (*azureWorld, error) {
	cloud, err := azure.New()
	if err != nil {
		return nil, err
	}
	w := &azureWorld{Cloud: cloud, vault: cloud.Vault("wabbit-kv.vault.azure.net")}
	if w.acr, err = cloud.Registry("wabbitacr.azurecr.io", registry); err != nil {
		return nil, err
	}
	const issuer, subject = "https://westeurope.oic.prod-aks.azure.com/tenant/cluster/", "system:serviceaccount:" + namespace + ":" + release
	w.identity = cloud.Entra.Identity(azureClient, issuer, subject)
	w.identity.Grant(w.acr.Host, "AcrPull")
	w.identity.Grant(w.vault.Host, "Key Vault Secrets User")
	w.identity.Grant(w.vault.Host, "Key Vault Crypto User")
	token, err := cloud.Entra.Write(dir, azure.Token{Issuer: issuer, Subject: subject, Audience: azure.Audience, Lifetime: time.Hour})
	if err != nil {
		return nil, err
	}
	host, err := machineAddress()
	if err != nil {
		return nil, err
	}
	if w.variables, err = cloud.Environment(dir); err != nil {
		return nil, err
	}
	w.variables = append(w.variables, "NO_PROXY="+host, "AZURE_CLIENT_ID="+azureClient, "AZURE_TENANT_ID="+azure.Tenant, "AZURE_FEDERATED_TOKEN_FILE="+token)
	return w, nil
}

// The documents of Ratify's walkthrough for AKS, as a shell with its variables
// writes them.
const (
	walkthroughStore = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: Store
metadata:
  name: store-oras
spec:
  name: oras
  parameters:
    authProvider:
      name: azureWorkloadIdentity
      clientID: $IDENTITY_CLIENT_ID
    cosignEnabled: true
`
	walkthroughCertificates = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata:
  name: keymanagementprovider-akv
spec:
  type: azurekeyvault
  parameters:
    vaultURI: https://${AKV_NAME}.vault.azure.net/
    certificates:
      - name: ${CERT_NAME}
        version: ${CERT_KEY_ID}
    tenantID: ${TENANT_ID}
    clientID: ${IDENTITY_CLIENT_ID}
`
	walkthroughKeys = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata:
  name: keymanagementprovider-akv
spec:
  type: azurekeyvault
  parameters:
    vaultURI: https://${AKV_NAME}.vault.azure.net/
    keys:
      - name: ${KEY_NAME}
        version: ${KEY_VER}
    tenantID: ${TENANT_ID}
    clientID: ${IDENTITY_CLIENT_ID}
`
	walkthroughNotation = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata:
  name: verifier-notation
spec:
  name: notation
  artifactTypes: application/vnd.cncf.notary.signature
  parameters:
    verificationCertStores:
      certs:
        - keymanagementprovider-akv
    trustPolicyDoc:
      version: "1.0"
      trustPolicies:
        - name: default
          registryScopes:
            - "*"
          signatureVerification:
            level: strict
          trustStores:
            - ca:certs
          trustedIdentities:
            - "x509.subject: ${SUBJECT_DN}"
`
	walkthroughCosign = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata:
  name: verifier-cosign
spec:
  name: cosign
  artifactTypes: application/vnd.dev.cosign.artifact.sig.v1+json
  parameters:
    trustPolicies:
      - name: default
        scopes:
          - "*"
        keys:
          - provider: keymanagementprovider-akv
`
	walkthroughScopes = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: Verifier
metadata:
  name: verifier-cosign
spec:
  name: cosign
  artifactTypes: application/vnd.dev.cosign.artifact.sig.v1+json
  parameters:
    trustPolicies:
      - name: $ACR_NAME1
        scopes:
          - "$ACR_NAME1.azurecr.io/*"
        keys:
          - provider: keymanagementprovider-akv1
      - name: $ACR_NAME2
        scopes:
          - "$ACR_NAME2.azurecr.io/*"
        keys:
          - provider: keymanagementprovider-akv2
`
	// A key has its version twice there, of which every reader takes the last.
	walkthroughRotation = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata:
  name: keymanagementprovider-akv
spec:
  type: azurekeyvault
  parameters:
    vaultURI: https://$AKV_NAME.vault.azure.net/
    keys:
      - name: $KEY_NAME
        version: $KEY_VER
        version: $KEY_VER_NEW
    tenantID: $TENANT_ID
    clientID: $CLIENT_ID
`
	walkthroughDisabled = `apiVersion: config.ratify.deislabs.io/v1beta1
kind: KeyManagementProvider
metadata:
  name: keymanagementprovider-akv
spec:
  type: azurekeyvault
  parameters:
    vaultURI: https://$AKV_NAME.vault.azure.net/
    keys:
      - name: $KEY_NAME
        version: $KEY_VER_NEW
    tenantID: $TENANT_ID
    clientID: $CLIENT_ID
`
)

// shell is what somebody types who follows a walkthrough.
type shell struct {
	*scene
	variables map[string]string
}

// apply is `kubectl apply -f FILE` of a document with the shell's variables, until
// the test's end.
func (s *shell) apply(t *testing.T, name, document string) {
	t.Helper()
	document = os.Expand(document, func(v string) string { return s.variables[v] })
	path := filepath.Join(t.TempDir(), name+".yaml")
	must(t, os.WriteFile(path, []byte(document), 0o600))
	out, err := s.run(t.Context(), "kubectl apply -f "+path)
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	t.Cleanup(func() { _, _ = s.run(context.Background(), "kubectl delete --ignore-not-found -f "+path) })
}

// success waits until `kubectl get` shows ISSUCCESS true.
func (s *shell) success(t *testing.T, kind, name string) {
	t.Helper()
	said := ""
	defer func() {
		if t.Failed() {
			t.Log(said)
		}
	}()
	eventually(t, func(ctx context.Context) error {
		out, err := s.run(ctx, "kubectl get "+kind+" "+name+" --no-headers")
		if err == nil {
			said = string(out)
		}
		if err != nil || !strings.Contains(string(out), "true") {
			return fmt.Errorf("%s: %w", out, errors.Join(errors.New("ISSUCCESS is not true"), err))
		}
		return nil
	})
}

// pod is `kubectl run`, and wants it denied with the words; admitted, if there are
// none.
func (s *shell) pod(t *testing.T, image string, words ...string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		out, err := s.run(ctx, "kubectl run demo --namespace ratify --image="+image+" --dry-run=server")
		if len(words) == 0 {
			if err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		}
		if err == nil {
			return fmt.Errorf("%s is admitted", image)
		}
		for _, word := range words {
			if !strings.Contains(string(out), word) {
				return fmt.Errorf("%s: %q does not say %q", image, out, word)
			}
		}
		t.Log(strings.TrimSpace(string(out)))
		return nil
	})
}

// TestTheWalkthroughForAKS: the documents that Ratify's users have applied, as they
// are, and what they promise: with Notation and certificates of a vault, and with
// Cosign and keys of one.
func TestTheWalkthroughForAKS(t *testing.T) {
	s := &shell{in(t, "ratify"), map[string]string{
		"IDENTITY_CLIENT_ID": azureClient, "CLIENT_ID": azureClient, "TENANT_ID": azure.Tenant, "AKV_NAME": "wabbit-kv",
		"CERT_NAME": "wabbit", "KEY_NAME": "ci", "ACR_NAME1": "wabbitacr", "ACR_NAME2": "otheracr",
		"SUBJECT_DN": "C=US, ST=WA, L=Seattle, O=Notary, CN=wabbit-aks",
	}}
	azureName := func(image string) string { return s.azure.acr.Host + "/" + image }
	s.signed(t, "ratify-demo/net-monitor:v1", "wabbit-aks")
	s.signed(t, "ratify-demo/stranger:v1", "mallory-aks")
	must(t, s.Push(t.Context(), "ratify-demo/net-watcher:v1"))
	signer, err := s.Signer("wabbit-aks")
	must(t, err)
	version, err := s.azure.vault.Certificate("wabbit", signer.Chain(), signer.Key)
	must(t, err)
	s.variables["CERT_KEY_ID"] = "https://wabbit-kv.vault.azure.net/keys/wabbit/" + version
	s.enforceRatify(t, "default")

	t.Run("Notation", func(t *testing.T) {
		s.apply(t, "store_config", walkthroughStore)
		s.success(t, "Store", "store-oras")
		s.apply(t, "kmp_config", walkthroughCertificates)
		s.success(t, "KeyManagementProvider", "keymanagementprovider-akv")
		s.apply(t, "notation_config", walkthroughNotation)
		s.success(t, "Verifier", "verifier-notation")
		s.pod(t, azureName("ratify-demo/net-monitor:v1"))
		s.pod(t, azureName("ratify-demo/net-watcher:v1"), "no signature found", "Sign this digest")
		s.pod(t, azureName("ratify-demo/stranger:v1"), "not in trust store")

	})

	must(t, s.Push(t.Context(), "ratify-demo/cosigned:v1"))
	must(t, s.CosignSign(t.Context(), "ratify-demo/cosigned:v1", "aks-old", world.CosignOptions{}))
	must(t, s.Push(t.Context(), "ratify-demo/cosigned:v2"))
	must(t, s.CosignSign(t.Context(), "ratify-demo/cosigned:v2", "aks-new", world.CosignOptions{Bundle: true}))
	for variable, name := range map[string]string{"KEY_VER": "aks-old", "KEY_VER_NEW": "aks-new"} {
		key, err := s.Key(name)
		must(t, err)
		s.variables[variable] = s.azure.vault.Key("ci", key.Private)
	}
	t.Run("Cosign", func(t *testing.T) {
		s.apply(t, "store_config", walkthroughStore)
		s.apply(t, "kmp_config", walkthroughKeys)
		s.success(t, "KeyManagementProvider", "keymanagementprovider-akv")
		s.apply(t, "cosign_config", walkthroughCosign)
		s.success(t, "Verifier", "verifier-cosign")
		s.pod(t, azureName("ratify-demo/cosigned:v1"))
		s.pod(t, azureName("ratify-demo/cosigned:v2"), "none of the trusted keys")
		s.pod(t, azureName("ratify-demo/net-watcher:v1"), "no signature found")

		s.apply(t, "verification_config", walkthroughRotation)
		s.success(t, "KeyManagementProvider", "keymanagementprovider-akv")
		s.pod(t, azureName("ratify-demo/cosigned:v2"))

		s.azure.vault.Enable("ci", s.variables["KEY_VER"], false)
		s.apply(t, "verification_config", walkthroughDisabled)
		s.success(t, "KeyManagementProvider", "keymanagementprovider-akv")
		s.pod(t, azureName("ratify-demo/cosigned:v2"))
		s.pod(t, azureName("ratify-demo/cosigned:v1"), "none of the trusted keys")
		s.azure.vault.Enable("ci", s.variables["KEY_VER"], true)
	})

	t.Run("two registries", func(t *testing.T) {
		other, err := s.azure.Registry("otheracr.azurecr.io", s.Host)
		must(t, err)
		s.azure.identity.Grant(other.Host, "AcrPull")
		s.apply(t, "store_config", walkthroughStore)
		for name, version := range map[string]string{"keymanagementprovider-akv1": s.variables["KEY_VER"], "keymanagementprovider-akv2": s.variables["KEY_VER_NEW"]} {
			s.apply(t, name, strings.NewReplacer("keymanagementprovider-akv", name, "${KEY_VER}", version).Replace(walkthroughKeys))
			s.success(t, "KeyManagementProvider", name)
		}
		s.apply(t, "verifier", walkthroughScopes)
		s.success(t, "Verifier", "verifier-cosign")
		s.pod(t, azureName("ratify-demo/cosigned:v1"))
		s.pod(t, other.Host+"/ratify-demo/cosigned:v2")
		s.pod(t, azureName("ratify-demo/cosigned:v2"), "none of the trusted keys")
		s.pod(t, other.Host+"/ratify-demo/cosigned:v1", "none of the trusted keys")
	})
	s.noSecrets(t)
}

// azurePolicy trusts what the vault has, for images of the registry, as the page
// for AKS has it.
func (s *scene) azurePolicy(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile("../../docs/azure.md")
	must(t, err)
	_, text, found := strings.Cut(string(content), "cat <<EOF | kubectl apply -f -\n")
	text, _, ends := strings.Cut(text, "EOF\n")
	if !found || !ends {
		t.Fatal("the page has no policy")
	}
	text = os.Expand(text, func(v string) string {
		return map[string]string{"ACR_NAME": "wabbitacr", "AKV_NAME": "wabbit-kv", "CERT_NAME": "wabbit-addon", "SUBJECT_DN": "C=US, ST=WA, L=Seattle, O=Notary, CN=wabbit-addon", "KEY_NAME": "ci-addon"}[v]
	})
	objects, err := kubeyaml.Parse([]byte(text))
	must(t, err)
	for _, object := range objects {
		s.apply(t, object)
		s.ready(t, object, "InForce")
	}
}

// TestTheAddOn: a definition of Azure Policy, assigned to the cluster as the add-on
// does it, denies with our words, and shows in the compliance view what ran before.
func TestTheAddOn(t *testing.T) {
	s := in(t, "addon")
	s.signed(t, "addon/cart:1", "wabbit-addon")
	must(t, s.Push(t.Context(), "addon/unsigned:1"))
	signer, err := s.Signer("wabbit-addon")
	must(t, err)
	_, err = s.azure.vault.Certificate("wabbit-addon", signer.Chain(), nil)
	must(t, err)
	key, err := s.Key("ci-addon")
	must(t, err)
	s.azure.vault.Key("ci-addon", key.Private)
	s.azurePolicy(t)
	signed, unsigned := s.azure.acr.Host+"/addon/cart:1", s.azure.acr.Host+"/addon/unsigned:1"

	running := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "addon", Name: "violator"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: unsigned}}}}
	library, err := s.constraint(t.Context())
	must(t, err)
	must(t, unstructured.SetNestedStringSlice(library.Object, []string{"addon"}, "spec", "match", "excludedNamespaces"))
	eventually(t, func(ctx context.Context) error { // the library's own constraint refuses it, until it is held back
		if err := s.Client.Create(ctx, running); err != nil && !apierrors.IsAlreadyExists(err) {
			return s.letIn(ctx, running)
		}
		return nil
	})
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), running) })

	definition, err := os.ReadFile("../../azure-policy/trusted-images.json")
	must(t, err)
	addon := &azurepolicy.Addon{Apply: func(ctx context.Context, objects ...*unstructured.Unstructured) error {
		return cluster.Eventually(ctx, patience, func(ctx context.Context) error { return s.Apply(ctx, objects...) })
	}}
	assign := func(effect string) *unstructured.Unstructured {
		constraint, err := addon.Assign(t.Context(), definition, azurepolicy.Assignment{
			ID: "/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/trusted", DefinitionID: "countersign-trusted-images",
			Parameters: map[string]any{"effect": effect, "namespaces": []any{"addon"}},
		})
		must(t, err)
		return constraint
	}
	constraint := assign("Deny")
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), constraint) })
	eventually(t, func(ctx context.Context) error { return s.Enforced(ctx, constraint) })
	eventually(t, func(ctx context.Context) error { return s.tryPod(ctx, "addon", signed) })
	eventually(t, func(ctx context.Context) error {
		err := s.tryPod(ctx, "addon", unsigned)
		if err == nil || !strings.Contains(err.Error(), "["+constraint.GetName()+"] "+unsigned+" (") || !strings.Contains(err.Error(), "no signature found") {
			return errors.Join(errors.New("not refused"), err)
		}
		t.Log(err)
		return nil
	})
	eventually(t, func(ctx context.Context) error {
		audited := constraint.DeepCopy()
		if err := s.Client.Get(ctx, client.ObjectKeyFromObject(audited), audited); err != nil {
			return err
		}
		records := azurepolicy.Records(audited)
		if len(records) != 1 || records[0].Component != "addon/Pod/violator" || !strings.Contains(records[0].Message, "no signature found") || len(records[0].Message) > 256 {
			return fmt.Errorf("the portal shows %v", records)
		}
		t.Log(records[0])
		return nil
	})
}

// noSecrets greps all that the run has produced for what is built like a token.
func (s *scene) noSecrets(t *testing.T) {
	t.Helper()
	produced := s.Logs()
	for _, r := range s.replicas {
		if r.Server != nil {
			produced += r.Log()
			figures, err := r.Figures(t.Context())
			must(t, err)
			produced += figures
		}
	}
	for _, kind := range []string{"events", "ctp", "stores.config.ratify.deislabs.io", "keymanagementproviders.config.ratify.deislabs.io", "verifiers.config.ratify.deislabs.io"} {
		out, err := s.run(t.Context(), "kubectl get "+kind+" --all-namespaces -o yaml")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		produced += string(out)
	}
	for _, secret := range []string{"eyJ", "client_assertion", "PRIVATE KEY"} {
		if at := strings.Index(produced, secret); at >= 0 {
			t.Errorf("a secret shows: %s", produced[max(0, at-200):min(len(produced), at+80)])
		}
	}
}

// TestTheValuesOfRatifysChartForAzure make the objects that Ratify's chart made.
func TestTheValuesOfRatifysChartForAzure(t *testing.T) {
	s := in(t, "values")
	rendered, err := s.render(t.Context(), "compatibility.ratify=true", "provider.enableMutation=false", "featureFlags.RATIFY_CERT_ROTATION=true",
		"akvCertConfig.enabled=true", "akvCertConfig.vaultURI=https://wabbit-kv.vault.azure.net/", "akvCertConfig.cert1Name=wabbit", "akvCertConfig.tenantId="+azure.Tenant,
		"oras.authProviders.azureWorkloadIdentityEnabled=true", "azureWorkloadIdentity.clientId="+azureClient, "logLevel=debug")
	must(t, err)
	objects, err := kubeyaml.Parse(rendered)
	must(t, err)
	found := ""
	for _, object := range objects {
		if object.GetName() == release+"-ratify" && object.GetKind() == "ConfigMap" {
			found = object.Object["data"].(map[string]any)["objects.yaml"].(string)
		}
	}
	path := filepath.Join(t.TempDir(), "ratify.yaml")
	must(t, os.WriteFile(path, []byte(found), 0o600))
	out, err := s.run(t.Context(), "countersign convert ratify "+path)
	if err != nil || !strings.Contains(string(out), "vaultURI: https://wabbit-kv.vault.azure.net/") || !strings.Contains(string(out), "name: wabbit") {
		t.Errorf("%v\n%s", err, out)
	}
}
