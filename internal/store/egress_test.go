package store

import (
	"net/netip"
	"testing"
)

func TestL29_AddressesThatAreNeverDialled(t *testing.T) {
	for address, refused := range map[string]bool{
		"169.254.169.254":          true,
		"169.254.0.1":              true,
		"::ffff:169.254.169.254":   true,
		"64:ff9b::a9fe:a9fe":       true,
		"fe80::1":                  true,
		"fe80::1%eth0":             true,
		"fd00:ec2::254":            true,
		"fd20:ce::254":             true,
		"100.100.100.200":          true,
		"168.63.129.16":            true,
		"224.0.0.1":                true,
		"ff02::1":                  true,
		"203.0.113.7":              false,
		"2001:db8::7":              false,
		"10.0.0.1":                 false, // where many registries are
		"192.168.1.1":              false,
		"fd00::1":                  false,
		"64:ff9b::cb00:7107":       false,
		"::ffff:203.0.113.7":       false,
		"100.100.100.201":          false,
		"2001:db8::a9fe:a9fe":      false,
		"2002:7f00:1::a9fe:a9fe:1": false,
	} {
		for _, loopback := range []bool{false, true} {
			if got := checkAddress(netip.MustParseAddr(address), loopback); (got != nil) != refused {
				t.Errorf("%s, loopback %t: %v", address, loopback, got)
			}
		}
	}
	for _, address := range []string{"127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "64:ff9b::7f00:1"} {
		if checkAddress(netip.MustParseAddr(address), false) == nil {
			t.Errorf("%s may be dialled", address)
		}
		if got := checkAddress(netip.MustParseAddr(address), true); got != nil {
			t.Errorf("%s for development: %v", address, got)
		}
	}
}
