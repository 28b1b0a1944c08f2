package azure

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"
)

// ServiceAccountToken is what a pod's federated token says. Nobody has verified
// it, and it is for showing.
type ServiceAccountToken struct {
	Issuer, Subject string
	Audience        []string
	Expires         time.Time
}

// maxServiceAccountToken bounds the file.
const maxServiceAccountToken = 64 << 10

// ServiceAccountToken reads the pod's token file.
func (c *Credentials) ServiceAccountToken() (ServiceAccountToken, error) {
	path := c.getenv(TokenFileVariable)
	if !readable(path) {
		return ServiceAccountToken{}, &Failure{Step: StepEnvironment, Message: "the token file " + path + " cannot be read", Remedy: notInjected(nil).Remedy}
	}
	content, err := os.ReadFile(path) //nolint:gosec // the path is the pod's own
	if err != nil || len(content) > maxServiceAccountToken {
		return ServiceAccountToken{}, errors.New("the token file " + path + " cannot be read")
	}
	wrong := errors.New("the token file " + path + " holds no token")
	parts := strings.Split(strings.TrimSpace(string(content)), ".")
	if len(parts) != 3 {
		return ServiceAccountToken{}, wrong
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return ServiceAccountToken{}, wrong
	}
	var claims struct {
		Issuer   string   `json:"iss"`
		Subject  string   `json:"sub"`
		Audience []string `json:"aud"`
		Expires  int64    `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return ServiceAccountToken{}, wrong
	}
	return ServiceAccountToken{claims.Issuer, claims.Subject, claims.Audience, time.Unix(claims.Expires, 0)}, nil
}

// Federate is the command that federates the identity with whom the token is of.
func (t ServiceAccountToken) Federate() string {
	return "az identity federated-credential create --name countersign --identity-name NAME --resource-group GROUP --issuer " + t.Issuer +
		" --subject " + t.Subject + " --audiences api://AzureADTokenExchange"
}
