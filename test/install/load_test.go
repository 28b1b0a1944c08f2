package install

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// perSecond is how many admissions a second the load asks for.
const perSecond = 200

// load asks again and again, from several clients, until stop.
type load struct {
	asked, failed atomic.Int64
	stop          func()

	mu    sync.Mutex
	errs  []error
	wrong []string
}

// under runs ask at a rate until the load is stopped. It gives what was wrong
// with the answer, or why there was none.
func under(t *testing.T, rate int, ask func(context.Context) (wrong string, err error)) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{}
	var group sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(rate))
	slots := make(chan struct{}, 64)
	group.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			group.Go(func() {
				defer func() { <-slots }()
				l.one(ctx, ask)
			})
		}
	})
	l.stop = sync.OnceFunc(func() {
		tick.Stop()
		cancel()
		group.Wait()
		t.Logf("%d asked, %d without an answer, %d wrong", l.asked.Load(), l.failed.Load(), len(l.wrong))
	})
	t.Cleanup(l.stop)
	return l
}

func (l *load) one(ctx context.Context, ask func(context.Context) (string, error)) {
	wrong, err := ask(ctx)
	if ctx.Err() != nil {
		return
	}
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed.Add(1)
		l.errs = append(l.errs, err)
	}
	if wrong != "" {
		l.wrong = append(l.wrong, wrong)
	}
}

// asker asks one replica directly, over connections that it keeps.
type asker struct {
	url    string
	client *http.Client
}

func (s *scene) asker(t *testing.T, address string) *asker {
	t.Helper()
	certificate, authority := s.credentials(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &asker{"https://" + address + "/v1/verify", &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: release + "." + namespace + ".svc"},
	}}}
}

// pinned asks what takes the place of an image.
func (a *asker) pinned(ctx context.Context, key string) (string, error) {
	content, err := a.post(ctx, key)
	if err != nil {
		return "", err
	}
	var answer struct {
		Response struct {
			Items []struct{ Value, Error string }
		}
	}
	if err := json.Unmarshal(content, &answer); err != nil || len(answer.Response.Items) != 1 || answer.Response.Items[0].Error != "" {
		return "", fmt.Errorf("%s: %w", content, err)
	}
	return answer.Response.Items[0].Value, nil
}

// post sends one request.
func (a *asker) post(ctx context.Context, keys ...string) ([]byte, error) {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": keys},
	})
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(response.Body)
}

// reason asks about a key, and gives the reason of the answer, or that of the
// system error.
func (a *asker) reason(ctx context.Context, key string) (string, error) {
	content, err := a.post(ctx, key)
	if err != nil {
		return "", err
	}
	var answer struct {
		Response struct {
			Items []struct {
				Value struct{ Reason string }
			}
			SystemError string
		}
	}
	if err := json.Unmarshal(content, &answer); err != nil {
		return "", fmt.Errorf("%s: %w", content, err)
	}
	if len(answer.Response.Items) == 0 {
		word, _, _ := bytes.Cut([]byte(answer.Response.SystemError), []byte(" "))
		if len(word) == 0 {
			return "", errors.New("neither an item nor an error")
		}
		return string(word), nil
	}
	return answer.Response.Items[0].Value.Reason, nil
}
