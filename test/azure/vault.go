package azure

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

const vaultAudience = "https://vault.azure.net"

// Vault is one Key Vault. Safe for concurrent use.
type Vault struct {
	Host  string
	cloud *Cloud

	mu      sync.Mutex                 // guards all below
	secrets map[string][]*vaultVersion // by name, oldest first
	keys    map[string][]*vaultVersion
	padded  bool
}

type vaultVersion struct {
	id          string
	enabled     bool
	created     time.Time
	value       string // of a secret
	contentType string
	key         crypto.Signer
}

// Vault makes an empty one.
func (c *Cloud) Vault(host string) *Vault {
	v := &Vault{Host: host, cloud: c, secrets: map[string][]*vaultVersion{}, keys: map[string][]*vaultVersion{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.vaults[host] = v
	return v
}

// URI of the vault, as az shows it.
func (v *Vault) URI() string { return "https://" + v.Host + "/" }

// Certificate puts a version of a certificate into the vault, whose policy says
// that its secret is PEM, with its key if that is exportable. It gives the
// version's name.
func (v *Vault) Certificate(name string, chain []*x509.Certificate, exportable crypto.PrivateKey) (string, error) {
	var text []byte
	if exportable != nil {
		der, err := x509.MarshalPKCS8PrivateKey(exportable)
		if err != nil {
			return "", err
		}
		text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return v.add(v.secrets, name, &vaultVersion{value: string(text), contentType: "application/x-pem-file"}), nil
}

// PKCS12 puts a version of a certificate into the vault, as PKCS#12 with its key.
func (v *Vault) PKCS12(name string, chain []*x509.Certificate, key crypto.PrivateKey) (string, error) {
	archive, err := pkcs12.Modern.Encode(key, chain[0], chain[1:], "")
	if err != nil {
		return "", err
	}
	return v.add(v.secrets, name, &vaultVersion{value: base64.StdEncoding.EncodeToString(archive), contentType: "application/x-pkcs12"}), nil
}

// Secret puts a version of something else into the vault.
func (v *Vault) Secret(name, value, contentType string) string {
	return v.add(v.secrets, name, &vaultVersion{value: value, contentType: contentType})
}

// Key puts a version of a key into the vault.
func (v *Vault) Key(name string, key crypto.Signer) string {
	return v.add(v.keys, name, &vaultVersion{key: key})
}

func (v *Vault) add(to map[string][]*vaultVersion, name string, one *vaultVersion) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	one.id, one.enabled = random(), true
	one.created = time.Now().Truncate(time.Second).Add(time.Duration(len(to[name])) * time.Second)
	to[name] = append(to[name], one)
	return one.id
}

// Enable enables or disables a version, of a certificate or a key.
func (v *Vault) Enable(name, version string, enabled bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, list := range [][]*vaultVersion{v.secrets[name], v.keys[name]} {
		for _, one := range list {
			if one.id == version {
				one.enabled = enabled
			}
		}
	}
}

// Delete removes a certificate or a key with all its versions.
func (v *Vault) Delete(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.secrets, name)
	delete(v.keys, name)
}

// Pad has numbers of keys begin with zeros, which says nothing.
func (v *Vault) Pad() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.padded = true
}

func (v *Vault) serve(w http.ResponseWriter, r *http.Request) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	i := v.cloud.Entra.bearer(token, vaultAudience)
	if i == nil {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/`+Tenant+`", resource="`+vaultAudience+`"`)
		refuse(w, http.StatusUnauthorized, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.", "")
		return
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) < 2 {
		http.NotFound(w, r)
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	list, role, what := v.secrets[parts[1]], "Key Vault Secrets User", "Secret"
	if parts[0] == "keys" {
		list, role, what = v.keys[parts[1]], "Key Vault Crypto User", "Key"
	}
	switch {
	case !i.has(v.Host, role):
		refuse(w, http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac")
	case len(list) == 0:
		refuse(w, http.StatusNotFound, what+"NotFound", "A "+strings.ToLower(what)+" with (name/id) "+parts[1]+" was not found in this key vault.", "")
	case len(parts) == 3 && parts[2] == "versions":
		v.list(w, parts[0], parts[1], list)
	case len(parts) == 4 && parts[3] == "sign" && r.Method == http.MethodPost:
		v.sign(w, r, parts[1], find(list, parts[2]))
	default:
		version := ""
		if len(parts) > 2 {
			version = parts[2]
		}
		v.one(w, parts[0], parts[1], what, find(list, version))
	}
}

func find(list []*vaultVersion, version string) *vaultVersion {
	if version == "" {
		return list[len(list)-1]
	}
	for _, one := range list {
		if one.id == version {
			return one
		}
	}
	return nil
}

func (v *Vault) id(kind, name string, one *vaultVersion) string {
	return "https://" + v.Host + "/" + kind + "/" + name + "/" + one.id
}

func attributes(one *vaultVersion) map[string]any {
	return map[string]any{"enabled": one.enabled, "created": one.created.Unix(), "updated": one.created.Unix(), "recoveryLevel": "Recoverable"}
}

func (v *Vault) list(w http.ResponseWriter, kind, name string, list []*vaultVersion) {
	var entries []any
	for _, one := range list {
		field := "id"
		if kind == "keys" {
			field = "kid"
		}
		entries = append(entries, map[string]any{field: v.id(kind, name, one), "attributes": attributes(one)})
	}
	reply(w, http.StatusOK, map[string]any{"value": entries, "nextLink": nil})
}

func (v *Vault) one(w http.ResponseWriter, kind, name, what string, one *vaultVersion) {
	switch {
	case one == nil:
		refuse(w, http.StatusNotFound, what+"NotFound", "no such version", "")
	case kind == "secrets" && !one.enabled:
		refuse(w, http.StatusForbidden, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
	case kind == "secrets":
		reply(w, http.StatusOK, map[string]any{"value": one.value, "contentType": one.contentType, "id": v.id(kind, name, one), "managed": true, "attributes": attributes(one)})
	default:
		reply(w, http.StatusOK, map[string]any{"key": v.jwk(v.id(kind, name, one), one.key.Public()), "attributes": attributes(one)})
	}
}

func (v *Vault) jwk(kid string, public crypto.PublicKey) map[string]any {
	number := func(b []byte) string {
		if v.padded {
			b = append([]byte{0, 0}, b...)
		}
		return segment(b)
	}
	jwk := map[string]any{"kid": kid, "key_ops": []string{"sign", "verify"}}
	switch key := public.(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", number(key.N.Bytes()), number(big.NewInt(int64(key.E)).Bytes())
	case *ecdsa.PublicKey:
		jwk["kty"] = "EC"
		jwk["crv"] = map[elliptic.Curve]string{elliptic.P256(): "P-256", elliptic.P384(): "P-384", elliptic.P521(): "P-521"}[key.Curve]
		point, err := key.Bytes() // 4, and the two coordinates
		if err != nil {
			return nil
		}
		half := len(point) / 2
		jwk["x"], jwk["y"] = number(point[1:1+half]), number(point[1+half:])
	}
	return jwk
}

// sign is what Key Vault signs with: a digest, by an algorithm of RFC 7518.
func (v *Vault) sign(w http.ResponseWriter, r *http.Request, name string, one *vaultVersion) {
	var question struct{ Alg, Value string }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil || one == nil || !one.enabled {
		refuse(w, http.StatusForbidden, "Forbidden", "Operation sign is not allowed on a disabled key.", "KeyDisabled")
		return
	}
	digest, err := base64.RawURLEncoding.DecodeString(question.Value)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", "value", "")
		return
	}
	signature, err := Sign(one.key, question.Alg, digest)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", err.Error(), "")
		return
	}
	reply(w, http.StatusOK, map[string]any{"kid": v.id("keys", name, one), "value": segment(signature)})
}

// Sign signs a digest as Key Vault does; ECDSA's are r and s one after the other.
func Sign(key crypto.Signer, algorithm string, digest []byte) ([]byte, error) {
	hash, ok := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[algorithm[len(algorithm)-3:]]
	if !ok || len(digest) != hash.Size() {
		return nil, fmt.Errorf("%s of %d bytes", algorithm, len(digest))
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(algorithm, "PS") {
			return rsa.SignPSS(rand.Reader, k, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
		return rsa.SignPKCS1v15(rand.Reader, k, hash, digest)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		size := (k.Params().BitSize + 7) / 8
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), nil
	}
	return nil, fmt.Errorf("no key for %s", algorithm)
}
