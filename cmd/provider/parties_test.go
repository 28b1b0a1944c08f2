package main

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// TestL43_OneOfTheEntriesIsMetOnce, whatever its holder signs with.
func TestL43_OneOfTheEntriesIsMetOnce(t *testing.T) {
	notation := func(name, identity string, roots ...string) string {
		files := make([]string, len(roots))
		for i, root := range roots {
			files[i] = "{file: " + root + ".crt}"
		}
		return "{name: " + name + ", notation: {level: strict, trustStores: {ca: [" + strings.Join(files, ", ") + "]}, trustedIdentities: [" + identity + "]}}"
	}
	cosign := func(name string, keys ...string) string {
		files := make([]string, len(keys))
		for i, key := range keys {
			files[i] = "{name: " + name + "-" + key + ", file: " + key + ".pub}"
		}
		return "{name: " + name + ", cosign: {transparencyLog: ignored, keys: [" + strings.Join(files, ", ") + "]}}"
	}
	const (
		any   = `"*"`
		alice = `"x509.subject: CN=alice,O=Notary,L=Seattle,ST=WA,C=US"`
		bob   = `"x509.subject: CN=bob,O=Notary,L=Seattle,ST=WA,C=US"`
		yes   = "TRUSTED/TRUSTED"
		no    = "UNTRUSTED/THRESHOLD_NOT_MET"
	)
	own := []string{notation("alice", any, "alice"), notation("bob", any, "bob")}
	named := []string{notation("people", alice+", "+bob, "alice", "bob")}
	for name, c := range map[string]struct {
		of   []string
		sign string
		want string
	}{
		"two people":                             {own, "sign by=alice; sign by=bob", yes},
		"one root, two names":                    {own, "sign by=alice; sign by=alice-too", no},
		"one root, two names, and the other":     {own, "sign by=alice; sign by=alice-too; sign by=bob", yes},
		"one name with another unit":             {own, "sign by=alice; sign by=alice-ops", no},
		"a certificate that was issued again":    {own, "sign by=alice; sign by=alice-again", no},
		"one check, two of its identities":       {named, "sign by=alice; sign by=bob", yes},
		"one identity, another unit":             {named, "sign by=alice; sign by=alice-ops", no},
		"one identity, another key":              {named, "sign by=alice; sign by=alice-again", no},
		"one root in two checks":                 {[]string{notation("a", any, "alice"), notation("b", any, "alice")}, "sign by=alice; sign by=alice-too", no},
		"one root in a wider store as well":      {[]string{notation("a", any, "alice"), notation("b", any, "alice", "bob")}, "sign by=alice; sign by=alice-too", no},
		"two keys of one check":                  {[]string{cosign("team", "ci", "alice")}, "cosign by=ci as=tag; cosign by=alice as=tag", yes},
		"one key, in two formats":                {[]string{cosign("team", "ci", "alice")}, "cosign by=ci as=tag; cosign by=ci as=bundle", no},
		"one key in two checks, two names":       {[]string{cosign("one", "ci"), cosign("two", "ci")}, "cosign by=ci as=tag; cosign by=ci as=bundle", no},
		"a certificate and a key":                {[]string{notation("alice", any, "alice"), cosign("ci", "ci")}, "sign by=alice; cosign by=ci as=tag", yes},
		"a certificate twice, and no key":        {[]string{notation("alice", any, "alice"), cosign("ci", "ci")}, "sign by=alice; sign by=alice-too; cosign by=mallory as=tag", no},
		"a stranger's signature changes nothing": {own, "sign by=mallory; sign by=alice; sign by=bob", yes},
	} {
		t.Run(name, func(t *testing.T) {
			policy := strings.Replace(trusting(), "    any:\n", "    atLeast:\n      count: 2\n      of:\n        - "+strings.Join(c.of, "\n        - ")+"\n", 1)
			s := newScene(t, registrytest.Options{}, policy)
			lines := []string{"image cart:1.4"}
			for _, line := range strings.Split(c.sign, "; ") {
				verb, rest, _ := strings.Cut(line, " ")
				lines = append(lines, verb+" cart:1.4 "+rest)
			}
			s.run(t, strings.Join(lines, "\n"))
			expect(t, s.verify(t, "cart:1.4"), c.want)
		})
	}
}
