package signers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// differences are all cases in which Cosign refuses what it signed and we do
// not, or the other way round, each with its reason. docs/verifiers/cosign.md
// has the same lines.
func differences() map[string]string {
	return map[string]string{
		"Ed25519":     "`cosign verify` reads signatures of Ed25519 keys as plain Ed25519, and `cosign sign` makes Ed25519ph: here both are accepted.",
		"attestation": "`cosign verify` since version 3 takes any statement by the key in a bundle for a signature: here an attestation is none.",
	}
}

// TestWhatCosignAccepts asks Cosign and us the same about each image: the one
// that was signed, with the right key and with another, and one that was not.
func TestWhatCosignAccepts(t *testing.T) {
	for registry, host := range registries(t) {
		for _, f := range forms() {
			for i, keyType := range keyTypes() {
				if i > 0 && (!f.everyKey || registry != "referrers API") {
					continue
				}
				t.Run(registry+"/"+f.name+"/"+keyType, func(t *testing.T) {
					t.Parallel()
					compare(t, newScene(t, host), f, keyType)
				})
			}
		}
	}
}

// compare signs with a form and wants the same answers of both.
func compare(t *testing.T, s *scene, f form, keyType string) {
	t.Helper()
	repository := strings.Map(func(r rune) rune {
		if unicode.IsLower(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, strings.ToLower(t.Name()))
	signed, other := repository+":signed", repository+":other"
	must(t, s.Push(t.Context(), signed))
	must(t, s.Push(t.Context(), other))
	s.newKey(t, "right", keyType)
	s.newKey(t, "wrong", keyType)
	var env []string
	var more string
	if f.elsewhere {
		// Each case has its own: the images of all have the same digest.
		signatures := s.Name("signatures/" + repository)
		env = []string{"COSIGN_REPOSITORY=" + signatures}
		more = ", signatureRepository: " + signatures
	}
	args := append([]string{"sign", "--key", "right.key", "--use-signing-config=false", "--tlog-upload=false", "--yes"}, f.sign...)
	must(t, s.cosign(t, f.path, env, append(args, s.Name(signed)+"@"+s.Digest(signed).String())...))
	for _, ask := range []struct{ what, key, image string }{
		{"right key", "right", signed}, {"wrong key", "wrong", signed}, {"another image", "right", other},
	} {
		image := s.Name(ask.image) + "@" + s.Digest(ask.image).String()
		verify := append([]string{"verify", "--key", ask.key + ".pub", "--insecure-ignore-tlog=true"}, f.verify...)
		if digest := map[string]string{"P-384": "sha384", "P-521": "sha512"}[keyType]; digest != "" {
			verify = append(verify, "--signature-digest-algorithm="+digest)
		}
		cosign := s.cosign(t, f.path, env, append(verify, image)...)
		s.trust(t, ask.key, more)
		status, reason := s.countersign(t, image)
		want := ask.what == "right key"
		_, differs := differences()[keyType]
		if (status == "TRUSTED") != want || (cosign == nil) != (want && !differs) {
			t.Errorf("%s: Cosign says %v, and we say %s/%s", ask.what, cosign, status, reason)
		}
	}
}

// TestAnAttestationIsNoSignature of the same key, on the same image.
func TestAnAttestationIsNoSignature(t *testing.T) {
	for registry, host := range registries(t) {
		for name, path := range map[string]string{"cosign 3": executables.cosign3, "cosign 2": executables.cosign2} {
			t.Run(registry+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newScene(t, host)
				image := fmt.Sprintf("attested-%c:1", name[len(name)-1])
				must(t, s.Push(t.Context(), image))
				s.newKey(t, "ci", "P-256")
				must(t, os.WriteFile(filepath.Join(s.dir, "predicate.json"), []byte(`{"checked": true}`), 0o600))
				pinned := s.Name(image) + "@" + s.Digest(image).String()
				must(t, s.cosign(t, path, nil, "attest", "--key", "ci.key", "--use-signing-config=false", "--tlog-upload=false", "--yes",
					"--type", "custom", "--predicate", "predicate.json", pinned))
				s.trust(t, "ci", "")
				if status, reason := s.countersign(t, pinned); status != "UNKNOWN" && reason != "FORMAT_UNSUPPORTED" {
					t.Errorf("%s/%s", status, reason)
				}
				err := s.cosign(t, path, nil, "verify", "--key", "ci.pub", "--insecure-ignore-tlog=true", pinned)
				if differs := name == "cosign 3" && differences()["attestation"] != ""; (err == nil) != differs {
					t.Errorf("Cosign says %v", err)
				}
			})
		}
	}
}

// TestAMovedTagIsNotSigned: what Cosign signed is the digest.
func TestAMovedTagIsNotSigned(t *testing.T) {
	for registry, host := range registries(t) {
		t.Run(registry, func(t *testing.T) {
			s := newScene(t, host)
			must(t, s.Push(t.Context(), "moved:1"))
			s.newKey(t, "ci", "P-256")
			must(t, s.cosign(t, executables.cosign3, nil, "sign", "--key", "ci.key", "--use-signing-config=false", "--tlog-upload=false", "--yes", s.Name("moved:1")))
			s.trust(t, "ci", "")
			if status, reason := s.countersign(t, s.Name("moved:1")); status != "TRUSTED" {
				t.Errorf("before: %s/%s", status, reason)
			}
			must(t, s.Push(t.Context(), "moved:evil"))
			must(t, s.Move(t.Context(), "moved:1", "moved:evil"))
			if err := s.cosign(t, executables.cosign3, nil, "verify", "--key", "ci.pub", "--insecure-ignore-tlog=true", s.Name("moved:1")); err == nil {
				t.Error("Cosign accepts it")
			}
			if status, reason := s.countersign(t, s.Name("moved:1")); status != "UNKNOWN" {
				t.Errorf("after: %s/%s", status, reason)
			}
		})
	}
}

// TestARecursiveSignature signs an index and what it names: a cluster may ask
// for either.
func TestARecursiveSignature(t *testing.T) {
	for registry, host := range registries(t) {
		for name, path := range map[string]string{"cosign 3": executables.cosign3, "cosign 2": executables.cosign2} {
			t.Run(registry+"/"+name, func(t *testing.T) {
				s := newScene(t, host)
				repository := fmt.Sprintf("index-%c", name[len(name)-1])
				must(t, s.Push(t.Context(), repository+":amd64"))
				must(t, s.Push(t.Context(), repository+":other"))
				must(t, s.PushIndex(t.Context(), repository+":all", repository+":amd64"))
				s.newKey(t, "ci", "P-256")
				must(t, s.cosign(t, path, nil, "sign", "--recursive", "--key", "ci.key", "--use-signing-config=false", "--tlog-upload=false", "--yes", s.Name(repository+":all")))
				s.trust(t, "ci", "")
				for tag, want := range map[string]string{"all": "TRUSTED", "amd64": "TRUSTED", "other": "UNKNOWN"} {
					if status, reason := s.countersign(t, s.Name(repository+":"+tag)); status != want {
						t.Errorf("%s: %s/%s, want %s", tag, status, reason, want)
					}
				}
			})
		}
	}
}

// TestThePageHasTheDifferences: nobody has to read this test to know them.
func TestThePageHasTheDifferences(t *testing.T) {
	page, err := os.ReadFile("../../docs/verifiers/cosign.md")
	must(t, err)
	for name, line := range differences() {
		if !strings.Contains(string(page), "- "+line+"\n") {
			t.Errorf("%s is not on the page: %s", name, line)
		}
	}
}
