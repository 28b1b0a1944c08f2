package config

import (
	"crypto/x509"
	"encoding/json"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
)

// notationScheme is the scheme of the field notation.
type notationScheme struct{ *api.Notation }

// typedSources are the sources of all trust stores of one type.
type typedSources struct {
	path    string
	of      notation.TrustStoreType
	sources []api.TrustStoreSource
}

// stores lists the sources of certificates.
func (n notationScheme) stores(path string) []typedSources {
	path += ".trustStores"
	return []typedSources{
		{path + ".ca", notation.TypeCA, n.TrustStores.CA},
		{path + ".signingAuthority", notation.TypeSigningAuthority, n.TrustStores.SigningAuthority},
		{path + ".tsa", notation.TypeTSA, n.TrustStores.TSA},
	}
}

func (n notationScheme) host() string { return "" }

func (n notationScheme) gather(g *gatherer, path string) {
	for _, stores := range n.stores(path) {
		for i, source := range stores.sources {
			g.file(element(stores.path, i)+".file", source.File)
			g.directory(element(stores.path, i)+".directory", source.Directory)
			g.object(element(stores.path, i)+".secret", KindSecret, source.Secret)
			g.object(element(stores.path, i)+".configMap", KindConfigMap, source.ConfigMap)
			if k := source.AzureKeyVault; k != nil {
				g.vault(element(stores.path, i)+".azureKeyVault", k.VaultURI, "certificates", trust.Certificate, k.Certificates)
			}
		}
	}
}

func (n notationScheme) compile(c *compiler, path string) schemeVerifier {
	before := len(c.problems)
	options := notation.Options{
		TrustStores: c.trustStores(n.stores(path)), TrustedIdentities: n.TrustedIdentities, Level: string(n.Level),
		Override: overrideOf(n.Override), VerifyTimestamp: string(n.VerifyTimestamp), Revocation: c.revocation(),
	}
	if n.TrustPolicyDoc != nil {
		data, err := json.Marshal(n.TrustPolicyDoc)
		if err != nil {
			c.problem(path+".trustPolicyDoc", err.Error(), "")
		}
		options.TrustPolicyDoc = data
	}
	if len(c.problems) > before {
		return nil
	}
	v, err := notation.New(options)
	if err != nil {
		at, what := c.nearest(path, err.Error())
		c.problem(at, what, "")
		return nil
	}
	return v
}

// nearest finds the field that a complaint begins with, and the rest of it:
// "trustedIdentities[1]: …".
func (c *compiler) nearest(path, complaint string) (at, what string) {
	name, rest, _ := strings.Cut(complaint, ": ")
	if _, there := c.doc.lines[path+"."+name]; there {
		return path + "." + name, rest
	}
	if strings.HasPrefix(complaint, "trust store ") {
		return path + ".trustStores", complaint
	}
	return path, complaint
}

// trustStores reads the certificates; sources of one name are one store.
func (c *compiler) trustStores(sources []typedSources) []notation.TrustStore {
	var stores []notation.TrustStore
	at := map[string]int{}
	for _, typed := range sources {
		for i, source := range typed.sources {
			store := notation.TrustStore{Type: typed.of, Name: source.Name, Objects: map[*x509.Certificate]string{}}
			if store.Name == "" {
				store.Name = api.DefaultTrustStore
			}
			known, ok := at[store.String()]
			if !ok {
				known = len(stores)
				at[store.String()] = known
				stores = append(stores, store)
			}
			c.certificates(&stores[known], element(typed.path, i), source)
		}
	}
	return stores
}

// certificates adds those of a source to a store.
func (c *compiler) certificates(to *notation.TrustStore, path string, source api.TrustStoreSource) {
	if source.Inline != "" {
		certificates, err := notation.ParseCertificates([]byte(source.Inline))
		if err != nil {
			c.problem(path+".inline", err.Error(), "Write certificates in PEM and nothing else")
		}
		to.Certificates = append(to.Certificates, certificates...)
		return
	}
	for _, field := range []string{path + ".file", path + ".directory", path + ".secret", path + ".configMap", path + ".azureKeyVault"} {
		for _, p := range c.material.pieces[field] {
			certificates, err := notation.ParseCertificates(p.data)
			if err != nil {
				c.problem(field, quote(p.file)+": "+err.Error(), "Put certificates in PEM there, or one in DER, and nothing else")
			}
			to.Certificates = append(to.Certificates, certificates...)
			if object, err := trust.ParseID(p.file); err == nil && field == path+".azureKeyVault" {
				for _, certificate := range certificates {
					to.Objects[certificate] = objectOf(object)
				}
			}
		}
	}
}

func overrideOf(o *api.VerificationOverride) map[string]string {
	if o == nil {
		return nil
	}
	actions := map[string]string{}
	for validation, action := range map[string]string{
		"authenticity": string(o.Authenticity), "authenticTimestamp": string(o.AuthenticTimestamp),
		"expiry": string(o.Expiry), "revocation": string(o.Revocation),
	} {
		if action != "" {
			actions[validation] = action
		}
	}
	return actions
}

// skips finds out which images a Notary trust policy does not want verified.
// It counts only where the check is all that the policy requires: elsewhere
// nobody could say what a part that is not verified does to the whole.
func (c *compiler) skips(root rule, compiled verifier.Rule) func(repository string) bool {
	for _, check := range root.checks() {
		n := check.check.Notation
		if n == nil || n.TrustPolicyDoc == nil {
			continue
		}
		for i, p := range n.TrustPolicyDoc.TrustPolicies {
			if p.SignatureVerification.Level == api.LevelSkip && root.word != wordCheck {
				c.problem(element(check.path+".notation.trustPolicyDoc.trustPolicies", i)+".signatureVerification.level",
					"level skip counts only where the check is all that the policy requires", "Give the images that are skipped a policy of their own")
			}
		}
	}
	if check, ok := compiled.(*verifier.Check); ok && root.check.Notation != nil && root.check.Notation.TrustPolicyDoc != nil {
		if v, ok := check.Verifier.(*notation.Verifier); ok {
			return v.Skips
		}
	}
	return nil
}
