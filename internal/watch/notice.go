package watch

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Notice is what became of an image, in all namespaces in which it did at about the
// same time; or that images of a registry, which Image names then, cannot be verified.
type Notice struct {
	// Key is the same for a notice and the one that resolves it, whoever sends them.
	Key string `json:"key"`
	// Resolved says that the image may run again.
	Resolved bool            `json:"resolved"`
	Image    string          `json:"image"`
	Digest   string          `json:"digest,omitempty"`
	Status   Status          `json:"status"`
	Previous Status          `json:"previous,omitempty"`
	Reason   verifier.Reason `json:"reason,omitempty"`
	Message  string          `json:"message"`
	Policy   string          `json:"policy,omitempty"`
	Time     time.Time       `json:"time"`
	Where    []Where         `json:"where"`

	rows map[string]Status // that it is about, with what they become
}

// Where is a namespace with the workloads that use an image.
type Where struct {
	Namespace string     `json:"namespace"`
	Workloads []Workload `json:"workloads"`
}

// notices groups what became of rows by image and what it became, in the order of
// their keys; what cannot be verified by its registry.
func notices(keys []string, became map[string]Transition) []Notice {
	var list []Notice
	index := map[string]int{}
	for _, key := range keys {
		t := became[key]
		of := about(key, t.To, t.Digest)
		group := of + " " + string(t.To)
		i, there := index[group]
		if !there {
			i = len(list)
			index[group] = i
			list = append(list, Notice{
				Key: noticeKey(of), Resolved: t.To.settled(), Image: t.Image, Digest: t.Digest, Status: t.To, Previous: t.From,
				Reason: t.Reason, Message: t.Message, Policy: t.Policy, Time: t.Time, rows: map[string]Status{},
			})
			if t.To == StatusError {
				list[i].Image, list[i].Digest = of, ""
			}
		}
		list[i].rows[key] = t.To
		list[i].add(t)
	}
	for i := range list {
		slices.SortFunc(list[i].Where, func(a, b Where) int { return strings.Compare(a.Namespace, b.Namespace) })
	}
	return list
}

// add names where another row is; of a namespace that is named already its workloads.
func (n *Notice) add(t Transition) {
	i := slices.IndexFunc(n.Where, func(w Where) bool { return w.Namespace == t.Namespace })
	if i < 0 {
		n.Where = append(n.Where, Where{t.Namespace, slices.Clone(t.Workloads)})
		return
	}
	for _, workload := range t.Workloads {
		if w := &n.Where[i]; !slices.Contains(w.Workloads, workload) && len(w.Workloads) < maxWorkloads {
			w.Workloads = append(w.Workloads, workload)
		}
	}
}

// verifiedAgain resolves that a registry's images could not be verified.
func verifiedAgain(registry string, keys []string) Notice {
	n := Notice{
		Key: noticeKey(registry), Resolved: true, Image: registry, Status: StatusVerified, Previous: StatusError, Time: time.Now(),
		Message: "all images of " + registry + " that run can be verified again", Where: []Where{}, rows: map[string]Status{},
	}
	for _, key := range keys {
		n.rows[key] = StatusVerified
	}
	return n
}

func noticeKey(of string) string {
	sum := sha256.Sum256([]byte(of))
	return hex.EncodeToString(sum[:8])
}

// headline says it in a line.
func (n Notice) headline() string {
	workloads := 0
	for _, w := range n.Where {
		workloads += len(w.Workloads)
	}
	switch {
	case n.Status == StatusError:
		return fmt.Sprintf("ERROR: %d images of %s cannot be verified, in %d namespaces", len(n.rows), n.Image, len(n.Where))
	case n.Status == StatusVerified:
		return "Resolved: " + n.Message
	case n.Status == StatusGone:
		return "Resolved: nothing runs the image any more: " + n.name()
	case n.Resolved:
		return fmt.Sprintf("Resolved: image is %s again in %d namespaces: %s", n.Status, len(n.Where), n.name())
	default:
		return fmt.Sprintf("%s image in %d workloads of %d namespaces: %s", n.Status, workloads, len(n.Where), n.name())
	}
}

func (n Notice) name() string { return n.Image + " (" + short(n.Digest) + ")" }

// maxNamed is how many namespaces a message to people names.
const maxNamed = 10

// places names where it runs, the first ten namespaces.
func (n Notice) places() string {
	var lines []string
	for _, w := range n.Where[:min(len(n.Where), maxNamed)] {
		var names []string
		for _, workload := range w.Workloads {
			names = append(names, workload.Kind+"/"+workload.Name)
		}
		lines = append(lines, w.Namespace+": "+strings.Join(names, ", "))
	}
	if more := len(n.Where) - maxNamed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d namespaces more", more))
	}
	return strings.Join(lines, "\n")
}

// The kinds of services that notices are sent to.
const (
	SinkWebhook      = "webhook"
	SinkCloudEvents  = "cloudevents"
	SinkSlack        = "slack"
	SinkTeams        = "teams"
	SinkAlertmanager = "alertmanager"
)

// alertAge is how long Alertmanager takes an alert for true that nobody resolves.
const alertAge = 7 * 24 * time.Hour

// body is a notice as a service takes it.
func (n Notice) body(sink Sink) (contentType string, body []byte, err error) {
	contentType = "application/json"
	var v any
	switch sink.Kind {
	case SinkWebhook:
		if sink.Template != "" {
			body = []byte(n.fill(sink.Template, jsonText))
			if !json.Valid(body) {
				return "", nil, errors.New("what it makes is no JSON: put placeholders into strings, {\"text\": \"{headline}\"}")
			}
			return contentType, body, nil
		}
		v = n
	case SinkCloudEvents: // CloudEvents 1.0, structured mode
		contentType = "application/cloudevents+json"
		v = map[string]any{
			"specversion": "1.0", "type": "dev.countersign.image.status", "source": "/countersign/watch",
			"id": n.Key + "-" + string(n.Status) + "-" + n.Time.UTC().Format("20060102T150405.000Z"), "time": n.Time.UTC().Format(time.RFC3339Nano),
			"subject": cmp.Or(n.Digest, n.Image), "datacontenttype": "application/json", "data": n,
		}
	case SinkSlack:
		v = map[string]any{"text": n.fill(cmp.Or(sink.Template, "*{headline}*\n{message}\n{places}"), slackText)}
	case SinkTeams: // an adaptive card, as workflows take it
		block := func(template, weight string) map[string]any {
			return map[string]any{"type": "TextBlock", "text": n.fill(template, cardText), "weight": weight, "wrap": true}
		}
		blocks := []any{block("{headline}", "bolder"), block("{message}", "default"), block("{places}", "default")}
		if sink.Template != "" {
			blocks = []any{block(sink.Template, "default")}
		}
		v = map[string]any{"type": "message", "attachments": []any{map[string]any{
			"contentType": "application/vnd.microsoft.card.adaptive",
			"content": map[string]any{
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
				"body": blocks,
			},
		}}}
	case SinkAlertmanager: // its API v2, /api/v2/alerts
		ends := n.Time.Add(alertAge)
		if n.Resolved {
			ends = n.Time
		}
		v = []any{map[string]any{
			"labels":      map[string]string{"alertname": "CountersignImage", "digest": short(n.Digest), "key": n.Key}, // which the one that resolves it has as well
			"annotations": map[string]string{"image": n.Image, "summary": n.headline(), "description": n.Message + "\n" + n.places()},
			"startsAt":    n.Time.UTC().Format(time.RFC3339), "endsAt": ends.UTC().Format(time.RFC3339),
		}}
	default:
		return "", nil, fmt.Errorf("no service is called %q", sink.Kind)
	}
	if sink.Template != "" && (sink.Kind == SinkCloudEvents || sink.Kind == SinkAlertmanager) {
		return "", nil, fmt.Errorf("what %s takes is a standard's: leave it out", sink.Kind)
	}
	body, err = json.Marshal(v)
	return contentType, body, err
}

// fill puts what a notice says into a template, as text that cannot be anything else
// there.
func (n Notice) fill(template string, text func(string) string) string {
	var namespaces []string
	for _, w := range n.Where {
		namespaces = append(namespaces, w.Namespace)
	}
	return strings.NewReplacer(
		"{headline}", text(n.headline()), "{status}", text(string(n.Status)), "{previous}", text(string(n.Previous)), "{image}", text(n.Image),
		"{digest}", text(n.Digest), "{reason}", text(string(n.Reason)), "{message}", text(n.Message), "{policy}", text(n.Policy),
		"{namespaces}", text(strings.Join(namespaces, ", ")), "{places}", text(n.places()), "{key}", text(n.Key),
		"{resolved}", strconv.FormatBool(n.Resolved), "{time}", n.Time.UTC().Format(time.RFC3339),
	).Replace(template)
}

// jsonText is what stands between the quotes of a string.
func jsonText(s string) string {
	quoted, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

// slackText keeps names from being links and mentions.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "∗", "`", "'").Replace(s)
}

// cardText keeps names from being Markdown.
func cardText(s string) string {
	return strings.NewReplacer("[", "(", "]", ")", "*", "∗", "_", "＿", "`", "'", "<", "‹", ">", "›").Replace(s)
}

// signature is over when a notice was sent and what it says.
func signature(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
