package sigstore_test

import (
	"crypto"
	"crypto/ed25519"
	"reflect"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

func TestRefusedOptions(t *testing.T) {
	key, log := sigstoretest.NewKey(sigstoretest.P256), sigstoretest.NewLog()
	keys := named(key)
	logKeys := []crypto.PublicKey{log.Key.Public()}
	many := make([]sigstore.PublicKey, 33)
	for i := range many {
		many[i].Key = key.Public()
	}
	for name, test := range map[string]struct {
		o    sigstore.Options
		want string
	}{
		"nothing":                 {sigstore.Options{}, "transparencyLog:"},
		"no transparency log":     {sigstore.Options{Keys: keys}, "transparencyLog:"},
		"another word":            {sigstore.Options{Keys: keys, TransparencyLog: "sometimes"}, "required, optional, ignored"},
		"required by no log":      {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired}, "no log is trusted"},
		"optional by no log":      {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogOptional}, "no log is trusted"},
		"ignored with a log":      {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogIgnored, LogKeys: logKeys}, "take out logKeys"},
		"ignored with a root":     {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogIgnored, TrustedRoot: []byte("{}")}, "take out logKeys"},
		"no key":                  {sigstore.Options{TransparencyLog: sigstore.LogIgnored}, "nobody is trusted"},
		"many keys":               {sigstore.Options{Keys: many, TransparencyLog: sigstore.LogIgnored}, "are tried"},
		"one name twice":          {sigstore.Options{Keys: []sigstore.PublicKey{{Name: "ci", Key: key.Public()}, {Name: "ci", Key: log.Key.Public()}}, TransparencyLog: sigstore.LogIgnored}, "name of two keys"},
		"an empty key":            {sigstore.Options{Keys: []sigstore.PublicKey{{Name: "ci"}}, TransparencyLog: sigstore.LogIgnored}, "keys[0]"},
		"a log's key of Ed25519":  {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired, LogKeys: []crypto.PublicKey{make(ed25519.PublicKey, 32)}}, "logKeys[0]"},
		"a root that is none":     {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired, TrustedRoot: []byte("{}")}, "trustedRoot"},
		"a root of text":          {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired, TrustedRoot: []byte("hello")}, "trustedRoot"},
		"a root without logs":     {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired, TrustedRoot: sigstoretest.TrustedRoot()}, "no transparency log"},
		"a root that is too long": {sigstore.Options{Keys: keys, TransparencyLog: sigstore.LogRequired, TrustedRoot: make([]byte, 2<<20)}, "are read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sigstore.New(test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// The fingerprint changes with everything that could change a judgement.
func TestFingerprint(t *testing.T) {
	a, b := sigstoretest.NewKey(sigstoretest.P256), sigstoretest.NewKey(sigstoretest.P256)
	log, other := sigstoretest.NewLog(), sigstoretest.NewLog()
	keys := func(names ...string) (list []sigstore.PublicKey) {
		for _, name := range names {
			list = append(list, sigstore.PublicKey{Name: name, Key: map[bool]*sigstoretest.Key{true: a, false: b}[name == "a"].Public()})
		}
		return list
	}
	logKeys := []crypto.PublicKey{log.Key.Public()}
	seen := map[string]string{}
	for name, o := range map[string]sigstore.Options{
		"ignored":        {Keys: keys("a"), TransparencyLog: sigstore.LogIgnored},
		"another key":    {Keys: keys("b"), TransparencyLog: sigstore.LogIgnored},
		"another name":   {Keys: []sigstore.PublicKey{{Name: "c", Key: a.Public()}}, TransparencyLog: sigstore.LogIgnored},
		"two keys":       {Keys: keys("a", "b"), TransparencyLog: sigstore.LogIgnored},
		"required":       {Keys: keys("a"), TransparencyLog: sigstore.LogRequired, LogKeys: logKeys},
		"optional":       {Keys: keys("a"), TransparencyLog: sigstore.LogOptional, LogKeys: logKeys},
		"another log":    {Keys: keys("a"), TransparencyLog: sigstore.LogRequired, LogKeys: []crypto.PublicKey{other.Key.Public()}},
		"two logs":       {Keys: keys("a"), TransparencyLog: sigstore.LogRequired, LogKeys: append([]crypto.PublicKey{other.Key.Public()}, logKeys...)},
		"a repository":   {Keys: keys("a"), TransparencyLog: sigstore.LogIgnored, Repository: verifier.Reference{Registry: "a.example.com", Repository: "b"}},
		"another":        {Keys: keys("a"), TransparencyLog: sigstore.LogIgnored, Repository: verifier.Reference{Registry: "a.example.com", Repository: "c"}},
		"a trusted root": {Keys: keys("a"), TransparencyLog: sigstore.LogRequired, TrustedRoot: sigstoretest.TrustedRoot(log)},
		"another root":   {Keys: keys("a"), TransparencyLog: sigstore.LogRequired, TrustedRoot: sigstoretest.TrustedRoot(other)},
	} {
		fingerprint := newVerifier(t, o).Fingerprint()
		if same := seen[fingerprint]; same != "" {
			t.Errorf("%s and %s are one", name, same)
		}
		seen[fingerprint] = name
		if newVerifier(t, o).Fingerprint() != fingerprint {
			t.Errorf("%s: two fingerprints of the same options", name)
		}
	}
}

// A field of Options that nobody put into the fingerprint's test fails here.
func TestFingerprintKnowsEveryOption(t *testing.T) {
	if n := reflect.TypeFor[sigstore.Options]().NumField(); n != 5 {
		t.Errorf("Options has %d fields, and TestFingerprint tells 5 apart", n)
	}
}

// Refusals say what was found and what to do, in one line.
func TestCauses(t *testing.T) {
	c := newCast()
	v := c.demanding(t)
	bundle := func(o sigstoretest.BundleOptions) sigstoretest.Artifact {
		return sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, o))
	}
	simple := c.stranger.SignSimple(c.subject, sigstoretest.SimpleOptions{})
	withCertificate := func(b map[string]any) {
		b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": []byte("DER")}}
	}
	seen := map[string]string{}
	for name, test := range map[string]struct {
		a    sigstoretest.Artifact
		want verifier.Reason
		says string
	}{
		"wrong key": {sigstoretest.PackTag(simple), verifier.ReasonSignatureInvalid, "none of the trusted keys made this signature: key-0"},
		"altered": {bundle(sigstoretest.BundleOptions{Change: func(b map[string]any) {
			b["dsseEnvelope"].(map[string]any)["signatures"] = []any{map[string]any{"sig": []byte("?")}}
		}}), verifier.ReasonSignatureInvalid, "names the key key-0"},
		"not base64":        {sigstoretest.PackTag(simple.With(sigstoretest.AnnotationSignature, "?")), verifier.ReasonSignatureInvalid, "not base64"},
		"a long signature":  {sigstoretest.PackTag(simple.With(sigstoretest.AnnotationSignature, strings.Repeat("A", 1<<20))), verifier.ReasonSignatureInvalid, "1048576 characters"},
		"no signature":      {sigstoretest.PackTag(sigstoretest.Layer{Data: []byte("{}")}), verifier.ReasonFormatUnsupported, "the annotation dev.cosignproject.cosign/signature"},
		"keyless":           {sigstoretest.PackTag(simple.With(sigstoretest.AnnotationCertificate, "PEM")), verifier.ReasonFormatUnsupported, "keyless"},
		"keyless bundle":    {bundle(sigstoretest.BundleOptions{Change: withCertificate}), verifier.ReasonFormatUnsupported, "keyless"},
		"a later version":   {bundle(sigstoretest.BundleOptions{Change: func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }}), verifier.ReasonFormatUnsupported, "0.1 to 0.3"},
		"no bundle":         {bundle(sigstoretest.BundleOptions{Change: func(b map[string]any) { b["mediaType"] = "text/plain" }}), verifier.ReasonFormatUnsupported, `"text/plain"`},
		"an unknown field":  {bundle(sigstoretest.BundleOptions{Change: func(b map[string]any) { b["more"] = true }}), verifier.ReasonSignatureInvalid, "bundle cannot be read"},
		"an attestation":    {bundle(sigstoretest.BundleOptions{PredicateType: "https://spdx.dev/Document"}), verifier.ReasonFormatUnsupported, "attestation (https://spdx.dev/Document)"},
		"a P-384 message":   {sigstoretest.PackBundle(c.subject, "", sigstoretest.NewKey(sigstoretest.P384).SignBundle(c.subject, sigstoretest.BundleOptions{Message: true})), verifier.ReasonFormatUnsupported, "sha2_384"},
		"another image":     {sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.other, sigstoretest.BundleOptions{})), verifier.ReasonSubjectMismatch, "sha256:" + c.other.Digest.Encoded()[:12]},
		"another manifest":  {sigstoretest.PackBundle(c.other, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{})), verifier.ReasonSubjectMismatch, "attached to another image"},
		"no proof":          {bundle(sigstoretest.BundleOptions{}), verifier.ReasonLogProofMissing, "no proof"},
		"an unknown log":    {bundle(sigstoretest.BundleOptions{Log: sigstoretest.NewLog()}), verifier.ReasonLogProofInvalid, "not trusted here"},
		"another's entry":   {withProofOf(bundle(sigstoretest.BundleOptions{Log: c.log, Algorithm: sigstoretest.Algorithm{P1363: true}}), bundle(sigstoretest.BundleOptions{Log: c.log})), verifier.ReasonLogProofInvalid, "another signature's"},
		"a broken proof":    {mapProof(bundle(sigstoretest.BundleOptions{Log: c.log}), breakProof), verifier.ReasonLogProofInvalid, "does not hold"},
		"a broken promise":  {sigstoretest.PackTag(c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{}).With(sigstoretest.AnnotationLogBundle, "{}")), verifier.ReasonLogProofInvalid, "cannot be read"},
		"an unknown layer":  {sigstoretest.PackTag(sigstoretest.Layer{MediaType: "text/plain", Data: []byte("?")}), verifier.ReasonFormatUnsupported, `"text/plain"`},
		"a huge payload":    {sigstoretest.PackTag(sigstoretest.Layer{Data: make([]byte, 1<<20)}), verifier.ReasonFormatUnsupported, "1048576 bytes"},
		"a line in the way": {bundle(sigstoretest.BundleOptions{PredicateType: "https://spdx.dev/\nDocument"}), verifier.ReasonFormatUnsupported, "https://spdx.dev/?Document"},
	} {
		t.Run(name, func(t *testing.T) {
			f := verify(t, v, evidence(c.subject, test.a))
			wantReason(t, f, test.want)
			if f.Err == nil {
				return
			}
			if !strings.Contains(f.Err.Message, test.says) {
				t.Errorf("says %q, want %q", f.Err.Message, test.says)
			}
			if f.Err.Remedy == "" || len(f.Err.Message) > 240 {
				t.Errorf("without a remedy, or too long: %q", f.Err.Message)
			}
			if same := seen[f.Err.Message]; same != "" && (!strings.HasPrefix(name, "keyless") || !strings.HasPrefix(same, "keyless")) {
				t.Errorf("says the same as %s: %q", same, f.Err.Message)
			}
			seen[f.Err.Message] = name
		})
	}
}
