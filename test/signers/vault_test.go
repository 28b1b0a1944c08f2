package signers

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/azure"
)

// TestCosignSignsWithAKeyOfAVault as the page for Azure has it: Cosign asks the
// vault to sign and pushes to the registry, and we trust the key that the vault
// shows, with a workload identity.
func TestCosignSignsWithAKeyOfAVault(t *testing.T) {
	cloud, err := azure.New()
	must(t, err)
	t.Cleanup(cloud.Close)
	const issuer, subject = "https://oidc.example.com/", "system:serviceaccount:countersign-system:countersign"
	for name, path := range map[string]string{"cosign-3": executables.cosign3, "cosign-2": executables.cosign2} {
		for i, keyType := range []string{"RSA-2048", "RSA-4096", "P-256", "P-384", "P-521"} {
			t.Run(name+"/"+keyType, func(t *testing.T) {
				s := newScene(t, registrytest.Start(t, registrytest.Options{}).Host())
				must(t, s.Push(t.Context(), "cart:1"))
				must(t, s.Push(t.Context(), "other:1"))
				host := strings.ToLower(fmt.Sprintf("%s-%d", name, i))
				acr, err := cloud.Registry(host+".azurecr.io", s.Host)
				must(t, err)
				acr.Admin = "a password"
				vault := cloud.Vault(host + ".vault.azure.net")
				version := vault.Key("ci", generate(t, keyType))
				signer, reader := cloud.Entra.Identity("signer-"+host, "", ""), cloud.Entra.Identity("reader-"+host, issuer, subject)
				signer.Secret = "s3cret"
				signer.Grant(vault.Host, "Key Vault Crypto User")
				reader.Grant(vault.Host, "Key Vault Crypto User")
				reader.Grant(acr.Host, "AcrPull")

				env, err := cloud.Environment(s.dir)
				must(t, err)
				must(t, os.Mkdir(filepath.Join(s.dir, ".docker"), 0o700))
				auth := base64.StdEncoding.EncodeToString([]byte(host + ":a password"))
				must(t, os.WriteFile(filepath.Join(s.dir, ".docker", "config.json"), []byte(`{"auths":{"`+acr.Host+`":{"auth":"`+auth+`"}}}`), 0o600))
				image := func(name string) string { return acr.Host + "/" + name + "@" + s.Digest(name+":1").String() }
				err = s.cosign(t, path, append(env, "AZURE_TENANT_ID="+azure.Tenant, "AZURE_CLIENT_ID="+signer.ClientID, "AZURE_CLIENT_SECRET=s3cret"),
					"sign", "--key", "azurekms://"+vault.Host+"/ci/"+version, "--use-signing-config=false", "--tlog-upload=false", "--yes", image("cart"))
				// Its bundles want a hash that its client of the vault does not make.
				if name == "cosign-3" && keyType == "RSA-4096" && err != nil && strings.Contains(err.Error(), "unexpected length of digest") {
					t.Skip("Cosign 3 itself does not sign with it")
				}
				must(t, err)

				must(t, s.Policy("policy.yaml", `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: policy}
spec:
  images: ["`+acr.Host+`/**"]
  registries: [{host: `+acr.Host+`, auth: {azureWorkloadIdentity: {}}}]
  require:
    name: key
    cosign: {transparencyLog: ignored, keys: [{azureKeyVault: {vaultURI: "`+vault.URI()+`", keys: [{id: "`+vault.URI()+`keys/ci/`+version+`"}]}}]}
`))
				token, err := cloud.Entra.Write(s.dir, azure.Token{Issuer: issuer, Subject: subject, Audience: azure.Audience, Lifetime: time.Hour})
				must(t, err)
				command := exec.CommandContext(t.Context(), executables.countersign, "verify", "--config", s.Policies, "-o", "json", image("cart"), image("other"))
				command.Env = append(append(os.Environ(), env...), "AZURE_TENANT_ID="+azure.Tenant, "AZURE_CLIENT_ID="+reader.ClientID, "AZURE_FEDERATED_TOKEN_FILE="+token)
				out, _ := command.Output() // one of them is refused
				var answers []struct{ Status, Message string }
				if err := json.Unmarshal(out, &answers); err != nil || len(answers) != 2 || answers[0].Status != "TRUSTED" || answers[1].Status != "UNKNOWN" {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}
