package watch

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Notice is what became of an image, in all namespaces in which it did at about the
// same time.
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
}

// Where is a namespace with the workloads that use an image.
type Where struct {
	Namespace string     `json:"namespace"`
	Workloads []Workload `json:"workloads"`
}

// notices groups transitions by image and what it became, in their order.
func notices(transitions []Transition) []Notice {
	var list []Notice
	index := map[string]int{}
	for _, t := range transitions {
		of := cmp.Or(t.Digest, t.Image)
		group := of + " " + string(t.To)
		i, there := index[group]
		if !there {
			sum := sha256.Sum256([]byte(of))
			i = len(list)
			index[group] = i
			list = append(list, Notice{
				Key: hex.EncodeToString(sum[:8]), Resolved: t.To.settled(), Image: t.Image, Digest: t.Digest, Status: t.To, Previous: t.From,
				Reason: t.Reason, Message: t.Message, Policy: t.Policy, Time: t.Time,
			})
		}
		if !slices.ContainsFunc(list[i].Where, func(w Where) bool { return w.Namespace == t.Namespace }) { // by another name, or on another platform
			list[i].Where = append(list[i].Where, Where{t.Namespace, t.Workloads})
		}
	}
	for i := range list {
		slices.SortFunc(list[i].Where, func(a, b Where) int { return strings.Compare(a.Namespace, b.Namespace) })
	}
	return list
}

// headline says it in a line.
func (n Notice) headline() string {
	workloads := 0
	for _, w := range n.Where {
		workloads += len(w.Workloads)
	}
	what := fmt.Sprintf("%s image in %d workloads of %d namespaces", n.Status, workloads, len(n.Where))
	if n.Resolved {
		what = fmt.Sprintf("Resolved: image is %s again in %d namespaces", n.Status, len(n.Where))
	}
	if n.Status == StatusGone {
		what = "Resolved: nothing runs the image any more"
	}
	return what + ": " + n.Image + " (" + short(n.Digest) + ")"
}

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

// body is a notice as a service of this kind takes it.
func (n Notice) body(kind string) (contentType string, body []byte, err error) {
	contentType = "application/json"
	var v any
	switch kind {
	case SinkWebhook:
		v = n
	case SinkCloudEvents: // CloudEvents 1.0, structured mode
		contentType = "application/cloudevents+json"
		v = map[string]any{
			"specversion": "1.0", "type": "dev.countersign.image.status", "source": "/countersign/watch",
			"id": n.Key + "-" + string(n.Status) + "-" + n.Time.UTC().Format("20060102T150405.000Z"), "time": n.Time.UTC().Format(time.RFC3339Nano),
			"subject": cmp.Or(n.Digest, n.Image), "datacontenttype": "application/json", "data": n,
		}
	case SinkSlack:
		v = map[string]any{"text": "*" + slackText(n.headline()) + "*\n" + slackText(n.Message) + "\n" + slackText(n.places())}
	case SinkTeams: // an adaptive card, as workflows take it
		block := func(text, weight string) map[string]any {
			return map[string]any{"type": "TextBlock", "text": cardText(text), "weight": weight, "wrap": true}
		}
		v = map[string]any{"type": "message", "attachments": []any{map[string]any{
			"contentType": "application/vnd.microsoft.card.adaptive",
			"content": map[string]any{
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
				"body": []any{block(n.headline(), "bolder"), block(n.Message, "default"), block(n.places(), "default")},
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
		return "", nil, fmt.Errorf("no service is called %q", kind)
	}
	body, err = json.Marshal(v)
	return contentType, body, err
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
