package provider_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/provider"
)

// TestL35_NoSessionIsResumed: each connection shows its certificate, so that a client CA
// that is no longer accepted opens nothing.
func TestL35_NoSessionIsResumed(t *testing.T) {
	d := open(t, provider.Options{Select: stocked().Select})
	sessions := tls.NewLRUClientSessionCache(8)
	for range 3 {
		transport := d.transport(t, d.client)
		transport.TLSClientConfig.ClientSessionCache = sessions
		client := &http.Client{Transport: transport}
		response, err := client.Post(d.url+"/v1/verify", "application/json", strings.NewReader(requestOf(t, "shop.example.com/signed:1")))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body) // a ticket comes with the answer
		_ = response.Body.Close()
		if response.TLS.DidResume {
			t.Error("a session was resumed")
		}
		transport.CloseIdleConnections()
	}
}

// held is a body that comes when the test lets it.
type held struct {
	*strings.Reader
	reading *sync.WaitGroup
	once    *sync.Once
	comes   chan struct{}
}

func (h held) Read(p []byte) (int, error) {
	h.once.Do(h.reading.Done)
	<-h.comes
	return h.Reader.Read(p)
}

func (held) Close() error { return nil }

// TestTheBodiesInMemoryAreBounded: what more clients send at once is refused, and no
// sooner answered than there is room again.
func TestTheBodiesInMemoryAreBounded(t *testing.T) {
	s, err := provider.New(provider.Options{Select: stocked().Select})
	if err != nil {
		t.Fatal(err)
	}
	text := requestOf(t, "shop.example.com/signed:1")
	large := text + strings.Repeat(" ", 1<<20-len(text))
	send := func(body io.ReadCloser) int {
		request := httptest.NewRequest(http.MethodPost, "/v1/verify", body)
		request.ContentLength = int64(len(large))
		recorder := httptest.NewRecorder()
		s.ServeHTTP(recorder, request)
		return recorder.Code
	}
	const most = 64
	var reading, done sync.WaitGroup
	reading.Add(most)
	comes := make(chan struct{})
	var mu sync.Mutex
	var failed error
	for range most {
		done.Go(func() {
			if code := send(held{strings.NewReader(large), &reading, &sync.Once{}, comes}); code != http.StatusOK {
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, errors.New(http.StatusText(code)))
			}
		})
	}
	reading.Wait()
	if code := send(io.NopCloser(strings.NewReader(large))); code != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", code)
	}
	close(comes)
	done.Wait()
	if failed != nil {
		t.Errorf("those that there was room for: %v", failed)
	}
	if code := send(io.NopCloser(strings.NewReader(large))); code != http.StatusOK {
		t.Errorf("when there is room again: %d", code)
	}
}
