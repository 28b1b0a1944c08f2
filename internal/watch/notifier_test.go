package watch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// services are those that notices are sent to, by host. It is a http.RoundTripper.
type services struct {
	mu     sync.Mutex // guards all below
	status []int      // of the next answers; then 200
	got    []*http.Request
	bodies []string
}

func (s *services) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got, s.bodies = append(s.got, req), append(s.bodies, string(body))
	status := http.StatusOK
	if len(s.status) > 0 {
		status, s.status = s.status[0], s.status[1:]
	}
	if status == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
}

// notified runs a Notifier over transitions and gives what arrived, and what was
// counted.
func notified(t *testing.T, s *services, sinks []Sink, log io.Writer, transitions ...Transition) (counted []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		n := NewNotifier(sinks, func(sink, result string) {
			mu.Lock()
			defer mu.Unlock()
			counted = append(counted, sink+" "+result)
		}, slog.New(slog.NewTextHandler(log, nil)))
		n.client.Transport = s
		done := make(chan error)
		ctx, cancel := contextOf(t)
		go func() { done <- n.Run(ctx) }()
		for _, transition := range transitions {
			n.Tell(transition)
		}
		settle(2 * time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	slices.Sort(counted)
	return counted
}

func became(namespace string, from, to Status) Transition {
	return Transition{
		Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Namespace: namespace, Image: "shop.example.com/<b>cart</b>:1.4", Digest: moved.String(), From: from, To: to,
		Reason: "SIGNATURE_NOT_FOUND", Message: "no signature found", Workloads: []Workload{{"Deployment", "cart"}, {"Job", "[link](http://evil.example)"}},
	}
}

// TestOneNoticeAnImage: however many workloads of however many namespaces run it, in
// the form that each service takes, and another when it is resolved.
func TestOneNoticeAnImage(t *testing.T) {
	s := &services{}
	var transitions []Transition
	for i := range 37 {
		transitions = append(transitions, became(fmt.Sprint("ns-", i), "TRUSTED", "UNTRUSTED"))
	}
	transitions = append(transitions, became("shop", "UNTRUSTED", "TRUSTED"))
	var sinks []Sink
	kinds := []string{SinkWebhook, SinkCloudEvents, SinkSlack, SinkTeams, SinkAlertmanager}
	for _, kind := range kinds {
		sinks = append(sinks, Sink{Name: kind, Kind: kind, URL: "https://" + kind + ".example.com/hook", Secret: []byte("secret")})
	}
	counted := notified(t, s, sinks, io.Discard, transitions...)
	if len(counted) != 2*len(kinds) || len(s.got) != 2*len(kinds) {
		t.Fatalf("%v", counted)
	}
	byKind := map[string][]map[string]any{}
	for i, req := range s.got {
		kind, _, _ := strings.Cut(req.URL.Host, ".")
		if want := signature([]byte("secret"), req.Header.Get("X-Countersign-Timestamp"), []byte(s.bodies[i])); req.Header.Get("X-Countersign-Signature") != want {
			t.Errorf("%s: the signature is another", kind)
		}
		text := strings.TrimSuffix(strings.TrimPrefix(s.bodies[i], "["), "]")
		var v map[string]any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", s.bodies[i], err)
		}
		byKind[kind] = append(byKind[kind], v)
		if (kind == SinkSlack || kind == SinkTeams) && (strings.Contains(text, "<b>") || strings.Contains(text, `\u003cb\u003e`) || kind == SinkTeams && strings.Contains(text, "](")) {
			t.Errorf("%s: a name is markup: %s", kind, text)
		}
	}
	hook := byKind[SinkWebhook]
	if hook[0]["key"] != hook[1]["key"] || hook[0]["resolved"] != false || hook[1]["resolved"] != true || len(hook[0]["where"].([]any)) != 37 {
		t.Errorf("%v", hook)
	}
	event := byKind[SinkCloudEvents][0]
	for _, required := range []string{"specversion", "type", "source", "id", "time", "subject", "datacontenttype", "data"} {
		if event[required] == nil {
			t.Errorf("a CloudEvent has no %s", required)
		}
	}
	if event["specversion"] != "1.0" || event["id"] == byKind[SinkCloudEvents][1]["id"] {
		t.Errorf("%v", event)
	}
	alerts := byKind[SinkAlertmanager]
	if fmt.Sprint(alerts[0]["labels"]) != fmt.Sprint(alerts[1]["labels"]) || alerts[1]["endsAt"] != "2026-11-21T12:00:00Z" || alerts[0]["endsAt"] == alerts[1]["endsAt"] {
		t.Errorf("%v", alerts)
	}
	if text := fmt.Sprint(byKind[SinkSlack][0]["text"]); !strings.Contains(text, "UNTRUSTED image in 74 workloads of 37 namespaces") || !strings.Contains(text, "and 27 namespaces more") {
		t.Error(text)
	}
}

// TestWhatIsNotTakenIsSentAgain, unless it was refused, and not for ever; no word of an
// URL is in the log.
func TestWhatIsNotTakenIsSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		status []int
		sends  int
		want   string
	}{
		"at once":       {nil, 1, "ops sent"},
		"in trouble":    {[]int{500, 0, 429, 408}, 5, "ops sent"},
		"refused":       {[]int{400}, 1, "ops failed"},
		"a redirect":    {[]int{302}, 1, "ops failed"},
		"always broken": {slices.Repeat([]int{503}, 50), maxSends, "ops failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &services{status: c.status}
			var log bytes.Buffer
			counted := notified(t, s, []Sink{{Name: "ops", Kind: SinkSlack, URL: "https://hooks.example.com/T0K3N"}}, &log, became("shop", "TRUSTED", "UNTRUSTED"))
			if len(s.got) != c.sends || len(counted) != 1 || counted[0] != c.want {
				t.Errorf("%d sends, %v", len(s.got), counted)
			}
			if strings.Contains(log.String(), "T0K3N") {
				t.Errorf("the log has the URL: %s", &log)
			}
		})
	}
}

// TestSinksAreFilesOfASecret.
func TestSinksAreFilesOfASecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "..data"), 0o700); err != nil {
		t.Fatal(err)
	}
	write("ops.slack", "https://hooks.example.com/x\n")
	write("siem.webhook", "https://siem.example.com/y")
	write("siem.secret", "hunter2\n")
	sinks, err := ReadSinks(dir)
	if err != nil || len(sinks) != 2 || sinks[0].Kind != SinkSlack || string(sinks[1].Secret) != "hunter2" || sinks[0].Secret != nil {
		t.Errorf("%+v, %v", sinks, err)
	}
	write("pager.fax", "https://fax.example.com")
	if _, err := ReadSinks(dir); err == nil || !strings.Contains(err.Error(), "pager.fax") {
		t.Error(err)
	}
	write("pager.fax", "")
	if err := os.Rename(filepath.Join(dir, "pager.fax"), filepath.Join(dir, "pager.teams")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSinks(dir); err == nil || !strings.Contains(err.Error(), "holds no URL") {
		t.Error(err)
	}
}
