package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// authOptions are the flags of auth check.
type authOptions struct {
	method, clientID, tenantID, output string
	endpoint, binding                  bool
	timeout                            time.Duration
}

func authCommand() *cobra.Command {
	command := &cobra.Command{Use: "auth", Short: "See whether registries let us in"}
	var o authOptions
	check := &cobra.Command{
		Use:   "check IMAGE",
		Short: "Say step by step how an image's registry is signed in to with an identity of Azure, and what is missing",
		Long: `Goes the way from a pod to an image: the pod's variables, its token, Microsoft
Entra ID, the registry. Where it ends, it names the command that repairs it. Run it
where the provider runs:

  kubectl exec deploy/countersign -- /countersign auth check IMAGE`,
		Example: `  countersign auth check myacr.azurecr.io/shop/cart:1.4
  countersign auth check --method azureCLI -o json myacr.azurecr.io/shop/cart:1.4`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error { return o.check(command, args[0]) },
	}
	flags := check.Flags()
	flags.StringVar(&o.method, "method", "azureWorkloadIdentity", "who signs in: azureWorkloadIdentity, azureManagedIdentity or azureCLI")
	flags.StringVar(&o.clientID, "client-id", "", "client id of the identity; what the pod's variables say when empty")
	flags.StringVar(&o.tenantID, "tenant-id", "", "tenant of the identity; what the pod's variables say when empty")
	flags.BoolVar(&o.binding, "identity-binding", false, "ask for tokens by way of the cluster")
	flags.BoolVar(&o.endpoint, "endpoint", false, "show the identity to the image's host although it is not Azure's by its name")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up after this long")
	addOutput(check, &o.output)
	command.AddCommand(check)
	return command
}

// step is one step of the way, as JSON.
type step struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

func (o *authOptions) check(command *cobra.Command, image string) error {
	if err := checkOutput(o.output); err != nil {
		return err
	}
	method, ok := map[string]azure.Method{
		"azureWorkloadIdentity": azure.WorkloadIdentity, "azureManagedIdentity": azure.ManagedIdentity, "azureCLI": azure.CLI,
	}[o.method]
	if !ok {
		return fmt.Errorf("--method is %q: use azureWorkloadIdentity, azureManagedIdentity or azureCLI", o.method)
	}
	ref, err := verifier.ParseReference(image)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
	defer cancel()
	steps := o.steps(ctx, ref, azure.Identity{Method: method, ClientID: o.clientID, TenantID: o.tenantID, Binding: o.binding})
	if o.output == "json" {
		err = printJSON(command.OutOrStdout(), steps)
	} else {
		printSteps(newTerminal(command.OutOrStdout()), steps)
	}
	if last := steps[len(steps)-1]; err == nil && !last.OK {
		return exitError(exitRefused)
	}
	return err
}

func printSteps(t terminal, steps []step) {
	for _, s := range steps {
		mark := t.paint(green, "✓")
		if !s.OK {
			mark = t.paint(red, "✗")
		}
		t.printf("%s %-10s %s\n", mark, s.Step, printable(s.Found))
		if s.Remedy != "" {
			t.printf("             %s\n", t.paint(bold, printable(s.Remedy)))
		}
	}
}

// steps goes the way as far as it leads: the last step is the first that failed, or
// the image.
func (o *authOptions) steps(ctx context.Context, ref verifier.Reference, identity azure.Identity) []step {
	credentials := azure.NewCredentials(azure.Options{})
	registries := store.New(store.Options{UserAgent: "countersign/" + buildVersion()})
	var endpoints []string
	if o.endpoint {
		endpoints = []string{ref.Registry}
	}
	source := auth.NewAzureExchanges(credentials, registries.Transport(), nil).Source(identity, endpoints)
	var steps []step
	add := func(name, found string, err error) bool {
		s := step{Step: name, OK: err == nil, Found: found}
		if err != nil {
			s.Found, s.Remedy = causeOf(err)
		}
		steps = append(steps, s)
		return err == nil
	}
	if !source.Knows(ref.Registry) {
		add("registry", "", &azure.Failure{Message: ref.Registry + " is not a registry of Azure by its name, and is shown no identity", Remedy: "If it is one none the less, name it in the policy's endpoints, and here with --endpoint"})
		return steps
	}
	add("registry", ref.Registry+", with the "+source.Resolved().String(), nil)
	token := azure.ServiceAccountToken{}
	if identity.Method == azure.WorkloadIdentity {
		if missing := credentials.Missing(identity); len(missing) > 0 {
			add("variables", "", credentials.For(identity).Check())
			return steps
		}
		add("variables", azure.ClientIDVariable+", "+azure.TenantIDVariable+" and "+azure.TokenFileVariable+" are there", nil)
		var err error
		if token, err = credentials.ServiceAccountToken(); !add("pod", describe(token), err) {
			return steps
		}
	}
	err := source.Token(ctx)
	var refused *azure.Failure
	if errors.As(err, &refused) && strings.Contains(refused.Remedy, "federated-credential") {
		refused.Remedy = token.Federate()
	}
	if !add("token", "Microsoft Entra ID gave one", err) {
		return steps
	}
	_, lifetime, err := source.Exchange(ctx, ref.Registry)
	if !add("exchange", "the registry took it, for "+lifetime.String(), err) {
		return steps
	}
	view, err := registries.View(store.ViewOptions{Reach: store.Reach{Administrator: true}, Registries: []store.Registry{{Host: ref.Registry, Credential: source}}})
	if err == nil {
		var subject verifier.Subject
		if subject, err = view.Resolve(ctx, ref); err == nil && ref.Digest != "" { // which asked nobody
			for _, err = range view.Candidates(ctx, subject, verifier.Wanted{ArtifactTypes: []string{"application/vnd.cncf.notary.signature"}}).All {
				break
			}
		}
		add("image", "it is "+string(subject.Digest), err)
		return steps
	}
	add("image", "", err)
	return steps
}

func describe(t azure.ServiceAccountToken) string {
	return fmt.Sprintf("subject %s, issuer %s, audience %s, until %s", t.Subject, t.Issuer, strings.Join(t.Audience, " "), t.Expires.UTC().Format(time.RFC3339))
}

// causeOf gives what was found and what to do.
func causeOf(err error) (found, remedy string) {
	var refused *azure.Failure
	if errors.As(err, &refused) {
		return refused.Message, refused.Remedy
	}
	known := verifier.AsError(err)
	if known.Reason == verifier.ReasonInternal {
		return err.Error(), ""
	}
	return known.Message, known.Remedy
}
