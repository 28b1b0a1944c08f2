package azure

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// host is a name in DNS, in lower case and in ASCII, without port.
var host = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]+$`)

// under reports whether the host has a name of its own under one of the zones.
func under(name string, zones ...string) bool {
	return len(name) <= 253 && host.MatchString(name) && slices.ContainsFunc(zones, func(zone string) bool { return strings.HasSuffix(name, zone) })
}

// IsRegistry reports whether the host, as image references have it, is one of
// Azure Container Registry.
func IsRegistry(name string) bool { return under(name, ".azurecr.io", ".azurecr.cn", ".azurecr.us") }

// Vault is the URI of a Key Vault as we spell it, https://NAME.ZONE, or an error
// where it is none.
func Vault(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%q is not the URI of a vault", uri)
	}
	name := strings.ToLower(u.Host)
	if !under(name, ".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net", ".managedhsm.azure.net", ".managedhsm.azure.cn", ".managedhsm.usgovcloudapi.net") {
		return "", fmt.Errorf("%q is not the URI of a vault", uri)
	}
	return "https://" + name, nil
}
