package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// conditionEnforced is true while what is decided decides: while Gatekeeper's webhook
// lets nothing in that was not answered. It is in each ClusterTrustPolicy.
const conditionEnforced = "AdmissionEnforced"

// The reasons of that condition.
const (
	reasonPolicyFail     = "FailurePolicyFail"
	reasonPolicyIgnore   = "FailurePolicyIgnore"
	reasonWebhookTimeout = "WebhookTimeout"
	reasonWebhookMissing = "WebhookMissing"
	reasonWebhookUnread  = "WebhookUnreadable"
)

const (
	// defaultWebhookTimeout is the API server's, in seconds.
	defaultWebhookTimeout = 10
	// webhookMemory is how long what was read last counts while the API server
	// does not answer; it is several looks.
	webhookMemory = time.Minute
)

// WebhookState says what is known of Gatekeeper's webhook. The zero value is that
// nothing is.
type WebhookState int

// The states, the first that holds.
const (
	// WebhookUnknown: the configuration cannot be read, or was not read yet.
	WebhookUnknown WebhookState = iota
	// WebhookMissing: no webhook asks Gatekeeper about Pods.
	WebhookMissing
	// WebhookIgnores: a Pod about which Gatekeeper does not answer is admitted.
	WebhookIgnores
	// WebhookTimesOut: the API server may stop waiting before Gatekeeper has stopped
	// waiting for the provider.
	WebhookTimesOut
	// WebhookEnforces: nothing is admitted that Gatekeeper has not answered.
	WebhookEnforces
)

// WebhookStates are all of them.
func WebhookStates() []WebhookState {
	return []WebhookState{WebhookUnknown, WebhookMissing, WebhookIgnores, WebhookTimesOut, WebhookEnforces}
}

// String is the state as metrics name it.
func (s WebhookState) String() string {
	switch s {
	case WebhookMissing:
		return "missing"
	case WebhookIgnores:
		return "ignore"
	case WebhookTimesOut:
		return "timeout"
	case WebhookEnforces:
		return "enforced"
	default:
		return "unknown"
	}
}

// Webhook follows how the API server asks Gatekeeper: whether a Pod about which it
// gets no answer is admitted. It is safe for concurrent use.
type Webhook struct {
	name string
	// least is the Provider's timeout in seconds; the webhook's must be above it.
	least int64

	mu  sync.Mutex
	now webhookView
}

// webhookView is what was read of the configuration.
type webhookView struct {
	read    time.Time // zero: never tried
	state   WebhookState
	timeout int64  // seconds, of the webhook that waits for the shortest time; 0: not known
	message string // what is wrong, and what to do
}

// NewWebhook follows a ValidatingWebhookConfiguration by its name. The timeout is the
// Provider's, in seconds.
func NewWebhook(name string, providerTimeout int64) *Webhook {
	return &Webhook{name: name, least: providerTimeout}
}

// State is what was read last, for as long as that counts, and the webhook's timeout
// in seconds, which is zero where it is not known.
func (w *Webhook) State() (state WebhookState, timeoutSeconds int64) {
	view := w.view()
	if time.Since(view.read) > webhookMemory {
		return WebhookUnknown, 0
	}
	return view.state, view.timeout
}

func (w *Webhook) view() webhookView {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// condition words the state; there is none before the first look.
func (w *Webhook) condition() (c metav1.Condition, known bool) {
	view := w.view()
	c = metav1.Condition{Type: conditionEnforced, Status: metav1.ConditionFalse, Message: clip(view.message, maxConditionMessage)}
	switch view.state {
	case WebhookMissing:
		c.Reason = reasonWebhookMissing
	case WebhookIgnores:
		c.Reason = reasonPolicyIgnore
	case WebhookTimesOut:
		c.Reason = reasonWebhookTimeout
	case WebhookEnforces:
		c.Status, c.Reason = metav1.ConditionTrue, reasonPolicyFail
	default:
		c.Status, c.Reason = metav1.ConditionUnknown, reasonWebhookUnread
	}
	return c, !view.read.IsZero()
}

// look reads the configuration, and reports whether another thing is known now.
func (w *Webhook) look(ctx context.Context, from client.Reader) (changed bool) {
	var configuration admissionv1.ValidatingWebhookConfiguration
	err := from.Get(ctx, client.ObjectKey{Name: w.name}, &configuration)
	if ctx.Err() != nil {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	before, now := w.now, time.Now()
	switch {
	case err == nil:
		w.now = w.judge(configuration.Webhooks)
		w.now.read = now
	case apierrors.IsNotFound(err):
		w.now = webhookView{read: now, state: WebhookMissing, message: w.missing()}
	case !apierrors.IsForbidden(err) && before.state != WebhookUnknown && now.Sub(before.read) < webhookMemory:
		// Away for a moment: what was read last still counts.
	default:
		w.now = webhookView{read: now, message: w.unread(apierrors.IsForbidden(err))}
	}
	return before.read.IsZero() || before.state != w.now.state || before.message != w.now.message
}

// judge says what webhooks do with a Pod that they get no answer about.
func (w *Webhook) judge(webhooks []admissionv1.ValidatingWebhook) webhookView {
	var view webhookView
	ignores := false
	for i := range webhooks {
		if !asksAboutPods(&webhooks[i]) {
			continue
		}
		// What is left out means Fail and ten seconds.
		if policy := webhooks[i].FailurePolicy; policy != nil && *policy != admissionv1.Fail {
			ignores = true
		}
		timeout := int64(defaultWebhookTimeout)
		if given := webhooks[i].TimeoutSeconds; given != nil {
			timeout = int64(*given)
		}
		if view.timeout == 0 || timeout < view.timeout {
			view.timeout = timeout
		}
	}
	short := view.timeout <= w.least
	switch {
	case view.timeout == 0:
		return webhookView{state: WebhookMissing, message: w.missing()}
	case ignores && short:
		view.state, view.message = WebhookIgnores, w.ignores(view.timeout)+". "+w.timesOut(view.timeout)
	case ignores:
		view.state, view.message = WebhookIgnores, w.ignores(view.timeout)
	case short:
		view.state, view.message = WebhookTimesOut, w.timesOut(view.timeout)
	default:
		view.state, view.message = WebhookEnforces, fmt.Sprintf("a Pod that Gatekeeper does not answer for within %d s is refused", view.timeout)
	}
	return view
}

func (w *Webhook) ignores(timeout int64) string {
	return fmt.Sprintf("ValidatingWebhookConfiguration %s has failurePolicy Ignore: a Pod that Gatekeeper does not answer for within %d s is admitted unverified. "+
		"Set validatingWebhookFailurePolicy=Fail in Gatekeeper's chart", w.name, timeout)
}

func (w *Webhook) timesOut(timeout int64) string {
	return fmt.Sprintf("ValidatingWebhookConfiguration %s has timeoutSeconds %d, and Gatekeeper waits for the provider for %d s: the API server may stop waiting first. "+
		"Set validatingWebhookTimeoutSeconds=%d in Gatekeeper's chart", w.name, timeout, w.least, w.least+1)
}

func (w *Webhook) missing() string {
	return fmt.Sprintf("no webhook in ValidatingWebhookConfiguration %s asks Gatekeeper about Pods that are created: they are admitted unverified. "+
		"Install Gatekeeper, or set gatekeeper.webhookConfiguration in Countersign's chart where the configuration has another name", w.name)
}

func (w *Webhook) unread(forbidden bool) string {
	if forbidden {
		return fmt.Sprintf("ValidatingWebhookConfiguration %s may not be read. Let the provider's ServiceAccount get it, as Countersign's chart does with rbac.create=true", w.name)
	}
	return fmt.Sprintf("ValidatingWebhookConfiguration %s cannot be read: the API server does not answer. It is read again every %d s", w.name, int(lookAround.Seconds()))
}

// asksAboutPods reports whether a webhook is called when a Pod is created. The one
// that guards the labels of namespaces is not.
func asksAboutPods(webhook *admissionv1.ValidatingWebhook) bool {
	has := func(list []string, wanted ...string) bool {
		return slices.ContainsFunc(list, func(one string) bool { return slices.Contains(wanted, one) })
	}
	return slices.ContainsFunc(webhook.Rules, func(r admissionv1.RuleWithOperations) bool {
		operations := make([]string, len(r.Operations))
		for i, one := range r.Operations {
			operations[i] = string(one)
		}
		return has(operations, string(admissionv1.Create), "*") && has(r.APIGroups, "", "*") && has(r.APIVersions, "v1", "*") && has(r.Resources, "pods", "*", "*/*")
	})
}

// webhookWatch keeps a Webhook up to date. It runs in every replica.
type webhookWatch struct {
	webhook *Webhook
	api     client.Reader // no cache: what may not be read would hold the caches up
	changed trigger       // pulled when the configuration changed, where it is followed
	decided trigger       // to pull when the condition is another one
	log     *slog.Logger
}

// NeedLeaderElection reports that every replica has the metric.
func (w *webhookWatch) NeedLeaderElection() bool { return false }

// Start reads the configuration until ctx ends.
func (w *webhookWatch) Start(ctx context.Context) error {
	return repeat(ctx, w.changed, func() time.Duration {
		w.update(ctx)
		return lookAround
	})
}

// update reads the configuration once and tells of a change.
func (w *webhookWatch) update(ctx context.Context) {
	before := w.webhook.view()
	if !w.webhook.look(ctx, w.api) {
		return
	}
	now := w.webhook.view()
	switch {
	case now.state == WebhookEnforces && !before.read.IsZero():
		w.log.InfoContext(ctx, "Gatekeeper's webhook admits nothing unanswered", slog.Int64("timeoutSeconds", now.timeout))
	case now.state == WebhookUnknown:
		w.log.WarnContext(ctx, "Gatekeeper's webhook configuration cannot be read", slog.String("detail", now.message))
	case now.state != WebhookEnforces:
		w.log.WarnContext(ctx, "Gatekeeper's webhook may admit Pods unverified, or refuse them unanswered",
			slog.String("state", now.state.String()), slog.Int64("timeoutSeconds", now.timeout), slog.String("detail", now.message))
	}
	w.decided.pull()
}
