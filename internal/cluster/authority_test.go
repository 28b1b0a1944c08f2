package cluster

import (
	"bytes"
	"testing"
	"time"
)

var names = []string{"countersign.countersign-system.svc", "127.0.0.1"}

func renewed(t *testing.T, from identity, names []string, now time.Time, anew bool) (identity, bool) {
	t.Helper()
	next, changed, err := from.renew(names, now, anew)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err := next.leaf(); err != nil || leaf.VerifyHostname(names[0]) != nil || leaf.VerifyHostname("127.0.0.1") != nil {
		t.Fatalf("%v, %v", leaf, err)
	}
	return next, changed
}

// TestRenewal changes as little as it can.
func TestRenewal(t *testing.T) {
	now := time.Now()
	first, changed := renewed(t, identity{}, names, now, false)
	if !changed {
		t.Fatal("nothing was made")
	}
	for name, c := range map[string]struct {
		from                    identity
		names                   []string
		after                   time.Duration
		anew                    bool
		changed, otherAuthority bool
	}{
		"young":                          {from: first, names: names, after: time.Hour},
		"two thirds of the certificate":  {from: first, names: names, after: servingAge * 2 / 3, changed: true},
		"two thirds of the authority":    {from: first, names: names, after: authorityAge * 2 / 3, changed: true, otherAuthority: true},
		"another name":                   {from: first, names: []string{"countersign.other.svc", "127.0.0.1"}, changed: true},
		"asked for":                      {from: first, names: names, anew: true, changed: true, otherAuthority: true},
		"without its key":                {from: identity{serving: first.serving, servingKey: first.servingKey, authority: first.authority}, names: names, changed: true, otherAuthority: true},
		"the certificate is another's":   {from: identity{serving: []byte("x"), servingKey: first.servingKey, authority: first.authority, authorityKey: first.authorityKey}, names: names, changed: true},
		"the authority is no authority":  {from: identity{serving: first.serving, servingKey: first.servingKey, authority: first.serving, authorityKey: first.servingKey}, names: names, changed: true, otherAuthority: true},
		"the Secret is somebody's scrap": {from: identity{serving: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}, names: names, changed: true, otherAuthority: true},
	} {
		t.Run(name, func(t *testing.T) {
			next, changed := renewed(t, c.from, c.names, now.Add(c.after), c.anew)
			if changed != c.changed || bytes.Equal(next.serving, c.from.serving) == c.changed {
				t.Errorf("changed: %v", changed)
			}
			if other := !bytes.Equal(next.authority, first.authority); other != c.otherAuthority {
				t.Errorf("another authority: %v", other)
			}
		})
	}
}

// TestABundleVouchesForItsOwn and for nobody else.
func TestABundleVouchesForItsOwn(t *testing.T) {
	now := time.Now()
	one, _ := renewed(t, identity{}, names, now, false)
	other, _ := renewed(t, identity{}, names, now, false)
	both := parseBundle(append(append([]byte{}, one.authority...), other.authority...))
	for name, c := range map[string]struct {
		by   bundle
		want bool
	}{
		"its own": {parseBundle(one.authority), true}, "both": {both, true}, "another's": {parseBundle(other.authority), false}, "none": {nil, false},
	} {
		if got := c.by.vouches(parseBundle(one.serving), now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if both.vouches(nil, now) {
		t.Error("vouches for nothing")
	}
	if n := len(both.with(both...)); n != 2 {
		t.Errorf("%d certificates", n)
	}
}
