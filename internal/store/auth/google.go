package auth

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"time"
)

const (
	// googleUser is whose password an access token is.
	googleUser = "oauth2accesstoken"
	// googleToken is where keys of service accounts are exchanged. What the key's
	// own file names is not asked: it would be shown an assertion.
	googleToken = "https://oauth2.googleapis.com/token" //nolint:gosec // G101: an address
	// googleScope lets read, and nothing else.
	googleScope = "https://www.googleapis.com/auth/devstorage.read_only"
	// googleMetadata is where a node, or GKE's own server on it, knows the pod.
	googleMetadata = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token"
)

// Google is an identity's credential for Google's registries. To any other host it
// is anonymous. Safe for concurrent use.
type Google struct {
	clouds *Clouds
	key    *googleKey // nil: the pod's own identity
	id     string
}

type googleKey struct {
	email, keyID string
	private      *rsa.PrivateKey
}

// GoogleWorkload is the credential of the pod's Kubernetes ServiceAccount, or of
// its node.
func (c *Clouds) GoogleWorkload() *Google { return &Google{clouds: c, id: "google workload identity"} }

var errNoKey = errors.New("it is not the key of a service account")

// GoogleKey is the credential of a service account by its key, in Google's JSON.
func (c *Clouds) GoogleKey(data []byte) (*Google, error) {
	var file struct {
		Type       string `json:"type"`
		Email      string `json:"client_email"`
		KeyID      string `json:"private_key_id"`
		PrivateKey string `json:"private_key"`
	}
	if err := json.Unmarshal(data, &file); err != nil || file.Type != "service_account" || file.Email == "" {
		return nil, errNoKey
	}
	block, _ := pem.Decode([]byte(file.PrivateKey))
	if block == nil {
		return nil, errNoKey
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errNoKey
	}
	sum := sha256.Sum256(data)
	return &Google{c, &googleKey{file.Email, file.KeyID, private}, "google key " + hex.EncodeToString(sum[:])}, nil
}

// ID tells identities apart.
func (g *Google) ID() string { return g.id }

// googleHost is Artifact Registry, or Container Registry which it took over.
// https://cloud.google.com/artifact-registry/docs/docker/names
var googleHost = regexp.MustCompile(`^([a-z0-9]+-)+docker\.pkg\.dev$|^([a-z0-9]+\.)?gcr\.io$`)

// IsGoogleRegistry reports whether the host is a registry of Google by its name.
func IsGoogleRegistry(host string) bool { return googleHost.MatchString(host) }

// Credential gives an access token as the registry wants it. The error is a
// *verifier.Error.
func (g *Google) Credential(ctx context.Context, host string) (Credential, error) {
	if !IsGoogleRegistry(host) {
		return Credential{}, nil
	}
	return g.clouds.sessions.get(ctx, g.id, g.mint) // one for all registries
}

// Refused forgets a token that the registry does not take any more.
func (g *Google) Refused(_ string, refused Credential) bool {
	g.clouds.sessions.forget(g.id, refused)
	return !refused.Anonymous()
}

// Grant is how the identity is let read the registry.
func (g *Google) Grant(host string) string {
	if !IsGoogleRegistry(host) {
		return ""
	}
	return "Let it read: gcloud artifacts repositories add-iam-policy-binding REPOSITORY --role roles/artifactregistry.reader --member MEMBER"
}

func (g *Google) mint(ctx context.Context) (Credential, time.Duration, error) {
	var req *http.Request
	var err error
	var from asking
	client := g.clouds.node
	if g.key == nil {
		from = asking{"the metadata service of Google", "Let the pod be an identity of Google: enable Workload Identity Federation for the cluster, and bind a role to the ServiceAccount"}
		req, err = request(ctx, http.MethodGet, googleMetadata, "")
	} else {
		client = g.clouds.client
		from = asking{"Google's token service", "Make a new key for " + g.key.email + ": gcloud iam service-accounts keys create"}
		req, err = g.key.exchange(ctx)
	}
	if err != nil {
		return Credential{}, 0, err
	}
	req.Header.Set("Metadata-Flavor", "Google") // which the service wants, so that no browser's request gets in
	var said struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	err = from.do(client, req, func(answer []byte) error {
		if err := json.Unmarshal(answer, &said); err != nil {
			return err
		}
		return complete(said.AccessToken)
	})
	lifetime := min(time.Duration(said.ExpiresIn)*time.Second, 12*time.Hour)
	if lifetime < time.Minute {
		lifetime = time.Minute
	}
	return Credential{Username: googleUser, Password: said.AccessToken}, lifetime, err
}

// exchange asks for an access token with an assertion (RFC 7523).
func (k *googleKey) exchange(ctx context.Context) (*http.Request, error) {
	now := time.Now()
	head, _ := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": k.keyID}) // texts always encode
	claims, _ := json.Marshal(map[string]any{
		"iss": k.email, "scope": googleScope, "aud": googleToken, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, k.private, crypto.SHA256, sum[:])
	if err != nil {
		return nil, unusable("the key of "+k.email+" cannot sign", "Make a new key: gcloud iam service-accounts keys create", err)
	}
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"},
		"assertion":  {signed + "." + base64.RawURLEncoding.EncodeToString(signature)},
	}
	req, err := request(ctx, http.MethodPost, googleToken, form.Encode())
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
