package provider_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
)

// call asks once over the transport, and says what went wrong.
func (d *door) call(t testing.TB, transport http.RoundTripper) error {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/v1/verify", strings.NewReader(requestOf(t, "shop.example.com/signed:1")))
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.Proto != "HTTP/1.1" || response.TLS.Version != tls.VersionTLS13 || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s, TLS %x, HTTP %d", response.Proto, response.TLS.Version, response.StatusCode)
	}
	body, err := io.ReadAll(response.Body)
	if err == nil && !strings.Contains(string(body), `"status":"TRUSTED"`) {
		err = fmt.Errorf("answer: %s", body)
	}
	return err
}

func TestL35_OnlyTLS13AndOnlyWithGatekeepersCertificate(t *testing.T) {
	strangers := newAuthority(t, "gatekeeper-ca") // the same name, another key
	for name, c := range map[string]struct {
		auth provider.ClientAuth
		edit func(*door, *tls.Config)
		ok   bool
	}{
		"Gatekeeper":                 {provider.ClientAuthRequired, func(*door, *tls.Config) {}, true},
		"it could speak HTTP/2":      {provider.ClientAuthRequired, func(_ *door, c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }, true},
		"TLS 1.2":                    {provider.ClientAuthRequired, func(_ *door, c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
		"no certificate":             {provider.ClientAuthRequired, func(_ *door, c *tls.Config) { c.Certificates = nil }, false},
		"a stranger's":               {provider.ClientAuthRequired, func(_ *door, c *tls.Config) { c.Certificates = []tls.Certificate{strangers.pair(t, "gatekeeper")} }, false},
		"optional, Gatekeeper":       {provider.ClientAuthOptional, func(*door, *tls.Config) {}, true},
		"optional, no certificate":   {provider.ClientAuthOptional, func(_ *door, c *tls.Config) { c.Certificates = nil }, true},
		"optional, a stranger's":     {provider.ClientAuthOptional, func(_ *door, c *tls.Config) { c.Certificates = []tls.Certificate{strangers.pair(t, "gatekeeper")} }, false},
		"none wanted, none shown":    {provider.ClientAuthNone, func(_ *door, c *tls.Config) { c.Certificates = nil }, true},
		"none wanted, none, TLS 1.2": {provider.ClientAuthNone, func(_ *door, c *tls.Config) { c.Certificates, c.MaxVersion = nil, tls.VersionTLS12 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, provider.Options{Select: stocked().Select}, func(o *provider.CertificateOptions) {
				o.ClientAuth = c.auth
				if c.auth == provider.ClientAuthNone {
					o.ClientCAFile = ""
				}
			})
			transport := d.transport(t, d.client)
			// A client picks among its certificates by the CAs that it is told
			// of; a hostile one shows what it has.
			c.edit(d, transport.TLSClientConfig)
			if shown := transport.TLSClientConfig.Certificates; len(shown) > 0 {
				transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown[0], nil }
			}
			if err := d.call(t, transport); (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			if !c.ok {
				poll(t, "the failed handshake is logged", func() bool { return strings.Contains(d.logs.String(), `"msg":"connection failed"`) })
			}
		})
	}
}

func TestClientCertificatesAreRequiredUnlessSaidOtherwise(t *testing.T) {
	dir := t.TempDir()
	certificate, key := newAuthority(t, "ca").issue(t, "localhost", time.Time{})
	for name, content := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := provider.LoadCertificates(provider.CertificateOptions{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
	}); err == nil {
		t.Error("no client CA, and nobody said that none is wanted")
	}
	for word, want := range map[string]provider.ClientAuth{
		"required": provider.ClientAuthRequired, "optional": provider.ClientAuthOptional, "none": provider.ClientAuthNone,
	} {
		if got, err := provider.ParseClientAuth(word); got != want || err != nil {
			t.Errorf("%s: %v, %v", word, got, err)
		}
	}
	if got, err := provider.ParseClientAuth("None"); got != provider.ClientAuthRequired || err == nil {
		t.Errorf("%v, %v", got, err)
	}
}

// mount lays the files out as a kubelet does: each a link through ..data,
// which is swapped for all of them at once.
func (d *door) mount(t testing.TB, generation string, files map[string][]byte) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(d.dir, generation), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		d.write(t, filepath.Join(generation, name), content)
		link := filepath.Join(d.dir, name)
		if target, err := os.Readlink(link); err != nil || target != filepath.Join("..data", name) {
			_ = os.Remove(link)
			if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := filepath.Join(d.dir, "..data_tmp")
	if err := errors.Join(os.Symlink(generation, next), os.Rename(next, filepath.Join(d.dir, "..data"))); err != nil {
		t.Fatal(err)
	}
}

func TestL35_BothCertificatesRotateUnderLoadWithNoFailedRequest(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	material := func(by, client *authority) map[string][]byte {
		certificate, key := by.issue(t, "localhost", time.Time{})
		return map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": client.pem()}
	}
	d.mount(t, "..0", material(d.serverCA, d.clientCA))
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { d.certs.Watch(ctx) })
	defer watching.Wait()
	defer stop()

	// Gatekeeper trusts the old CA and the new one; its own certificate changes
	// a while after its CA did.
	oldServer, newServer, newClientCA := d.serverCA, newAuthority(t, "countersign"), newAuthority(t, "gatekeeper-ca")
	var client atomic.Pointer[tls.Certificate]
	client.Store(&d.client)
	transport := d.transport(t)
	transport.TLSClientConfig.RootCAs.AddCert(newServer.certificate)
	transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client.Load(), nil }
	once := transport.Clone()
	once.DisableKeepAlives = true

	var calls [4]atomic.Int64
	var load sync.WaitGroup
	for i, way := range []*http.Transport{transport, transport, once, once} {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := d.call(t, way); err != nil {
					t.Errorf("call %d of client %d: %v", calls[i].Load(), i, err)
				}
				calls[i].Add(1)
			}
		})
	}
	servedBy := func(ca *authority) func() bool {
		return func() bool {
			c, err := tls.Dial("tcp", strings.TrimPrefix(d.url, "https://"), once.TLSClientConfig)
			if err != nil {
				t.Error(err)
				return false
			}
			defer func() { _ = c.Close() }()
			return c.ConnectionState().PeerCertificates[0].CheckSignatureFrom(ca.certificate) == nil
		}
	}
	// Some more calls by each client, so that no handshake is under way any more
	// that began before.
	more := func() {
		t.Helper()
		for i := range calls {
			before := calls[i].Load()
			poll(t, "calls are made", func() bool { return calls[i].Load() >= before+5 })
		}
	}
	more()
	d.mount(t, "..1", material(newServer, newClientCA))
	poll(t, "the new certificate is served", servedBy(newServer))
	more() // Gatekeeper's old certificate is still good
	renewed := newClientCA.pair(t, "gatekeeper")
	client.Store(&renewed)
	transport.CloseIdleConnections()
	more()
	d.mount(t, "..2", material(oldServer, d.clientCA)) // and back
	poll(t, "the first certificate is served", servedBy(oldServer))
	more()
	stop()
	load.Wait()
	t.Logf("calls without a failure: %d, %d over kept connections; %d, %d over new ones",
		calls[0].Load(), calls[1].Load(), calls[2].Load(), calls[3].Load())
}

func TestBrokenMaterialKeepsTheOld(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	good := map[string][]byte{}
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		content, err := os.ReadFile(filepath.Join(d.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		good[name] = content
	}
	other, _ := d.serverCA.issue(t, "localhost", time.Time{})
	ended, endedKey := d.serverCA.issue(t, "localhost", time.Now().Add(-time.Minute))
	for name, files := range map[string]map[string][]byte{
		"garbage":                    {"tls.crt": []byte("garbage")},
		"half a certificate":         {"tls.crt": good["tls.crt"][:100]},
		"certificate of another key": {"tls.crt": other},
		"it has ended":               {"tls.crt": ended, "tls.key": endedKey},
		"empty CA":                   {"ca.crt": nil},
		"CA is a key":                {"ca.crt": good["tls.key"]},
		"too large":                  {"ca.crt": make([]byte, 2<<20)},
		"gone":                       {"ca.crt": nil, "tls.key": nil},
	} {
		t.Run(name, func(t *testing.T) {
			for file, content := range files {
				d.write(t, file, content)
				if name == "gone" {
					if err := os.Remove(filepath.Join(d.dir, file)); err != nil {
						t.Fatal(err)
					}
				}
			}
			logged := strings.Count(d.logs.String(), "certificate files are broken")
			err := d.certs.Reload()
			if err == nil {
				t.Error("no error")
			}
			_ = d.certs.Reload() // says it once
			if n := strings.Count(d.logs.String(), "certificate files are broken") - logged; n < 1 || n > 2 {
				t.Errorf("logged %d times", n)
			}
			if err := d.call(t, d.transport(t, d.client)); err != nil {
				t.Error(err)
			}
			for file, content := range good {
				d.write(t, file, content)
			}
			if err := d.certs.Reload(); err != nil {
				t.Error(err)
			}
		})
	}
	text, _ := scrape(t, d.metrics)
	if !strings.Contains(text, `countersign_certificate_reloads_total{certificate="serving",result="broken"}`) ||
		!strings.Contains(text, `countersign_certificate_not_after_timestamp_seconds{certificate="client_ca"}`) {
		t.Error("not in the metrics")
	}
}

func TestTheOldClientCAIsAcceptedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := openQuiet(t, provider.Options{Select: stocked().Select, DrainDelay: -1})
		defer func() { _ = q.Shutdown(context.Background()) }()
		accepted := func(certificate tls.Certificate) bool {
			l, err := q.dial(t, certificate)
			if err != nil {
				return false
			}
			defer func() { _ = l.Conn.(*tls.Conn).NetConn().Close() }()
			// The server's refusal comes after the client's side of the handshake.
			_ = l.SetReadDeadline(time.Now().Add(time.Second))
			_, err = l.answers.ReadByte()
			return errors.Is(err, os.ErrDeadlineExceeded)
		}
		renewed := newAuthority(t, "gatekeeper-ca")
		next := renewed.pair(t, "gatekeeper")
		if !accepted(q.client) || accepted(next) {
			t.Fatal("the new CA is accepted, or the only one is not")
		}
		q.write(t, "ca.crt", renewed.pem())
		reload := func() {
			t.Helper()
			if err := q.certs.Reload(); err != nil {
				t.Fatal(err)
			}
		}
		reload()
		if !accepted(q.client) || !accepted(next) {
			t.Error("one of both is refused")
		}
		time.Sleep(23 * time.Hour)
		reload()
		if !accepted(q.client) || !accepted(next) {
			t.Error("one of both is refused after 23 h")
		}
		time.Sleep(time.Hour)
		reload()
		if accepted(q.client) || !accepted(next) {
			t.Error("after 24 h the old CA is accepted, or the new one is not")
		}
	})
}
