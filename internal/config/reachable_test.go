package config_test

import (
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

func TestL43_AThresholdThatNothingCanMeetIsSaid(t *testing.T) {
	check := func(name, identities string) string {
		return "{name: " + name + ", notation: {level: strict, trustStores: {ca: [{file: ca.crt}]}, trustedIdentities: [" + identities + "]}}"
	}
	const alice, bob = `"x509.subject: C=US, ST=WA, O=Example, CN=alice"`, `"x509.subject: C=US, ST=WA, O=Example, CN=bob"`
	keys := []*sigstoretest.Key{sigstoretest.NewKey(sigstoretest.P256), sigstoretest.NewKey(sigstoretest.P256)}
	for name, c := range map[string]struct {
		of    []string
		count string
		said  bool
	}{
		"one trust store, everyone":             {[]string{check("a", `"*"`)}, "2", true},
		"one trust store in two checks":         {[]string{check("a", `"*"`), check("b", `"*"`)}, "2", true},
		"one identity in two checks":            {[]string{check("a", alice), check("b", alice)}, "2", true},
		"two identities":                        {[]string{check("a", alice+", "+bob)}, "2", false},
		"two identities in two checks":          {[]string{check("a", alice), check("b", bob)}, "2", false},
		"three wanted of two":                   {[]string{check("a", alice+", "+bob)}, "3", true},
		"a key and another":                     {[]string{"{name: k, cosign: {transparencyLog: ignored, keys: [{name: a, file: a.pub}, {name: b, file: b.pub}]}}"}, "2", false},
		"one key twice":                         {[]string{"{name: k, cosign: {transparencyLog: ignored, keys: [{name: a, file: a.pub}, {name: b, file: a.pub}]}}"}, "2", true},
		"the same in another order is the same": {[]string{check("a", alice), check("b", `"x509.subject: CN=alice, O=Example, ST=WA, C=US"`)}, "2", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := directory(t, map[string]string{"a.pub": string(keys[0].PEM()), "b.pub": string(keys[1].PEM()), "p.yaml": "apiVersion: countersign.dev/v1beta1\nkind: ClusterTrustPolicy\nmetadata: {name: p}\nspec:\n  images: [\"shop.example.com/**\"]\n" +
				"  require:\n    atLeast:\n      count: " + c.count + "\n      of:\n        - " + strings.Join(c.of, "\n        - ") + "\n"})
			source, err := config.Load(t.Context(), config.Options{Path: dir, Environment: environment(t)})
			if err != nil {
				t.Fatal(err)
			}
			policies := source.Snapshot().Policies()
			if len(policies) != 1 || policies[0].State != config.StateReady {
				t.Fatalf("%+v", policies)
			}
			if said := len(policies[0].Unreachable) > 0; said != c.said {
				t.Errorf("%v", policies[0].Unreachable)
			}
		})
	}
}
