package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// gather is how long transitions are waited for that belong together.
	gather = 10 * time.Second
	// sendTimeout ends one attempt.
	sendTimeout = 10 * time.Second
	// firstResend is the pause after a first failure; it doubles with each, and after
	// maxSends a notice is given up.
	firstResend = 5 * time.Second
	maxSends    = 9
	// maxQueued bounds what waits for a service; the oldest goes.
	maxQueued = 1000
)

// Sink is a service that notices are sent to.
type Sink struct {
	Name, Kind, URL string
	// Secret signs what a webhook is sent: X-Countersign-Signature is sha256= and the
	// HMAC-SHA256 of X-Countersign-Timestamp, a dot and the body.
	Secret []byte
}

// ReadSinks reads a directory as a Secret is mounted: files NAME.KIND with a URL each,
// and NAME.secret for a webhook.
func ReadSinks(dir string) ([]Sink, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var sinks []Sink
	secrets := map[string][]byte{}
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
		if kind == "secret" {
			secrets[name] = data
			continue
		}
		if _, _, err := (Notice{}).body(kind); err != nil {
			return nil, fmt.Errorf("%s: %w: write %s, %s, %s, %s or %s", entry.Name(), err, SinkWebhook, SinkCloudEvents, SinkSlack, SinkTeams, SinkAlertmanager)
		}
		at, err := url.Parse(string(data))
		if err != nil || at.Host == "" || at.Scheme != "https" && at.Scheme != "http" {
			return nil, fmt.Errorf("%s: it holds no URL", entry.Name()) // which may be a secret itself
		}
		sinks = append(sinks, Sink{Name: name, Kind: kind, URL: string(data)})
	}
	for i := range sinks {
		sinks[i].Secret = secrets[sinks[i].Name]
	}
	return sinks, nil
}

// Notifier tells services what became of images: one notice an image, however many
// workloads run it, and another when it is resolved. Safe for concurrent use.
type Notifier struct {
	sinks  []Sink
	client *http.Client
	sent   func(sink, result string) // counts
	log    *slog.Logger

	mu      sync.Mutex // guards all below
	pending []Transition
	wake    chan struct{} // has room for one
}

// NewNotifier makes a Notifier; see Run. Sent is told of each notice, with "sent",
// "failed" or "dropped".
func NewNotifier(sinks []Sink, sent func(sink, result string), log *slog.Logger) *Notifier {
	return &Notifier{
		sinks: sinks, sent: sent, log: log, wake: make(chan struct{}, 1),
		client: &http.Client{Timeout: sendTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Tell takes what became of an image.
func (n *Notifier) Tell(t Transition) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending = append(n.pending, t)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	queues := make([]chan Notice, len(n.sinks))
	var sending sync.WaitGroup
	defer sending.Wait()
	for i, sink := range n.sinks {
		queues[i] = make(chan Notice, maxQueued)
		sending.Go(func() { n.send(ctx, sink, queues[i]) })
	}
	for {
		select {
		case <-n.wake:
		case <-ctx.Done():
			return nil
		}
		select { // what belongs together comes together
		case <-time.After(gather):
		case <-ctx.Done():
			return nil
		}
		n.mu.Lock()
		transitions := n.pending
		n.pending = nil
		n.mu.Unlock()
		for _, notice := range notices(transitions) {
			for i, sink := range n.sinks {
				n.enqueue(sink, queues[i], notice)
			}
		}
	}
}

// enqueue puts a notice behind the others; where there is no room the oldest goes.
func (n *Notifier) enqueue(sink Sink, queue chan Notice, notice Notice) {
	for {
		select {
		case queue <- notice:
			return
		default:
		}
		select {
		case <-queue:
			n.sent(sink.Name, "dropped")
		default:
		}
	}
}

// send sends a service's notices in their order.
func (n *Notifier) send(ctx context.Context, sink Sink, queue chan Notice) {
	for {
		select {
		case notice := <-queue:
			n.deliver(ctx, sink, notice)
		case <-ctx.Done():
			return
		}
	}
}

// deliver tries until a notice was taken, or refused for good, or too often.
func (n *Notifier) deliver(ctx context.Context, sink Sink, notice Notice) {
	for attempt := 1; ; attempt++ {
		err := n.post(ctx, sink, notice)
		if err == nil {
			n.sent(sink.Name, "sent")
			return
		}
		if ctx.Err() != nil {
			return
		}
		n.log.WarnContext(ctx, "a notice was not taken", slog.String("sink", sink.Name), slog.Int("attempt", attempt), slog.Any("error", err))
		if errors.Is(err, errRefused) || attempt == maxSends {
			n.sent(sink.Name, "failed")
			return
		}
		select {
		case <-time.After(firstResend << (attempt - 1)):
		case <-ctx.Done():
			return
		}
	}
}

// errRefused is an answer that would be the same again.
var errRefused = errors.New("it is refused")

func (n *Notifier) post(ctx context.Context, sink Sink, notice Notice) error {
	contentType, body, err := notice.body(sink.Kind)
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
		var at *url.Error
		if errors.As(err, &at) {
			err = at.Err
		}
		return err
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
