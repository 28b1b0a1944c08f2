package notation

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

const (
	// crlWeight is what a byte of a CRL takes in memory while it is read.
	crlWeight = 10
	// largeCRL is from where on CRLs are parsed one at a time.
	largeCRL = 256 << 10
)

// listBytes are those of the CRLs of one fetch, counted until it is over.
type listBytes struct {
	revocation *Revocation
	release    func()
	large      bool // the turn to parse a large one is ours
}

type listBytesKey struct{}

// withListBytes begins a fetch of CRLs.
func (r *Revocation) withListBytes(ctx context.Context) (_ context.Context, done func()) {
	l := &listBytes{revocation: r, release: func() {}}
	return context.WithValue(ctx, listBytesKey{}, l), func() {
		l.release()
		if l.large {
			<-r.large
		}
	}
}

// limitedTransport bounds what is read of an answer, and counts CRLs.
type limitedTransport struct{ next http.RoundTripper }

func (t limitedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxCRLBytes)
	l, ok := request.Context().Value(listBytesKey{}).(*listBytes)
	if !ok || response.StatusCode != http.StatusOK {
		return response, nil
	}
	body := response.Body
	defer func() { _ = body.Close() }()
	data, err := l.read(request.Context(), request.URL.Host, body, response.ContentLength)
	if err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	return response, nil
}

// read reads a CRL when its bytes may be held, and gives it when it may be parsed. Of a
// delta CRL the base was read before: it is counted no more, as who holds bytes must not
// wait for others.
func (l *listBytes) read(ctx context.Context, host string, body io.Reader, size int64) ([]byte, error) {
	if size > maxCRLBytes {
		return nil, fmt.Errorf("the CRL has %d bytes; up to %d are read", size, maxCRLBytes)
	}
	if size < 0 {
		size = maxCRLBytes
	}
	l.release()
	l.release = func() {}
	release, err := l.revocation.count(ctx, host, crlWeight*size)
	if err != nil {
		return nil, err
	}
	l.release = release
	var data bytes.Buffer
	if _, err := data.ReadFrom(body); err != nil {
		return nil, err
	}
	if data.Len() > largeCRL && !l.large {
		select {
		case l.revocation.large <- struct{}{}:
			l.large = true
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return data.Bytes(), nil
}
