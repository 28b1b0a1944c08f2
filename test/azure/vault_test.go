package azure_test

import (
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
	"github.com/countersign-dev/countersign/test/azure"
	"github.com/countersign-dev/countersign/test/world"
)

// fromVault trusts what a vault has, in the place of $SOURCE and $KEYS.
const fromVault = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: azure}
spec:
  images: ["**/**"]
  registries:
    - host: $ACR
      auth: {azureWorkloadIdentity: {}}
  require:
    name: wabbit
`

func certificates(entry string) string {
	return fromVault + `    notation:
      level: strict
      trustStores: {ca: [{azureKeyVault: {vaultURI: "$VAULT", certificates: [` + entry + `]}}]}
      trustedIdentities: ["*"]
`
}

func keys(entry string) string {
	return fromVault + `    cosign:
      transparencyLog: ignored
      keys: [{azureKeyVault: {vaultURI: "$VAULT", keys: [` + entry + `]}}]
`
}

// TestCertificatesOfAVault: PEM and PKCS#12, with their chains, by name, version
// and identifier.
func TestCertificatesOfAVault(t *testing.T) {
	for name, c := range map[string]struct {
		put   func(*azure.Vault, *notationtest.Certificate) (string, error)
		entry string
	}{
		"PEM": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.Certificate("wabbit", c.Chain(), nil)
		}, "{name: wabbit}"},
		"exportable": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.Certificate("wabbit", c.Chain(), c.Key)
		}, "{name: wabbit}"},
		"PKCS12": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.PKCS12("wabbit", c.Chain(), c.Key)
		}, "{name: wabbit}"},
		"version": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.Certificate("wabbit", c.Chain(), nil)
		}, "{name: wabbit, version: $VERSION}"},
		"identifier": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.Certificate("wabbit", c.Chain(), nil)
		}, "{id: \"${VAULT}certificates/wabbit/$VERSION\"}"},
		"secret identifier": {func(v *azure.Vault, c *notationtest.Certificate) (string, error) {
			return v.Certificate("wabbit", c.Chain(), nil)
		}, "{id: \"${VAULT}secrets/wabbit\"}"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			signer := s.signed(t, "shop/cart:1", "wabbit")
			s.signed(t, "shop/stranger:1", "mallory")
			version, err := c.put(s.vault, signer)
			must(t, err)
			entry := strings.NewReplacer("$VERSION", `"`+version+`"`, "${VAULT}", s.vault.URI()).Replace(c.entry)
			s.start(t, certificates(strings.ReplaceAll(entry, `/"`+version+`"`, "/"+version)))
			s.want(t, "shop/cart:1", "TRUSTED")
			s.want(t, "shop/stranger:1", "CERTIFICATE_NOT_TRUSTED")
			kept, err := os.ReadFile(s.dir + "/vaults")
			must(t, err)
			noSecrets(t, string(kept))
		})
	}
}

// TestKeysOfAVault: each type, with leading zeros that say nothing, and signatures
// by the vault's own algorithms.
func TestKeysOfAVault(t *testing.T) {
	for _, keyType := range []sigstoretest.KeyType{sigstoretest.RSA2048, sigstoretest.RSA3072, sigstoretest.RSA4096, sigstoretest.P256, sigstoretest.P384, sigstoretest.P521} {
		t.Run(fmt.Sprint(keyType), func(t *testing.T) {
			s := newScene(t)
			key := sigstoretest.NewKey(keyType)
			must(t, s.SetKey("ci", key))
			for i, o := range []world.CosignOptions{{}, {Bundle: true}} {
				image := fmt.Sprintf("shop/cart:%d", i)
				s.signed(t, image, "")
				must(t, s.CosignSign(t.Context(), image, "ci", o))
			}
			s.signed(t, "shop/stranger:1", "")
			must(t, s.CosignSign(t.Context(), "shop/stranger:1", "mallory", world.CosignOptions{}))
			s.vault.Pad()
			s.vault.Key("ci", key.Private)
			s.start(t, keys("{name: ci}"))
			s.want(t, "shop/cart:0", "TRUSTED")
			s.want(t, "shop/cart:1", "TRUSTED")
			s.want(t, "shop/stranger:1", "SIGNATURE_INVALID")
		})
	}
}

// TestARotation: the old version and the new one count, until the old one is
// disabled.
func TestARotation(t *testing.T) {
	s := newScene(t)
	var versions []string
	for i := range 4 {
		name := fmt.Sprintf("ci%d", i)
		image := fmt.Sprintf("shop/cart:%d", i)
		s.signed(t, image, "")
		must(t, s.CosignSign(t.Context(), image, name, world.CosignOptions{}))
		key, err := s.Key(name)
		must(t, err)
		versions = append(versions, s.vault.Key("ci", key.Private))
	}
	s.start(t, keys("{name: ci, versionHistoryLimit: 3}"))
	s.want(t, "shop/cart:0", "SIGNATURE_INVALID")
	for _, image := range []string{"shop/cart:1", "shop/cart:2", "shop/cart:3"} {
		s.want(t, image, "TRUSTED")
	}
	s.vault.Enable("ci", versions[2], false) // it has leaked
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:2", "SIGNATURE_INVALID")
	s.want(t, "shop/cart:1", "TRUSTED")
	s.want(t, "shop/cart:3", "TRUSTED")
	s.signed(t, "shop/cart:4", "") // another version, without a word to us
	must(t, s.CosignSign(t.Context(), "shop/cart:4", "ci4", world.CosignOptions{}))
	key, err := s.Key("ci4")
	must(t, err)
	s.vault.Key("ci", key.Private)
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:4", "TRUSTED")
	s.eventually(t, "shop/cart:1", "SIGNATURE_INVALID") // the fourth now
}

// policyOfThePage is the policy of docs/azure.md as it stands there, with the names of
// the scene in the place of its variables.
func policyOfThePage(t *testing.T, s *scene, subject string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/azure.md")
	must(t, err)
	_, rest, found := strings.Cut(string(page), "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: azure}\n")
	text, _, ends := strings.Cut(rest, "EOF\n")
	if !found || !ends || !strings.Contains(text, "{name: ci, azureKeyVault:") || !strings.Contains(text, "versionHistoryLimit: 2") {
		t.Fatal("the page has no such policy")
	}
	text = strings.NewReplacer("$ACR_NAME.azurecr.io", s.acr.Host, "https://$AKV_NAME.vault.azure.net", strings.TrimSuffix(s.vault.URI(), "/"),
		"$CERT_NAME", "wabbit", "$KEY_NAME", "ci", "$SUBJECT_DN", subject).Replace(text)
	return "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: azure}\n" + text
}

// TestL49_TheRotationOfThePage: the page's policy, word for word, takes the new version
// of a key and the one before it, across a restart as well.
func TestL49_TheRotationOfThePage(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/notation:1", "wabbit")
	_, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	sign := func(i int) {
		name, image := fmt.Sprintf("ci%d", i), fmt.Sprintf("shop/cart:%d", i)
		s.signed(t, image, "")
		must(t, s.CosignSign(t.Context(), image, name, world.CosignOptions{}))
		key, err := s.Key(name)
		must(t, err)
		s.vault.Key("ci", key.Private)
	}
	sign(0)
	policy := policyOfThePage(t, s, signer.Subject.String())
	s.start(t, policy)
	s.want(t, "shop/notation:1", "TRUSTED")
	s.want(t, "shop/cart:0", "TRUSTED")
	sign(1)
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:1", "TRUSTED")
	s.want(t, "shop/cart:0", "TRUSTED")
	s.want(t, "shop/notation:1", "TRUSTED")
	s.start(t, policy)
	for _, image := range []string{"shop/cart:0", "shop/cart:1", "shop/notation:1"} {
		s.want(t, image, "TRUSTED")
	}
	// Both versions are one party.
	s.start(t, strings.Replace(policy, "    any:\n", "    atLeast:\n      count: 2\n      of:\n", 1))
	s.signed(t, "shop/both:1", "")
	for i := range 2 {
		must(t, s.CosignSign(t.Context(), "shop/both:1", fmt.Sprintf("ci%d", i), world.CosignOptions{Bundle: true}))
	}
	s.want(t, "shop/both:1", "THRESHOLD_NOT_MET")
}

// TestL43_AVaultsObjectIsOneParty, whichever of its versions a check takes, and where one
// of them is written as a key too.
func TestL43_AVaultsObjectIsOneParty(t *testing.T) {
	s := newScene(t)
	s.signed(t, "shop/cart:1", "")
	for _, name := range []string{"one", "two"} {
		must(t, s.Sign(t.Context(), "shop/cart:1", name, notationtest.SignOptions{}))
		signer, err := s.Signer(name)
		must(t, err)
		for _, object := range []string{"wabbit", "of-" + name} {
			_, err = s.vault.Certificate(object, signer.Chain(), nil)
			must(t, err)
		}
		must(t, s.CosignSign(t.Context(), "shop/cart:1", "key-"+name, world.CosignOptions{Bundle: true}))
		key, err := s.Key("key-" + name)
		must(t, err)
		s.vault.Key("ci", key.Private)
		must(t, os.WriteFile(filepath.Join(s.Policies, "key-"+name+".pub"), key.PEM(), 0o600))
	}
	notation := func(name, entry string) string {
		return "{name: " + name + ", notation: {level: strict, trustStores: {ca: [{azureKeyVault: {vaultURI: \"$VAULT\", certificates: [" + entry + "]}}]}, trustedIdentities: [\"*\"]}}"
	}
	cosign := func(name, key string) string {
		return "{name: " + name + ", cosign: {transparencyLog: ignored, keys: [" + key + "]}}"
	}
	const ci = `{name: ci, azureKeyVault: {vaultURI: "$VAULT", keys: [{name: ci, versionHistoryLimit: 2}]}}`
	for name, c := range map[string]struct {
		of   []string
		want string
	}{
		"two histories of a certificate":       {[]string{notation("a", "{name: wabbit, versionHistoryLimit: 2}"), notation("b", "{name: wabbit}")}, "THRESHOLD_NOT_MET"},
		"two certificates":                     {[]string{notation("a", "{name: of-one}"), notation("b", "{name: of-two}")}, "TRUSTED"},
		"a version of a key is written too":    {[]string{cosign("a", ci), cosign("b", "{name: old, file: key-one.pub}")}, "THRESHOLD_NOT_MET"},
		"it is written beside, in one check":   {[]string{cosign("a", ci+", {name: old, file: key-one.pub}")}, "THRESHOLD_NOT_MET"},
		"a certificate and a key of the vault": {[]string{notation("a", "{name: of-one}"), cosign("b", ci)}, "TRUSTED"},
	} {
		t.Run(name, func(t *testing.T) {
			s.start(t, strings.Replace(fromVault, "    name: wabbit\n", "    atLeast:\n      count: 2\n      of:\n        - "+strings.Join(c.of, "\n        - ")+"\n", 1))
			s.want(t, "shop/cart:1", c.want)
		})
	}
}

// TestOneVersion counts alone.
func TestOneVersion(t *testing.T) {
	s := newScene(t)
	var versions []string
	for i := range 2 {
		name, image := fmt.Sprintf("ci%d", i), fmt.Sprintf("shop/cart:%d", i)
		s.signed(t, image, "")
		must(t, s.CosignSign(t.Context(), image, name, world.CosignOptions{}))
		key, err := s.Key(name)
		must(t, err)
		versions = append(versions, s.vault.Key("ci", key.Private))
	}
	s.start(t, keys("{name: ci, version: \""+versions[0]+"\"}"))
	s.want(t, "shop/cart:0", "TRUSTED")
	s.want(t, "shop/cart:1", "SIGNATURE_INVALID")
}

// TestL31_AVaultThatIsAway keeps what it held last, and says so; what it withdraws
// is gone at once.
func TestL31_AVaultThatIsAway(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/cart:1", "wabbit")
	version, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	s.start(t, certificates("{name: wabbit}"))
	s.want(t, "shop/cart:1", "TRUSTED")
	for name, fault := range map[string]azure.Fault{
		"away": {Status: 503}, "throttled": {Status: 429, RetryAfter: "1"}, "forbidden": {Status: 403, Code: "Forbidden"}, "silent": {Hang: true},
	} {
		fault.Host, fault.Path = s.vault.Host, "/secrets"
		lift := cloud.Fault(fault)
		s.later(10 * time.Minute)
		words := map[string]string{"away": "answered 503", "throttled": "too many requests", "forbidden": "Key Vault Secrets User", "silent": "cannot be reached"}[name]
		s.waitForWarning(t, words)
		s.want(t, "shop/cart:1", "TRUSTED")
		lift()
		s.later(10 * time.Minute)
		s.waitForWarning(t, "")
	}
	s.vault.Enable("wabbit", version, false)
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:1", "KEYS_UNAVAILABLE")
	s.vault.Enable("wabbit", version, true)
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:1", "TRUSTED")
	s.vault.Delete("wabbit")
	s.later(10 * time.Minute)
	s.eventually(t, "shop/cart:1", "KEYS_UNAVAILABLE")
}

// TestMaxAge: a vault that has been away for too long counts no more, and counts
// again when it is back.
func TestMaxAge(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/cart:1", "wabbit")
	_, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	s.start(t, certificates("{name: wabbit}"))
	lift := cloud.Fault(azure.Fault{Host: s.vault.Host, Status: 500})
	s.later(23 * time.Hour)
	s.source.Reload(t.Context())
	s.want(t, "shop/cart:1", "TRUSTED")
	s.later(2 * time.Hour)
	s.source.Reload(t.Context())
	s.want(t, "shop/cart:1", "KEYS_UNAVAILABLE", "maxAge")
	lift()
	s.later(10 * time.Minute)
	s.source.Reload(t.Context())
	s.eventually(t, "shop/cart:1", "TRUSTED")
}

// TestAStartWhileTheVaultIsAway takes what was kept.
func TestAStartWhileTheVaultIsAway(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/cart:1", "wabbit")
	_, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	s.start(t, certificates("{name: wabbit}"))
	s.want(t, "shop/cart:1", "TRUSTED")
	defer cloud.Fault(azure.Fault{Host: s.vault.Host, Status: 500})()
	s.start(t, certificates("{name: wabbit}"))
	s.want(t, "shop/cart:1", "TRUSTED")
	must(t, os.WriteFile(s.dir+"/vaults", []byte("damaged"), 0o600))
	s.start(t, certificates("{name: wabbit}"))
	s.want(t, "shop/cart:1", "KEYS_UNAVAILABLE", "answered 500")
}

// TestWhatAVaultRefusesIsNamed, with what repairs it.
func TestWhatAVaultRefusesIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*testing.T, *scene)
		parts []string
	}{
		"no role":        {func(_ *testing.T, s *scene) { s.identity.Revoke(s.vault.Host, "Key Vault Secrets User") }, []string{"Grant it Key Vault Secrets User", "az role assignment create --assignee"}},
		"not there":      {func(_ *testing.T, s *scene) { s.vault.Delete("wabbit") }, []string{"does not exist", "az keyvault certificate list-versions"}},
		"no certificate": {func(_ *testing.T, s *scene) { s.vault.Secret("wabbit", "hunter2", "text/plain") }, []string{"no certificate", "Name a certificate"}},
		"leaf alone": {func(t *testing.T, s *scene) {
			c, err := s.Signer("wabbit")
			must(t, err)
			_, err = s.vault.Certificate("wabbit", c.Chain()[:1], nil)
			must(t, err)
		}, []string{"without its authorities"}},
		"firewall": {func(_ *testing.T, s *scene) {
			cloud.Fault(azure.Fault{Host: s.vault.Host, Path: "/secrets", Status: 403, Code: "ForbiddenByFirewall"})
		}, []string{"firewall", "network-rule"}},
		"no identity": {func(_ *testing.T, s *scene) { clear(s.env) }, []string{"AZURE_CLIENT_ID", "azure.workload.identity/use"}},
		"garbage":     {func(_ *testing.T, s *scene) { s.vault.Secret("wabbit", "garbage", "application/x-pkcs12") }, []string{"PKCS#12"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			signer := s.signed(t, "shop/cart:1", "wabbit")
			_, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
			must(t, err)
			c.set(t, s)
			s.start(t, certificates("{name: wabbit}"))
			s.want(t, "shop/cart:1", "KEYS_UNAVAILABLE")
			problem := ""
			for _, p := range s.source.Snapshot().Problems() {
				problem += p.String()
			}
			for _, part := range c.parts {
				if !strings.Contains(problem, part) {
					t.Errorf("%q does not say %q", problem, part)
				}
			}
			noSecrets(t, problem)
			t.Log(problem)
		})
	}
}

// TestWhatIsWithdrawnCountsInNoEarlierVersion: a policy that was broken since it
// was good last has its last good version in force, but not with a key that the
// vault took back.
func TestWhatIsWithdrawnCountsInNoEarlierVersion(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/cart:1", "wabbit")
	version, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	s.start(t, certificates("{name: wabbit}"))
	s.want(t, "shop/cart:1", "TRUSTED")
	must(t, s.Policy("policy.yaml", strings.NewReplacer("$ACR", s.acr.Host, "$VAULT", s.vault.URI()).Replace(strings.ReplaceAll(certificates("{name: wabbit}"), "strict", "stricter"))))
	s.source.Reload(t.Context())
	s.want(t, "shop/cart:1", "TRUSTED")
	s.vault.Enable("wabbit", version, false)
	s.later(10 * time.Minute)
	s.source.Reload(t.Context())
	s.eventually(t, "shop/cart:1", "KEYS_UNAVAILABLE")
}

// TestTheVaultsOwnSignatures: each hash with an RSA key, by both paddings, and
// signatures whose first byte is zero, which is no reason to shorten them.
func TestTheVaultsOwnSignatures(t *testing.T) {
	s := newScene(t)
	key := sigstoretest.NewKey(sigstoretest.RSA2048)
	must(t, s.SetKey("ci", key))
	s.vault.Key("ci", key.Private)
	s.start(t, keys("{name: ci}"))
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		for _, pss := range []bool{false, true} {
			image := strings.ToLower(fmt.Sprintf("shop/%s-%v:1", strings.ReplaceAll(hash.String(), "-", ""), pss))
			s.signed(t, image, "")
			o := sigstoretest.SimpleOptions{Algorithm: sigstoretest.Algorithm{Hash: hash, PSS: pss}}
			for n := 0; !pss; n++ { // the other padding is another each time
				o.Annotations = map[string]any{"n": n}
				if key.Sign(sigstoretest.Payload(s.Digest(image), o.Annotations), o.Algorithm)[0] == 0 {
					break
				}
			}
			must(t, s.CosignSign(t.Context(), image, "ci", world.CosignOptions{Simple: o}))
			s.want(t, image, "TRUSTED")
		}
	}
}

// waitForWarning waits until the policy's status has a warning with the words;
// none, if there are no words.
func (s *scene) waitForWarning(t *testing.T, words string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		var warnings []config.Problem
		for _, p := range s.source.Snapshot().Policies() {
			warnings = append(warnings, p.Warnings...)
		}
		said := fmt.Sprint(warnings)
		if words == "" && len(warnings) == 0 || words != "" && strings.Contains(said, words) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %q, the warnings are %s", words, said)
		}
		s.source.Reload(t.Context())
		time.Sleep(20 * time.Millisecond)
	}
}

// TestTheOptionsOfAVault: another identity than the pod's, by its secret, and one
// that may not.
func TestTheOptionsOfAVault(t *testing.T) {
	s := newScene(t)
	signer := s.signed(t, "shop/cart:1", "wabbit")
	_, err := s.vault.Certificate("wabbit", signer.Chain(), nil)
	must(t, err)
	s.identity.Revoke(s.vault.Host, "Key Vault Secrets User")
	principal := cloud.Entra.Identity("reader-of-the-vault", "", "")
	principal.Secret = "s3cret"
	principal.Grant(s.vault.Host, "Key Vault Secrets User")
	must(t, os.WriteFile(s.dir+"/client-secret", []byte("s3cret\n"), 0o600))
	options := "  keyVaults:\n    - vaultURI: $VAULT\n      maxAge: 1h\n      auth: {azureServicePrincipal: {tenantID: " + azure.Tenant + ", clientID: reader-of-the-vault, clientSecret: {file: ../client-secret}}}\n  require:\n"
	s.start(t, strings.Replace(certificates("{name: wabbit}"), "  require:\n", options, 1))
	s.want(t, "shop/cart:1", "TRUSTED")
	lift := cloud.Fault(azure.Fault{Host: s.vault.Host, Status: 500})
	s.later(2 * time.Hour)
	s.source.Reload(t.Context())
	s.want(t, "shop/cart:1", "KEYS_UNAVAILABLE", "longer than the 1h0m0s of maxAge")
	lift()
	must(t, os.WriteFile(s.dir+"/client-secret", []byte("another\n"), 0o600))
	s.eventually(t, "shop/cart:1", "KEYS_UNAVAILABLE")
}
