package auth

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// sky is AWS and Google as their documents have them, by host. It is a
// http.RoundTripper, so that no name is looked up.
type sky struct {
	t *testing.T
	// keys are the secrets of access keys, and tokens those of their sessions.
	keys, sessions map[string]string
	google         *rsa.PublicKey
	status         int // of every answer; 0: as it should be

	mu    sync.Mutex
	asked []string
}

const (
	account   = "111122223333.dkr.ecr.eu-west-1.amazonaws.com"
	podToken  = "eyJpod.token.signature"
	role      = "arn:aws:iam::111122223333:role/countersign"
	agentText = "agent-token"
)

func (s *sky) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.asked = append(s.asked, req.URL.Host)
	n := len(s.asked)
	s.mu.Unlock()
	w := httptest.NewRecorder()
	switch {
	case s.status != 0:
		http.Error(w, `{"__type":"com.amazonaws#AccessDeniedException","message":"`+podToken+`"}`, s.status)
	case req.URL.Host == "sts.eu-west-1.amazonaws.com":
		s.sts(w, req)
	case req.URL.Host == "169.254.170.23":
		s.agent(w, req)
	case req.URL.Host == "api.ecr.eu-west-1.amazonaws.com", req.URL.Host == "ecr-fips.us-gov-west-1.amazonaws.com":
		s.signed(w, req, "ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", `{"authorizationData":[%s]}`, n)
	case req.URL.Host == "api.ecr-public.us-east-1.amazonaws.com":
		s.signed(w, req, "ecr-public", "SpencerFrontendService.GetAuthorizationToken", `{"authorizationData":%s}`, n)
	case req.URL.Host == "sts.eu-central-1.aliyuncs.com", req.URL.Host == "sts-vpc.eu-central-1.aliyuncs.com":
		s.alibabaSTS(w, req)
	case req.URL.Host == "cr.eu-central-1.aliyuncs.com", req.URL.Host == "cr-vpc.eu-central-1.aliyuncs.com":
		s.alibabaCR(w, req, n)
	case req.URL.Host == "169.254.169.254":
		s.metadata(w, req, n)
	case req.URL.Host == "oauth2.googleapis.com":
		s.oauth(w, req, n)
	default:
		return nil, fmt.Errorf("no such host: %s", req.URL.Host)
	}
	return w.Result(), nil
}

func (s *sky) sts(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil || req.PostForm.Get("WebIdentityToken") != podToken || req.PostForm.Get("RoleArn") != role ||
		req.PostForm.Get("Action") != "AssumeRoleWithWebIdentity" || req.PostForm.Get("Version") != "2011-06-15" || req.PostForm.Get("RoleSessionName") == "" {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code><Message>"+podToken+"</Message></Error></ErrorResponse>")
		return
	}
	_, _ = io.WriteString(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
		<Credentials><AccessKeyId>ASIASESSION</AccessKeyId><SecretAccessKey>session-secret</SecretAccessKey><SessionToken>session-token</SessionToken></Credentials>
		</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`)
}

func (s *sky) agent(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Authorization") != agentText || req.URL.Path != "/v1/credentials" {
		http.Error(w, "{}", http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, `{"AccessKeyId":"ASIASESSION","SecretAccessKey":"session-secret","Token":"session-token","AccountId":"111122223333","Expiration":"2036-01-01T00:00:00Z"}`)
}

// signed verifies Signature Version 4 by making it again.
func (s *sky) signed(w http.ResponseWriter, req *http.Request, service, target, answer string, n int) {
	said := req.Header.Get("Authorization")
	_, key, _ := strings.Cut(said, "Credential=")
	key, scope, _ := strings.Cut(key, "/")
	parts := strings.Split(scope, "/") // date, region, service
	at, err := time.Parse("20060102T150405Z", req.Header.Get("X-Amz-Date"))
	body, _ := io.ReadAll(req.Body)
	again := req.Clone(req.Context())
	again.Header = http.Header{"Content-Type": req.Header["Content-Type"], "X-Amz-Target": req.Header["X-Amz-Target"]}
	again.Body = io.NopCloser(bytes.NewReader(body))
	sum := sha256.Sum256(body)
	if err == nil && len(parts) > 2 {
		err = v4.NewSigner().SignHTTP(req.Context(), aws.Credentials{AccessKeyID: key, SecretAccessKey: s.keys[key], SessionToken: s.sessions[key]},
			again, hex.EncodeToString(sum[:]), parts[2], parts[1], at)
	}
	if err != nil || s.keys[key] == "" || again.Header.Get("Authorization") != said || parts[2] != service || req.Header.Get("X-Amz-Target") != target ||
		time.Since(at).Abs() > 5*time.Minute {
		http.Error(w, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`, http.StatusBadRequest)
		return
	}
	token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:password-%d", n))
	_, _ = fmt.Fprintf(w, answer, fmt.Sprintf(`{"authorizationToken":%q,"expiresAt":%d.5,"proxyEndpoint":"https://x"}`, token, time.Now().Add(12*time.Hour).Unix()))
}

func (s *sky) metadata(w http.ResponseWriter, req *http.Request, n int) {
	if req.Header.Get("Metadata-Flavor") != "Google" || req.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/token" {
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	_, _ = fmt.Fprintf(w, `{"access_token":"ya29.node-%d","expires_in":3599,"token_type":"Bearer"}`, n)
}

func (s *sky) oauth(w http.ResponseWriter, req *http.Request, n int) {
	err := req.ParseForm()
	parts := strings.Split(req.PostForm.Get("assertion"), ".")
	var claims struct {
		Issuer   string `json:"iss"`
		Scope    string `json:"scope"`
		Audience string `json:"aud"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}
	if err == nil && len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		err = rsa.VerifyPKCS1v15(s.google, crypto.SHA256, sum[:], signature)
		_ = json.Unmarshal(payload, &claims)
	}
	now := time.Now().Unix()
	if err != nil || claims.Issuer != "pull@example.iam.gserviceaccount.com" || claims.Audience != "https://oauth2.googleapis.com/token" ||
		claims.Scope == "" || claims.Issued > now || claims.Expires < now || claims.Expires > now+3600 || req.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		http.Error(w, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`, http.StatusBadRequest)
		return
	}
	_, _ = fmt.Fprintf(w, `{"access_token":"ya29.key-%d","expires_in":3599,"token_type":"Bearer"}`, n)
}

// under is a pod under the sky, with its variables.
func under(s *sky, env map[string]string) *Clouds {
	return NewClouds(CloudOptions{Transport: s, Node: s, Getenv: func(name string) string { return env[name] }})
}

func newSky(t *testing.T) *sky {
	return &sky{
		t: t, keys: map[string]string{"AKIAUSER": "user-secret", "ASIASESSION": "session-secret"}, sessions: map[string]string{"ASIASESSION": "session-token"},
	}
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func serviceAccount(t *testing.T, s *sky) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.google = &key.PublicKey
	data, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "pull@example.iam.gserviceaccount.com", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://thief.example.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestIdentitiesOfClouds: each way in, as its cloud's documents have it.
func TestIdentitiesOfClouds(t *testing.T) {
	s := newSky(t)
	irsa := under(s, map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": role})
	other := under(s, map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/none"})
	agent := under(s, map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": file(t, agentText),
	})
	rrsa := under(s, map[string]string{"ALIBABA_CLOUD_OIDC_TOKEN_FILE": file(t, podToken), "ALIBABA_CLOUD_ROLE_ARN": alibabaRole, "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": alibabaOIDC})
	user := under(s, nil).AWS(AWSIdentity{AccessKeyID: "AKIAUSER", SecretAccessKey: "user-secret"})
	key, err := under(s, nil).GoogleKey(serviceAccount(t, s))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		of             any
		host           string
		user, password string
	}{
		"a role of the ServiceAccount": {irsa.AWS(AWSIdentity{}), account, "AWS", "password-"},
		"a role that the policy names": {other.AWS(AWSIdentity{RoleARN: role}), account, "AWS", "password-"},
		"EKS Pod Identity":             {agent.AWS(AWSIdentity{}), account, "AWS", "password-"},
		"an access key":                {user, account, "AWS", "password-"},
		"FIPS":                         {user, "111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "AWS", "password-"},
		"dual stack":                   {user, "111122223333.dkr-ecr.eu-west-1.on.aws", "AWS", "password-"},
		"Amazon's public registry":     {user, "public.ecr.aws", "AWS", "password-"},
		"a node of Google":             {under(s, nil).GoogleWorkload(), "europe-docker.pkg.dev", "oauth2accesstoken", "ya29.node-"},
		"Container Registry":           {under(s, nil).GoogleWorkload(), "eu.gcr.io", "oauth2accesstoken", "ya29.node-"},
		"a service account's key":      {key, "gcr.io", "oauth2accesstoken", "ya29.key-"},
		"RRSA of Alibaba Cloud":        {rrsa.Alibaba(AlibabaIdentity{InstanceID: "cri-acme"}), alibaba, "cr_temp_user", "password-"},
		"RRSA within the VPC":          {rrsa.Alibaba(AlibabaIdentity{InstanceID: "cri-acme"}), "acme-registry-vpc.eu-central-1.cr.aliyuncs.com", "cr_temp_user", "password-"},
		"an access key of Alibaba":     {under(s, nil).Alibaba(AlibabaIdentity{InstanceID: "cri-acme", AccessKeyID: "AKIAUSER", AccessKeySecret: alibabaSecret}), alibaba, "cr_temp_user", "password-"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := credentialOf(t, c.of, c.host)
			if err != nil || got.Username != c.user || !strings.HasPrefix(got.Password, c.password) {
				t.Fatalf("%s %s, %v", got.Username, got.Password, err)
			}
			if again, _ := credentialOf(t, c.of, c.host); again != got {
				t.Error("it was made twice")
			}
		})
	}
}

func credentialOf(t *testing.T, source any, host string) (Credential, error) {
	t.Helper()
	switch s := source.(type) {
	case *AWS:
		return s.Credential(t.Context(), host)
	case *Google:
		return s.Credential(t.Context(), host)
	case *Alibaba:
		return s.Credential(t.Context(), host)
	}
	t.Fatalf("%T", source)
	return Credential{}, nil
}

// TestL27_OtherHostsSeeNoCloudIdentity: hosts that only look like a cloud's get
// nothing, and nobody is asked.
func TestL27_OtherHostsSeeNoCloudIdentity(t *testing.T) {
	s := newSky(t)
	c := under(s, nil)
	user := c.AWS(AWSIdentity{AccessKeyID: "AKIAUSER", SecretAccessKey: "user-secret"})
	for _, host := range []string{
		"docker.io", account + ".attacker.example", "evil" + account, "x." + account, "1111.dkr.ecr.eu-west-1.amazonaws.com", "111122223333.dkr.ecr.eu-west-1.amazonaws.com.evil",
		"111122223333.dkr.ecr.evil.com/.amazonaws.com", "111122223333.dkrxecr.eu-west-1.amazonaws.com", "public.ecr.aws.evil", "xpublic.ecr.aws", account + ":8443",
		"acme-registry.eu-central-1.cr.aliyuncs.com.evil", "acme-registry.eu-central-1.evil.com/.cr.aliyuncs.com", "registry.eu-central-1.aliyuncs.com", alibaba + ":8443", "evil.cr.aliyuncs.com",
		"gcr.io.attacker.example", "evilgcr.io", "a.b.gcr.io", "evil.docker.pkg.dev", "docker.pkg.dev.evil", "-docker.pkg.dev", "europe-docker.pkg.dev.evil", "ＧＣＲ.io", "gcr.io:8443",
	} {
		for _, source := range []any{user, c.GoogleWorkload(), c.Alibaba(AlibabaIdentity{InstanceID: "cri-acme", AccessKeyID: "AKIAUSER", AccessKeySecret: alibabaSecret})} {
			if got, err := credentialOf(t, source, host); err != nil || !got.Anonymous() {
				t.Errorf("%T is shown to %s: %v, %v", source, host, got, err)
			}
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("asked: %v", s.asked)
	}
}

// TestWhatIsMissingInACloudIsNamed, without a word of what is secret.
func TestWhatIsMissingInACloudIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		env    map[string]string
		status int
		cloud  string
		reason verifier.Reason
		says   []string
	}{
		"no identity": {nil, 0, "", verifier.ReasonRegistryUnauthorized, []string{"the pod has no identity of AWS", "eks.amazonaws.com/role-arn"}},
		"a role that is not ours": {map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"}, 0, "",
			verifier.ReasonRegistryUnauthorized, []string{"AWS STS does not let the identity in (403, InvalidIdentityToken)", "arn:aws:iam::1:role/x", "trust policy"}},
		"no token file": {map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/none", "AWS_ROLE_ARN": role}, 0, "", verifier.ReasonRegistryUnauthorized, []string{"cannot be read"}},
		"an agent elsewhere": {map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://thief.example.com/"}, 0, "",
			verifier.ReasonRegistryUnauthorized, []string{"leads away from the node"}},
		"may not pull": {map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": role}, http.StatusForbidden, "",
			verifier.ReasonRegistryUnauthorized, []string{"(403, AccessDeniedException)"}},
		"throttled": {map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": role}, http.StatusTooManyRequests, "",
			verifier.ReasonRegistryThrottled, []string{"too many requests"}},
		"away": {map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": file(t, podToken), "AWS_ROLE_ARN": role}, http.StatusBadGateway, "", verifier.ReasonRegistryUnreachable, nil},
		"no instance": {map[string]string{"ALIBABA_CLOUD_OIDC_TOKEN_FILE": file(t, podToken), "ALIBABA_CLOUD_ROLE_ARN": alibabaRole, "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": alibabaOIDC}, 0, "alibaba",
			verifier.ReasonRegistryInvalid, []string{"gave an answer that holds no credential", "INSTANCE_NOT_EXIST"}},
		"no identity of Alibaba": {nil, 0, "alibaba", verifier.ReasonRegistryUnauthorized, []string{"the pod has no identity of Alibaba Cloud", "RRSA"}},
		"a role of Alibaba that is not ours": {map[string]string{"ALIBABA_CLOUD_OIDC_TOKEN_FILE": file(t, podToken), "ALIBABA_CLOUD_ROLE_ARN": "acs:ram::1:role/x"}, 0, "alibaba",
			verifier.ReasonRegistryUnauthorized, []string{"Alibaba Cloud STS does not let the identity in (400, AuthenticationFail.OIDCToken.Invalid)", "acs:ram::1:role/x"}},
		"no node of Google": {nil, http.StatusNotFound, "google", verifier.ReasonRegistryUnauthorized, []string{"Workload Identity"}},
		"Google gives none": {nil, http.StatusServiceUnavailable, "google", verifier.ReasonRegistryUnreachable, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSky(t)
			s.status = c.status
			var source any = under(s, c.env).AWS(AWSIdentity{})
			host := account
			switch c.cloud {
			case "google":
				source, host = under(s, c.env).GoogleWorkload(), "gcr.io"
			case "alibaba":
				source, host = under(s, c.env).Alibaba(AlibabaIdentity{InstanceID: "cri-other"}), alibaba
			}
			_, err := credentialOf(t, source, host)
			e := verifier.AsError(err)
			if err == nil || e.Reason != c.reason {
				t.Fatalf("%v", err)
			}
			said := e.Error() + " " + e.Remedy
			for _, part := range c.says {
				if !strings.Contains(said, part) {
					t.Errorf("%q does not say %q", said, part)
				}
			}
			if strings.Contains(said, podToken) || strings.Contains(said, "secret") {
				t.Errorf("%q tells a secret", said)
			}
		})
	}
}

// TestACloudsCredentialIsRenewedAhead of its end, and at once when it was refused.
func TestACloudsCredentialIsRenewedAhead(t *testing.T) {
	s := newSky(t)
	clouds := under(s, nil)
	synctest.Test(t, func(t *testing.T) {
		node := clouds.GoogleWorkload()
		first, _ := credentialOf(t, node, "gcr.io")
		time.Sleep(49 * time.Minute)
		if got, _ := credentialOf(t, node, "gcr.io"); got != first {
			t.Error("who asked waited for a new one")
		}
		synctest.Wait()
		second, _ := credentialOf(t, node, "gcr.io")
		if second == first {
			t.Error("it was not renewed")
		}
		if !node.Refused("gcr.io", second) {
			t.Error("another may be had")
		}
		if third, err := credentialOf(t, node, "gcr.io"); err != nil || third == second {
			t.Errorf("%v, %v after it was refused", third, err)
		}
	})
}
