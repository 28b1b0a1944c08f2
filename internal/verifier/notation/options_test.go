package notation_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

// policyDoc is a Notary trust policy with the given statements.
func policyDoc(statements ...string) []byte {
	return []byte(`{"version":"1.0","trustPolicies":[` + strings.Join(statements, ",") + `]}`)
}

const (
	statementAll   = `{"name":"all","registryScopes":["*"],"signatureVerification":{"level":"strict"},"trustStores":["ca:acme"],"trustedIdentities":["*"]}`
	statementCart  = `{"name":"cart","registryScopes":["registry.example.test/shop/cart"],"signatureVerification":{"level":"strict"},"trustStores":["ca:other"],"trustedIdentities":["*"]}`
	statementAudit = `{"name":"audit","registryScopes":["registry.example.test/shop/cart"],"signatureVerification":{"level":"audit","override":{"revocation":"skip"}},"trustStores":["ca:other"],"trustedIdentities":["*"]}`
	statementSkip  = `{"name":"skip","registryScopes":["registry.example.test/shop/cart"],"signatureVerification":{"level":"skip"}}`
	statementElse  = `{"name":"else","registryScopes":["registry.example.test/else"],"signatureVerification":{"level":"strict"},"trustStores":["ca:acme"],"trustedIdentities":["*"]}`
)

// The subject of the tests is registry.example.test/shop/cart.
func TestNotaryTrustPolicyPicksItsStatement(t *testing.T) {
	c := newCast()
	other := c.stranger.Root()
	a := c.leaf.SignArtifact(c.subject, notationtest.SignOptions{})
	for _, test := range []struct {
		name   string
		doc    []byte
		want   verifier.Reason
		logged int
		skips  bool
	}{
		{name: "for all", doc: policyDoc(statementAll)},
		{name: "exact before all", doc: policyDoc(statementAll, statementCart), want: verifier.ReasonCertificateNotTrusted},
		{name: "exact before all, other order", doc: policyDoc(statementCart, statementAll), want: verifier.ReasonCertificateNotTrusted},
		{name: "another's is not ours", doc: policyDoc(statementElse), want: verifier.ReasonCertificateNotTrusted},
		{name: "ours is not another's", doc: policyDoc(statementAll, statementElse)},
		{name: "audits", doc: policyDoc(statementAll, statementAudit), logged: 1},
		{name: "skips", doc: policyDoc(statementAll, statementSkip), logged: 1, skips: true},
		{name: "the host in capitals, with its port", doc: policyDoc(statementAll, strings.ReplaceAll(statementCart, "registry.example.test/", "Registry.Example.Test:443/")), want: verifier.ReasonCertificateNotTrusted},
		{name: "a host that begins like ours", doc: policyDoc(statementAll, strings.ReplaceAll(statementCart, "registry.example.test/", "registry.example.test.evil.example/"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := newVerifier(t, notation.Options{
				TrustStores: []notation.TrustStore{store("ca", "acme", c.root), store("ca", "other", other)}, TrustPolicyDoc: test.doc,
			}, notationtest.Network{})
			f := verify(t, v, evidence(c.subject, a))
			wantReason(t, f, test.want)
			if len(f.Claims.Logged) != test.logged {
				t.Errorf("logged %v", f.Claims.Logged)
			}
			if got := v.Skips("registry.example.test/shop/cart"); got != test.skips {
				t.Errorf("skips: %v", got)
			}
			if v.Skips("registry.example.test/shop") {
				t.Error("skips a repository that no statement is for")
			}
		})
	}
}

// A registry with an IPv6 address, which the Notary Project's grammar lacks.
func TestIPv6Registry(t *testing.T) {
	c := newCast()
	e := evidence(c.subject, c.leaf.SignArtifact(c.subject, notationtest.SignOptions{}))
	e.Subject.Reference.Registry = "[2001:db8::1]:5000"
	wantReason(t, verify(t, c.trusting(t, nil), e), "")
}

func TestOptionsThatAreRefused(t *testing.T) {
	c := newCast()
	ca := store("ca", "acme", c.root)
	for _, test := range []struct {
		name string
		o    notation.Options
		want string // a word that the user needs
	}{
		{"nothing", notation.Options{}, "trustStores"},
		{"nobody trusted", notation.Options{TrustStores: []notation.TrustStore{ca}}, "trustedIdentities"},
		{"timestamps only", notation.Options{TrustStores: []notation.TrustStore{store("tsa", "a", c.tsaRoot)}, TrustedIdentities: []string{"*"}}, "trustStores"},
		{"unknown type of store", notation.Options{TrustStores: []notation.TrustStore{store("keys", "a", c.root)}, TrustedIdentities: []string{"*"}}, "signingAuthority"},
		{"name of a store", notation.Options{TrustStores: []notation.TrustStore{store("ca", "../a", c.root)}, TrustedIdentities: []string{"*"}}, "letters"},
		{"store twice", notation.Options{TrustStores: []notation.TrustStore{ca, ca}, TrustedIdentities: []string{"*"}}, "twice"},
		{"leaf in a store", notation.Options{TrustStores: []notation.TrustStore{store("ca", "a", c.leaf)}, TrustedIdentities: []string{"*"}}, "issued"},
		{"intermediate as timestamping root", notation.Options{TrustStores: []notation.TrustStore{ca, store("tsa", "a", c.tsaRoot.NewIntermediate(notationtest.CertificateOptions{}))}, TrustedIdentities: []string{"*"}}, "root"},
		{"everyone and one", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*", "x509.subject: O=a,ST=b,C=c"}}, "everyone"},
		{"identity of another kind", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"CN=a"}}, "x509.subject"},
		{"identity without country", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"x509.subject: CN=a,O=b,ST=c"}}, "C, ST and O"},
		{"identity that is no DN", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"x509.subject: nonsense"}}, "nonsense"},
		{"identities that overlap", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"x509.subject: O=b,ST=c,C=d", "x509.subject: CN=a,O=b,ST=c,C=d"}}, "overlap"},
		{"unknown level", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Level: "lenient"}, "lenient"},
		{"level skip", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Level: "skip"}, "skip rule"},
		{"override of nothing", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Override: map[string]string{"speed": "log"}}, "speed"},
		{"override with nothing", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Override: map[string]string{"expiry": "ignore"}}, "ignore"},
		{"override of integrity", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Override: map[string]string{"integrity": "log"}}, "integrity"},
		{"override skips authenticity", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, Override: map[string]string{"authenticity": "skip"}}, "authenticity"},
		{"unknown verifyTimestamp", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}, VerifyTimestamp: "never"}, "afterCertExpiry"},
		{"document and options", notation.Options{TrustStores: []notation.TrustStore{ca}, Level: "strict", TrustPolicyDoc: policyDoc(statementAll)}, "take out"},
		{"document with an unknown field", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: []byte(`{"version":"1.0","trustPolicys":[]}`)}, "trustPolicys"},
		{"document with a field twice", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc(strings.Replace(statementAll, `"trustStores"`, `"TrustedIdentities":["x"],"trustStores"`, 1))}, "twice"},
		{"document with more behind", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: append(policyDoc(statementAll), "{}"...)}, "more follows"},
		{"document cut short", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc(statementAll)[:60]}, "JSON"},
		{"document nested deep", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: []byte(strings.Repeat("[", 1000))}, "nested"},
		{"document too large", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: make([]byte, 1<<20+1)}, "1048577"},
		{"document without statements", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc()}, "zero"},
		{"document of another version", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: []byte(strings.Replace(string(policyDoc(statementAll)), "1.0", "2.0", 1))}, "2.0"},
		{"document names a store that is not there", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc(statementCart)}, "ca:other"},
		{"document with one scope twice", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc(statementElse, strings.NewReplacer(`"else"`, `"two"`, "registry.", "Registry.").Replace(statementElse))}, "two statements"},
		{"document with a pattern for a scope", notation.Options{TrustStores: []notation.TrustStore{ca}, TrustPolicyDoc: policyDoc(strings.Replace(statementElse, "/else", "/*", 1))}, "wild card"},
	} {
		t.Run(test.name, func(t *testing.T) {
			revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: notationtest.Network{}})
			if err != nil {
				t.Fatal(err)
			}
			test.o.Revocation = revocation
			_, err = notation.New(test.o)
			if err == nil {
				t.Fatal("accepted")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("does not mention %q", test.want)
			}
			if strings.ContainsAny(err.Error(), "\n") || len(err.Error()) > 500 {
				t.Error("not one line that one reads")
			}
		})
	}
	t.Run("nothing to check revocation with", func(t *testing.T) {
		o := notation.Options{TrustStores: []notation.TrustStore{ca}, TrustedIdentities: []string{"*"}}
		if _, err := notation.New(o); err == nil {
			t.Error("accepted")
		}
		o.Override = map[string]string{"revocation": "skip"}
		if _, err := notation.New(o); err != nil {
			t.Errorf("needed although skipped: %v", err)
		}
	})
}

// Findings are kept by the fingerprint, so whatever can change a finding
// changes it.
func TestFingerprint(t *testing.T) {
	c := newCast()
	base := func() notation.Options {
		return notation.Options{
			TrustStores:       []notation.TrustStore{store("ca", "a", c.root), store("tsa", "b", c.tsaRoot)},
			TrustedIdentities: []string{"x509.subject: O=Notary,ST=WA,C=US"}, Level: "strict", VerifyTimestamp: "always",
		}
	}
	fingerprint := func(change func(*notation.Options)) string {
		o := base()
		change(&o)
		return newVerifier(t, o, notationtest.Network{}).Fingerprint()
	}
	nothing := fingerprint(func(*notation.Options) {})
	for name, change := range map[string]func(*notation.Options){
		"again":           func(*notation.Options) {},
		"order of stores": func(o *notation.Options) { o.TrustStores[0], o.TrustStores[1] = o.TrustStores[1], o.TrustStores[0] },
	} {
		if fingerprint(change) != nothing {
			t.Errorf("%s: another fingerprint", name)
		}
	}
	seen := map[string]string{nothing: "nothing"}
	for name, change := range map[string]func(*notation.Options){
		"certificate": func(o *notation.Options) {
			o.TrustStores[0].Certificates = []*x509.Certificate{c.stranger.Root().Certificate}
		},
		"certificate added": func(o *notation.Options) { o.TrustStores[0] = store("ca", "a", c.root, c.stranger.Root()) },
		"store emptied":     func(o *notation.Options) { o.TrustStores[0].Certificates = nil },
		"store renamed":     func(o *notation.Options) { o.TrustStores[0].Name = "c" },
		"store's type":      func(o *notation.Options) { o.TrustStores[0].Type = "signingAuthority" },
		"store taken away":  func(o *notation.Options) { o.TrustStores = o.TrustStores[:1] },
		"identity":          func(o *notation.Options) { o.TrustedIdentities = []string{"*"} },
		"level":             func(o *notation.Options) { o.Level = "permissive" },
		"override":          func(o *notation.Options) { o.Override = map[string]string{"expiry": "log"} },
		"override's action": func(o *notation.Options) { o.Override = map[string]string{"expiry": "enforce"} },
		"verifyTimestamp":   func(o *notation.Options) { o.VerifyTimestamp = "afterCertExpiry" },
		"document": func(o *notation.Options) {
			*o = notation.Options{TrustStores: []notation.TrustStore{store("ca", "acme", c.root)}, TrustPolicyDoc: policyDoc(statementAll)}
		},
		"document's level": func(o *notation.Options) {
			*o = notation.Options{TrustStores: []notation.TrustStore{store("ca", "acme", c.root)}, TrustPolicyDoc: policyDoc(strings.Replace(statementAll, "strict", "audit", 1))}
		},
	} {
		got := fingerprint(change)
		if same, ok := seen[got]; ok {
			t.Errorf("%s and %s have one fingerprint", name, same)
		}
		seen[got] = name
	}
}

func TestParseCertificates(t *testing.T) {
	c := newCast()
	two := notationtest.EncodePEM(c.root.Certificate, c.stranger.Root().Certificate)
	var many []*x509.Certificate
	for range 101 {
		many = append(many, c.root.Certificate)
	}
	for _, test := range []struct {
		name string
		data []byte
		want int // certificates; 0 is refused
	}{
		{"one", c.root.PEM(), 1},
		{"two", two, 2},
		{"with text between", []byte("# Acme's root\n" + string(two) + "\n# the end\n"), 2},
		{"DER", c.root.Raw, 1},
		{"nothing", nil, 0},
		{"text", []byte("no certificate"), 0},
		{"private key", c.root.KeyPEM(), 0},
		{"private key and certificate", append(c.root.KeyPEM(), c.root.PEM()...), 0},
		{"certificate and private key", append(c.root.PEM(), c.root.KeyPEM()...), 0},
		{"the second damaged", []byte(strings.Replace(string(two), "-----END CERTIFICATE-----\n-----BEGIN", "-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n%\n-----BEGIN", 1)), 0},
		{"cut short", two[:len(two)-40], 0},
		{"another kind", []byte("-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n"), 0},
		{"a certificate of zeros", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0},
		{"101 certificates", notationtest.EncodePEM(many...), 0},
		{"100 certificates", notationtest.EncodePEM(many[1:]...), 100},
		{"too large", make([]byte, 1<<20+1), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			certificates, err := notation.ParseCertificates(test.data)
			if (err != nil) != (test.want == 0) || len(certificates) != test.want {
				t.Errorf("%d certificates, %v", len(certificates), err)
			}
			if err != nil {
				t.Log(err)
				if strings.Contains(test.name, "private key") && !strings.Contains(err.Error(), "private key") {
					t.Error("does not say that a secret is where none belongs")
				}
			}
		})
	}
}
