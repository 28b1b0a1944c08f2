package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

// echoAddresses is what the echo provider says when it listens.
type echoAddresses struct{ Provider, Metrics string }

// serveEcho is the least that a provider can do, until in ends: it reads the
// keys and answers each with the value that is in dir. TLS is as the provider's.
func serveEcho(ctx context.Context, dir string, in io.Reader, out io.Writer) error {
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return err
	}
	value, err := os.ReadFile(filepath.Join(dir, "value.json"))
	if err != nil {
		return err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(),
	}
	config.ClientCAs.AppendCertsFromPEM(authority)
	var listeners [2]net.Listener
	for i := range listeners {
		var listen net.ListenConfig
		if listeners[i], err = listen.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		defer func() { _ = listeners[i].Close() }()
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	ended := make(chan error, 3)
	for listener, server := range map[net.Listener]*http.Server{
		tls.NewListener(listeners[0], config): {Handler: echo(value), Protocols: &protocols, ReadHeaderTimeout: patience, ErrorLog: quiet},
		listeners[1]:                          {Handler: telemetry.NewMetrics(telemetry.Build{}).Handler(), ReadHeaderTimeout: patience},
	} {
		go func() { ended <- server.Serve(listener) }()
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		ended <- nil
	}()
	if err := json.NewEncoder(out).Encode(echoAddresses{listeners[0].Addr().String(), listeners[1].Addr().String()}); err != nil {
		return err
	}
	return <-ended
}

// echo answers in the frame of a ProviderResponse.
func echo(value []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 {
			http.Error(w, errors.ErrUnsupported.Error(), http.StatusBadRequest)
			return
		}
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var request struct {
			Request struct {
				Keys []json.RawMessage `json:"keys"`
			} `json:"request"`
		}
		if err := json.Unmarshal(body, &request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := make([]byte, 0, len(echoHead)+len(echoTail)+len(body)+len(request.Request.Keys)*(len(value)+32))
		answer = append(answer, echoHead...)
		for i, key := range request.Request.Keys {
			if i > 0 {
				answer = append(answer, ',')
			}
			answer = append(append(answer, `{"key":`...), key...)
			answer = append(append(append(answer, `,"value":`...), value...), '}')
		}
		answer = append(answer, echoTail...)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer)
	})
}

const (
	echoHead = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderResponse","response":{"items":[`
	echoTail = "]}}\n"
)

// valueOf gives the value of the first key of the provider's own answer.
func valueOf(answer []byte) (json.RawMessage, error) {
	var response struct {
		Response struct {
			Items []struct {
				Value json.RawMessage `json:"value"`
			} `json:"items"`
		} `json:"response"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, err
	}
	if len(response.Response.Items) == 0 {
		return nil, errors.New("an answer without items")
	}
	return response.Response.Items[0].Value, nil
}
