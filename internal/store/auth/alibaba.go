package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// AlibabaIdentity is who asks Alibaba Cloud Container Registry: the pod's, or a user's
// by an access key.
type AlibabaIdentity struct {
	// InstanceID of the registry, as cri-…: its API knows instances by nothing else.
	InstanceID string
	// AccessKeyID and AccessKeySecret of a user; the pod's identity when empty.
	AccessKeyID, AccessKeySecret string
}

// Alibaba is an identity's credential for the instances of Alibaba Cloud Container
// Registry. To any other host it is anonymous. Safe for concurrent use.
type Alibaba struct {
	clouds   *Clouds
	identity AlibabaIdentity
	id       string
}

// Alibaba is the credential of an identity.
func (c *Clouds) Alibaba(identity AlibabaIdentity) *Alibaba {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", identity.InstanceID, identity.AccessKeyID, identity.AccessKeySecret))
	return &Alibaba{c, identity, "alibaba " + hex.EncodeToString(sum[:])}
}

// ID tells identities apart.
func (a *Alibaba) ID() string { return a.id }

// alibabaHost is an instance, whether it is of the VPC, and its region.
var alibabaHost = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*-registry(-vpc)?\.([a-z0-9-]+)\.cr\.aliyuncs\.com$`)

// IsAlibabaRegistry reports whether the host is an instance of Alibaba Cloud
// Container Registry by its name.
func IsAlibabaRegistry(host string) bool { return alibabaHost.MatchString(host) }

// Credential gives what the instance lets the identity in with, made once for as
// long as it lasts. The error is a *verifier.Error.
func (a *Alibaba) Credential(ctx context.Context, host string) (Credential, error) {
	if !IsAlibabaRegistry(host) {
		return Credential{}, nil
	}
	return a.clouds.sessions.get(ctx, a.id+" "+host, func(ctx context.Context) (Credential, time.Duration, error) { return a.mint(ctx, host) })
}

// Refused forgets a credential that the registry does not take any more.
func (a *Alibaba) Refused(host string, refused Credential) bool {
	a.clouds.sessions.forget(a.id+" "+host, refused)
	return !refused.Anonymous()
}

const grantAlibaba = "Let the identity pull: attach the RAM policy AliyunContainerRegistryReadOnlyAccess to it, and look at instanceID"

// Grant is how the identity is let read the registry.
func (a *Alibaba) Grant(host string) string {
	if !IsAlibabaRegistry(host) {
		return ""
	}
	return grantAlibaba
}

// mint asks for a user and password of the instance.
// https://www.alibabacloud.com/help/en/acr/developer-reference/api-cr-2018-12-01-getauthorizationtoken
func (a *Alibaba) mint(ctx context.Context, host string) (Credential, time.Duration, error) {
	parts := alibabaHost.FindStringSubmatch(host)
	vpc, region := parts[1], parts[2]
	keys, err := a.keys(ctx, vpc, region)
	if err != nil {
		return Credential{}, 0, err
	}
	query := url.Values{"InstanceId": {a.identity.InstanceID}, "RegionId": {region}}
	req, err := request(ctx, http.MethodPost, "https://cr"+vpc+"."+region+".aliyuncs.com/?"+query.Encode(), "")
	if err != nil {
		return Credential{}, 0, err
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails, says its documentation
	keys.sign(req, "GetAuthorizationToken", "2018-12-01", hex.EncodeToString(nonce[:]), time.Now())
	var said struct {
		IsSuccess          bool
		Code               string
		TempUsername       string
		AuthorizationToken string
		ExpireTime         int64 // in milliseconds
	}
	err = asking{"Alibaba Cloud Container Registry", grantAlibaba}.do(a.clouds.client, req, func(answer []byte) error {
		if err := json.Unmarshal(answer, &said); err != nil {
			return err
		}
		if !said.IsSuccess { // it says so with 200
			return fmt.Errorf("it says no%s", codeOf(answer))
		}
		return complete(said.TempUsername, said.AuthorizationToken)
	})
	lifetime := min(time.Until(time.UnixMilli(said.ExpireTime)), time.Hour)
	if lifetime < time.Minute { // a clock is wrong, or it does not say
		lifetime = time.Minute
	}
	return Credential{Username: said.TempUsername, Password: said.AuthorizationToken}, lifetime, err
}

// alibabaKeys are what requests to Alibaba Cloud are signed with.
type alibabaKeys struct{ id, secret, token string }

// keys are a user's, or what the pod's identity is given.
func (a *Alibaba) keys(ctx context.Context, vpc, region string) (alibabaKeys, error) {
	if a.identity.AccessKeyID != "" {
		return alibabaKeys{id: a.identity.AccessKeyID, secret: a.identity.AccessKeySecret}, nil
	}
	file := a.clouds.getenv("ALIBABA_CLOUD_OIDC_TOKEN_FILE")
	if file == "" {
		return alibabaKeys{}, unusable("the pod has no identity of Alibaba Cloud",
			"Enable RRSA for the cluster, annotate the ServiceAccount with pod-identity.alibabacloud.com/role-name and the namespace with the label pod-identity.alibabacloud.com/injection=on; then restart the pod", nil)
	}
	token, err := secretFile(file)
	if err != nil {
		return alibabaKeys{}, err
	}
	return a.assumeRole(ctx, vpc, region, token)
}

// assumeRole is RAM roles for service accounts (RRSA).
// https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-assumerolewithoidc
func (a *Alibaba) assumeRole(ctx context.Context, vpc, region, token string) (alibabaKeys, error) {
	role := a.clouds.getenv("ALIBABA_CLOUD_ROLE_ARN")
	form := url.Values{
		"Action": {"AssumeRoleWithOIDC"}, "Version": {"2015-04-01"}, "Format": {"JSON"},
		"RoleArn": {role}, "OIDCProviderArn": {a.clouds.getenv("ALIBABA_CLOUD_OIDC_PROVIDER_ARN")}, "OIDCToken": {token}, "RoleSessionName": {"countersign"},
	}
	req, err := request(ctx, http.MethodPost, "https://sts"+vpc+"."+region+".aliyuncs.com/", form.Encode())
	if err != nil {
		return alibabaKeys{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var said struct {
		Credentials struct{ AccessKeyID, AccessKeySecret, SecurityToken string }
	}
	err = asking{"Alibaba Cloud STS", "Let the role " + role + " be assumed by this ServiceAccount: its trust policy must name the cluster's OIDC provider and system:serviceaccount:NAMESPACE:NAME"}.
		do(a.clouds.client, req, func(answer []byte) error {
			if err := json.Unmarshal(answer, &said); err != nil {
				return err
			}
			return complete(said.Credentials.AccessKeyID, said.Credentials.AccessKeySecret, said.Credentials.SecurityToken)
		})
	return alibabaKeys{said.Credentials.AccessKeyID, said.Credentials.AccessKeySecret, said.Credentials.SecurityToken}, err
}

// sign signs a request without a body.
// https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
func (k alibabaKeys) sign(req *http.Request, action, version, nonce string, now time.Time) {
	const algorithm = "ACS3-HMAC-SHA256"
	nothing := hex.EncodeToString(sha256.New().Sum(nil))
	signed := map[string]string{
		"host": req.URL.Host, "x-acs-action": action, "x-acs-version": version, "x-acs-content-sha256": nothing,
		"x-acs-date": now.UTC().Format("2006-01-02T15:04:05Z"), "x-acs-signature-nonce": nonce,
	}
	if k.token != "" {
		signed["x-acs-security-token"] = k.token
	}
	names := slices.Sorted(maps.Keys(signed))
	var headers strings.Builder
	for _, name := range names {
		headers.WriteString(name + ":" + signed[name] + "\n")
		if name != "host" {
			req.Header.Set(name, signed[name])
		}
	}
	query := strings.ReplaceAll(req.URL.Query().Encode(), "+", "%20") // sorted
	canonical := strings.Join([]string{req.Method, "/", query, headers.String(), strings.Join(names, ";"), nothing}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	mac := hmac.New(sha256.New, []byte(k.secret))
	mac.Write([]byte(algorithm + "\n" + hex.EncodeToString(sum[:])))
	req.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s,SignedHeaders=%s,Signature=%s", algorithm, k.id, strings.Join(names, ";"), hex.EncodeToString(mac.Sum(nil))))
}
