package store

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// refusedAddress is an address that is never dialled, whatever name led to it.
type refusedAddress struct {
	addr netip.Addr
	what string
}

func (e *refusedAddress) Error() string { return fmt.Sprintf("%s is %s address", e.addr, e.what) }

// metadataServices give credentials to whoever can reach them. Those at
// link-local addresses are refused as such.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure's wire server
}

// nat64 carries IPv4 addresses in IPv6 (RFC 6052), another spelling of each.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// checkAddress says why an address may not be dialled. Private addresses may:
// that is where many registries are. A list of what each registry's token
// realms and redirects may reach belongs here.
func checkAddress(addr netip.Addr, allowLoopback bool) *refusedAddress {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	for _, service := range metadataServices {
		if addr == service {
			return &refusedAddress{addr, "a metadata service's"}
		}
	}
	switch {
	case addr.IsLinkLocalUnicast():
		return &refusedAddress{addr, "a link-local"} // 169.254.169.254 among them
	case addr.IsMulticast():
		return &refusedAddress{addr, "a multicast"}
	case (addr.IsLoopback() || addr.IsUnspecified()) && !allowLoopback:
		return &refusedAddress{addr, "a loopback"}
	}
	return nil
}

// dial connects. The proxy that the operator named is dialled wherever it is.
func (s *Store) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.isProxy(address) {
		return (&net.Dialer{Timeout: s.options.AttemptTimeout, KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
	}
	return s.dialer().DialContext(ctx, network, address)
}

// isProxy reports whether the address is that of a proxy for registries.
func (s *Store) isProxy(address string) bool {
	_, known := s.proxies.Load(address)
	return known
}

// proxy says which proxy a request goes by. It resolves the name there, so that
// the only address to be checked here is one that is written in the URL.
func (s *Store) proxy(r *http.Request) (*url.URL, error) {
	by, err := s.options.Proxy(r)
	if err != nil || by == nil {
		return nil, err
	}
	name := strings.TrimSuffix(strings.ToLower(r.URL.Hostname()), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		if refused := checkAddress(addr, s.options.AllowLoopback); refused != nil {
			return nil, refused
		}
	} else if name == "localhost" || strings.HasSuffix(name, ".localhost") || strings.HasSuffix(name, ".internal") {
		return nil, fmt.Errorf("%s is not asked for by way of a proxy", name)
	}
	s.proxies.Store(net.JoinHostPort(by.Hostname(), cmp.Or(by.Port(), port(by))), true)
	return by, nil
}

// dialer checks each address as it is dialled, after every name was resolved,
// so that no name, redirect or change of DNS leads around the check.
func (s *Store) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout:   s.options.AttemptTimeout,
		KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if refused := checkAddress(target.Addr(), s.options.AllowLoopback); refused != nil {
				return refused
			}
			return nil
		},
	}
}

// Transport reaches what certificates and the like name, with the system's
// roots and the same check of each address.
func (s *Store) Transport() http.RoundTripper { return s.transport("", nil) }

// redirectError is a redirect that is not followed.
type redirectError struct {
	to  *url.URL
	why string
}

func (e *redirectError) Error() string {
	return fmt.Sprintf("redirect to %s://%s: %s", e.to.Scheme, e.to.Host, e.why)
}

// checkRedirect follows a registry to where it keeps its blobs, never from TLS
// to plain HTTP, and never with its credential: net/http keeps the header for
// another port of the same host, and puts back on each hop what was removed on
// the one before.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return &redirectError{req.URL, "one of too many"}
	}
	first := via[0].URL
	if req.URL.Scheme != "https" && (req.URL.Scheme != "http" || first.Scheme == "https") {
		return &redirectError{req.URL, "it leaves TLS"}
	}
	left := !sameOrigin(first, req.URL)
	for _, hop := range via[1:] {
		left = left || !sameOrigin(first, hop.URL)
	}
	if left {
		req.Header.Del("Authorization")
	}
	return nil
}

// stayAtOrigin is for token requests, which carry the credential itself.
func stayAtOrigin(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects || !sameOrigin(via[0].URL, req.URL) || req.Method != via[0].Method {
		return &redirectError{req.URL, "it would carry a credential along"}
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if strings.EqualFold(u.Scheme, "http") {
		return "80"
	}
	return "443"
}
