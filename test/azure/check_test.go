package azure_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/binary"
)

// TestAuthCheck: the real binary, step by step, and what it says where a step
// fails.
func TestAuthCheck(t *testing.T) {
	executable, err := binary.Find(t.Context(), "../..", t.TempDir(), os.Stderr)
	must(t, err)
	for name, c := range map[string]struct {
		set  func(*testing.T, *scene)
		args []string
		code int
		says []string
	}{
		"all is well": {code: 0, says: []string{"✓ registry", "✓ variables", "✓ pod        subject " + subject + ", issuer " + issuer, "✓ token", "✓ exchange   the registry took it, for 3h0m0s", "✓ image      it is sha256:"}},
		"JSON":        {args: []string{"-o", "json"}, code: 0, says: []string{`"step": "exchange",`, `"ok": true`}},
		"no label": {set: func(_ *testing.T, s *scene) { clear(s.env) }, code: 1, says: []string{
			"✗ variables  the pod has no AZURE_CLIENT_ID, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE", `azure.workload.identity/use: "true"`, "az aks update --enable-oidc-issuer --enable-workload-identity"}},
		"no token file": {set: func(t *testing.T, s *scene) { must(t, os.Remove(s.env["AZURE_FEDERATED_TOKEN_FILE"])) }, code: 1, says: []string{"✗ pod", "cannot be read"}},
		"not federated": {set: func(t *testing.T, s *scene) {
			s.federate(t, azure.Token{Subject: "system:serviceaccount:other:countersign", Lifetime: time.Hour})
		}, code: 1, says: []string{"✗ token", "AADSTS700213", "az identity federated-credential create --name countersign --identity-name NAME --resource-group GROUP --issuer " + issuer + " --subject system:serviceaccount:other:countersign --audiences api://AzureADTokenExchange"}},
		"no role":   {set: func(_ *testing.T, s *scene) { s.identity.Revoke(s.acr.Host, "AcrPull") }, code: 1, says: []string{"✓ exchange", "✗ image", "az role assignment create --assignee client-of-testauthcheckno"}},
		"no image":  {args: []string{"IMAGE:none"}, code: 1, says: []string{"✗ image", "no such tag or digest"}},
		"elsewhere": {args: []string{"docker.io/library/nginx:1"}, code: 1, says: []string{"✗ registry   docker.io is not a registry of Azure by its name", "--endpoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.signed(t, "shop/cart:1", "")
			if c.set != nil {
				c.set(t, s)
			}
			image := s.acr.Host + "/shop/cart:1"
			args := []string{"auth", "check"}
			for _, a := range c.args {
				switch {
				case a == "IMAGE:none":
					image = s.acr.Host + "/shop/cart:none"
				case strings.HasPrefix(a, "docker.io/"):
					image = a
				default:
					args = append(args, a)
				}
			}
			variables, err := cloud.Environment(t.TempDir())
			must(t, err)
			for name, value := range s.env {
				variables = append(variables, name+"="+value)
			}
			var out bytes.Buffer
			command := exec.CommandContext(t.Context(), executable, append(args, image)...)
			command.Env = append(os.Environ(), variables...)
			command.Stdout, command.Stderr = &out, &out
			err = command.Run()
			if code := command.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit %d, %v", code, err)
			}
			for _, words := range c.says {
				if !strings.Contains(out.String(), words) {
					t.Errorf("it does not say %q", words)
				}
			}
			noSecrets(t, out.String())
			t.Log("\n" + out.String())
		})
	}
}
