// Package fake is an external data provider that says what a test tells it to,
// also what no provider should say. It verifies nothing.
package fake

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"

	"crypto/tls"
	"crypto/x509"

	"github.com/countersign-dev/countersign/test/pki"
)

// Item is one entry of a ProviderResponse. Value is anything that JSON has.
type Item struct {
	Key   string `json:"key,omitempty"`
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// Answer is what the provider says next.
type Answer struct {
	Items       []Item `json:"items,omitempty"`
	SystemError string `json:"systemError,omitempty"`
	// Body replaces the whole response body when it is not empty.
	Body string `json:"body,omitempty"`
	// Status replaces the HTTP status when it is not 0.
	Status int `json:"status,omitempty"`
	// NotIdempotent leaves out the mark without which no mutation uses an answer.
	NotIdempotent bool `json:"notIdempotent,omitempty"`
}

// Provider is a server over TLS 1.3 that wants a client certificate.
type Provider struct {
	// URL to ask at.
	URL string

	server *httptest.Server

	mu     sync.Mutex
	answer func(keys []string) Answer
	asked  [][]string
}

// NewProvider starts a provider that answers nothing at all until Say or Reply
// tells it more. Close stops it.
func NewProvider(authority *pki.Authority) (*Provider, error) {
	pair, err := authority.Issue("fake provider")
	if err != nil {
		return nil, err
	}
	cert, err := pair.TLS()
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority.PEM)

	p := &Provider{answer: func([]string) Answer { return Answer{} }}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.server.TLS = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
	}
	p.server.StartTLS()
	p.URL = p.server.URL
	return p, nil
}

// Close stops the server.
func (p *Provider) Close() { p.server.Close() }

// Say sets one answer to every request and forgets what has been asked.
func (p *Provider) Say(a Answer) { p.Reply(func([]string) Answer { return a }) }

// Reply sets the answer by the keys of a request and forgets what has been
// asked.
func (p *Provider) Reply(answer func(keys []string) Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.asked = answer, nil
}

// Asked gives the keys of each request since the last Say or Reply.
func (p *Provider) Asked() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Request struct{ Keys []string }
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("fake provider: %v", err), http.StatusBadRequest)
		return
	}

	p.mu.Lock()
	p.asked = append(p.asked, request.Request.Keys)
	answer := p.answer(request.Request.Keys)
	p.mu.Unlock()

	w.Header().Set("Content-Type", "application/json")
	if answer.Status != 0 {
		w.WriteHeader(answer.Status)
	}
	if answer.Body != "" {
		_, _ = io.WriteString(w, answer.Body)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1",
		"kind":       "ProviderResponse",
		"response": map[string]any{
			"idempotent":  !answer.NotIdempotent,
			"items":       answer.Items,
			"systemError": answer.SystemError,
		},
	})
}
