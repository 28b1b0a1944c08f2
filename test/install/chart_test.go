package install

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/tools"
)

// variants are installations that differ as much as the values allow.
func variants() map[string][]string {
	return map[string][]string{
		"default":      nil,
		"mutation":     {"mutation.enabled=true", "mutation.name=other-mutation"},
		"cert-manager": {"tls.mode=certManager", "tls.certManager.issuerRef.name=ca", "tls.certManager.issuerRef.kind=ClusterIssuer"},
		"own secret":   {"tls.mode=secret", "tls.secretName=mine"},
		"add-on":       {"aks.azurePolicyAddon=true", "serviceAccount.annotations.azure\\.workload\\.identity/client-id=x", "podLabels.example\\.com/team=platform"},
		"everything": {
			"fullnameOverride=gate", "autoscaling.enabled=true", "serviceMonitor.enabled=true", "service.ipFamilyPolicy=PreferDualStack", "service.ipFamilies={IPv6,IPv4}",
			"rbac.objectNamespaces={default,kube-public}", "rbac.podPullSecrets={default}", "image.digest=sha256:" + strings.Repeat("0", 64), "image.pullSecrets[0].name=pull",
			"extraLabels.team=platform", "extraAnnotations.example\\.com/ticket=twelve", "extraEnv[0].name=HTTPS_PROXY", "extraEnv[0].value=http://proxy:3128",
			"extraVolumes[0].name=roots", "extraVolumes[0].configMap.name=roots", "extraVolumeMounts[0].name=roots", "extraVolumeMounts[0].mountPath=/roots",
			"tolerations[0].operator=Exists", "library.exemptImages={registry.k8s.io/**}",
		},
		"all namespaces": {"rbac.objectNamespaces={*}", "rbac.podPullSecrets={*}", "library.enabled=false", "networkPolicy.enabled=false", "replicas=1"},
		"no rights":      {"rbac.create=false", "watch.enabled=true"},
		"watching":       {"watch.enabled=true", "compatibility.ratify=true", "rbac.objectNamespaces={*}", "rbac.podPullSecrets={*}", "sharedCache.secretName=shared", "watch.notifySecret=notify", "watch.rules.enabled=true", "watch.dashboard.enabled=true"},
		"watching a few": {"watch.enabled=true", "watch.namespaces={default,kube-public}", "watch.policiesConfigMap=policies", "watch.volume.persistentVolumeClaim.claimName=history"},
		"ratify": {"compatibility.ratify=true", "serviceAccount.name=ratify-admin", "azureWorkloadIdentity.clientId=00000000-0000-0000-0000-000000000000",
			"featureFlags.RATIFY_CERT_ROTATION=true", "provider.enableMutation=true", "service.port=6001", "logLevel=debug"},
	}
}

// TestWhatIsRenderedIsTaken by the API server, as strictly as it can, and by
// kubeconform with the schemas that the API server serves; twice the same bytes.
func TestWhatIsRenderedIsTaken(t *testing.T) {
	s := in(t, "rendered")
	schemas := s.schemas(t)
	kubeconform, err := tools.Build(t.Context(), tools.Kubeconform(), os.Stderr)
	must(t, err)
	var all bytes.Buffer // reading the schemas is what takes long
	for name, values := range variants() {
		if os.Getenv("CI") != "" && !slices.Contains([]string{"default", "everything", "ratify", "watching"}, name) {
			continue // a quarter of a minute each, and CI has an hour for all
		}
		t.Run(name, func(t *testing.T) {
			// Names of its own beside what is installed.
			values := append([]string{"nameOverride=other"}, values...)
			first, err := s.render(t.Context(), values...)
			must(t, err)
			again, err := s.render(t.Context(), values...)
			must(t, err)
			if !bytes.Equal(first, again) {
				t.Error("rendered twice, it differs")
			}
			if name != "default" { // the definitions are megabytes, and the same in all
				first = withoutDefinitions(first)
			}
			objects, err := kubeyaml.Parse(first)
			must(t, err)
			for _, object := range objects {
				group := object.GroupVersionKind().Group
				if group == "cert-manager.io" || group == "monitoring.coreos.com" { // not served here
					continue
				}
				err := s.Client.Create(t.Context(), object, client.DryRunAll, client.FieldValidation("Strict"))
				// What the cluster has no IPv6 for is for kubeconform alone.
				if err != nil && !apierrors.IsAlreadyExists(err) && !strings.Contains(err.Error(), `"IPv6": not configured on this cluster`) {
					t.Errorf("%s %s: %v", object.GetKind(), object.GetName(), err)
				}
			}
			fmt.Fprintf(&all, "---\n%s\n", first)
		})
	}
	command := exec.CommandContext(t.Context(), kubeconform, "-strict", "-summary", "-schema-location", schemas, "-skip", "Certificate,ServiceMonitor,PodMonitor,PrometheusRule")
	command.Stdin = &all
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("kubeconform: %v\n%s", err, out)
	}
}

// withoutDefinitions leaves out the CustomResourceDefinitions.
func withoutDefinitions(rendered []byte) []byte {
	var kept [][]byte
	for _, document := range bytes.Split(rendered, []byte("\n---\n")) {
		if !bytes.Contains(document, []byte("\nkind: CustomResourceDefinition\n")) {
			kept = append(kept, document)
		}
	}
	return bytes.Join(kept, []byte("\n---\n"))
}

// TestRulesNameFiguresThatThereAre, as the page about them has them.
func TestRulesNameFiguresThatThereAre(t *testing.T) {
	s := in(t, "rendered")
	rendered, err := s.render(t.Context(), "watch.enabled=true", "watch.rules.enabled=true")
	must(t, err)
	page, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	found := regexp.MustCompile(`countersign_[a-z_]+`).FindAllString(string(rendered), -1)
	if len(found) < 8 {
		t.Errorf("the rules name %v", found)
	}
	for _, name := range found {
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("there is no figure %s", name)
		}
	}
}

// schemas writes the schemas of the kinds that the API server serves, and gives
// where kubeconform finds them.
func (s *scene) schemas(t *testing.T) string {
	t.Helper()
	http, err := rest.HTTPClientFor(s.Config)
	must(t, err)
	response, err := http.Get(s.Config.Host + "/openapi/v2")
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	var served struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	must(t, json.NewDecoder(response.Body).Decode(&served))
	for _, definition := range served.Definitions {
		allowNumbers(definition)
	}
	dir := t.TempDir()
	for _, definition := range served.Definitions {
		kinds, _ := definition["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 {
			continue
		}
		kind := kinds[0].(map[string]any)
		name := strings.ToLower(kind["kind"].(string))
		if group, _, _ := strings.Cut(kind["group"].(string), "."); group != "" {
			name += "-" + group
		}
		schema := map[string]any{"definitions": served.Definitions}
		for key, value := range definition {
			schema[key] = value
		}
		schema["additionalProperties"] = false
		content, err := json.Marshal(schema)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name+"-"+kind["version"].(string)+".json"), content, 0o600))
	}
	return filepath.Join(dir, "{{.ResourceKind}}{{.KindSuffix}}.json")
}

// allowNumbers says in JSON Schema's words what OpenAPI 2 has none for: a number or
// a text.
func allowNumbers(schema map[string]any) {
	if schema["format"] == "int-or-string" {
		schema["type"] = []string{"integer", "string"}
	}
	for _, value := range schema {
		if nested, ok := value.(map[string]any); ok {
			allowNumbers(nested)
		}
	}
}

// TestValuesThatAreWrongTogetherAreRefused, with what to do.
func TestValuesThatAreWrongTogetherAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		values []string
		said   string
	}{
		"the webhook gives up first":       {[]string{"provider.timeoutSeconds=3"}, "a webhook that gives up first admits everything"},
		"so does the mutating one":         {[]string{"mutation.enabled=true", "gatekeeper.mutatingWebhookTimeoutSeconds=1"}, "Gatekeeper is installed with 1 by default; install it with 2"},
		"mutation with the add-on":         {[]string{"mutation.enabled=true", "aks.azurePolicyAddon=true"}, "Set mutation.enabled=false"},
		"cert-manager without an issuer":   {[]string{"tls.mode=certManager"}, "name an Issuer or a ClusterIssuer that is a CA"},
		"a Secret without a name":          {[]string{"tls.mode=secret"}, "name the Secret with tls.crt, tls.key and ca.crt"},
		"a value that nobody knows":        {[]string{"replicaCount=3"}, "replicaCount"},
		"a status that lets nobody's pass": {[]string{"library.allowedStatuses={UNTRUSTED}"}, "allowedStatuses"},
		"no replica":                       {[]string{"replicas=0"}, "replicas"},
		"Ratify's vault":                   {[]string{"akvCertConfig.enabled=true", "akvCertConfig.vaultURI=https://v.vault.azure.net", "akvCertConfig.cert1Name=wabbit"}, "set compatibility.ratify=true, or write a ClusterTrustPolicy with azureKeyVault and registries"},
		"Ratify's sign-in":                 {[]string{"oras.authProviders.azureWorkloadIdentityEnabled=true"}, "set compatibility.ratify=true"},
		"a sign-in that is not there":      {[]string{"compatibility.ratify=true", "oras.authProviders.awsEcrBasicEnabled=true"}, "awsEcrBasicEnabled"},
	} {
		if _, err := shared.render(t.Context(), c.values...); err == nil || !strings.Contains(err.Error(), c.said) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheAddOnModeHasNothingThatTheAddOnForbids(t *testing.T) {
	rendered, err := shared.render(t.Context(), variants()["add-on"]...)
	must(t, err)
	for _, forbidden := range []string{"templates.gatekeeper.sh", "constraints.gatekeeper.sh", "mutations.gatekeeper.sh", "--library"} {
		if bytes.Contains(rendered, []byte(forbidden)) {
			t.Errorf("%s is in it", forbidden)
		}
	}
}

func TestLint(t *testing.T) {
	for name, values := range variants() {
		args := []string{"lint", "--strict", chartDir, "--kube-version", "1.36"}
		for _, value := range values {
			args = append(args, "--set", value)
		}
		if out, err := exec.CommandContext(t.Context(), shared.helm, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestHelmTest runs what the chart's test Pod runs, with what it mounts.
func TestHelmTest(t *testing.T) {
	s := in(t, "helm-test")
	rendered, err := s.render(t.Context(), s.values()...)
	must(t, err)
	objects, err := kubeyaml.Parse(rendered)
	must(t, err)
	dir := t.TempDir()
	for key, content := range s.secret(t).Data {
		must(t, os.WriteFile(filepath.Join(dir, key), content, 0o600))
	}
	ran := 0
	for _, object := range objects {
		if object.GetAnnotations()["helm.sh/hook"] != "test" {
			continue
		}
		ran++
		var args []string
		containers := object.Object["spec"].(map[string]any)["containers"].([]any)
		for _, arg := range containers[0].(map[string]any)["args"].([]any) {
			args = append(args, strings.ReplaceAll(arg.(string), "/certificates", dir))
		}
		out, err := exec.CommandContext(t.Context(), s.executable, args...).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("REFUSED")) { // no policy covers our own image
			t.Errorf("%v: %s", err, out)
		}
		t.Logf("%s", out)
	}
	if ran != 1 {
		t.Errorf("%d tests", ran)
	}
}
