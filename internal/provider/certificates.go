package provider

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

const (
	// oldClientCA is how long a client CA is accepted after another took its
	// place: Gatekeeper's pods change to their new certificate one by one, and
	// each only when its copy of the Secret is renewed.
	oldClientCA = 24 * time.Hour
	// maxOldClientCAs bounds what a rotation that never ends accumulates.
	maxOldClientCAs = 16
	// maxCertificateFile bounds a certificate file; a whole system bundle is 200 KiB.
	maxCertificateFile = 1 << 20
)

// ClientAuth says what is asked of a client's certificate. The zero value is
// the strictest.
type ClientAuth int

// The modes.
const (
	// ClientAuthRequired refuses who shows no certificate of the client CA's.
	ClientAuthRequired ClientAuth = iota
	// ClientAuthOptional refuses only who shows a certificate of another CA's.
	ClientAuthOptional
	// ClientAuthNone asks for none: whoever reaches the port is answered.
	ClientAuthNone
)

// ParseClientAuth reads "required", "optional" or "none".
func ParseClientAuth(s string) (ClientAuth, error) {
	switch s {
	case "required":
		return ClientAuthRequired, nil
	case "optional":
		return ClientAuthOptional, nil
	case "none":
		return ClientAuthNone, nil
	}
	return ClientAuthRequired, fmt.Errorf("client certificates can be required, optional or none, not %q", s)
}

// CertificateOptions name the files. ClientCAFile may be empty only with
// ClientAuthNone.
type CertificateOptions struct {
	CertFile, KeyFile, ClientCAFile string
	ClientAuth                      ClientAuth
	// Logger; none when nil.
	Logger *slog.Logger
	// Metrics to add the certificates' to; its own when nil.
	Metrics *telemetry.Metrics
}

// Certificates is what TLS is spoken with. It follows its files: a connection
// is shaken hands with by what they held last and was good. Safe for
// concurrent use.
type Certificates struct {
	options  CertificateOptions
	log      *slog.Logger
	notAfter *telemetry.Gauge
	reloads  *telemetry.Counter
	current  atomic.Pointer[tls.Config]

	mu      sync.Mutex // guards all below
	serving servingPair
	clients clientCAs
	broken  map[string]string // by what is broken: the last error that was logged
}

type servingPair struct {
	pem  []byte // certificate and key as they were read
	pair tls.Certificate
}

type clientCAs struct {
	pem     []byte
	current []*x509.Certificate
	old     []oldCA // newest last
}

type oldCA struct {
	certificate *x509.Certificate
	until       time.Time
}

const (
	materialServing  = "serving"
	materialClientCA = "client_ca"
)

// LoadCertificates reads the files. What is broken now is an error; what
// breaks later is logged, counted and not used.
func LoadCertificates(options CertificateOptions) (*Certificates, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Metrics == nil {
		options.Metrics = telemetry.NewMetrics(telemetry.Build{})
	}
	if options.ClientAuth != ClientAuthNone && options.ClientCAFile == "" {
		return nil, errors.New("no client CA: give Gatekeeper's, or say that client certificates are not wanted")
	}
	material := telemetry.Label{Name: "certificate", Values: []string{materialServing, materialClientCA}}
	c := &Certificates{
		options: options, log: options.Logger, broken: map[string]string{},
		notAfter: options.Metrics.Gauge("countersign_certificate_not_after_timestamp_seconds",
			"When the certificate ends; of several, the first to end.", material),
		reloads: options.Metrics.Counter("countersign_certificate_reloads_total",
			"Changes of a certificate file by whether the new content is used.", material,
			telemetry.Label{Name: "result", Values: []string{"used", "broken"}}),
	}
	if err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// TLSConfig is for a listener: TLS 1.3 only, HTTP/1.1 only, no session tickets,
// so that every connection is judged by the certificates of its own time.
func (c *Certificates) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}
}

// Reload reads the files now. Of what is broken the last good stays in use,
// and the error says what it is.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, errServing := c.reloadServing()
	err := c.note(materialServing, changed, errServing)
	if c.options.ClientAuth != ClientAuthNone {
		changedCA, errCA := c.reloadClientCA()
		err = errors.Join(err, c.note(materialClientCA, changedCA, errCA))
		changed = changed || changedCA
	}
	if lapsed := c.dropLapsed(); (changed || lapsed) && c.serving.pem != nil {
		c.current.Store(c.config())
	}
	return err
}

// note logs and counts a change, and each kind of trouble once.
func (c *Certificates) note(material string, changed bool, err error) error {
	switch {
	case err != nil && c.broken[material] != err.Error():
		c.broken[material] = err.Error()
		c.reloads.Inc(material, "broken")
		c.log.Error("certificate files are broken; the last good ones stay in use",
			slog.String("certificate", material), slog.Any("error", err))
	case err == nil:
		delete(c.broken, material)
		if changed {
			c.reloads.Inc(material, "used")
			c.log.Info("certificate in use", slog.String("certificate", material))
		}
	}
	return err
}

func (c *Certificates) reloadServing() (changed bool, err error) {
	certificate, err := readFile(c.options.CertFile)
	if err != nil {
		return false, err
	}
	key, err := readFile(c.options.KeyFile)
	if err != nil {
		return false, err
	}
	both := slices.Concat(certificate, key)
	if bytes.Equal(both, c.serving.pem) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return false, fmt.Errorf("%s with %s: %w", c.options.CertFile, c.options.KeyFile, err)
	}
	now := time.Now()
	if old := c.serving.pair.Leaf; now.After(pair.Leaf.NotAfter) && old != nil && now.Before(old.NotAfter) {
		return false, fmt.Errorf("%s ended on %s", c.options.CertFile, pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c.serving = servingPair{both, pair}
	c.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()), materialServing)
	return true, nil
}

func (c *Certificates) reloadClientCA() (changed bool, err error) {
	bundle, err := readFile(c.options.ClientCAFile)
	if err != nil {
		return false, err
	}
	if bytes.Equal(bundle, c.clients.pem) {
		return false, nil
	}
	certificates, err := parseCertificates(bundle)
	if err != nil {
		return false, fmt.Errorf("%s: %w", c.options.ClientCAFile, err)
	}
	until := time.Now().Add(oldClientCA)
	for _, before := range c.clients.current {
		if !slices.ContainsFunc(certificates, before.Equal) {
			c.clients.old = append(c.clients.old, oldCA{before, until})
		}
	}
	c.clients.old = slices.DeleteFunc(c.clients.old, func(o oldCA) bool { return slices.ContainsFunc(certificates, o.certificate.Equal) })
	if over := len(c.clients.old) - maxOldClientCAs; over > 0 {
		c.clients.old = c.clients.old[over:]
	}
	c.clients.pem, c.clients.current = bundle, certificates
	first := certificates[0].NotAfter
	for _, certificate := range certificates[1:] {
		if certificate.NotAfter.Before(first) {
			first = certificate.NotAfter
		}
	}
	c.notAfter.Set(float64(first.Unix()), materialClientCA)
	return true, nil
}

func (c *Certificates) dropLapsed() bool {
	before := len(c.clients.old)
	now := time.Now()
	c.clients.old = slices.DeleteFunc(c.clients.old, func(o oldCA) bool { return !now.Before(o.until) })
	return len(c.clients.old) != before
}

func (c *Certificates) config() *tls.Config {
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{c.serving.pair},
		NextProtos:             []string{"http/1.1"},
		SessionTicketsDisabled: true,
	}
	switch c.options.ClientAuth {
	case ClientAuthNone:
		return config
	case ClientAuthOptional:
		config.ClientAuth = tls.VerifyClientCertIfGiven
	default:
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	config.ClientCAs = x509.NewCertPool()
	for _, certificate := range c.clients.current {
		config.ClientCAs.AddCert(certificate)
	}
	for _, old := range c.clients.old {
		config.ClientCAs.AddCert(old.certificate)
	}
	return config
}

func parseCertificates(bundle []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, certificate)
	}
	if len(list) == 0 {
		return nil, errors.New("no PEM certificate in it")
	}
	return list, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // G304: the operator names the file
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxCertificateFile+1))
	if err == nil && len(content) > maxCertificateFile {
		err = errors.New("larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return content, nil
}
