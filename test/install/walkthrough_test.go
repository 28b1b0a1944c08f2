package install

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/azurepolicy"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/cluster"
)

// The command of a walkthrough for AKS with Azure Policy, as it is but for the chart.
const walkthroughInstall = `helm install ratify \
    charts/countersign --atomic \
    --namespace gatekeeper-system  \
    --set provider.enableMutation=false \
    --set featureFlags.RATIFY_CERT_ROTATION=true \
    --set akvCertConfig.enabled=true \
    --set akvCertConfig.vaultURI=${VAULT_URI} \
    --set akvCertConfig.cert1Name=${CERT_NAME} \
    --set akvCertConfig.tenantId=${TENANT_ID} \
    --set oras.authProviders.azureWorkloadIdentityEnabled=true \
    --set azureWorkloadIdentity.clientId=${IDENTITY_CLIENT_ID} \
    --set logLevel=debug`

// TestZZTheWalkthroughWithAzurePolicy comes after TestZUninstall, as two
// installations cannot own one definition: the walkthrough's own helm install, whose
// pods have the identity that it federates, the policy that it assigns, and its Pods.
func TestZZTheWalkthroughWithAzurePolicy(t *testing.T) {
	s := in(t, "walkthrough")
	s.uninstall(t)
	if _, err := s.run(t.Context(), "kubectl get crd clustertrustpolicies.countersign.dev"); err == nil { // this test alone
		s.command(t, "kubectl delete crd ")
	}
	const of, vault, clientID = "gatekeeper-system", "wesleyhaakman", "7f1c9a52-0000-4000-8000-000000000002"
	s.signed(t, "walkthrough/net-monitor:v1", "wabbit-walkthrough")
	must(t, s.Push(t.Context(), "walkthrough/net-watcher:v1"))
	signer, err := s.Signer("wabbit-walkthrough")
	must(t, err)
	keyVault := s.azure.Vault(vault + ".vault.azure.net")
	_, err = keyVault.Certificate("wesleyhaakman-org", signer.Chain(), nil)
	must(t, err)

	line := os.Expand(walkthroughInstall, func(v string) string {
		return map[string]string{
			"VAULT_URI": keyVault.URI(), "CERT_NAME": "wesleyhaakman-org", "TENANT_ID": azure.Tenant, "IDENTITY_CLIENT_ID": clientID,
		}[v]
	}) + " --set compatibility.ratify=true --set serviceAccount.name=ratify-admin" // what the page adds
	for _, value := range s.values() {
		line += " --set " + value
	}
	installed := make(chan error, 1)
	go func() {
		out, err := s.run(t.Context(), line)
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		installed <- err
	}()
	t.Cleanup(func() {
		_, _ = s.run(context.Background(), "helm uninstall ratify --namespace gatekeeper-system")
		for _, r := range s.replicas {
			if r.Server != nil {
				_ = r.Stop()
				r.Server = nil
			}
		}
	})

	var deployment appsv1.Deployment
	eventually(t, func(ctx context.Context) error {
		select {
		case err := <-installed:
			t.Fatal("helm has ended: ", err)
		default:
		}
		return s.Client.Get(ctx, client.ObjectKey{Namespace: of, Name: "ratify-countersign"}, &deployment)
	})
	pod := deployment.Spec.Template
	var account corev1.ServiceAccount
	must(t, s.Client.Get(t.Context(), client.ObjectKey{Namespace: of, Name: pod.Spec.ServiceAccountName}, &account))
	if account.Name != "ratify-admin" || account.Annotations["azure.workload.identity/client-id"] != clientID || pod.Labels["azure.workload.identity/use"] != "true" {
		t.Fatalf("AKS would give its pods no identity: %s %v %v", account.Name, account.Annotations, pod.Labels)
	}
	// What the walkthrough federates, and what AKS then puts in the pods.
	issuer, subject := "https://westeurope.oic.prod-aks.azure.com/tenant/walkthrough/", "system:serviceaccount:"+of+":"+account.Name
	identity := s.azure.Entra.Identity(clientID, issuer, subject)
	identity.Grant(s.azure.acr.Host, "AcrPull")
	identity.Grant(keyVault.Host, "Key Vault Secrets User")
	token, err := s.azure.Entra.Write(t.TempDir(), azure.Token{Issuer: issuer, Subject: subject, Audience: azure.Audience, Lifetime: time.Hour})
	must(t, err)
	variables := append(slices.Clone(s.azure.variables), "AZURE_CLIENT_ID="+clientID, "AZURE_FEDERATED_TOKEN_FILE="+token)
	s.replicas = nil
	for i := range *deployment.Spec.Replicas {
		dir := t.TempDir()
		kubeconfig := filepath.Join(dir, "kubeconfig")
		must(t, s.Kubeconfig(t.Context(), of, account.Name, kubeconfig))
		r := &replica{args: append(slices.Clone(pod.Spec.Containers[0].Args),
			"--listen=0.0.0.0:0", "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--certificate-directory="+dir,
			"--last-good="+filepath.Join(dir, "last-good"), "--vault-cache="+filepath.Join(dir, "vaults"), "--content-cache="+filepath.Join(dir, "content"), "--kubeconfig="+kubeconfig, "--pod-namespace="+of)}
		r.Server, err = binary.RunIn(t.Context(), variables, s.executable, r.args...)
		must(t, err)
		s.replicas = append(s.replicas, r)
		_, port, err := net.SplitHostPort(r.Provider)
		must(t, err)
		_, err = fmt.Sscan(port, &r.port)
		must(t, err)
		if err := r.Ready(t.Context()); err != nil {
			t.Fatalf("replica %d: %v\n%s", i, err, r.Log())
		}
	}
	s.balancer.set(s.addresses())
	s.podsAreReady(t, of, deployment.Spec.Selector.MatchLabels, installed)

	content, err := os.ReadFile("../../azure-policy/trusted-images.json")
	must(t, err)
	if jq, err := exec.LookPath("jq"); err == nil { // as the walkthrough makes the definition of the file
		for _, part := range []string{"policyRule", "parameters"} {
			if out, err := exec.CommandContext(t.Context(), jq, "."+part, "../../azure-policy/trusted-images.json").Output(); err != nil || len(out) < 10 {
				t.Errorf("jq .%s: %v", part, err)
			}
		}
	}
	addon := &azurepolicy.Addon{Apply: func(ctx context.Context, objects ...*unstructured.Unstructured) error {
		return cluster.Eventually(ctx, patience, func(ctx context.Context) error { return s.Apply(ctx, objects...) })
	}}
	constraint, err := addon.Assign(t.Context(), content, azurepolicy.Assignment{
		ID: "/subscriptions/s/providers/Microsoft.Authorization/policyAssignments/walkthrough", DefinitionID: "countersign-trusted-images",
		Parameters: map[string]any{"effect": "Deny", "namespaces": []any{"walkthrough"}},
	})
	must(t, err)
	t.Cleanup(func() { _ = s.Client.Delete(context.Background(), constraint) })
	eventually(t, func(ctx context.Context) error { return s.Enforced(ctx, constraint) })
	eventually(t, func(ctx context.Context) error {
		return s.tryPod(ctx, "walkthrough", s.azure.acr.Host+"/walkthrough/net-monitor:v1")
	})
	eventually(t, func(ctx context.Context) error {
		err := s.tryPod(ctx, "walkthrough", s.azure.acr.Host+"/walkthrough/net-watcher:v1")
		if err == nil || !strings.Contains(err.Error(), "no signature found") {
			return errors.Join(errors.New("not refused"), err)
		}
		t.Log(err)
		return nil
	})
	s.noSecrets(t)
}

// podsAreReady writes what a kubelet would into the pods that the Deployment has
// made, until helm, which waits for them, has ended.
func (s *scene) podsAreReady(t *testing.T, namespace string, labels map[string]string, installed <-chan error) {
	t.Helper()
	var ended bool
	eventually(t, func(ctx context.Context) error {
		select {
		case err := <-installed:
			ended = true
			must(t, err)
		default:
		}
		if ended {
			return nil
		}
		var pods corev1.PodList
		if err := s.Client.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil {
			return err
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			if pod.Status.Phase == corev1.PodRunning {
				continue
			}
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
			}
			if err := s.Client.Status().Update(ctx, pod); err != nil {
				return err
			}
		}
		return fmt.Errorf("helm waits for %d pods", len(pods.Items))
	})
}
