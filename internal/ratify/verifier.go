package ratify

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// publicLog is Sigstore's public transparency log, and publicGood the trusted
// root of its public instance, as sigstore-go 1.3.0 has it.
const publicLog = "https://rekor.sigstore.dev"

//go:embed public-good.json
var publicGood string

// scope is what a Cosign verifier wants of some images.
type scope struct {
	images []string
	check  api.Check
}

// verifier reads a Verifier: a check of all images, or some by scope.
func (t *translator) verifier(o Object, namespace string) (check *api.Check, byScope []scope, err error) {
	var spec verifierSpec
	if err := strict(o.Spec, &spec); err != nil {
		return nil, nil, err
	}
	kind := spec.Type
	if kind == "" {
		kind = spec.Name
	}
	types := strings.Split(strings.ReplaceAll(spec.ArtifactTypes, " ", ""), ",")
	switch kind {
	case "notation":
		if !slices.Contains(types, notationType) && !slices.Contains(types, "*") {
			return nil, nil, fmt.Errorf("artifactTypes is %q, and notation is about %s", spec.ArtifactTypes, notationType)
		}
		check, err = t.notation(o, spec, namespace)
		return check, nil, err
	case "cosign":
		if !slices.Contains(types, cosignType) && !slices.Contains(types, "*") {
			return nil, nil, fmt.Errorf("artifactTypes is %q, and cosign is about %s", spec.ArtifactTypes, cosignType)
		}
		byScope, err = t.cosign(o, spec, namespace)
		return nil, byScope, err
	}
	return nil, nil, fmt.Errorf("verifier %s is not there", kind)
}

func (t *translator) notation(o Object, spec verifierSpec, namespace string) (*api.Check, error) {
	var parameters notationParameters
	if err := strict(spec.Parameters, &parameters); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	if parameters.TrustPolicyDoc == nil {
		return nil, errors.New("there is no trustPolicyDoc")
	}
	notation := &api.Notation{TrustPolicyDoc: parameters.TrustPolicyDoc}
	for storeType, of := range storesByType(parameters.VerificationCertStores) {
		into := map[string]*[]api.TrustStoreSource{
			"ca": &notation.TrustStores.CA, "signingAuthority": &notation.TrustStores.SigningAuthority, "tsa": &notation.TrustStores.TSA,
		}[storeType]
		for _, name := range slices.Sorted(maps.Keys(of)) {
			providers, err := texts(of[name])
			if err != nil {
				return nil, fmt.Errorf("verificationCertStores %s: %w", name, err)
			}
			for _, provider := range providers {
				found, err := t.material(provider, namespace, "certificate")
				if err != nil {
					return nil, err
				}
				*into = append(*into, api.TrustStoreSource{Name: name, Inline: found.inline, AzureKeyVault: found.certificates})
			}
		}
	}
	for _, path := range parameters.VerificationCerts {
		// Ratify puts them into whichever store is asked for.
		for _, store := range storesNamed(parameters.TrustPolicyDoc) {
			notation.TrustStores.CA = append(notation.TrustStores.CA, api.TrustStoreSource{Name: store, File: path})
		}
	}
	return &api.Check{Name: checkName(o), Notation: notation}, nil
}

// storesByType tells the two forms of verificationCertStores apart: by type, and
// the older one, in which all are authorities.
func storesByType(stores map[string]any) map[string]map[string]any {
	byType := map[string]map[string]any{}
	for _, storeType := range []string{"ca", "signingAuthority", "tsa"} {
		if of, ok := stores[storeType].(map[string]any); ok {
			byType[storeType] = of
		}
	}
	if len(byType) == 0 && len(stores) > 0 {
		byType["ca"] = stores
	}
	return byType
}

// storesNamed lists the ca trust stores that a trust policy names.
func storesNamed(doc *api.NotaryTrustPolicy) []string {
	var names []string
	for _, p := range doc.TrustPolicies {
		for _, store := range p.TrustStores {
			if name, ok := strings.CutPrefix(store, "ca:"); ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func texts(list any) ([]string, error) {
	values, ok := list.([]any)
	if !ok {
		return nil, errors.New("not a list")
	}
	names := make([]string, len(values))
	for i, value := range values {
		if names[i], ok = value.(string); !ok {
			return nil, errors.New("not a list of names")
		}
	}
	return names, nil
}

func (t *translator) cosign(o Object, spec verifierSpec, namespace string) ([]scope, error) {
	var parameters cosignParameters
	if err := strict(spec.Parameters, &parameters); err != nil {
		return nil, fmt.Errorf("parameters: %w", err)
	}
	if len(parameters.TrustPolicies) == 0 && parameters.Key != "" {
		parameters.TrustPolicies = []cosignTrustPolicy{{
			Name: "default", Scopes: []string{"*"}, Keys: []cosignKey{{File: parameters.Key}}, RekorURL: parameters.RekorURL,
		}}
	}
	if len(parameters.TrustPolicies) == 0 {
		return nil, errors.New("there are no trustPolicies")
	}
	var scopes []scope
	for _, p := range parameters.TrustPolicies {
		one, err := t.cosignPolicy(o, p, namespace, len(parameters.TrustPolicies) > 1)
		if err != nil {
			return nil, fmt.Errorf("trust policy %s: %w", p.Name, err)
		}
		scopes = append(scopes, one)
	}
	return scopes, nil
}

func (t *translator) cosignPolicy(o Object, p cosignTrustPolicy, namespace string, several bool) (scope, error) {
	if len(p.Keyless) > 0 && string(p.Keyless) != "null" {
		return scope{}, errors.New("keyless is not carried over")
	}
	cosign := &api.Cosign{TransparencyLog: api.TransparencyLogIgnored}
	if p.TLogVerify == nil || *p.TLogVerify {
		if p.RekorURL != "" && p.RekorURL != publicLog {
			return scope{}, fmt.Errorf("the keys of the log %s are not known", p.RekorURL)
		}
		cosign.TransparencyLog = api.TransparencyLogRequired
		cosign.TrustedRoot = &api.DataSource{Inline: publicGood}
	}
	if p.TLogVerify == nil {
		cosign.TransparencyLog = api.TransparencyLogOptional
		t.note(o, false, "trust policy "+p.Name+": tLogVerify is not there: a proof of the log is verified where there is one, and none is demanded",
			"Write tLogVerify: true to demand it, or false not to look")
	}
	for _, key := range p.Keys {
		source := api.PublicKeySource{}
		switch {
		case key.File != "":
			source.File = key.File
		default:
			found, err := t.material(key.Provider, namespace, "key")
			if err == nil {
				err = found.choose(key)
			}
			if err != nil {
				return scope{}, err
			}
			source.Inline, source.AzureKeyVault = found.inline, found.keys
		}
		cosign.Keys = append(cosign.Keys, source)
	}
	if len(cosign.Keys) == 0 {
		return scope{}, errors.New("there are no keys")
	}
	one := scope{check: api.Check{Name: checkName(o), Cosign: cosign}}
	if several {
		one.check.Name = clip(checkName(o)+"-"+p.Name, api.MaxName)
	}
	for _, text := range p.Scopes {
		patterns, err := patternsOf(text)
		if err != nil {
			return scope{}, err
		}
		one.images = append(one.images, patterns...)
	}
	if len(one.images) == 0 {
		return scope{}, errors.New("there are no scopes")
	}
	return one, nil
}

// patternsOf says a scope in our patterns: a repository, or whatever begins with
// the text before a last *.
func patternsOf(text string) ([]string, error) {
	prefix, open := strings.CutSuffix(text, "*")
	host, path, hasPath := strings.Cut(prefix, "/")
	switch {
	case text == "*":
		return []string{"**/**"}, nil
	case strings.Contains(prefix, "@"), strings.Contains(path, ":"):
		return nil, fmt.Errorf("scope %s is about tags or digests, and a policy is about repositories", text)
	case !open:
		return []string{text}, nil
	case !hasPath:
		return nil, fmt.Errorf("scope %s would be about hosts whose names only begin so", text)
	case path == "" || strings.HasSuffix(path, "/"):
		return []string{host + "/" + path + "**"}, nil
	}
	return []string{prefix + "*", prefix + "*/**"}, nil
}

// material is what a KeyManagementProvider or CertificateStore has: one of them.
type material struct {
	inline       string // PEM
	certificates *api.KeyVaultCertificates
	keys         *api.KeyVaultKeys
}

// choose keeps the key that is named, where one is.
func (m *material) choose(key cosignKey) error {
	switch {
	case key.Name == "" && key.Version == "":
		return nil
	case m.keys == nil:
		return errors.New("a key by name and version is one of a vault")
	}
	chosen := api.KeyVaultKeys{VaultURI: m.keys.VaultURI}
	for _, o := range m.keys.Keys {
		if o.Name == key.Name && (key.Version == "" || o.Version == key.Version) {
			chosen.Keys = append(chosen.Keys, o)
		}
	}
	if len(chosen.Keys) == 0 {
		return fmt.Errorf("KeyManagementProvider %s has no key %s", key.Provider, strings.TrimSuffix(key.Name+" "+key.Version, " "))
	}
	m.keys = &chosen
	return nil
}

// material finds what a KeyManagementProvider or CertificateStore has. Those of a
// namespace are visible there, and the cluster's everywhere.
func (t *translator) material(name, namespace, contentType string) (material, error) {
	in, bare, qualified := strings.Cut(name, "/")
	if !qualified {
		in, bare = "", name
	}
	if qualified && in != namespace && in != t.home {
		return material{}, fmt.Errorf("%s is another namespace's", name)
	}
	for _, o := range t.objects {
		if o.Name != bare || o.Kind != KindKeyManagementProvider && o.Kind != KindCertificateStore {
			continue
		}
		// Ratify's own CertificateStores were visible by their bare names; another
		// namespace's must not speak for the cluster.
		own := o.Namespace == namespace && (!qualified || in == namespace)
		everybodys := o.Namespace == "" && !qualified || o.Kind == KindCertificateStore && o.Namespace == t.home && (!qualified || in == t.home)
		visible := own || everybodys
		if visible {
			t.own = t.own || contentType == "certificate" && o.Namespace != "" && o.Namespace != t.home
			return t.read(o, contentType)
		}
	}
	return material{}, fmt.Errorf("KeyManagementProvider %s does not exist", name)
}

// read reads what an object has of the type; of any, if that is empty.
func (t *translator) read(o Object, contentType string) (material, error) {
	vault, err := VaultOf(o)
	switch {
	case err != nil:
		return material{}, fmt.Errorf("%s: %w", o, err)
	case vault == nil:
		inline, err := inlineOf(o, contentType)
		return material{inline: inline}, err
	case contentType == "certificate" && len(vault.Certificates) == 0, contentType == "key" && len(vault.Keys) == 0:
		return material{}, fmt.Errorf("%s names no %s", o, contentType)
	}
	if contentType != "" {
		if err := t.use(vault); err != nil {
			return material{}, fmt.Errorf("%s: %w", o, err)
		}
	}
	found := material{}
	if contentType == "certificate" {
		found.certificates = &api.KeyVaultCertificates{VaultURI: vault.VaultURI, Certificates: vault.Certificates}
	} else {
		found.keys = &api.KeyVaultKeys{VaultURI: vault.VaultURI, Keys: vault.Keys}
	}
	return found, nil
}

func inlineOf(o Object, contentType string) (string, error) {
	kind, _, parameters, err := providerOf(o)
	if err != nil {
		return "", fmt.Errorf("%s: %w", o, err)
	}
	if kind != "inline" {
		return "", fmt.Errorf("%s: provider %s is not carried over", o, kind)
	}
	var content inlineParameters
	if err := strict(parameters, &content); err != nil {
		return "", fmt.Errorf("%s: parameters: %w", o, err)
	}
	found := content.ContentType
	if found == "" {
		found = "certificate"
	}
	switch {
	case contentType != "" && found != contentType:
		return "", fmt.Errorf("%s holds a %s, and a %s is wanted", o, found, contentType)
	case content.Value == "":
		return "", fmt.Errorf("%s is empty", o)
	}
	if err := readable(content.Value, found); err != nil {
		return "", fmt.Errorf("%s: %w", o, err)
	}
	return content.Value, nil
}

// readable reports what is wrong with certificates or a key in PEM.
func readable(text, contentType string) error {
	rest := []byte(text)
	for n := 1; ; n++ {
		block, more := pem.Decode(rest)
		if block == nil {
			if n == 1 || len(strings.TrimSpace(string(rest))) > 0 {
				return errors.New("not PEM")
			}
			return nil
		}
		var err error
		switch contentType {
		case "key":
			_, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "certificate":
			_, err = x509.ParseCertificate(block.Bytes)
		default:
			err = errors.New("neither certificate nor key")
		}
		if err != nil {
			return fmt.Errorf("%s %d: %w", contentType, n, err)
		}
		rest = more
	}
}

// checkName is a name for what a verifier demands.
func checkName(o Object) string { return clip(o.Name, api.MaxName) }

func clip(s string, most int) string { return s[:min(len(s), most)] }
