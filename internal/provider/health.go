package provider

import (
	"errors"
	"net/http"
	"time"
)

// Health serves /healthz, which says that the process lives, and /readyz,
// which says why it should not be asked yet or any more. Plain HTTP on a port
// of its own: a kubelet has no client certificate.
func (s *Server) Health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			http.Error(w, "not ready: "+text(err.Error(), maxText), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

func (s *Server) ready() error {
	if s.draining.Load() {
		return errors.New("shutting down")
	}
	if s.options.Ready == nil {
		return nil
	}
	return s.options.Ready()
}

// PlainServer makes the server of a plain port: health, or metrics.
func PlainServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      30 * time.Second, // a scrape of everything, by somebody slow
		IdleTimeout:       idleReused,
		MaxHeaderBytes:    maxHeaders,
	}
}
