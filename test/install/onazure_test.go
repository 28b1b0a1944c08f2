package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/azurepolicy"
	"github.com/countersign-dev/countersign/test/binary"
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

	// A Pod that was admitted, and whose tag names another image by now.
	must(t, s.Push(t.Context(), "addon/moving:1"))
	must(t, s.Push(t.Context(), "addon/moving:2"))
	must(t, s.Sign(t.Context(), "addon/moving:1", "wabbit-addon", notationtest.SignOptions{}))
	running := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "addon", Name: "violator"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: s.azure.acr.Host + "/addon/moving:1"}}},
	}
	eventually(t, func(ctx context.Context) error { return s.Client.Create(ctx, running) })
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), running) })
	must(t, s.Move(t.Context(), "addon/moving:1", "addon/moving:2"))

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

// pageCommands are the commands of a page, in its order: each line that is not
// within another one's text, with those that it continues.
func pageCommands(t *testing.T, page string) []string {
	t.Helper()
	content, err := os.ReadFile("../../" + page)
	must(t, err)
	var commands []string
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		text := ""
		for line := range strings.Lines(block[1]) {
			text += line
			if strings.Contains(text, "<<EOF") && line != "EOF\n" {
				continue
			}
			commands, text = append(commands, strings.TrimSpace(text)), ""
		}
	}
	return commands
}

// TestThePageForAzure: what is no command of Azure's runs as it stands, and what
// is one is well formed, and names what there is.
func TestThePageForAzure(t *testing.T) {
	s := in(t, "page")
	for image, signer := range map[string]string{"demo/net-monitor:v1": "wabbit-networks.io", "demo/net-watcher:v1": ""} {
		must(t, s.Push(t.Context(), image))
		if signer != "" {
			must(t, s.Sign(t.Context(), image, signer, notationtest.SignOptions{}))
		}
	}
	signer, err := s.Signer("wabbit-networks.io")
	must(t, err)
	_, err = s.azure.vault.Certificate("wabbit-page", signer.Chain(), nil)
	must(t, err)
	key, err := s.Key("page")
	must(t, err)
	s.azure.vault.Key("page", key.Private)
	// What the shell has by now: the page's own names, but for those of our cloud.
	prologue := "export ACR_NAME=wabbitacr AKV_NAME=wabbit-kv CERT_NAME=wabbit-page KEY_NAME=page IDENTITY_CLIENT_ID=" + azureClient + "\n" +
		"export SUBJECT_DN='C=US, ST=WA, L=Seattle, O=Notary, CN=wabbit-networks.io' IMAGE_SIGNED=wabbitacr.azurecr.io/demo/net-monitor:v1 IMAGE_UNSIGNED=wabbitacr.azurecr.io/demo/net-watcher:v1\n"
	t.Cleanup(func() {
		_, _ = s.run(context.Background(), "kubectl delete clustertrustpolicy azure --ignore-not-found")
	})
	ran := 0
	for _, command := range pageCommands(t, "docs/azure.md") {
		switch {
		case strings.HasPrefix(command, "az ") || strings.HasPrefix(command, "export ") && strings.Contains(command, "$(az "):
			wellFormed(t, command)
		case strings.HasPrefix(command, "export "):
		case strings.HasPrefix(command, "notation "), strings.HasPrefix(command, "cosign "): // their own tests sign so
		case strings.HasPrefix(command, "helm install gatekeeper "): // its chart is not here
		case strings.HasPrefix(command, "helm install countersign "): // rendered: this cluster has one
			out, err := s.run(t.Context(), prologue+strings.Replace(command, "helm install", "helm template --kube-version 1.36", 1))
			if err != nil || !strings.Contains(string(out), "azure.workload.identity/client-id: "+azureClient) || !strings.Contains(string(out), `azure.workload.identity/use: "true"`) {
				t.Errorf("%s: %v", command, err)
			}
			if addon := strings.Contains(command, "azurePolicyAddon"); addon == strings.Contains(string(out), "kind: ConstraintTemplate") {
				t.Errorf("%s: the constraint template is there: %v", command, !addon)
			}
		case strings.HasPrefix(command, "kubectl exec "): // no kubelet runs the pods; test/azure runs what it runs
		default:
			var out []byte
			err := cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
				var err error
				out, err = s.run(ctx, prologue+command)
				if refused := strings.Contains(command, "IMAGE_UNSIGNED"); refused && err == nil {
					return errors.New("admitted")
				} else if refused && strings.Contains(string(out), "no signature found; policy azure wants wabbit or ci. Sign this digest") {
					return nil
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
			ran++
		}
	}
	if ran < 5 {
		t.Errorf("%d commands ran", ran)
	}
	for _, command := range pageCommands(t, "azure-policy/README.md") {
		wellFormed(t, command)
	}
}

// TestComingFromKyverno: the page's policy does in one namespace what Kyverno's
// did: any of several signatures, the old certificate and the new one side by side,
// unsigned denied with its digest, and the tag's digest for the mutation.
func TestComingFromKyverno(t *testing.T) {
	s := in(t, "test-shuting")
	const repository = "test-verify-image"
	signers := map[string][]string{"v1-signed": {"wabbit-old", "mallory-kyverno"}, "v2-signed": {"wabbit-next"}, "v1-unsigned": nil, "v1-stranger": {"mallory-kyverno"}}
	for tag, by := range signers {
		must(t, s.Push(t.Context(), repository+":"+tag))
		for _, signer := range by {
			must(t, s.Sign(t.Context(), repository+":"+tag, signer, notationtest.SignOptions{}))
		}
	}
	acr, err := s.azure.Registry("kyvernonotarytest.azurecr.io", s.Host)
	must(t, err)
	s.azure.identity.Grant(acr.Host, "AcrPull")
	pem := func(signer string) string {
		return strings.ReplaceAll(strings.TrimSpace(s.root(t, signer)), "\n", "\n              ")
	}
	prologue := "export REGISTRY=" + acr.Host + "\nexport CERTIFICATE='" + pem("wabbit-old") + "' NEXT_CERTIFICATE='" + pem("wabbit-next") + "'\n"
	t.Cleanup(func() {
		_, _ = s.run(context.Background(), "kubectl delete clustertrustpolicy check-digest elsewhere --ignore-not-found")
	})
	for _, command := range pageCommands(t, "docs/kyverno.md") {
		if strings.HasPrefix(command, "helm ") {
			continue // TestThePageForAzure renders the same
		}
		var out []byte
		err := cluster.Eventually(t.Context(), patience, func(ctx context.Context) error {
			var err error
			out, err = s.run(ctx, prologue+command)
			if !strings.Contains(command, "unsigned") {
				return err
			}
			words := regexp.MustCompile(`v1-unsigned \([0-9a-f]{12}\): no signature found; policy check-digest wants notary\. Sign this digest`)
			if err == nil || !words.Match(out) {
				return errors.New("not denied as the page says")
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
		t.Logf("%s", out)
	}
	for tag, admitted := range map[string]bool{"v1-signed": true, "v2-signed": true, "v1-stranger": false} {
		eventually(t, func(ctx context.Context) error {
			if err := s.tryPod(ctx, "test-shuting", acr.Host+"/"+repository+":"+tag); (err == nil) != admitted {
				return fmt.Errorf("%s: %w", tag, errors.Join(errors.New("the wrong way round"), err))
			}
			return nil
		})
	}
	a := s.asker(t, s.addresses()[0])
	a.url = strings.Replace(a.url, "/v1/verify", "/v1/mutate", 1)
	pinned, err := a.pinned(t.Context(), acr.Host+"/"+repository+":v1-signed")
	if want := acr.Host + "/" + repository + ":v1-signed@" + s.Digest(repository+":v1-signed").String(); err != nil || pinned != want {
		t.Errorf("%s, %v; want %s", pinned, err, want)
	}
}

// wellFormed holds a command of Azure's to what can be seen from here: quotes and
// brackets are closed, each flag has a value, files are there, filters of jq work,
// and names are those of the project.
func wellFormed(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %s", command, out)
	}
	for _, found := range regexp.MustCompile(`jq (?:-r )?\.(\w+) (\S+\.json)`).FindAllStringSubmatch(command, -1) {
		content, err := os.ReadFile("../../" + found[2])
		must(t, err)
		var file map[string]any
		must(t, json.Unmarshal(content, &file))
		if file[found[1]] == nil {
			t.Errorf("%s: %s has no %s", command, found[2], found[1])
		}
	}
	verbs := regexp.MustCompile(`\baz ((?:[a-z][a-z-]*\s)+)`).FindAllStringSubmatch(command, -1)
	if len(verbs) == 0 {
		t.Errorf("%s: not az", command)
	}
	if strings.Contains(command, "federated-credential create") && !strings.Contains(command, "--subject system:serviceaccount:"+namespace+":"+release+" --audiences "+azure.Audience) {
		t.Errorf("%s: another subject than the chart's ServiceAccount", command)
	}
	if strings.Contains(command, "policy definition create") && (!strings.Contains(command, "--mode Microsoft.Kubernetes.Data") || !strings.Contains(command, "--rules") || !strings.Contains(command, "--params")) {
		t.Errorf("%s: not a definition for Kubernetes", command)
	}
	if found := regexp.MustCompile(`--params '([^']*)'`).FindStringSubmatch(command); found != nil {
		var params map[string]struct{ Value any }
		must(t, json.Unmarshal([]byte(found[1]), &params))
		content, err := os.ReadFile("../../azure-policy/trusted-images.json")
		must(t, err)
		var d azurepolicy.Definition
		must(t, json.Unmarshal(content, &d))
		for name, given := range params {
			if p, there := d.Parameters[name]; !there || len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, given.Value) {
				t.Errorf("%s: %s may not be %v", command, name, given.Value)
			}
		}
	}
	for _, role := range regexp.MustCompile(`--role ("[^"]+"|\S+)`).FindAllStringSubmatch(command, -1) {
		if !slices.Contains([]string{"AcrPull", `"Key Vault Secrets User"`, `"Key Vault Crypto User"`}, role[1]) {
			t.Errorf("%s: nobody needs the role %s", command, role[1])
		}
	}
	if unvalued := regexp.MustCompile(`--[a-z-]+ --[a-z]`).FindString(command); unvalued != "" && !regexp.MustCompile(`--(enable-|disable-|no-)`).MatchString(unvalued) {
		t.Errorf("%s: a flag without a value: %s", command, unvalued)
	}
}

// TestTheProviderTakesWhatTheValuesMake: a replica with the ConfigMap that Ratify's
// values make has the registry and the vault that they name.
func TestTheProviderTakesWhatTheValuesMake(t *testing.T) {
	s := in(t, "values-made")
	s.signed(t, "made/cart:1", "wabbit-made")
	must(t, s.Push(t.Context(), "made/unsigned:1"))
	signer, err := s.Signer("wabbit-made")
	must(t, err)
	_, err = s.azure.vault.Certificate("wabbit-made", signer.Chain(), nil)
	must(t, err)
	rendered, err := s.render(t.Context(), "compatibility.ratify=true", "akvCertConfig.enabled=true", "akvCertConfig.vaultURI=https://wabbit-kv.vault.azure.net/",
		"akvCertConfig.cert1Name=wabbit-made", "akvCertConfig.tenantId="+azure.Tenant, "oras.authProviders.azureWorkloadIdentityEnabled=true", "azureWorkloadIdentity.clientId="+azureClient)
	must(t, err)
	objects, err := kubeyaml.Parse(rendered)
	must(t, err)
	for _, object := range objects {
		if object.GetName() == release+"-ratify" && object.GetKind() == "ConfigMap" {
			s.apply(t, object)
		}
	}
	args := append(slices.Clone(s.replicas[0].args), "--ratify-objects="+release+"-ratify", "--certificate-directory="+t.TempDir(), "--last-good=", "--vault-cache=", "--content-cache=")
	server, err := binary.RunIn(t.Context(), s.azure.variables, s.executable, args...)
	must(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	must(t, server.Ready(t.Context()))
	_, port, err := net.SplitHostPort(server.Provider)
	must(t, err)
	a := s.asker(t, "127.0.0.1:"+port)
	for image, want := range map[string]string{"made/cart:1": "TRUSTED", "made/unsigned:1": "SIGNATURE_NOT_FOUND"} {
		eventually(t, func(ctx context.Context) error {
			return wants(ctx, a, "[values-made]"+s.azure.acr.Host+"/"+image, want)
		})
	}
}

// TestFreshness: what a vault has withdrawn is said in the object, and its age in
// the metrics.
func TestFreshness(t *testing.T) {
	s := in(t, "fresh")
	signer, err := s.Signer("wabbit-fresh")
	must(t, err)
	_, err = s.azure.vault.Certificate("wabbit-fresh", signer.Chain(), nil)
	must(t, err)
	policy := s.policy("fresh", "fresh/**", map[string]any{"azureKeyVault": map[string]any{
		"vaultURI": "https://wabbit-kv.vault.azure.net", "certificates": []any{map[string]any{"name": "wabbit-fresh"}, map[string]any{"name": "none"}},
	}})
	s.apply(t, policy)
	s.ready(t, policy, "InForce")
	said := ""
	defer func() { t.Log(said) }()
	eventually(t, func(ctx context.Context) error {
		out, err := s.run(ctx, `kubectl get ctp fresh --output 'jsonpath={.status.conditions[?(@.type=="Fresh")]}'`)
		if err == nil {
			said = string(out)
		}
		if err != nil || !strings.Contains(string(out), `"reason":"Withdrawn"`) || !strings.Contains(string(out), "certificates/none does not exist. Correct its name or version: az keyvault certificate list-versions") {
			return fmt.Errorf("%s: %w", out, errors.Join(errors.New("not said"), err))
		}
		return nil
	})
	eventually(t, func(ctx context.Context) error { return s.event(ctx, "fresh", "Withdrawn") })
	figures, err := s.replicas[0].Figures(t.Context())
	must(t, err)
	if !strings.Contains(figures, `countersign_vault_objects{state="stale"} 0`) || strings.Contains(figures, `countersign_vault_objects{state="fresh"} 0`) {
		t.Error(regexp.MustCompile(`(?m)^countersign_vault.*$`).FindAllString(figures, -1))
	}
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
