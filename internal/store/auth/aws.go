package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// AWSIdentity is who asks Amazon ECR: the pod's, or a user's by an access key.
type AWSIdentity struct {
	// RoleARN is the role that the pod's ServiceAccount becomes; AWS_ROLE_ARN when
	// empty.
	RoleARN string
	// AccessKeyID and SecretAccessKey of a user; the pod's identity when empty.
	AccessKeyID, SecretAccessKey string
}

// AWS is an identity's credential for Amazon's registries, private and public. To
// any other host it is anonymous. Safe for concurrent use.
type AWS struct {
	clouds   *Clouds
	identity AWSIdentity
	id       string
}

// AWS is the credential of an identity.
func (c *Clouds) AWS(identity AWSIdentity) *AWS {
	sum := sha256.Sum256([]byte(identity.AccessKeyID + "\n" + identity.SecretAccessKey + "\n" + identity.RoleARN))
	return &AWS{c, identity, "aws " + hex.EncodeToString(sum[:])}
}

// ID tells identities apart.
func (a *AWS) ID() string { return a.id }

// ecrHost is account, region and partition of a private registry.
// https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)$`)

// publicECR is Amazon's public registry, which knows users by one region only.
const publicECR, publicRegion = "public.ecr.aws", "us-east-1"

// IsECR reports whether the host is a registry of Amazon by its name.
func IsECR(host string) bool { return host == publicECR || ecrHost.MatchString(host) }

// ecr is where the credential of a registry comes from.
type ecr struct{ service, region, suffix, endpoint, target string }

func ecrOf(host string) ecr {
	if host == publicECR {
		return ecr{"ecr-public", publicRegion, "amazonaws.com", "api.ecr-public." + publicRegion + ".amazonaws.com", "SpencerFrontendService.GetAuthorizationToken"}
	}
	parts := ecrHost.FindStringSubmatch(host)
	e := ecr{service: "ecr", region: parts[2], suffix: "amazonaws.com", target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}
	if strings.HasSuffix(parts[3], ".cn") {
		e.suffix = "amazonaws.com.cn"
	}
	name := "api.ecr."
	if parts[1] != "" {
		name = "ecr-fips."
	}
	e.endpoint = name + e.region + "." + e.suffix
	return e
}

// Credential gives what the registry lets the identity in with: for twelve hours,
// made once. The error is a *verifier.Error.
func (a *AWS) Credential(ctx context.Context, host string) (Credential, error) {
	if !IsECR(host) {
		return Credential{}, nil
	}
	return a.clouds.sessions.get(ctx, a.id+" "+host, func(ctx context.Context) (Credential, time.Duration, error) { return a.mint(ctx, host) })
}

// Refused forgets a credential that the registry does not take any more.
func (a *AWS) Refused(host string, refused Credential) bool {
	a.clouds.sessions.forget(a.id+" "+host, refused)
	return !refused.Anonymous()
}

const grantECR = "Let the role pull: aws iam attach-role-policy --role-name ROLE --policy-arn arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"

// Grant is how the identity is let read the registry.
func (a *AWS) Grant(host string) string {
	if !IsECR(host) {
		return ""
	}
	return grantECR
}

// mint asks ECR for the password of the user AWS.
// https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html
func (a *AWS) mint(ctx context.Context, host string) (Credential, time.Duration, error) {
	from := ecrOf(host)
	keys, err := a.keys(ctx, from)
	if err != nil {
		return Credential{}, 0, err
	}
	const body = "{}"
	req, err := request(ctx, http.MethodPost, "https://"+from.endpoint+"/", body)
	if err != nil {
		return Credential{}, 0, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", from.target)
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), from.service, from.region, time.Now()); err != nil {
		return Credential{}, 0, unusable("a request to Amazon ECR cannot be signed", "Look at the access key", err)
	}
	var made Credential
	lifetime := unknownLifetime
	err = asking{"Amazon ECR", grantECR}.do(a.clouds.client, req, func(answer []byte) error {
		var err error
		made, lifetime, err = ecrToken(answer)
		return err
	})
	return made, lifetime, err
}

func ecrToken(answer []byte) (Credential, time.Duration, error) {
	type data struct {
		Token   string  `json:"authorizationToken"`
		Expires float64 `json:"expiresAt"`
	}
	var said struct {
		Data json.RawMessage `json:"authorizationData"` // a list; the public registry gives one alone
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return Credential{}, 0, err
	}
	var list []data
	var one data
	if json.Unmarshal(said.Data, &list) == nil && len(list) > 0 {
		one = list[0]
	} else if err := json.Unmarshal(said.Data, &one); err != nil {
		return Credential{}, 0, err
	}
	text, err := base64.StdEncoding.DecodeString(one.Token)
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok || user == "" || password == "" {
		return Credential{}, 0, errors.New("it has no user and password")
	}
	lifetime := min(time.Until(time.Unix(int64(one.Expires), 0)), 12*time.Hour)
	if lifetime < time.Minute { // a clock is wrong, or it does not say
		lifetime = unknownLifetime
	}
	return Credential{Username: user, Password: password}, lifetime, nil
}

// keys are what requests to AWS are signed with: a user's, or what the pod's
// identity is given for an hour.
func (a *AWS) keys(ctx context.Context, from ecr) (aws.Credentials, error) {
	tokenFile, agent := a.clouds.getenv("AWS_WEB_IDENTITY_TOKEN_FILE"), a.clouds.getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
	switch {
	case a.identity.AccessKeyID != "":
		return aws.Credentials{AccessKeyID: a.identity.AccessKeyID, SecretAccessKey: a.identity.SecretAccessKey}, nil
	case tokenFile != "":
		return a.assumeRole(ctx, tokenFile, from)
	case agent != "":
		return a.podIdentity(ctx, agent)
	}
	return aws.Credentials{}, unusable("the pod has no identity of AWS",
		"Annotate its ServiceAccount with eks.amazonaws.com/role-arn, or make a pod identity association: aws eks create-pod-identity-association; then restart the pod", nil)
}

// assumeRole is IAM roles for service accounts (IRSA).
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
func (a *AWS) assumeRole(ctx context.Context, tokenFile string, from ecr) (aws.Credentials, error) {
	token, err := secretFile(tokenFile)
	if err != nil {
		return aws.Credentials{}, err
	}
	role := a.identity.RoleARN
	if role == "" {
		role = a.clouds.getenv("AWS_ROLE_ARN")
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"},
		"RoleArn": {role}, "RoleSessionName": {"countersign"}, "WebIdentityToken": {token},
	}
	req, err := request(ctx, http.MethodPost, "https://sts."+from.region+"."+from.suffix+"/", form.Encode())
	if err != nil {
		return aws.Credentials{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var said struct {
		Credentials struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string `xml:"SecretAccessKey"`
			SessionToken    string `xml:"SessionToken"`
		} `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	err = asking{"AWS STS", "Let the role " + role + " be assumed by this ServiceAccount: its trust policy must name the cluster's OIDC provider and system:serviceaccount:NAMESPACE:NAME"}.
		do(a.clouds.client, req, func(answer []byte) error {
			if err := xml.Unmarshal(answer, &said); err != nil {
				return err
			}
			return complete(said.Credentials.AccessKeyID, said.Credentials.SecretAccessKey)
		})
	return aws.Credentials{AccessKeyID: said.Credentials.AccessKeyID, SecretAccessKey: said.Credentials.SecretAccessKey, SessionToken: said.Credentials.SessionToken}, err
}

// podIdentity asks the agent on the node, which gives what EKS has associated with
// the pod's ServiceAccount.
// https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
func (a *AWS) podIdentity(ctx context.Context, agent string) (aws.Credentials, error) {
	at, err := url.Parse(agent)
	if err != nil || at.Scheme != "https" && !ofNode(at) {
		return aws.Credentials{}, unusable("AWS_CONTAINER_CREDENTIALS_FULL_URI leads away from the node", "Restart the pod", err)
	}
	req, err := request(ctx, http.MethodGet, agent, "")
	if err != nil {
		return aws.Credentials{}, err
	}
	if file := a.clouds.getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		token, err := secretFile(file)
		if err != nil {
			return aws.Credentials{}, err
		}
		req.Header.Set("Authorization", token)
	}
	var said struct {
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string `json:"SecretAccessKey"`
		Token           string `json:"Token"`
	}
	err = asking{"the agent of EKS Pod Identity", "Make the association: aws eks create-pod-identity-association"}.do(a.clouds.node, req, func(answer []byte) error {
		if err := json.Unmarshal(answer, &said); err != nil {
			return err
		}
		return complete(said.AccessKeyID, said.SecretAccessKey)
	})
	return aws.Credentials{AccessKeyID: said.AccessKeyID, SecretAccessKey: said.SecretAccessKey, SessionToken: said.Token}, err
}

func complete(parts ...string) error {
	for _, part := range parts {
		if part == "" {
			return errors.New("a part of the credential is missing")
		}
	}
	return nil
}
