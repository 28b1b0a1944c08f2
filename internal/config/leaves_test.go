package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// viewed is a view that remembers what was asked for.
type viewed struct {
	verifiertest.Store
	options store.ViewOptions
}

func (v *viewed) String() string {
	var b strings.Builder
	for _, r := range v.options.Registries {
		fmt.Fprintf(&b, "%s plain=%v ca=%q mirror=%s tokens=%q redirects=%q", r.Host, r.PlainHTTP, r.CAs, r.Mirror, r.TokenHosts, r.RedirectHosts)
		if r.ClientCertificate != nil {
			fmt.Fprintf(&b, " certificate=%x", r.ClientCertificate.Certificate)
		}
		if a, ok := r.Credential.(interface {
			ID() string
			Grant(host string) string
		}); ok { // it would ask
			fmt.Fprintf(&b, " %s %s", a.ID(), a.Grant(r.Host))
		} else if r.Credential != nil {
			credential, err := r.Credential.Credential(context.Background(), r.Host)
			fmt.Fprintf(&b, " %s %s %v", r.Credential.ID(), credential, err)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%q %v %v\n", v.options.Named, v.options.OthersPrivate, v.options.Reach)
	return b.String()
}

func viewing() Environment {
	env := testEnvironment()
	env.View = func(o store.ViewOptions) (verifier.Store, error) { return &viewed{options: o}, nil }
	return env
}

// vaultsIn are vaults that hold a directory's files, for whoever asks as the good
// documents do.
type vaultsIn string

func (dir vaultsIn) Read(r trust.Reference) (trust.Material, error) {
	asked := fmt.Sprint(r, " ", r.History, " ", r.Identity, " ", r.RefreshInterval, " ", r.MaxAge)
	file, ok := map[string]string{
		"https://kv.vault.azure.net/certificates/wabbit/01 3 workload identity reader 10m0s 48h0m0s": "ca.crt",
		"https://kv.vault.azure.net/certificates/wabbit/01 3 workload identity 0s 0s":                "other.crt",
		"https://keys.vault.azure.net/keys/ci/02 1 workload identity 0s 0s":                          "ci.pub",
	}[asked]
	if !ok {
		return trust.Material{}, &trust.Error{Message: asked + " is not there", Withdrawn: true}
	}
	content, err := os.ReadFile(filepath.Join(string(dir), file))
	return trust.Material{PEM: content}, err
}

// describe says all that a Snapshot would do.
func describe(s *Snapshot) string {
	var b strings.Builder
	for _, p := range s.problems {
		fmt.Fprintln(&b, "problem:", p.Path, p.Message)
	}
	for _, status := range s.policies {
		for _, w := range status.Warnings {
			fmt.Fprintln(&b, "warning:", w.Path, w.Message)
		}
	}
	indexes := []*index{s.cluster}
	for _, namespace := range slices.Sorted(maps.Keys(s.tenants)) {
		indexes = append(indexes, s.tenants[namespace])
	}
	for _, x := range indexes {
		var entries []entry
		for _, list := range x.byName {
			entries = append(entries, list...)
		}
		slices.SortFunc(entries, moreSpecific)
		for _, e := range append(entries, x.wildcard...) {
			p := e.policy
			fmt.Fprintln(&b, p.ID, e.pattern.text, p.namespaces, p.delegate, p.skip, p.rule.Name, p.rule.Owner, p.rule.HelpURL, p.rule.AllowAway, p.rule.AuditOnly)
			if v, ok := p.store.(*viewed); ok {
				fmt.Fprint(&b, v)
			}
			b.WriteString(describeRule(p.rule.Require) + "\n")
		}
	}
	for _, e := range s.exemptions.byName.wildcard {
		fmt.Fprintln(&b, "unexpected:", e)
	}
	for _, entries := range s.exemptions.byName.byName {
		for _, e := range entries {
			fmt.Fprintln(&b, e.policy.ID, e.pattern.text, e.policy.namespaces, *e.policy.exemption)
		}
	}
	for _, p := range s.exemptions.byDigest {
		fmt.Fprintln(&b, p.ID, p.namespaces, *p.exemption)
	}
	return b.String()
}

func describeRule(r verifier.Rule) string {
	var parts []string
	word := fmt.Sprintf("%T", r)
	switch r := r.(type) {
	case verifier.All:
		for _, part := range r {
			parts = append(parts, describeRule(part))
		}
	case verifier.Any:
		for _, part := range r {
			parts = append(parts, describeRule(part))
		}
	case verifier.AtLeast:
		word += fmt.Sprint(r.Count)
		for _, part := range r.Of {
			parts = append(parts, describeRule(part))
		}
	case verifier.Every:
		parts = append(parts, describeRule(r.Check))
	case *verifier.Check:
		parts = []string{r.Name, r.Scheme, string(r.Kind), r.Fingerprint}
	}
	return word + "(" + strings.Join(parts, " ") + ")"
}

// everything reads testdata/good/everything.yaml with one change.
func everything(t testing.TB, dir, old, new string) *Snapshot {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "good", "everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := withCertificates(string(data))
	changed := strings.Replace(text, old, new, 1)
	if old != "" && changed == text {
		t.Fatalf("nothing to change: %s", old)
	}
	return newBuilder(viewing()).build(revision{
		documents: Parse(filepath.Join(dir, "everything.yaml"), []byte(changed)), sources: newSources(objectsIn(dir)).with(vaultsIn(dir)), dark: func(*Document) bool { return true },
	})
}

// inlineCertificate is one, made once for all that compare.
const inlineCertificate = "testdata/bad/ca.crt"

// withCertificates puts a certificate where the text has a mark for one.
func withCertificates(text string) string {
	data, err := os.ReadFile(filepath.FromSlash(inlineCertificate))
	if err != nil {
		panic(err)
	}
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if indent, _, marked := strings.Cut(line, "@CERTIFICATE@"); marked {
			line = indent + strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", "\n"+indent)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

// goodDirectory is where everything that the good documents refer to is.
func goodDirectory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	root := string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM())
	client, other := clientPair(t), clientPair(t)
	for name, text := range map[string]string{
		"ca.crt": root, "other.crt": string(notationtest.NewRoot(notationtest.CertificateOptions{}).PEM()), "roots/a.crt": root, "more-roots/b.pem": root + root,
		"ci.pub": newKey(), "other.pub": newKey(), "log.pub": newKey(),
		"trusted-root.json": string(sigstoretest.TrustedRoot(sigstoretest.NewLog())), "other-root.json": string(sigstoretest.TrustedRoot(sigstoretest.NewLog())),
		"client.crt": client[0], "client.key": client[1], "other-client.crt": other[0], "other-client.key": other[1],
		"google.json": googleKey(t), "other-google.json": googleKey(t),
		"password": "hunter2\n", "other-password": "hunter3", "config.json": "{}", "other.json": `{"auths": {"pull.example.com": {"username": "robot", "password": "hunter4"}}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// objectsIn is a cluster whose objects are made of a directory's files.
type objectsIn string

func (objectsIn) Namespace() string { return "countersign" }

func (dir objectsIn) ReadObject(o Object) (map[string][]byte, error) {
	data := map[string][]byte{}
	for name, file := range map[string]string{
		"Secret countersign/roots acme.crt":             "other.crt",
		"Secret countersign/roots other.crt":            "ca.crt",
		"ConfigMap countersign/roots ca.crt":            "ca.crt",
		"ConfigMap countersign/roots other.crt":         "other.crt",
		"Secret countersign/logs log.pub":               "other.pub",
		"Secret team-b/pull .dockerconfigjson":          "config.json",
		"Secret countersign/more .dockerconfigjson":     "other.json",
		"Secret team-c/pull .dockerconfigjson":          "other.json",
		"Secret countersign/logs other.pub":             "log.pub",
		"ConfigMap countersign/roots .dockerconfigjson": "config.json",
	} {
		if key, ok := strings.CutPrefix(name, o.String()+" "); ok {
			content, err := os.ReadFile(filepath.Join(string(dir), file))
			if err != nil {
				return nil, err
			}
			data[key] = content
		}
	}
	if len(data) == 0 {
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func newKey() string { return string(sigstoretest.NewKey(sigstoretest.P256).PEM()) }

// leaves lists the fields of all types that a document is made of.
func leaves(t reflect.Type, found map[string]bool, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options != "inline" {
			found[t.Name()+"."+name] = true
		}
		leaves(f.Type, found, seen)
	}
}

// TestL23_NoDeclaredFieldIsIgnored changes each field of a document that has
// them all, and wants the Snapshot to do something else. A new field without a
// case fails.
func TestL23_NoDeclaredFieldIsIgnored(t *testing.T) {
	cases := map[string][2]string{
		"TypeMeta.apiVersion":                         {"countersign.dev/v1beta1", "countersign.dev/v1"},
		"TypeMeta.kind":                               {"kind: ClusterTrustPolicy", "kind: TrustPolicy"},
		"ClusterTrustPolicy.metadata":                 {"metadata:\n  name: everything", "metadata:\n  name: nothing"},
		"ClusterTrustPolicy.spec":                     {"spec:\n", "spec: {}\nother:\n"},
		"TrustPolicy.metadata":                        {"metadata: {name: tenant, ", "metadata: {name: other, "},
		"TrustPolicy.spec":                            {"  images: [\"team.example.com/**\"]", "  images: [\"none.example.com/**\"]"},
		"ObjectMeta.name":                             {"name: everything", "name: nothing"},
		"ObjectMeta.namespace":                        {"namespace: team-a", "namespace: team-b"},
		"ObjectMeta.labels":                           {"", ""}, // not read, as its comment says
		"ObjectMeta.annotations":                      {"", ""},
		"ClusterTrustPolicySpec.namespaces":           {"namespaces: [prod, prod-*]", "namespaces: [prod]"},
		"ClusterTrustPolicySpec.delegate":             {"delegate: true", "delegate: false"},
		"ClusterTrustPolicySpec.privateHosts":         {"privateHosts: [crl.corp.example.com]", "privateHosts: [ocsp.corp.example.com]"},
		"Exemption.metadata":                          {"metadata: {name: by-name}", "metadata: {name: by-names}"},
		"Exemption.spec":                              {"  images: [\"shop.example.com/legacy/*\"]", "  images: [\"shop.example.com/new/*\"]"},
		"ExemptionSpec.images":                        {"shop.example.com/legacy/*", "shop.example.com/new/*"},
		"ExemptionSpec.digests":                       {"0000beef", "0000bee5"},
		"ExemptionSpec.namespaces":                    {"  namespaces: [prod]\n  reason: being", "  namespaces: [none]\n  reason: being"},
		"ExemptionSpec.reason":                        {"reason: being rebuilt", "reason: rebuilt"},
		"ExemptionSpec.owner":                         {"owner: shop@example.com", "owner: nobody@example.com"},
		"ExemptionSpec.expiresAt":                     {"2126-12-31T18:00:00Z", "2126-12-31T18:00:01Z"},
		"PolicySpec.images":                           {"\"shop.example.com/**\", ", "\"shop.example.com/none\", "},
		"PolicySpec.owner":                            {"owner: platform@example.com", "owner: nobody@example.com"},
		"PolicySpec.helpURL":                          {"https://wiki.example.com/images", "https://wiki.example.com/none"},
		"PolicySpec.mode":                             {"mode: audit", "mode: enforce"},
		"PolicySpec.whenUndecided":                    {"whenUndecided: allow", "whenUndecided: deny"},
		"PolicySpec.registries":                       {"    - host: token.example.com\n      auth: {static: {token: {inline: a token}}}\n", ""},
		"PolicySpec.require":                          {"require: {skip: {reason: built by hand}}", "require: {}"},
		"Registry.host":                               {"- host: hub.example.com", "- host: none.example.com"},
		"Registry.plainHTTP":                          {"plainHTTP: true", "plainHTTP: false"},
		"Registry.ca":                                 {"      ca: {file: ca.crt}\n", ""},
		"Registry.mirror":                             {"      mirror: mirror.example.com/hub\n", "      mirror: mirror.example.com/other\n"},
		"Registry.clientCertificate":                  {"      clientCertificate: {certificate: {file: client.crt}, key: {file: client.key}}\n", ""},
		"ClientCertificate.certificate":               {"certificate: {file: client.crt}, key: {file: client.key}", "certificate: {file: other-client.crt}, key: {file: client.key}"},
		"ClientCertificate.key":                       {"certificate: {file: client.crt}, key: {file: client.key}", "certificate: {file: other-client.crt}, key: {file: other-client.key}"},
		"Registry.redirectHosts":                      {"redirectHosts: [blobs.example.com]", "redirectHosts: [blobs.example.com:9000]"},
		"Registry.tokenHosts":                         {"tokenHosts: [tokens.example.com:8443]", "tokenHosts: [tokens.example.com]"},
		"Registry.auth":                               {"      auth: {dockerConfig: {path: config.json}}\n", ""},
		"RegistryAuth.anonymous":                      {"{anonymous: {}}", "{static: {token: {inline: x}}}"},
		"RegistryAuth.dockerConfig":                   {"{dockerConfig: {path: config.json}}", "{anonymous: {}}"},
		"RegistryAuth.pullSecret":                     {"{pullSecret: {name: pull, namespace: team-b}}", "{anonymous: {}}"},
		"RegistryAuth.podPullSecrets":                 {"{podPullSecrets: {}}", "{anonymous: {}}"},
		"ObjectReference.name":                        {"pullSecret: {name: pull,", "pullSecret: {name: none,"},
		"ObjectReference.namespace":                   {"namespace: team-b", "namespace: team-c"},
		"KeyReference.key":                            {"{name: roots, key: acme.crt}", "{name: roots, key: other.crt}"},
		"RegistryAuth.static":                         {"{static: {token: {inline: a token}}}", "{anonymous: {}}"},
		"DockerConfig.path":                           {"path: config.json", "path: other.json"},
		"StaticCredential.username":                   {"username: robot", "username: nobody"},
		"StaticCredential.password":                   {"password: {file: password}", "password: {file: other-password}"},
		"StaticCredential.token":                      {"token: {inline: a token}", "token: {inline: another}"},
		"DataSource.inline":                           {"inline: a secret", "inline: another"},
		"DataSource.file":                             {"ca: {file: ca.crt}", "ca: {file: other.crt}"},
		"DataSource.secret":                           {", {secret: {name: logs, key: log.pub}}", ""},
		"DataSource.configMap":                        {"ca: {configMap: {name: roots, key: ca.crt}}", "ca: {configMap: {name: roots, key: other.crt}}"},
		"CloudIdentity.awsWorkloadIdentity":           {"{awsWorkloadIdentity: {roleARN: \"arn:aws:iam::111122223333:role/pull\"}}", "{anonymous: {}}"},
		"CloudIdentity.awsAccessKey":                  {"{awsAccessKey: {accessKeyID: AKIAEXAMPLE, secretAccessKey: {file: password}}}", "{awsWorkloadIdentity: {}}"},
		"CloudIdentity.googleWorkloadIdentity":        {"{googleWorkloadIdentity: {}}", "{anonymous: {}}"},
		"CloudIdentity.googleServiceAccount":          {"{googleServiceAccount: {key: {file: google.json}}}", "{googleWorkloadIdentity: {}}"},
		"CloudIdentity.alibabaWorkloadIdentity":       {"{alibabaWorkloadIdentity: {instanceID: cri-acme}}", "{anonymous: {}}"},
		"CloudIdentity.alibabaAccessKey":              {"{alibabaAccessKey: {instanceID: cri-till, accessKeyID: LTAIEXAMPLE, accessKeySecret: {file: password}}}", "{alibabaWorkloadIdentity: {instanceID: cri-till}}"},
		"AlibabaWorkloadIdentity.instanceID":          {"{instanceID: cri-acme}", "{instanceID: cri-other}"},
		"AlibabaAccessKey.instanceID":                 {"instanceID: cri-till", "instanceID: cri-other"},
		"AlibabaAccessKey.accessKeyID":                {"accessKeyID: LTAIEXAMPLE", "accessKeyID: LTAIOTHER"},
		"AlibabaAccessKey.accessKeySecret":            {"accessKeySecret: {file: password}", "accessKeySecret: {file: other-password}"},
		"AWSWorkloadIdentity.roleARN":                 {"role/pull", "role/other"},
		"AWSAccessKey.accessKeyID":                    {"accessKeyID: AKIAEXAMPLE", "accessKeyID: AKIAOTHER"},
		"AWSAccessKey.secretAccessKey":                {"secretAccessKey: {file: password}", "secretAccessKey: {file: other-password}"},
		"GoogleServiceAccount.key":                    {"key: {file: google.json}", "key: {file: other-google.json}"},
		"AzureIdentity.azureWorkloadIdentity":         {"{azureWorkloadIdentity: {}}", "{azureManagedIdentity: {}}"},
		"AzureIdentity.azureManagedIdentity":          {"{azureManagedIdentity: {clientID: managed, endpoints: [managed.example.com]}}", "{anonymous: {}}"},
		"AzureIdentity.azureServicePrincipal":         {"{azureServicePrincipal: {tenantID: tenant-b, clientID: principal, clientSecret: {file: password}, endpoints: [principal.example.com]}}", "{anonymous: {}}"},
		"AzureIdentity.azureCLI":                      {"{azureCLI: {tenantID: tenant-c, endpoints: [cli.example.com]}}", "{anonymous: {}}"},
		"AzureWorkloadIdentity.clientID":              {"clientID: workload", "clientID: other"},
		"AzureWorkloadIdentity.tenantID":              {"tenantID: tenant-a", "tenantID: other"},
		"AzureWorkloadIdentity.identityBinding":       {"identityBinding: true", "identityBinding: false"},
		"AzureWorkloadIdentity.endpoints":             {"endpoints: [acr.example.com]", "endpoints: [acr.example.com, other.example.com]"},
		"AzureManagedIdentity.clientID":               {"clientID: managed", "clientID: other"},
		"AzureManagedIdentity.endpoints":              {"endpoints: [managed.example.com]", "endpoints: [managed.example.com, other.example.com]"},
		"AzureServicePrincipal.tenantID":              {"tenantID: tenant-b", "tenantID: other"},
		"AzureServicePrincipal.clientID":              {"clientID: principal", "clientID: other"},
		"AzureServicePrincipal.clientSecret":          {"clientSecret: {file: password}", "clientSecret: {file: other-password}"},
		"AzureServicePrincipal.endpoints":             {"endpoints: [principal.example.com]", "endpoints: [principal.example.com, other.example.com]"},
		"AzureCLI.tenantID":                           {"tenantID: tenant-c", "tenantID: other"},
		"AzureCLI.endpoints":                          {"endpoints: [cli.example.com]", "endpoints: [cli.example.com, other.example.com]"},
		"PolicySpec.keyVaults":                        {"- vaultURI: https://kv.vault.azure.net/", "- vaultURI: https://none.vault.azure.net/"},
		"KeyVault.vaultURI":                           {"- vaultURI: https://kv.vault.azure.net/", "- vaultURI: https://none.vault.azure.net/"},
		"KeyVault.auth":                               {"      auth: {azureWorkloadIdentity: {clientID: reader}}\n", ""},
		"KeyVault.refreshInterval":                    {"refreshInterval: 10m", "refreshInterval: 11m"},
		"KeyVault.maxAge":                             {"maxAge: 48h", "maxAge: 49h"},
		"TrustStoreSource.azureKeyVault":              {"ca: [{azureKeyVault: {vaultURI: \"https://KV.vault.azure.net\", certificates: [{name: wabbit, version: \"01\", versionHistoryLimit: 3}]}}]", "ca: [{file: other.crt}]"},
		"KeyVaultCertificates.vaultURI":               {"https://KV.vault.azure.net", "https://none.vault.azure.net"},
		"KeyVaultCertificates.certificates":           {"certificates: [{name: wabbit", "certificates: [{name: none}, {name: wabbit"},
		"KeyVaultObject.name":                         {"{name: wabbit", "{name: none"},
		"KeyVaultObject.version":                      {"version: \"01\"", "version: \"02\""},
		"KeyVaultObject.versionHistoryLimit":          {"versionHistoryLimit: 3", "versionHistoryLimit: 2"},
		"KeyVaultObject.id":                           {"keys/ci/02", "keys/ci/03"},
		"PublicKeySource.azureKeyVault":               {"azureKeyVault: {vaultURI: \"https://keys.vault.azure.net\", keys: [{id: \"https://keys.vault.azure.net/keys/ci/02\"}]}", "file: other.pub"},
		"KeyVaultKeys.vaultURI":                       {"{vaultURI: \"https://keys.vault.azure.net\"", "{vaultURI: \"https://none.vault.azure.net\""},
		"KeyVaultKeys.keys":                           {"keys: [{id:", "keys: [{name: none}, {id:"},
		"Rule.all":                                    {"  require:\n    all:", "  require:\n    any:"},
		"Rule.any":                                    {"    any: [{name: only,", "    all: [{name: only,"},
		"Rule.atLeast":                                {"    any: [{name: only, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [\"*\"]}}]", "    atLeast: {count: 1, of: [{name: only, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [\"*\"]}}]}"},
		"Rule.every":                                  {"    any: [{name: only, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [\"*\"]}}]", "    every: {name: only, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [\"*\"]}}"},
		"Rule.skip":                                   {"{skip: {reason: built by hand}}", "{name: x, notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [\"*\"]}}"},
		"NestedRule.all":                              {"      - any:\n", "      - all:\n"},
		"NestedRule.any":                              {"      - any:\n", "      - all:\n"},
		"NestedRule.atLeast":                          {"      - name: document", "      - atLeast:"},
		"NestedRule.every":                            {"      - name: document", "      - every:"},
		"InnerRule.all":                               {"          - all:", "          - any:"},
		"InnerRule.any":                               {"          - any:", "          - all:"},
		"InnerRule.atLeast":                           {"          - atLeast:", "          - atLest:"},
		"InnerRule.every":                             {"          - every:", "          - evry:"},
		"AtLeast.count":                               {"count: 2", "count: 3"},
		"AtLeast.of":                                  {"name: inner-of", "name: of"},
		"Skip.reason":                                 {"reason: built by hand", "reason: none"},
		"Check.name":                                  {"- name: inner\n", "- name: other\n"},
		"Check.notation":                              {"        notation:\n          trustStores", "        cosign:\n          trustStores"},
		"Check.cosign":                                {"        cosign:\n          transparencyLog", "        notation:\n          transparencyLog"},
		"Cosign.keys":                                 {"- {name: ci, file: ci.pub}", "- {name: ci, file: other.pub}"},
		"Cosign.transparencyLog":                      {"transparencyLog: required", "transparencyLog: optional"},
		"Cosign.signatureRepository":                  {"signatureRepository: signatures.example.com/shop", "signatureRepository: signatures.example.com/none"},
		"Cosign.logKeys":                              {"logKeys: [{file: log.pub},", "logKeys: [{file: other.pub},"},
		"Cosign.trustedRoot":                          {"trustedRoot: {file: trusted-root.json}", "trustedRoot: {file: other-root.json}"},
		"PublicKeySource.name":                        {"- {name: ci, file: ci.pub}", "- {name: release, file: ci.pub}"},
		"Notation.trustStores":                        {"{ca: [{name: acme, file: ca.crt}]}", "{ca: [{name: acme, file: other.crt}]}"},
		"Notation.trustedIdentities":                  {"C=US, ST=WA, O=Notary", "C=US, ST=WA, O=Nobody"},
		"Notation.level":                              {"inner-any, notation: {level: permissive", "inner-any, notation: {level: strict"},
		"Notation.override":                           {"              override: {authenticity: enforce, authenticTimestamp: log, expiry: log, revocation: skip}\n", ""},
		"Notation.verifyTimestamp":                    {"verifyTimestamp: afterCertExpiry", "verifyTimestamp: always"},
		"Notation.trustPolicyDoc":                     {"trustPolicyDoc:", "trustPolicy:"},
		"TrustStores.ca":                              {"inner-all, notation: {level: strict, trustStores: {ca:", "inner-all, notation: {level: strict, trustStores: {signingAuthority:"},
		"TrustStores.signingAuthority":                {"{signingAuthority: [{name: authority", "{ca: [{name: authority"},
		"TrustStores.tsa":                             {"tsa: [{file: ca.crt}]", "tsa: [{file: other.crt}]"},
		"TrustStoreSource.name":                       {"{ca: [{name: acme,", "{ca: [{name: none,"},
		"TrustStoreSource.inline":                     {"tsa: [{file: ca.crt}]", "tsa: [{inline: none}]"},
		"TrustStoreSource.file":                       {"file: ca.crt}]}, trustedIdentities: [\"*\"]}}\n          - name", "file: other.crt}]}, trustedIdentities: [\"*\"]}}\n          - name"},
		"TrustStoreSource.secret":                     {"- {name: acme, secret: {name: roots, key: acme.crt}}", "- {name: acme, secret: {name: none, key: acme.crt}}"},
		"TrustStoreSource.configMap":                  {"configMap: {name: roots, key: ca.crt}}\n                tsa", "configMap: {name: roots, key: other.crt}}\n                tsa"},
		"TrustStoreSource.directory":                  {"directory: roots", "directory: more-roots"},
		"VerificationOverride.authenticity":           {"{authenticity: enforce, authenticTimestamp", "{authenticity: log, authenticTimestamp"},
		"VerificationOverride.authenticTimestamp":     {"authenticTimestamp: log", "authenticTimestamp: enforce"},
		"VerificationOverride.expiry":                 {"expiry: log", "expiry: enforce"},
		"VerificationOverride.revocation":             {"revocation: skip", "revocation: log"},
		"NotaryTrustPolicy.version":                   {`version: "1.0"`, `version: "1.1"`},
		"NotaryTrustPolicy.trustPolicies":             {"trustPolicies:", "trustPolicy:"},
		"NotaryPolicy.name":                           {"- name: default", "- name: other"},
		"NotaryPolicy.registryScopes":                 {`registryScopes: ["*"]`, `registryScopes: [none.example.com/none]`},
		"NotaryPolicy.signatureVerification":          {"signatureVerification: {level: strict, override", "signatureVerification: {level: audit, override"},
		"NotaryPolicy.trustStores":                    {`["ca:acme"]`, `["ca:none"]`},
		"NotaryPolicy.trustedIdentities":              {"C=US, ST=WA, O=Wabbit", "C=US, ST=WA, O=Nobody"},
		"NotarySignatureVerification.level":           {"{level: strict, override: {revocation: log}", "{level: permissive, override: {revocation: log}"},
		"NotarySignatureVerification.override":        {"override: {revocation: log}, ", ""},
		"NotarySignatureVerification.verifyTimestamp": {"verifyTimestamp: always", "verifyTimestamp: afterCertExpiry"},
	}
	found, seen := map[string]bool{}, map[reflect.Type]bool{}
	leaves(reflect.TypeFor[api.ClusterTrustPolicy](), found, seen)
	leaves(reflect.TypeFor[api.TrustPolicy](), found, seen)
	leaves(reflect.TypeFor[api.Exemption](), found, seen)
	dir := goodDirectory(t)
	base := describe(everything(t, dir, "", ""))
	if strings.Contains(base, "problem:") {
		t.Fatal(base)
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		change, ok := cases[name]
		if !ok {
			t.Errorf("%s has no case", name)
			continue
		}
		delete(cases, name)
		if change[0] != "" && describe(everything(t, dir, change[0], change[1])) == base {
			t.Errorf("%s is ignored", name)
		}
	}
	for name := range cases {
		t.Errorf("no field %s", name)
	}
}

// Changing the words of a document into equal ones changes nothing.
func TestEqualDocumentsAreEqual(t *testing.T) {
	dir := goodDirectory(t)
	a, err := json.Marshal(everything(t, dir, "", "").policies)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(everything(t, dir, "# Every field", "# every field").policies)
	if err != nil || string(a) != string(b) {
		t.Errorf("%s, %v", b, err)
	}
}

// googleKey is the key of a service account of Google, as its command writes it.
func googleKey(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "pull@example.iam.gserviceaccount.com", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// clientPair is a certificate and its key, in PEM.
func clientPair(t testing.TB) [2]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return [2]string{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
}
