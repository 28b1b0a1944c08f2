package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/redact"
)

// Sink is a service that notices are sent to.
type Sink struct {
	Name, Kind, URL string
	// Secret signs what a webhook is sent: X-Countersign-Signature is sha256= and the
	// HMAC-SHA256 of X-Countersign-Timestamp, a dot and the body.
	Secret []byte
	// Template is the text of a message to Slack or Teams, or the body for a webhook, in
	// the place of ours: {status} and so on stand for what a notice says. Empty: ours.
	Template string
}

// ReadSinks reads a directory as a Secret is mounted: files NAME.KIND with a URL each,
// NAME.secret for a webhook, and NAME.template for a text of its own.
func ReadSinks(dir string) ([]Sink, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var sinks []Sink
	besides := map[string]map[string][]byte{"secret": {}, "template": {}}
	for _, entry := range entries {
		name, kind, ok := strings.Cut(entry.Name(), ".")
		if !ok || name == "" { // a mounted Secret has directories of its own
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name())) //nolint:gosec // G304: the operator names the directory
		if err != nil {
			return nil, err
		}
		data = bytes.TrimSpace(data)
		if of, ok := besides[kind]; ok {
			of[name] = data
			continue
		}
		if _, _, err := (Notice{}).body(Sink{Kind: kind}); err != nil {
			return nil, fmt.Errorf("%s: %w: write %s, %s, %s, %s or %s", entry.Name(), err, SinkWebhook, SinkCloudEvents, SinkSlack, SinkTeams, SinkAlertmanager)
		}
		at, err := url.Parse(string(data))
		if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
			return nil, fmt.Errorf("%s: it holds no URL", entry.Name()) // which may be a secret itself
		}
		sinks = append(sinks, Sink{Name: name, Kind: kind, URL: string(data)})
	}
	for i := range sinks {
		sinks[i].Secret, sinks[i].Template = besides["secret"][sinks[i].Name], string(besides["template"][sinks[i].Name])
		if _, _, err := (Notice{}).body(sinks[i]); err != nil {
			return nil, fmt.Errorf("%s.template: %w", sinks[i].Name, err)
		}
	}
	return sinks, nil
}

// errRefused is an answer that would be the same again.
var errRefused = errors.New("it is refused")

func (n *Notifier) post(ctx context.Context, sink Sink, notice Notice) error {
	contentType, body, err := notice.body(sink)
	if err != nil {
		return errors.Join(errRefused, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, sink.URL, bytes.NewReader(body))
	if err != nil {
		return errRefused // the error has the URL, which may be a secret
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "countersign")
	if len(sink.Secret) > 0 {
		timestamp := strconv.FormatInt(time.Now().Unix(), 10)
		req.Header.Set("X-Countersign-Timestamp", timestamp)
		req.Header.Set("X-Countersign-Signature", signature(sink.Secret, timestamp, body))
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return redact.Cause(err)
	}
	_ = resp.Body.Close()
	switch again := []int{http.StatusRequestTimeout, http.StatusTooManyRequests}; {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode >= 500, slices.Contains(again, resp.StatusCode):
		return fmt.Errorf("it answered %d", resp.StatusCode)
	default:
		return fmt.Errorf("%w: it answered %d", errRefused, resp.StatusCode)
	}
}
