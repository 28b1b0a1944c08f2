package archtest_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestL10_EveryHostileInputHasAFuzzTarget: what comes from a registry, a request
// or a document, and the target that `make fuzz` runs for it.
func TestL10_EveryHostileInputHasAFuzzTarget(t *testing.T) {
	for input, target := range map[string][2]string{
		"image references":                 {"internal/verifier", "FuzzReference"},
		"keys of Gatekeeper":               {"internal/provider", "FuzzKey"},
		"request bodies":                   {"internal/provider", "FuzzRequestBody"},
		"policy documents":                 {"internal/config", "FuzzDocuments"},
		"patterns":                         {"internal/config", "FuzzL19_LiteralHostMatchesNoOther"},
		"manifests":                        {"internal/store", "FuzzManifest"},
		"pages of referrers":               {"internal/store", "FuzzReferrersPage"},
		"challenges to sign in":            {"internal/store", "FuzzChallenge"},
		"JWS and COSE envelopes":           {"internal/verifier/notation", "FuzzEnvelope"},
		"manifests of Notation signatures": {"internal/verifier/notation", "FuzzManifest"},
		"timestamps (TSR)":                 {"internal/verifier/notation", "FuzzToken"},
		"Notary trust policies":            {"internal/verifier/notation", "FuzzTrustPolicyDoc"},
		"distinguished names":              {"internal/verifier/notation", "FuzzTrustedIdentity"},
		"files of certificates":            {"internal/verifier/notation", "FuzzParseCertificates"},
		"bundles and DSSE":                 {"internal/verifier/sigstore", "FuzzBundle"},
		"what Cosign signs":                {"internal/verifier/sigstore", "FuzzSignedPayloads"},
		"annotations of Cosign's layers":   {"internal/verifier/sigstore", "FuzzAnnotations"},
		"public keys":                      {"internal/verifier/sigstore", "FuzzPublicKey"},
	} {
		out, err := exec.Command("grep", "-rlE", "^func "+target[1]+`\(`, "../../"+target[0], "--include=*_test.go").Output()
		if err != nil || strings.TrimSpace(string(out)) == "" {
			t.Errorf("%s: no %s in %s: %v", input, target[1], target[0], err)
		}
	}
}
