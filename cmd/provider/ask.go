package main

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
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// askOptions are the flags of ask.
type askOptions struct {
	url, certFile, keyFile, caFile, output string
	timeout                                time.Duration
	anyAnswer                              bool
}

func askCommand() *cobra.Command {
	var o askOptions
	command := &cobra.Command{
		Use:   "ask KEY…",
		Short: "Ask a provider that runs, as Gatekeeper does",
		Example: `  countersign ask --url https://countersign.countersign-system.svc:8443/v1/verify --ca ca.crt --tls-cert client.crt --tls-key client.key '[shop]shop.example.com/cart:1.4'
  countersign ask --any-answer -o json shop.example.com/cart:1.4`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, keys []string) error {
			if err := checkOutput(o.output); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(command.Context(), o.timeout)
			defer cancel()
			return o.ask(ctx, keys, command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.url, "url", "https://countersign.countersign-system.svc:8443/v1/verify", "the Provider object's URL")
	flags.StringVar(&o.caFile, "ca", "ca.crt", "the authority of its certificate, in PEM")
	flags.StringVar(&o.certFile, "tls-cert", "client.crt", "a client certificate that it takes, in PEM")
	flags.StringVar(&o.keyFile, "tls-key", "client.key", "the key of the client certificate, in PEM")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up after this long")
	flags.BoolVar(&o.anyAnswer, "any-answer", false, "be content with whatever answer: exit 0")
	addOutput(command, &o.output)
	return command
}

// providerResponse is what of a ProviderResponse is shown.
type providerResponse struct {
	Response struct {
		Items []struct {
			Key   string `json:"key"`
			Value struct {
				Status  string `json:"status"`
				Message string `json:"message"`
			} `json:"value"`
		} `json:"items"`
		SystemError string `json:"systemError"`
	} `json:"response"`
}

func (o *askOptions) ask(ctx context.Context, keys []string, stdout io.Writer) error {
	body, err := o.post(ctx, keys)
	if err != nil {
		return err
	}
	var answer providerResponse
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer of %s is no ProviderResponse: %w", o.url, err)
	}
	t := newTerminal(stdout)
	if o.output == "json" {
		t.printf("%s", body)
	} else {
		for _, item := range answer.Response.Items {
			t.printf("%-11s %s\n", printable(item.Value.Status), printable(item.Value.Message))
		}
		if answer.Response.SystemError != "" {
			t.printf("%-11s %s\n", "UNDECIDED", printable(answer.Response.SystemError))
		}
	}
	code := exitTrusted
	for _, item := range answer.Response.Items {
		if status := verifier.Status(item.Value.Status); status != verifier.StatusTrusted && status != verifier.StatusExempt {
			code = exitRefused
		}
	}
	if answer.Response.SystemError != "" || len(answer.Response.Items) == 0 {
		code = exitUndecided
	}
	if code == exitTrusted || o.anyAnswer {
		return nil
	}
	return exitError(code)
}

func (o *askOptions) post(ctx context.Context, keys []string) ([]byte, error) {
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	request := map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": keys},
	}
	content, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Do(post)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", o.url, response.Status)
	}
	return body, err
}

func (o *askOptions) tlsConfig() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(o.caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New(o.caFile + " has no certificate in PEM")
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}
