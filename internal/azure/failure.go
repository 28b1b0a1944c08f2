package azure

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/countersign-dev/countersign/internal/redact"
)

// Step is what was being done.
type Step string

// The steps from a pod to an image.
const (
	StepEnvironment Step = "environment"
	StepToken       Step = "token"
	StepExchange    Step = "exchange"
)

// Failure is why Azure does not let us in, and what to do. It holds no token and
// no secret.
type Failure struct {
	Step Step
	// Code is Azure's word for it, as AADSTS70021 or Forbidden; may be empty.
	Code            string
	Message, Remedy string
	// Away is set where nobody answered, or not now: another time may do.
	Away bool
	// Status of the answer; 0: none.
	Status int
	// After is when the service wants to be asked again; 0: it did not say.
	After time.Duration
}

func (f *Failure) Error() string {
	if f.Remedy == "" {
		return f.Message
	}
	return f.Message + ". " + f.Remedy
}

func notInjected(missing []string) *Failure {
	return &Failure{
		Step:    StepEnvironment,
		Message: "the pod has no " + strings.Join(missing, ", "),
		Remedy:  "Label the pod azure.workload.identity/use: \"true\" and annotate its ServiceAccount with azure.workload.identity/client-id (the chart does both with azureWorkloadIdentity.clientId), enable workload identity with az aks update --enable-oidc-issuer --enable-workload-identity, and restart the pod",
	}
}

// remedies are what to do about what Microsoft Entra ID says.
// https://learn.microsoft.com/entra/identity-platform/reference-error-codes
var remedies = map[string]string{
	"70021":   federated,
	"700211":  federated,
	"700212":  "Make the federated credential with the audience api://AzureADTokenExchange: az identity federated-credential create --audiences api://AzureADTokenExchange",
	"700213":  federated,
	"700016":  "Correct the client ID: az identity show --query clientId",
	"700024":  "Look at the age of the token file and at the clocks of the nodes: the token was not valid at this time",
	"700027":  "Correct the certificate of the service principal",
	"90002":   "Correct the tenant ID: az account show --query tenantId",
	"900023":  "Correct the tenant ID: az account show --query tenantId",
	"7000215": "Write the secret's value, not its ID, or make a new one: az ad app credential reset",
	"7000222": "The secret has run out; make a new one: az ad app credential reset",
	"7000112": "The application is disabled: az ad sp update --set accountEnabled=true",
	"500011":  "The registry's or the vault's application is not in the tenant; correct the tenant ID",
	"50034":   "Correct the client ID: az identity show --query clientId",
}

const federated = "Make the federated credential for this ServiceAccount: az identity federated-credential create --issuer ISSUER --subject system:serviceaccount:NAMESPACE:SERVICEACCOUNT (countersign auth check prints both)"

var entraCode = regexp.MustCompile(`AADSTS(\d+)`)

// explainToken says why there is no token.
func explainToken(i Identity, getenv func(string) string, err error) *Failure {
	f := &Failure{Step: StepToken, Message: "no token for the " + i.String()}
	var failed *azidentity.AuthenticationFailedError
	text := sayable(err)
	if found := entraCode.FindStringSubmatch(text); found != nil {
		f.Code = "AADSTS" + found[1]
		f.Message += ": " + entraSays(text)
		f.Remedy = remedies[found[1]]
		return f
	}
	switch {
	case i.Method == WorkloadIdentity && !readable(getenv(TokenFileVariable)):
		f.Step, f.Message, f.Remedy = StepEnvironment, "the token file "+getenv(TokenFileVariable)+" cannot be read", notInjected(nil).Remedy
	case errors.As(err, &failed) && failed.RawResponse != nil:
		f.Status = failed.RawResponse.StatusCode
		f.Away = away(f.Status)
		f.Message += fmt.Sprintf(": the answer was %d", f.Status)
	case i.Method == ManagedIdentity:
		f.Away, f.Message = unreachable(err), f.Message+": the node's metadata service has no such identity"
		f.Remedy = "Assign it to the nodes: az vmss identity assign, or use workload identity"
	case i.Method == CLI:
		f.Message += ": az has none"
		f.Remedy = "Sign in: az login"
	default:
		f.Away = true
		f.Message += ": Microsoft Entra ID cannot be reached"
		f.Remedy = "Let the pod reach login.microsoftonline.com, or what AZURE_AUTHORITY_HOST names, on port 443"
	}
	return f
}

func readable(path string) bool {
	file, err := os.Open(path) //nolint:gosec // the path is the pod's own
	if err != nil {
		return false
	}
	return file.Close() == nil
}

// entraSays is the first sentence of what Microsoft Entra ID says.
func entraSays(text string) string {
	_, said, _ := strings.Cut(text, "AADSTS")
	said = "AADSTS" + said
	for _, end := range []string{`\r`, `\n`, "\r", "\n", " Trace ID", `"`} {
		said, _, _ = strings.Cut(said, end)
	}
	return clip(said, 240)
}

// ExplainExchange says why a registry gives no token for the identity's.
func ExplainExchange(host string, i Identity, err error) *Failure {
	f := explainAnswer(err)
	f.Step = StepExchange
	switch {
	case f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden:
		f.Message = fmt.Sprintf("the registry %s does not know the %s", host, i)
		f.Remedy = GrantPull(host, i)
	case f.Status != 0:
		f.Message = fmt.Sprintf("the registry %s answered the exchange of tokens with %d", host, f.Status)
	default:
		f.Message = fmt.Sprintf("the registry %s cannot be reached for a token", host)
	}
	return f
}

// GrantPull is how the identity is let read a registry.
func GrantPull(host string, i Identity) string {
	who := i.ClientID
	if who == "" {
		who = "CLIENT_ID"
	}
	name, _, _ := strings.Cut(host, ".")
	return fmt.Sprintf("Grant it AcrPull: az role assignment create --assignee %s --role AcrPull --scope $(az acr show --name %s --query id --output tsv)", who, name)
}

// explainAnswer reads what every service of Azure answers alike. What it says
// beyond its code may hold anything, and is not kept.
func explainAnswer(err error) *Failure {
	var known *Failure
	if errors.As(err, &known) {
		copied := *known
		return &copied
	}
	f := &Failure{Away: true}
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		f.Status, f.Code, f.Away = answer.StatusCode, clip(answer.ErrorCode, 64), away(answer.StatusCode)
		if answer.RawResponse != nil {
			f.After = retryAfter(answer.RawResponse.Header)
		}
	}
	return f
}

// away reports whether another time may do.
func away(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500
}

func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	var seconds int
	if _, err := fmt.Sscanf(value, "%d", &seconds); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(time.Until(date), 0)
	}
	return 0
}

var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_.-]+`)

// sayable is an error's text without anything that is built like a token, and without
// the queries of URLs.
func sayable(err error) string {
	return clip(jwt.ReplaceAllString(redact.Text(err.Error()), "…"), 4<<10)
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

// AsFailure finds the *Failure in an error of this package.
func AsFailure(err error) *Failure { return explainAnswer(err) }
