package registrytest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fault sees each request first, authentication included. It reports whether
// it answered; if not, the registry does.
type Fault func(http.ResponseWriter, *http.Request) bool

// SetFault puts the fault before all requests that arrive from now on; nil
// heals the registry.
func (r *Registry) SetFault(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = f
}

// On narrows a fault to requests whose path contains part: "/referrers/".
func On(part string, f Fault) Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		return strings.Contains(req.URL.Path, part) && f(w, req)
	}
}

// First narrows a fault to the first n requests that reach it.
func First(n int, f Fault) Fault {
	var seen atomic.Int64
	return func(w http.ResponseWriter, req *http.Request) bool {
		return seen.Add(1) <= int64(n) && f(w, req)
	}
}

// Each tries faults in their order until one answers.
func Each(faults ...Fault) Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		for _, f := range faults {
			if f(w, req) {
				return true
			}
		}
		return false
	}
}

// Status answers with the status and nothing else.
func Status(status int) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		return true
	}
}

// Throttle answers 429, with Retry-After unless it is empty.
func Throttle(retryAfter string) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		registryError(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
		return true
	}
}

// Delay waits before the request goes on.
func Delay(d time.Duration) Fault {
	return func(_ http.ResponseWriter, req *http.Request) bool {
		wait := time.NewTimer(d)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-req.Context().Done():
		}
		return false
	}
}

// Redirect leads to the same path and query at another place: "http://host:port".
func Redirect(base string, status int) Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		http.Redirect(w, req, base+req.URL.RequestURI(), status)
		return true
	}
}

// Reset cuts the connection with a TCP reset and no answer.
func Reset() Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // HTTP/2: a stream reset
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // close with RST, not FIN
		}
		_ = conn.Close()
		return true
	}
}

// Hang holds the request until release is closed or the client goes away, and
// lets the registry answer then.
func Hang(release <-chan struct{}) Fault {
	return func(_ http.ResponseWriter, req *http.Request) bool {
		select {
		case <-release:
		case <-req.Context().Done():
		}
		return false
	}
}

// CutShort promises the whole body and cuts the connection after n bytes.
func (r *Registry) CutShort(n int) Fault {
	return r.replay(func(w http.ResponseWriter, _ *http.Request, body []byte) {
		_, _ = w.Write(body[:min(n, len(body))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// Slow sends the body one byte at a time, with a pause before each.
func (r *Registry) Slow(pause time.Duration) Fault {
	return r.replay(func(w http.ResponseWriter, req *http.Request, body []byte) {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for i := range body {
			select {
			case <-tick.C:
			case <-req.Context().Done():
				return
			}
			if _, err := w.Write(body[i : i+1]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
}

// WrongBytes sends a body of the right length with its last byte changed.
func (r *Registry) WrongBytes() Fault {
	return r.replay(func(w http.ResponseWriter, _ *http.Request, body []byte) {
		if len(body) > 0 {
			body[len(body)-1] ^= 1
		}
		_, _ = w.Write(body)
	})
}

// LieDigest sends the true body under another Docker-Content-Digest.
func (r *Registry) LieDigest(d digest.Digest) Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		answer := httptest.NewRecorder()
		r.answer(answer, req)
		copyHeader(w, answer.Header())
		w.Header().Set("Docker-Content-Digest", d.String())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
		return true
	}
}

// EndlessPages gives a referrers page of n descriptors with a next Link for
// ever; each request's page is another.
func EndlessPages(n int) Fault {
	var page atomic.Int64
	return func(w http.ResponseWriter, req *http.Request) bool {
		number := page.Add(1)
		list := make([]ocispec.Descriptor, n)
		for i := range list {
			list[i] = Stranger(int(number)*n + i)
		}
		w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, req.URL.Path, number))
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		_, _ = w.Write(encode(index(list)))
		return true
	}
}

// GiantPage streams one referrers page of about size bytes, made while it is
// sent, first the given descriptors and then strangers. It stops when the
// client does.
func GiantPage(size int64, first ...ocispec.Descriptor) Fault {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		sent := int64(0)
		send := func(data []byte) bool {
			n, err := w.Write(data)
			sent += int64(n)
			return err == nil
		}
		if !send([]byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`)) {
			return true
		}
		for _, d := range first {
			if !send(append(encode(d), ',')) {
				return true
			}
		}
		for i := 0; sent < size; i++ {
			if !send(append(encode(Stranger(i)), ',')) {
				return true
			}
		}
		send(append(encode(Stranger(-1)), ']', '}'))
		return true
	}
}

// Stranger is the descriptor of a referrer that no registry has.
func Stranger(n int) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.stranger",
		Digest:       digest.NewDigestFromEncoded(digest.SHA256, fmt.Sprintf("%064x", uint32(n))),
		Size:         500,
	}
}

// replay lets the registry answer and hands the body to send, after the header
// with the true Content-Length went out.
func (r *Registry) replay(send func(http.ResponseWriter, *http.Request, []byte)) Fault {
	return func(w http.ResponseWriter, req *http.Request) bool {
		answer := httptest.NewRecorder()
		r.answer(answer, req)
		body, _ := io.ReadAll(answer.Body) // a bytes.Buffer does not fail
		copyHeader(w, answer.Header())
		if answer.Code == http.StatusOK {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		w.WriteHeader(answer.Code)
		send(w, req, body)
		return true
	}
}

func copyHeader(w http.ResponseWriter, from http.Header) {
	for name, values := range from {
		w.Header()[name] = values
	}
}
