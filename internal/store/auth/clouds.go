package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// maxCloudAnswer bounds what a service that gives credentials is heard for.
const maxCloudAnswer = 256 << 10

// Clouds turns identities of AWS, Google Cloud and Alibaba Cloud into the credentials of their
// registries. Safe for concurrent use.
type Clouds struct {
	client, node *http.Client
	getenv       func(string) string
	sessions     *sessions
}

// CloudOptions are the process's. A zero field means its default.
type CloudOptions struct {
	// Transport reaches the clouds' services, and is checked as a registry's is;
	// http.DefaultTransport when nil.
	Transport http.RoundTripper
	// Node reaches what only a pod or its node reaches: the metadata service and
	// the agents of pod identities. No proxy leads there.
	Node http.RoundTripper
	// Getenv reads the pod's variables; os.Getenv when nil.
	Getenv func(string) string
}

// NewClouds asks nobody yet.
func NewClouds(o CloudOptions) *Clouds {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Node == nil {
		o.Node = &http.Transport{} // no proxy
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	stay := func(*http.Request, []*http.Request) error {
		return errors.New("it is not followed: it would carry a credential along")
	}
	return &Clouds{
		client: &http.Client{Transport: o.Transport, CheckRedirect: stay}, node: &http.Client{Transport: o.Node, CheckRedirect: stay},
		getenv: o.Getenv, sessions: newSessions(),
	}
}

// asking is what is asked of a service, for words about what went wrong.
type asking struct {
	service string // "AWS STS"
	remedy  string // where it does not let us in
}

// do sends the request and decodes its answer. What it sends is in no error.
func (a asking) do(client *http.Client, req *http.Request, decode func([]byte) error) error {
	resp, err := client.Do(req)
	if err != nil {
		return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: a.service + " cannot be reached at " + req.URL.Host,
			Remedy: "Check the network policies between here and there", Err: redact.Cause(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxCloudAnswer))
	if err != nil {
		return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: a.service + " cut its answer short", Err: err}
	}
	cause := fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return &verifier.Error{Reason: verifier.ReasonRegistryThrottled, Message: a.service + " has had too many requests", Remedy: "Try again later", Err: cause}
	case resp.StatusCode >= 500:
		return &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: fmt.Sprintf("%s answered %d", a.service, resp.StatusCode), Err: cause}
	case resp.StatusCode != http.StatusOK:
		message := fmt.Sprintf("%s does not let the identity in (%d%s)", a.service, resp.StatusCode, codeOf(body))
		return &verifier.Error{Reason: verifier.ReasonRegistryUnauthorized, Message: message, Remedy: a.remedy, Err: cause}
	}
	if err := decode(body); err != nil {
		return &verifier.Error{Reason: verifier.ReasonRegistryInvalid, Message: a.service + " gave an answer that holds no credential", Err: err}
	}
	return nil
}

// codeOf is a service's own word for what is wrong, as AccessDenied; its sentence
// could hold anything.
func codeOf(body []byte) string {
	var said struct {
		Type  string          `json:"__type"`
		Code  string          `json:"Code"`
		Error json.RawMessage `json:"error"`
	}
	code := ""
	if json.Unmarshal(body, &said) == nil {
		code = cmp.Or(said.Type, said.Code)
		var word string
		if code == "" && json.Unmarshal(said.Error, &word) == nil {
			code = word
		}
	} else if _, after, ok := strings.Cut(string(body), "<Code>"); ok {
		code, _, _ = strings.Cut(after, "</Code>")
	}
	_, code, _ = cutLast(code, "#")
	for _, r := range code {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '.' {
			return ""
		}
	}
	if code == "" || len(code) > 64 {
		return ""
	}
	return ", " + code
}

// cutLast is strings.Cut at the last separator; without one all is after it.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return "", s, false
}

// secretFile reads a token that the cluster keeps fresh in a file.
func secretFile(path string) (string, error) {
	file, err := os.Open(path) //nolint:gosec // G304: the pod's own variables name it
	if err != nil {
		return "", unusable("the pod's identity token cannot be read", "Restart the pod; if it stays so, look at the volumes that were put into it", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxCloudAnswer))
	if err != nil {
		return "", unusable("the pod's identity token cannot be read", "Restart the pod", err)
	}
	return strings.TrimSpace(string(data)), nil
}

func unusable(message, remedy string, cause error) *verifier.Error {
	return &verifier.Error{Reason: verifier.ReasonRegistryUnauthorized, Message: message, Remedy: remedy, Err: cause}
}

// ofNode reports whether a URL in the pod's variables leads to its own node: only
// there is a token shown over plain HTTP.
func ofNode(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && (addr.IsLinkLocalUnicast() || addr.IsLoopback() || addr == netip.MustParseAddr("fd00:ec2::23"))
}

func request(ctx context.Context, method, target, body string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, unusable("a service of the cloud has no address", "Look at the pod's variables", err)
	}
	return req, nil
}
