package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/countersign-dev/countersign/internal/azure"
)

// refusedAddress is an address that is not dialled, whatever name led to it.
type refusedAddress struct {
	addr netip.Addr
	what string
	// unnamed is set where it would be dialled for a host that a policy names.
	unnamed bool
}

func (e *refusedAddress) Error() string { return fmt.Sprintf("%s is %s address", e.addr, e.what) }

// Reach says for which hosts private addresses are dialled. That depends on who wrote
// what names a host, and never on the host itself. The zero Reach is a tenant's: public
// addresses only.
type Reach struct {
	// Administrator is set for what an administrator wrote: private addresses are
	// dialled for each host that it names.
	Administrator bool
	// Hosts are those, with their port unless it is the scheme's own, that an
	// administrator has listed for what somebody else wrote.
	Hosts []string
	// Registries are further hosts that an administrator's patterns name; they are
	// dialled at private addresses as registries of images, and as nothing else.
	Registries []string
}

// lists reports whether private addresses are dialled for a host that is named.
func (r Reach) lists(host string) bool { return r.Administrator || slices.Contains(r.Hosts, host) }

// addresses are which addresses may be dialled beside public ones.
type addresses struct{ loopback, private bool }

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

// carrierGrade is the shared address space of RFC 6598, which clusters use as well.
var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")

// checkAddress says why an address may not be dialled. Private ones may for hosts
// that a policy names: that is where many registries are. Whoever writes an
// image's name must not make us look around there.
func checkAddress(addr netip.Addr, may addresses) *refusedAddress {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	for _, service := range metadataServices {
		if addr == service {
			return &refusedAddress{addr: addr, what: "a metadata service's"}
		}
	}
	switch {
	case addr.IsLinkLocalUnicast():
		return &refusedAddress{addr: addr, what: "a link-local"} // 169.254.169.254 among them
	case addr.IsMulticast():
		return &refusedAddress{addr: addr, what: "a multicast"}
	case (addr.IsLoopback() || addr.IsUnspecified()) && !may.loopback:
		return &refusedAddress{addr: addr, what: "a loopback"}
	case (addr.IsPrivate() || carrierGrade.Contains(addr)) && !may.private:
		return &refusedAddress{addr: addr, what: "a private", unnamed: true}
	}
	return nil
}

// router leads a registry's requests: its own CAs alone vouch for it, a host that is
// written as an address is called where its policy names it, and private addresses are
// dialled for hosts within the policy's reach. A connection that was dialled for one of
// those is never used for another.
type router struct {
	host           string
	named, private func(host string) bool
	loopback       bool
	own, others    [2]http.RoundTripper // to public addresses only, and to private ones as well
}

func (r *router) RoundTrip(req *http.Request) (*http.Response, error) {
	to, private, host := r.others, 0, strings.ToLower(req.URL.Host)
	if strings.EqualFold(host, r.host) {
		to = r.own
	}
	if r.private(host) {
		private = 1
	}
	if addr, err := netip.ParseAddr(req.URL.Hostname()); err == nil {
		// What to do about one that is never dialled is to dial none, and not to name it.
		if refused := checkAddress(addr, addresses{r.loopback, true}); refused != nil {
			return nil, refused
		}
		if !r.named(host) && private == 0 && (!r.loopback || !addr.Unmap().IsLoopback()) {
			return nil, &refusedAddress{addr: addr, what: "a bare", unnamed: true}
		}
	}
	return to[private].RoundTrip(req)
}

// azureBlobs is where registries of Azure lead to for their blobs.
var azureBlobs = []string{".data.azurecr.io", ".data.azurecr.cn", ".data.azurecr.us", ".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net"}

// names reports whether private addresses are dialled for a host on behalf of the
// registry: the registry itself, where it gives tokens, and where it keeps its blobs.
func (r Registry) names(dialled string, itself bool, within Reach) func(host string) bool {
	azures := itself && azure.IsRegistry(r.Host)
	return func(host string) bool {
		host = strings.TrimSuffix(host, ":443")
		switch {
		case host == strings.TrimSuffix(strings.ToLower(dialled), ":443"):
			return itself
		case slices.Contains(r.TokenHosts, host), slices.Contains(r.RedirectHosts, host):
			return within.lists(host)
		}
		return azures && slices.ContainsFunc(azureBlobs, func(zone string) bool { return strings.HasSuffix(host, zone) })
	}
}

// dial connects. The proxy that the operator named is dialled wherever it is.
func (s *Store) dial(ctx context.Context, network, address string, may addresses) (net.Conn, error) {
	if s.isProxy(address) {
		return (&net.Dialer{Timeout: s.options.AttemptTimeout, KeepAlive: 30 * time.Second}).DialContext(ctx, network, address)
	}
	return s.dialer(may).DialContext(ctx, network, address)
}

// isProxy reports whether the address is that of a proxy for registries.
func (s *Store) isProxy(address string) bool {
	_, known := s.proxies.Load(address)
	return known
}

// proxy says which proxy a request goes by. It resolves the name there, so that
// the only address to be checked here is one that is written in the URL.
func (s *Store) proxy(r *http.Request, may addresses) (*url.URL, error) {
	by, err := s.options.Proxy(r)
	if err != nil || by == nil {
		return nil, err
	}
	name := strings.TrimSuffix(strings.ToLower(r.URL.Hostname()), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		if refused := checkAddress(addr, may); refused != nil {
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
func (s *Store) dialer(may addresses) *net.Dialer {
	return &net.Dialer{
		Timeout:   s.options.AttemptTimeout,
		KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			target, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if refused := checkAddress(target.Addr(), may); refused != nil {
				return refused
			}
			return nil
		},
	}
}

// Transport reaches what an administrator's certificates and the like name, with the
// system's roots and the same check of each address but that private ones are dialled.
func (s *Store) Transport() http.RoundTripper { return s.transport("", nil, nil, true) }

// Bounded reaches what a tenant's certificates name: public addresses, and private ones
// for the hosts alone, which an administrator has listed, each with its port unless it
// is the scheme's own. A redirect is held to the same.
func (s *Store) Bounded(hosts []string) http.RoundTripper {
	return &bounded{hosts: slices.Clone(hosts), public: s.transport("", nil, nil, false), private: s.transport("", nil, nil, true)}
}

// bounded is what Bounded gives.
type bounded struct {
	hosts           []string
	public, private http.RoundTripper
}

func (b *bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	host := strings.ToLower(req.URL.Host)
	if own := ":" + port(&url.URL{Scheme: req.URL.Scheme}); strings.HasSuffix(host, own) {
		host = strings.TrimSuffix(host, own)
	}
	if slices.Contains(b.hosts, host) {
		return b.private.RoundTrip(req)
	}
	resp, err := b.public.RoundTrip(req)
	var refused *refusedAddress
	if errors.As(err, &refused) && refused.unnamed {
		return nil, &privateHost{host, refused}
	}
	return resp, err
}

// privateHost is a host that would be called if an administrator had listed it.
type privateHost struct {
	host string
	err  error
}

func (e *privateHost) Error() string { return e.host + ": " + e.err.Error() }
func (e *privateHost) Unwrap() error { return e.err }

// PrivateHost is the host.
func (e *privateHost) PrivateHost() string { return e.host }

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
