package trust

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/countersign-dev/countersign/internal/azure"
)

const (
	// maxVersions bounds how many versions of one object are looked through.
	maxVersions = 1000
	// maxChain bounds the certificates of one version.
	maxChain = 32
)

// version is one version of an object.
type version struct {
	id      string
	enabled bool
	created time.Time
}

// reader reads one kind of object.
type reader interface {
	// read gives the version as PEM; an empty one is the latest. Enabled is false
	// where the vault says that it is not to be used.
	read(ctx context.Context, name, version string) (content []byte, enabled bool, err error)
	versions(ctx context.Context, name string) ([]version, error)
}

// ask reads the versions that count. The error is an *Error.
func (v *Vaults) ask(ctx context.Context, r Reference) (content []byte, err error) {
	defer func() {
		if crash := recover(); crash != nil { // the SDK's on a challenge that it did not expect
			content, err = nil, &Error{Message: fmt.Sprintf("the answer of %s cannot be read", r.Vault)}
		}
	}()
	from, err := v.reader(r)
	if err != nil {
		return nil, &Error{Message: r.String() + ": " + err.Error()}
	}
	wanted := []string{r.Version}
	if r.History > 1 {
		if wanted, err = history(ctx, from, r); err != nil {
			return nil, explain(r, err)
		}
	}
	for _, id := range wanted {
		one, enabled, err := from.read(ctx, r.Name, id)
		switch {
		case err == nil && enabled:
			content = append(content, one...)
		case err == nil && len(wanted) == 1:
			return nil, disabled(r)
		case err != nil && (len(wanted) == 1 || !gone(err)):
			return nil, explain(r, err)
		}
	}
	if len(content) == 0 {
		return nil, disabled(r)
	}
	return content, nil
}

func disabled(r Reference) *Error {
	return &Error{Message: r.String() + " is disabled", Withdrawn: true, Remedy: enableRemedy(r)}
}

func enableRemedy(r Reference) string {
	singular := strings.TrimSuffix(string(r.Kind), "s")
	return fmt.Sprintf("If it is to be trusted, enable it: az keyvault %s set-attributes --enabled true --id %s; if not, take it out of the policy", singular, r)
}

// history lists the enabled versions that count, the newest first.
func history(ctx context.Context, from reader, r Reference) ([]string, error) {
	list, err := from.versions(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b version) int { return b.created.Compare(a.created) })
	if r.Version != "" {
		at := slices.IndexFunc(list, func(v version) bool { return strings.EqualFold(v.id, r.Version) })
		if at < 0 {
			return nil, &Error{Message: r.String() + " does not exist", Withdrawn: true, Remedy: "Correct the version: az keyvault key list-versions"}
		}
		list = list[at:]
	}
	list = list[:min(len(list), r.History)]
	var ids []string
	for _, v := range list {
		if v.enabled {
			ids = append(ids, v.id)
		}
	}
	return ids, nil
}

func (v *Vaults) reader(r Reference) (reader, error) {
	options := azcore.ClientOptions{Transport: v.client, Retry: policy.RetryOptions{MaxRetries: -1}}
	credential := v.options.Credentials.For(r.Identity)
	if r.Kind == Key {
		client, err := azkeys.NewClient(r.Vault, credential, &azkeys.ClientOptions{ClientOptions: options})
		return keys{client}, err
	}
	client, err := azsecrets.NewClient(r.Vault, credential, &azsecrets.ClientOptions{ClientOptions: options})
	return secrets{client}, err
}

// secrets reads certificates as secrets, which hold their whole chains.
type secrets struct{ client *azsecrets.Client }

func (s secrets) read(ctx context.Context, name, id string) ([]byte, bool, error) {
	answer, err := s.client.GetSecret(ctx, name, id, nil)
	if err != nil {
		return nil, false, err
	}
	if answer.Attributes != nil && answer.Attributes.Enabled != nil && !*answer.Attributes.Enabled {
		return nil, false, nil
	}
	if answer.Value == nil || answer.ContentType == nil {
		return nil, false, &Error{Message: name + " is a secret without a certificate", Remedy: "Name a certificate of the vault"}
	}
	content := []byte(*answer.Value)
	answer.Value = nil
	defer clear(content)
	chain, err := certificates(content, *answer.ContentType)
	if err != nil {
		return nil, false, &Error{Message: name + ": " + err.Error(), Remedy: "Name a certificate of the vault"}
	}
	return chain, true, nil
}

func (s secrets) versions(ctx context.Context, name string) ([]version, error) {
	var list []version
	for pager := s.client.NewListSecretPropertiesVersionsPager(name, nil); pager.More() && len(list) < maxVersions; {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range page.Value {
			if one != nil && one.ID != nil && one.Attributes != nil {
				list = append(list, versionOf(one.ID.Version(), one.Attributes.Enabled, one.Attributes.Created))
			}
		}
	}
	return list, nil
}

func versionOf(id string, enabled *bool, created *time.Time) version {
	v := version{id: id, enabled: enabled == nil || *enabled}
	if created != nil {
		v.created = *created
	}
	return v
}

// certificates takes the certificates out of a secret, and nothing else: with an
// exportable key the secret holds that as well.
func certificates(content []byte, contentType string) ([]byte, error) {
	var chain []*x509.Certificate
	switch contentType {
	case "application/x-pem-file":
		for rest := content; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				clear(block.Bytes)
				continue
			}
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, errors.New("it has a certificate that cannot be read")
			}
			chain = append(chain, certificate)
			if len(chain) > maxChain {
				return nil, fmt.Errorf("it has more than %d certificates", maxChain)
			}
		}
	case "application/x-pkcs12":
		archive, err := base64.StdEncoding.DecodeString(string(content))
		if err != nil {
			return nil, errors.New("it is not PKCS#12 in base64")
		}
		defer clear(archive)
		chain, err = unpack(archive)
		if err != nil {
			return nil, errors.New("its PKCS#12 cannot be read")
		}
	default:
		return nil, fmt.Errorf("it is of the type %q, and no certificate", clip(contentType, 64))
	}
	if len(chain) == 0 {
		return nil, errors.New("it has no certificate")
	}
	var out []byte
	for _, certificate := range chain {
		if !anchors(certificate) {
			continue
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	if len(out) == 0 {
		return nil, errors.New("it has a signing certificate without its authorities: merge the whole chain into it")
	}
	return out, nil
}

// anchors reports whether a certificate may stand for others, as Notary wants it
// of trust stores: the one that signs is trusted for its authority, unless it is
// its own.
// https://github.com/notaryproject/specifications/blob/v1.1.0/specs/trust-store-trust-policy.md#trust-store
func anchors(c *x509.Certificate) bool {
	return c.IsCA || bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// unpack reads PKCS#12 with a key and its chain, or with certificates alone.
func unpack(archive []byte) ([]*x509.Certificate, error) {
	_, leaf, others, err := pkcs12.DecodeChain(archive, "")
	if err == nil {
		return append([]*x509.Certificate{leaf}, others...), nil
	}
	return pkcs12.DecodeTrustStore(archive, "")
}

// keys reads public keys.
type keys struct{ client *azkeys.Client }

func (k keys) read(ctx context.Context, name, id string) ([]byte, bool, error) {
	answer, err := k.client.GetKey(ctx, name, id, nil)
	if err != nil {
		return nil, false, err
	}
	if answer.Attributes != nil && answer.Attributes.Enabled != nil && !*answer.Attributes.Enabled {
		return nil, false, nil
	}
	public, err := publicKey(answer.Key)
	if err != nil {
		return nil, false, &Error{Message: name + ": " + err.Error(), Remedy: "Use RSA of 2048 to 4096 bits, P-256, P-384 or P-521"}
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, false, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), true, nil
}

func (k keys) versions(ctx context.Context, name string) ([]version, error) {
	var list []version
	for pager := k.client.NewListKeyPropertiesVersionsPager(name, nil); pager.More() && len(list) < maxVersions; {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, one := range page.Value {
			if one != nil && one.KID != nil && one.Attributes != nil {
				list = append(list, versionOf(one.KID.Version(), one.Attributes.Enabled, one.Attributes.Created))
			}
		}
	}
	return list, nil
}

// publicKey makes a key of a JWK (RFC 7517). Numbers with leading zeros are the
// same numbers.
func publicKey(jwk *azkeys.JSONWebKey) (any, error) {
	if jwk == nil || jwk.Kty == nil {
		return nil, errors.New("it is no key")
	}
	switch *jwk.Kty {
	case azkeys.KeyTypeRSA, azkeys.KeyTypeRSAHSM:
		n, e := new(big.Int).SetBytes(jwk.N), new(big.Int).SetBytes(jwk.E)
		if n.BitLen() < 2048 || n.BitLen() > 4096 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
			return nil, fmt.Errorf("it is an RSA key of %d bits", n.BitLen())
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case azkeys.KeyTypeEC, azkeys.KeyTypeECHSM:
		curves := map[azkeys.CurveName]elliptic.Curve{
			azkeys.CurveNameP256: elliptic.P256(), azkeys.CurveNameP384: elliptic.P384(), azkeys.CurveNameP521: elliptic.P521(),
		}
		name := azkeys.CurveName("")
		if jwk.Crv != nil {
			name = *jwk.Crv
		}
		curve := curves[name]
		if curve == nil {
			return nil, fmt.Errorf("it is on the curve %q", clip(string(name), 32))
		}
		size := (curve.Params().BitSize + 7) / 8
		x, y := coordinate(jwk.X, size), coordinate(jwk.Y, size)
		if x == nil || y == nil {
			return nil, errors.New("it is no point of its curve")
		}
		public, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, errors.New("it is no point of its curve")
		}
		return public, nil
	}
	return nil, fmt.Errorf("it is of the type %q", clip(string(*jwk.Kty), 32))
}

// coordinate makes a number as long as the curve's, or gives nil where it is
// longer.
func coordinate(number []byte, size int) []byte {
	n := new(big.Int).SetBytes(number)
	if n.BitLen() > size*8 {
		return nil
	}
	return n.FillBytes(make([]byte, size))
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

// gone reports whether the vault says that the version is not to be used.
func gone(err error) bool {
	e := explain(Reference{}, err)
	return e.Withdrawn
}

// explain says why a vault does not give what it holds.
// https://learn.microsoft.com/azure/key-vault/general/rest-error-codes
func explain(r Reference, err error) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	f := azure.AsFailure(err)
	vault, _, _ := strings.Cut(strings.TrimPrefix(r.Vault, "https://"), ".")
	e := &Error{Message: r.String() + " cannot be read: ", after: min(f.After, time.Hour)}
	switch {
	case f.Step != "": // there was no token
		e.Message, e.Remedy = r.String()+" cannot be read: "+f.Message, f.Remedy
	case f.Status == http.StatusNotFound && strings.HasSuffix(f.Code, "VaultNotFound"):
		e.Message, e.Remedy = "there is no vault "+r.Vault, "Correct the URI: az keyvault show --name "+vault+" --query properties.vaultUri"
	case f.Status == http.StatusNotFound:
		e.Withdrawn = true
		e.Message = r.String() + " does not exist"
		e.Remedy = fmt.Sprintf("Correct its name or version: az keyvault %s list-versions --vault-name %s --name %s", strings.TrimSuffix(string(r.Kind), "s"), vault, r.Name)
	case f.Status == http.StatusForbidden && saysDisabled(err):
		return disabled(r)
	case f.Status == http.StatusForbidden && says(err, "ForbiddenByFirewall"):
		e.Message += "the vault's firewall does not let us in"
		e.Remedy = "Give it a private endpoint, or allow the cluster's address: az keyvault network-rule add --name " + vault
	case f.Status == http.StatusForbidden:
		role := map[Kind]string{Certificate: "Key Vault Secrets User", Key: "Key Vault Crypto User"}[r.Kind]
		who := cmp.Or(r.Identity.ClientID, "CLIENT_ID")
		e.Message += "the " + r.Identity.String() + " may not"
		e.Remedy = fmt.Sprintf("Grant it %s: az role assignment create --assignee %s --role %q --scope $(az keyvault show --name %s --query id --output tsv)", role, who, role, vault)
	case f.Status == http.StatusUnauthorized:
		e.Message += "the vault refused the token of the " + r.Identity.String()
		e.Remedy = "Correct the tenant: az keyvault show --name " + vault + " --query properties.tenantId"
	case f.Status == http.StatusTooManyRequests:
		e.Message += "the vault has had too many requests"
		e.Remedy = "It is tried again when the vault wants it; raise refreshInterval if others need it as well"
	case f.Status != 0:
		e.Message += fmt.Sprintf("the vault answered %d", f.Status)
		e.Remedy = "It is tried again"
	default:
		e.Message += "the vault cannot be reached"
		e.Remedy = "Let the pod reach " + strings.TrimPrefix(r.Vault, "https://") + " on port 443; it is tried again"
	}
	return e
}

// saysDisabled tells a disabled version from one that we may not read: both are
// a 403.
func saysDisabled(err error) bool {
	return says(err, "SecretDisabled") || says(err, "KeyDisabled") || says(err, "CertificateDisabled")
}

// says reports whether the answer has the word as an inner code.
func says(err error, code string) bool {
	var answer *azcore.ResponseError
	return errors.As(err, &answer) && strings.Contains(answer.Error(), `"`+code+`"`)
}
