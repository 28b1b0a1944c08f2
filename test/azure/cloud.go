// Package azure is Azure as the SDKs see it: Microsoft Entra ID, Azure Container
// Registry and Key Vault, at their own names, over TLS, on this machine. Whoever
// uses its proxy and trusts its authority needs no other change: the SDKs, our
// binary and Cosign run as they are. It is for tests, and knows nothing of
// Countersign.
package azure

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/test/pki"
)

// Tenant is the one that everything is in.
const Tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47"

// Cloud is one Azure. Safe for concurrent use.
type Cloud struct {
	// Entra is Microsoft Entra ID.
	Entra *Entra
	// Authority is behind all certificates of the cloud.
	Authority *pki.Authority

	proxy     *httptest.Server
	tunnels   tunnels
	server    *http.Server
	attackers sync.Map // hosts that we let somebody else answer for

	mu           sync.Mutex // guards all below
	seen         []Seen
	faults       []*Fault
	registries   map[string]*Registry // by host
	vaults       map[string]*Vault    // by host
	certificates map[string]*tls.Certificate
}

// Seen is one request.
type Seen struct {
	Host, Method, Path string
	// Authorized is set where it carried a credential, in whichever place.
	Authorized bool
	Status     int
}

// Fault is what a service answers in the place of what it would.
type Fault struct {
	// Host of the service, and how its path begins.
	Host, Path string
	Status     int
	// Code is what the answer's error has.
	Code       string
	RetryAfter string
	// Hang does not answer until the client goes away.
	Hang bool
	// Times is how often; 0: until it is lifted.
	Times int

	lifted bool
}

// New starts a cloud.
func New() (*Cloud, error) {
	authority, err := pki.NewAuthority("azure")
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		Authority: authority, tunnels: tunnels{conns: make(chan net.Conn), closed: make(chan struct{})},
		registries: map[string]*Registry{}, vaults: map[string]*Vault{}, certificates: map[string]*tls.Certificate{},
	}
	c.Entra = newEntra()
	c.server = &http.Server{
		Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{GetCertificate: c.certificate, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = c.server.ServeTLS(&c.tunnels, "", "") }() // ends with Close
	c.proxy = httptest.NewServer(http.HandlerFunc(c.tunnel))
	return c, nil
}

// Close ends it.
func (c *Cloud) Close() {
	c.tunnels.close()
	_ = c.server.Close()
	c.proxy.Close()
}

// Transport reaches the cloud from this process.
func (c *Cloud) Transport() *http.Transport {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Authority.PEM)
	return &http.Transport{
		Proxy:             c.Proxy,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
}

// Proxy leads to the cloud.
func (c *Cloud) Proxy(*http.Request) (*url.URL, error) { return url.Parse(c.proxy.URL) }

// Listen takes connections that no proxy led to it, until Close.
func (c *Cloud) Listen(l net.Listener) {
	go func() { _ = c.server.ServeTLS(l, "", "") }() // ends with Close
}

// Environment is what a process needs to be in the cloud; files go to dir.
func (c *Cloud) Environment(dir string) ([]string, error) {
	roots := filepath.Join(dir, "azure-ca.pem")
	if err := os.WriteFile(roots, c.Authority.PEM, 0o600); err != nil {
		return nil, err
	}
	return []string{"HTTPS_PROXY=" + c.proxy.URL, "SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + dir + "/none"}, nil
}

// Fault makes a service answer otherwise, until it is lifted.
func (c *Cloud) Fault(f Fault) (lift func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := &f
	c.faults = append(c.faults, kept)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		kept.lifted = true
	}
}

// Attack lets the handler answer for a host that is not Azure's.
func (c *Cloud) Attack(host string, handler http.Handler) { c.attackers.Store(host, handler) }

// Reset forgets what was seen.
func (c *Cloud) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = nil
}

// Seen lists the requests so far.
func (c *Cloud) Seen() []Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Seen(nil), c.seen...)
}

// Count counts the requests to a host whose path begins so.
func (c *Cloud) Count(host, path string) int {
	n := 0
	for _, s := range c.Seen() {
		if s.Host == host && strings.HasPrefix(s.Path, path) {
			n++
		}
	}
	return n
}

func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	answer := &recorder{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		authorized := r.Header.Get("Authorization") != "" || strings.Contains(string(body), "token=") || strings.Contains(string(body), "client_assertion=")
		c.seen = append(c.seen, Seen{host, r.Method, r.URL.Path, authorized, answer.status})
	}()
	if f := c.fault(host, r.URL.Path); f != nil {
		f.answer(answer, r)
		return
	}
	c.mu.Lock()
	registry, vault := c.registries[host], c.vaults[host]
	c.mu.Unlock()
	attacker, attacked := c.attackers.Load(host)
	switch {
	case host == "login.microsoftonline.com", host == "login.chinacloudapi.cn", host == "login.microsoftonline.us":
		c.Entra.serve(answer, r)
	case host == "login.microsoft.com":
		discover(answer)
	case registry != nil:
		registry.serve(answer, r)
	case vault != nil:
		vault.serve(answer, r)
	case attacked:
		attacker.(http.Handler).ServeHTTP(answer, r)
	default:
		http.Error(answer, "there is no such host", http.StatusBadGateway)
	}
}

func (c *Cloud) fault(host, path string) *Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.faults {
		if f.lifted || f.Host != host || !strings.HasPrefix(path, f.Path) {
			continue
		}
		if f.Times--; f.Times == 0 {
			f.lifted = true
		}
		return f
	}
	return nil
}

func (f *Fault) answer(w http.ResponseWriter, r *http.Request) {
	if f.Hang {
		<-r.Context().Done()
		return
	}
	if f.RetryAfter != "" {
		w.Header().Set("Retry-After", f.RetryAfter)
	}
	refuse(w, f.Status, f.Code, "as the test wants it", "")
}

// refuse answers as Azure's services do.
func refuse(w http.ResponseWriter, status int, code, message, inner string) {
	failure := map[string]any{"code": code, "message": message}
	if inner != "" {
		failure["innererror"] = map[string]any{"code": inner}
	}
	reply(w, status, map[string]any{"error": failure})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// recorder notes the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// certificate is one for whichever name is asked for.
func (c *Cloud) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.certificates[hello.ServerName]; known != nil {
		return known, nil
	}
	pair, err := c.Authority.Issue(hello.ServerName)
	if err != nil {
		return nil, err
	}
	made, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	c.certificates[hello.ServerName] = &made
	return &made, nil
}

// tunnel is the proxy: every CONNECT leads to our server.
func (c *Cloud) tunnel(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	c.tunnels.give(&bufferedConn{conn, buffered.Reader})
}

type bufferedConn struct {
	net.Conn
	from *bufio.Reader
}

func (b *bufferedConn) Read(p []byte) (int, error) { return b.from.Read(p) }

// tunnels is a listener of connections that came by way of the proxy.
type tunnels struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (t *tunnels) give(conn net.Conn) {
	select {
	case t.conns <- conn:
	case <-t.closed:
		_ = conn.Close()
	}
}

func (t *tunnels) close() { t.once.Do(func() { close(t.closed) }) }

func (t *tunnels) Accept() (net.Conn, error) {
	select {
	case conn := <-t.conns:
		return conn, nil
	case <-t.closed:
		return nil, errors.New("closed")
	}
}

func (t *tunnels) Close() error   { t.close(); return nil }
func (t *tunnels) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// random is a name that nobody guesses.
func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
