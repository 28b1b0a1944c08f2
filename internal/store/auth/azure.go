package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"

	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// registryScope is what an identity's token is for, in all clouds.
	registryScope = "https://containerregistry.azure.net/.default"
)

// AzureExchanges turns identities of Azure into the refresh tokens of its
// registries: once for each identity and registry, and ahead of their end. Safe
// for concurrent use.
type AzureExchanges struct {
	credentials *azure.Credentials
	log         *slog.Logger
	client      *http.Client
	tokens      *sessions
}

// NewAzureExchanges exchanges over the transport, which must be one that may
// reach registries. The log hears of what a pod lacks for an identity; nil: nobody.
func NewAzureExchanges(credentials *azure.Credentials, transport http.RoundTripper, log *slog.Logger) *AzureExchanges {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &AzureExchanges{credentials: credentials, log: log, client: azure.NewClient(transport), tokens: newSessions()}
}

// Azure is one identity's credential for the registries of Azure: those that are
// Azure's by their names, and the endpoints. To any other host it is anonymous.
type Azure struct {
	exchanges *AzureExchanges
	identity  azure.Identity
	endpoints []string
}

// Source is the identity's credential. Endpoints are hosts as
// verifier.Reference has them.
func (e *AzureExchanges) Source(identity azure.Identity, endpoints []string) *Azure {
	var lacks *azure.Failure
	if identity.Method == azure.WorkloadIdentity && errors.As(e.credentials.For(identity).Check(), &lacks) {
		e.log.Warn("an identity of Azure cannot be used", slog.String("message", lacks.Message), slog.String("remedy", lacks.Remedy))
	}
	return &Azure{e, identity, endpoints}
}

// ID tells identities apart.
func (a *Azure) ID() string { return a.identity.ID() + " " + strings.Join(a.endpoints, " ") }

// Identity says whose credential it is.
func (a *Azure) Identity() azure.Identity { return a.identity }

// Knows reports whether the host is one that the identity is shown to.
func (a *Azure) Knows(host string) bool {
	return azure.IsRegistry(host) || slices.Contains(a.endpoints, host)
}

// Credential gives the registry's refresh token. The error is a *verifier.Error.
func (a *Azure) Credential(ctx context.Context, host string) (Credential, error) {
	if !a.Knows(host) {
		return Credential{}, nil
	}
	return a.exchanges.tokens.get(ctx, a.key(host), func(ctx context.Context) (Credential, time.Duration, error) {
		token, lifetime, err := a.Exchange(ctx, host)
		return Credential{RefreshToken: token}, lifetime, err
	})
}

// Refused forgets a token that the registry does not take any more, and reports
// whether another may be had.
func (a *Azure) Refused(host string, refused Credential) bool {
	a.exchanges.tokens.forget(a.key(host), refused)
	return refused.RefreshToken != ""
}

// Grant is how the identity is let read the registry; empty where it is not shown
// to it.
func (a *Azure) Grant(host string) string {
	if !a.Knows(host) {
		return ""
	}
	return azure.GrantPull(host, a.Resolved())
}

func (a *Azure) key(host string) string { return a.identity.ID() + " " + host }

// Exchange gets the identity's token and exchanges it for the registry's refresh
// token, past all memory but the SDK's, and says for how long that is good. The
// error is a *verifier.Error.
// https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
func (a *Azure) Exchange(ctx context.Context, host string) (token string, lifetime time.Duration, err error) {
	credential := a.exchanges.credentials.For(a.identity)
	token, lifetime, err = a.exchangeOnce(ctx, host, credential)
	var refused *azure.Failure
	if errors.As(err, &refused) && refused.Step == azure.StepExchange && refused.Status == http.StatusUnauthorized && credential.Renew() {
		return a.exchangeOnce(ctx, host, credential)
	}
	return token, lifetime, err
}

func (a *Azure) exchangeOnce(ctx context.Context, host string, credential *azure.Credential) (token string, lifetime time.Duration, err error) {
	identity, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{registryScope}})
	if err != nil {
		return "", 0, undecided(azure.AsFailure(err))
	}
	client, err := azcontainerregistry.NewAuthenticationClient("https://"+host, &azcontainerregistry.AuthenticationClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: a.exchanges.client, Retry: policy.RetryOptions{MaxRetries: -1}},
	})
	if err != nil {
		return "", 0, undecided(azure.ExplainExchange(host, a.Resolved(), err))
	}
	answer, err := client.ExchangeAADAccessTokenForACRRefreshToken(ctx, azcontainerregistry.PostContentSchemaGrantTypeAccessToken, host,
		&azcontainerregistry.AuthenticationClientExchangeAADAccessTokenForACRRefreshTokenOptions{AccessToken: &identity.Token})
	if err != nil {
		return "", 0, undecided(azure.ExplainExchange(host, a.Resolved(), err))
	}
	if answer.RefreshToken == nil || *answer.RefreshToken == "" || strings.ContainsAny(*answer.RefreshToken, "\r\n") {
		return "", 0, undecided(&azure.Failure{Step: azure.StepExchange, Message: "the registry " + host + " exchanged a token for none"})
	}
	return *answer.RefreshToken, lifetimeOf(*answer.RefreshToken), nil
}

// Resolved is the identity with what the pod's variables say.
func (a *Azure) Resolved() azure.Identity { return a.exchanges.credentials.Resolved(a.identity) }

func undecided(f *azure.Failure) *verifier.Error {
	reason := verifier.ReasonRegistryUnauthorized
	switch {
	case f.Status == http.StatusTooManyRequests:
		reason = verifier.ReasonRegistryThrottled
	case f.Away:
		reason = verifier.ReasonRegistryUnreachable
	}
	return &verifier.Error{Reason: reason, Message: f.Message, Remedy: f.Remedy, Err: f}
}

// lifetimeOf reads how long a JWT is good from when it was issued, so that a
// clock that is not the registry's does no harm. Nobody is believed for it: a
// token that has ended is refused, and then exchanged anew.
func lifetimeOf(token string) time.Duration {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return unknownLifetime
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return unknownLifetime
	}
	var claims struct {
		IssuedAt float64 `json:"iat"`
		Expires  float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= claims.IssuedAt || claims.IssuedAt <= 0 {
		return unknownLifetime
	}
	return time.Duration(min(claims.Expires-claims.IssuedAt, (24*time.Hour).Seconds())) * time.Second
}

// Token gets a token for the identity, and tells only whether there is one. The
// error is a *azure.Failure.
func (a *Azure) Token(ctx context.Context) error {
	_, err := a.exchanges.credentials.For(a.identity).GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{registryScope}})
	return err
}
