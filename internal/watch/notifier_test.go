package watch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// teller is a Notifier over services, what is kept, and what runs.
type teller struct {
	sinks   []Sink
	kept    *keptInMemory
	log     io.Writer
	counted []string
	events  []string

	mu     sync.Mutex      // guards all below
	absent map[string]bool // rows that nothing runs
}

func (e *teller) runs(key string, yes bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.absent[key] = !yes
}

// keptInMemory is what a Notifier keeps, as it was saved last.
type keptInMemory struct {
	mu    sync.Mutex // guards all below
	saved map[string]Told
	away  bool
	// forbidden is that we have no right to it.
	forbidden bool
}

func (k *keptInMemory) Load(context.Context) (map[string]Told, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return nil, errors.New("the API server is away")
	}
	if k.forbidden {
		return nil, fmt.Errorf("read it: %w", apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "countersign-watch", nil))
	}
	return maps.Clone(k.saved), nil
}

func (k *keptInMemory) Save(_ context.Context, kept map[string]Told) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.away {
		return errors.New("the API server is away")
	}
	k.saved = kept
	return nil
}

// run has a Notifier run in a bubble of time, until f returns.
func (e *teller) run(t *testing.T, s *services, f func(n *Notifier)) {
	t.Helper()
	if e.log == nil {
		e.log = io.Discard
	}
	n := NewNotifier(NotifierOptions{
		Sinks: e.sinks, Kept: e.kept, Log: slog.New(slog.NewTextHandler(e.log, nil)),
		Sent: func(sink, result string) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.counted = append(e.counted, sink+" "+result)
		},
		Event: func(t Transition) { e.events = append(e.events, t.Namespace+" "+string(t.From)+">"+string(t.To)) },
		Runs: func(key string) bool {
			e.mu.Lock()
			defer e.mu.Unlock()
			return !e.absent[key]
		},
	})
	n.client.Transport = s
	done := make(chan error)
	ctx, cancel := contextOf(t)
	go func() { done <- n.Run(ctx) }()
	f(n)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// notified runs a Notifier over what is found, hours apart, and gives what was counted.
func notified(t *testing.T, s *services, sinks []Sink, log io.Writer, found ...[]Transition) (counted []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := &teller{sinks: sinks, kept: &keptInMemory{}, log: log}
		e.run(t, s, func(n *Notifier) {
			for _, transitions := range found {
				for _, f := range transitions {
					n.Tell(keyOf(f), f)
				}
				settle(2 * time.Hour)
			}
		})
		counted = e.counted
	})
	slices.Sort(counted)
	return counted
}

func keyOf(t Transition) string { return rowKey{t.Namespace, t.Image, t.Digest, ""}.String() }

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
	var distrusted, trusted []Transition
	for i := range 37 {
		distrusted = append(distrusted, became(fmt.Sprint("ns-", i), "TRUSTED", "UNTRUSTED"))
		trusted = append(trusted, became(fmt.Sprint("ns-", i), "UNTRUSTED", "TRUSTED"))
	}
	var sinks []Sink
	kinds := []string{SinkWebhook, SinkCloudEvents, SinkSlack, SinkTeams, SinkAlertmanager}
	for _, kind := range kinds {
		sinks = append(sinks, Sink{Name: kind, Kind: kind, URL: "https://" + kind + ".example.com/hook", Secret: []byte("secret")})
	}
	counted := notified(t, s, sinks, io.Discard, distrusted, trusted[:20], trusted[20:])
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
			counted := notified(t, s, []Sink{{Name: "ops", Kind: SinkSlack, URL: "https://hooks.example.com/T0K3N"}}, &log, []Transition{became("shop", "TRUSTED", "UNTRUSTED")})
			if len(s.got) != c.sends || len(counted) != 1 || counted[0] != c.want {
				t.Errorf("%d sends, %v", len(s.got), counted)
			}
			if strings.Contains(log.String(), "T0K3N") {
				t.Errorf("the log has the URL: %s", &log)
			}
		})
	}
}

// TestATextOfTheirOwn is what is sent, whatever the names in it are; one that would be
// no message is refused at the start.
func TestATextOfTheirOwn(t *testing.T) {
	n := notices([]string{"k"}, map[string]Transition{"k": became("shop", "TRUSTED", "UNTRUSTED")})[0]
	n.Message = "say \"no\"\n<!channel>"
	for name, c := range map[string]struct {
		sink Sink
		want string
	}{
		"Slack":        {Sink{Kind: SinkSlack, Template: "{status} (was {previous}): {image} in {namespaces}: {message}"}, `{"text":"UNTRUSTED (was TRUSTED): shop.example.com/\u0026lt;b\u0026gt;cart\u0026lt;/b\u0026gt;:1.4 in shop: say \"no\"\n\u0026lt;!channel\u0026gt;"}`},
		"a webhook":    {Sink{Kind: SinkWebhook, Template: `{"summary": "{message}", "severity": "{status}", "open": {resolved}}`}, `{"summary": "say \"no\"\n\u003c!channel\u003e", "severity": "UNTRUSTED", "open": false}`},
		"Teams":        {Sink{Kind: SinkTeams, Template: "{reason} {policy}{time}"}, `"text":"SIGNATURE＿NOT＿FOUND 2026-11-21T12:00:00Z"`},
		"no JSON":      {Sink{Kind: SinkWebhook, Template: `{"summary": {message}}`}, ""},
		"a standard's": {Sink{Kind: SinkCloudEvents, Template: "{message}"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, body, err := n.body(c.sink)
			if (err == nil) != (c.want != "") || !strings.Contains(string(body), c.want) || err == nil && !json.Valid(body) {
				t.Errorf("%s, %v", body, err)
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
	write("ops.template", "{headline}")
	sinks, err := ReadSinks(dir)
	if err != nil || len(sinks) != 2 || sinks[0].Kind != SinkSlack || sinks[0].Template != "{headline}" || sinks[1].Template != "" || string(sinks[1].Secret) != "hunter2" || sinks[0].Secret != nil {
		t.Errorf("%+v, %v", sinks, err)
	}
	write("siem.template", "{headline}")
	if _, err := ReadSinks(dir); err == nil || !strings.Contains(err.Error(), "siem.template") {
		t.Error(err)
	}
	write("siem.template", "")
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

// TestWhoeverWatchesNextTellsNothingTwice, forgets nothing that was on its way, and
// resolves what was told before.
func TestWhoeverWatchesNextTellsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{}
		e := &teller{sinks: []Sink{{Name: "ops", Kind: SinkWebhook, URL: "https://ops.example.com"}}, kept: &keptInMemory{}, absent: map[string]bool{}}
		told := func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			var list []string
			for _, body := range s.bodies {
				var n Notice
				if err := json.Unmarshal([]byte(body), &n); err != nil {
					t.Error(err)
				}
				word := string(n.Status)
				if n.Resolved {
					word = "resolved " + word
				}
				list = append(list, word)
			}
			s.got, s.bodies = nil, nil
			return strings.Join(list, ", ")
		}
		want := func(what, want string) {
			t.Helper()
			if got := told(); got != want {
				t.Errorf("%s: told %q, want %q", what, got, want)
			}
		}
		bad, good := became("shop", "", "UNTRUSTED"), became("shop", "", "TRUSTED")
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(bad), bad)
			n.Tell(keyOf(became("pay", "", "TRUSTED")), became("pay", "", "TRUSTED"))
			settle(time.Minute)
			want("the first", "UNTRUSTED")
		})
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(bad), bad)
			settle(time.Hour)
			want("the next, as it was", "")
		})
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(good), good)
			settle(time.Hour)
			want("the next, as it is well", "resolved TRUSTED")
		})
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(good), good)
			settle(time.Hour)
			want("the next, as it is still well", "")
			s.mu.Lock()
			s.status = slices.Repeat([]int{503}, 3) // nobody takes it before this one dies
			s.mu.Unlock()
			n.Tell(keyOf(bad), bad)
			settle(12 * time.Second)
			told()
		})
		s.mu.Lock()
		s.status = nil
		s.mu.Unlock()
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(bad), bad)
			settle(time.Hour)
			want("what nobody had taken", "UNTRUSTED")
			e.runs(keyOf(bad), false)
			settle(3 * time.Minute)
			e.runs(keyOf(bad), true) // it was restarted
			settle(time.Hour)
			want("restarted", "")
			e.runs(keyOf(bad), false)
			settle(10 * time.Minute)
			want("nothing runs it", "resolved GONE")
			settle(time.Hour)
			want("and again", "")
		})
		if len(e.kept.saved) != 0 {
			t.Errorf("kept: %v", e.kept.saved)
		}
		if want := "shop >UNTRUSTED, shop UNTRUSTED>TRUSTED, shop >UNTRUSTED, shop >UNTRUSTED, shop UNTRUSTED>GONE"; strings.Join(e.events, ", ") != want {
			t.Errorf("events: %s", strings.Join(e.events, ", "))
		}
		e.kept.away = true
		e.run(t, s, func(n *Notifier) {
			n.Tell(keyOf(bad), bad)
			settle(time.Hour)
			want("before it is known what was told", "")
			e.kept.mu.Lock()
			e.kept.away = false
			e.kept.mu.Unlock()
			settle(time.Minute)
			want("then", "UNTRUSTED")
		})
	})
}

// TestWithoutTheRightToKeepIt people are told all the same.
func TestWithoutTheRightToKeepIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{}
		e := &teller{sinks: []Sink{{Name: "ops", Kind: SinkWebhook, URL: "https://ops.example.com"}}, kept: &keptInMemory{forbidden: true}, absent: map[string]bool{}}
		e.run(t, s, func(n *Notifier) {
			bad := became("shop", "", "UNTRUSTED")
			n.Tell(keyOf(bad), bad)
			settle(time.Minute)
		})
		if len(s.bodies) != 1 {
			t.Errorf("told: %v", s.bodies)
		}
	})
}

// TestWhatIsKeptFits a ConfigMap, whatever it is called.
func TestWhatIsKeptFits(t *testing.T) {
	kept := map[string]Told{}
	for i := range 20_000 {
		sum := sha256.Sum256([]byte(fmt.Sprint(i)))
		kept[rowKey{"ns", hex.EncodeToString(sum[:]) + hex.EncodeToString(sum[:]), hex.EncodeToString(sum[:]), ""}.String()] = Told{"UNTRUSTED", "sha256:" + hex.EncodeToString(sum[:])}
	}
	data, err := packTold(kept)
	if err != nil || len(data) > maxToldBytes || len(data) < maxToldBytes/4 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// TestARegistryThatIsAwayIsOneNotice, and another when all its images can be verified
// again; what else became of one of them is told of it.
func TestARegistryThatIsAwayIsOneNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{}
		e := &teller{sinks: []Sink{{Name: "ops", Kind: SinkWebhook, URL: "https://ops.example.com"}}, kept: &keptInMemory{}, absent: map[string]bool{}}
		of := func(i int, to Status) Transition {
			return Transition{
				Time: time.Now(), Namespace: fmt.Sprint("ns-", i%7), Image: fmt.Sprintf("shop.example.com/cart-%d:1", i), Digest: digest.FromString(fmt.Sprint(i)).String(),
				To: to, Message: "the registry answered 503", Workloads: []Workload{{"Deployment", fmt.Sprint("cart-", i)}},
			}
		}
		told := func() (list []Notice) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, body := range s.bodies {
				var n Notice
				if err := json.Unmarshal([]byte(body), &n); err != nil {
					t.Error(err)
				}
				list = append(list, n)
			}
			s.got, s.bodies = nil, nil
			return list
		}
		e.run(t, s, func(n *Notifier) {
			for i := range 300 {
				n.Tell(keyOf(of(i, StatusError)), of(i, StatusError))
			}
			settle(time.Minute)
			got := told()
			if len(got) != 1 || got[0].Image != "shop.example.com" || got[0].Status != StatusError || len(got[0].Where) != 7 || len(got[0].Where[0].Workloads) != maxWorkloads {
				t.Fatalf("%+v", got)
			}
			key := got[0].Key
			for i := range 299 {
				n.Tell(keyOf(of(i, "TRUSTED")), of(i, "TRUSTED"))
			}
			settle(time.Minute)
			if got := told(); len(got) > 0 {
				t.Errorf("while one is left: %+v", got)
			}
			n.Tell(keyOf(of(299, "UNTRUSTED")), of(299, "UNTRUSTED"))
			settle(time.Minute)
			got = told()
			if len(got) != 2 || got[0].Status != "UNTRUSTED" || got[0].Resolved || got[1].Key != key || !got[1].Resolved || got[1].Status != StatusVerified {
				t.Errorf("%+v", got)
			}
		})
		if len(e.kept.saved) != 1 {
			t.Errorf("kept: %v", e.kept.saved)
		}
		e.run(t, s, func(n *Notifier) {
			for i := range 299 {
				n.Tell(keyOf(of(i, "TRUSTED")), of(i, "TRUSTED"))
			}
			n.Tell(keyOf(of(299, "UNTRUSTED")), of(299, "UNTRUSTED"))
			settle(time.Hour)
			if got := told(); len(got) > 0 {
				t.Errorf("again: %+v", got)
			}
		})
	})
}
