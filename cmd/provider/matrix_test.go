package main

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// discovery is a way to find what is attached to an image.
type discovery struct {
	options registrytest.Options
	// hidden: the registry has the referrers API and it lists nothing, because
	// all was attached before.
	hidden bool
	// in is another repository that keeps the signatures.
	in string
}

var discoveries = map[string]discovery{
	"referrers API":         {},
	"referrers tag":         {options: registrytest.Options{NoReferrersAPI: true}},
	"left under the tag":    {options: registrytest.Options{NoReferrersAPI: true}, hidden: true},
	"another repository":    {in: "signatures/all"},
	"its referrers tag":     {options: registrytest.Options{NoReferrersAPI: true}, in: "signatures/all"},
	"its left under a tag ": {options: registrytest.Options{NoReferrersAPI: true}, hidden: true, in: "signatures/all"},
}

// scene is one whose signatures are found in this way alone.
func (d discovery) scene(t *testing.T, policy string) *scene {
	t.Helper()
	if d.in != "" {
		policy = strings.ReplaceAll(policy, "cosign: {", "cosign: {signatureRepository: $REGISTRY/"+d.in+", ")
	}
	s := newScene(t, d.options, policy)
	if d.hidden {
		s.registry.SetFault(registrytest.On("/referrers/", func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, err := w.Write([]byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`))
			return err == nil
		}))
	}
	return s
}

// flaw is what may be wrong with a signature: the lines that make it, and what
// is said of it.
type flaw struct{ lines, want string }

// run makes an image with the flaw, in a form, and asks about it.
func (f flaw) run(t *testing.T, s *scene, image, form string) {
	t.Helper()
	s.run(t, "image "+image+"\n"+strings.NewReplacer("IMAGE", image, "FORM", form).Replace(f.lines))
	expect(t, s.verify(t, image), f.want)
}

// TestL13_NegativeMatrix: every discovery path, every format, every flaw, and
// beside them the signature without one. A key has no end and no revocation of
// its own, so that Cosign's signatures have no such flaw; what stands for them
// is the transparency log's proof.
func TestL13_NegativeMatrix(t *testing.T) {
	notations := map[string]flaw{
		"none":                {"sign IMAGE by=wabbit-crl FORM", "TRUSTED/TRUSTED"},
		"garbage":             {"junk IMAGE n=1 FORM", "UNTRUSTED/SIGNATURE_INVALID"},
		"tampered":            {"sign IMAGE by=wabbit-crl tampered FORM", "UNTRUSTED/SIGNATURE_INVALID"},
		"wrong key":           {"sign IMAGE by=mallory FORM", "UNTRUSTED/CERTIFICATE_NOT_TRUSTED"},
		"wrong subject":       {"transplant good:1 IMAGE FORM", "UNTRUSTED/SUBJECT_MISMATCH"},
		"expired":             {"sign IMAGE by=wabbit expired FORM", "UNTRUSTED/SIGNATURE_EXPIRED"},
		"expired certificate": {"sign IMAGE by=late FORM", "UNTRUSTED/CERTIFICATE_EXPIRED"},
		"revoked":             {"sign IMAGE by=revoked-crl FORM", "UNTRUSTED/CERTIFICATE_REVOKED"},
	}
	cosigns := map[string]flaw{
		"none":                {"cosign IMAGE by=ci log FORM", "TRUSTED/TRUSTED"},
		"garbage":             {"cosign IMAGE by=ci log garbage FORM", "UNTRUSTED/SIGNATURE_INVALID"},
		"tampered":            {"cosign IMAGE by=ci log tampered FORM", "UNTRUSTED/SIGNATURE_INVALID"},
		"wrong key":           {"cosign IMAGE by=mallory log FORM", "UNTRUSTED/SIGNATURE_INVALID"},
		"wrong subject":       {"cosign IMAGE by=ci log of=good:1 FORM", "UNTRUSTED/SUBJECT_MISMATCH"},
		"no proof":            {"cosign IMAGE by=ci FORM", "UNTRUSTED/LOG_PROOF_MISSING"},
		"another log's proof": {"cosign IMAGE by=ci log=unknown FORM", "UNTRUSTED/LOG_PROOF_INVALID"},
		"attestation":         {"cosign IMAGE by=ci log attestation FORM", "UNTRUSTED/FORMAT_UNSUPPORTED"},
	}
	for path, d := range discoveries {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			if d.in == "" { // Notation keeps its signatures with the image
				s := d.scene(t, trusting("wabbit", "late", "wabbit-crl", "revoked-crl"))
				s.run(t, "image good:1")
				for name, form := range notationForms {
					for what, f := range notations {
						t.Run(name+"/"+what, func(t *testing.T) { f.run(t, s, imageFor(name, what), form) })
					}
				}
			}
			s := d.scene(t, trustingKeys("required", "ci"))
			s.run(t, "image good:1")
			for name, form := range cosignForms {
				for what, f := range cosigns {
					if what == "attestation" && !strings.HasPrefix(name, "bundle") {
						continue // the other formats have no predicate
					}
					if d.in != "" {
						form = form + " in=" + d.in
					}
					t.Run(name+"/"+what, func(t *testing.T) { f.run(t, s, imageFor(name, what), form) })
				}
			}
		})
	}
}

func imageFor(words ...string) string {
	return strings.NewReplacer(" ", "-", "'", "").Replace(strings.Join(words, "/")) + ":1"
}

// notationForms are the envelopes, in the world's words.
var notationForms = map[string]string{"jws": "format=jws", "cose": "format=cose"}

// TestL13_EveryFormatIsInTheMatrix: an artifact type or a tag that a scheme
// looks for, and that no row of the matrix has, fails here.
func TestL13_EveryFormatIsInTheMatrix(t *testing.T) {
	n, c := (&notation.Verifier{}).Wants(), (&sigstore.Verifier{}).Wants()
	rows := append(slices.Collect(maps.Values(sigstoretest.Versions)),
		// 0.3 in the spelling of the versions before it, which Cosign never wrote;
		// 0.1 and 0.2 in the spelling of the version after, which nobody did. All
		// are read by the same code.
		"application/vnd.dev.sigstore.bundle+json;version=0.3",
		"application/vnd.dev.sigstore.bundle.v0.1+json", "application/vnd.dev.sigstore.bundle.v0.2+json",
		sigstoretest.ArtifactTypeSignature, notationtest.ArtifactType)
	for _, artifactType := range append(c.ArtifactTypes, n.ArtifactTypes...) {
		if !slices.Contains(rows, artifactType) {
			t.Errorf("no row has %s", artifactType)
		}
	}
	if !slices.Equal(c.TagSuffixes, []string{".sig"}) || len(n.TagSuffixes) > 0 {
		t.Errorf("tags %v and %v", c.TagSuffixes, n.TagSuffixes)
	}
}
