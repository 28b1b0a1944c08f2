package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// asking is a webhook as Gatekeeper's chart has it, for some resources.
func asking(policy admissionv1.FailurePolicyType, timeout int32, resources ...string) admissionv1.ValidatingWebhook {
	return admissionv1.ValidatingWebhook{
		FailurePolicy: &policy, TimeoutSeconds: &timeout,
		Rules: []admissionv1.RuleWithOperations{{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: resources},
		}},
	}
}

func configured(webhooks ...admissionv1.ValidatingWebhook) *admissionv1.ValidatingWebhookConfiguration {
	return &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "gatekeeper"}, Webhooks: webhooks}
}

// TestOnlyAWebhookThatFailsAndWaitsEnforces: the strictest reading of all webhooks that
// are called for a Pod.
func TestOnlyAWebhookThatFailsAndWaitsEnforces(t *testing.T) {
	const fail, ignore = admissionv1.Fail, admissionv1.Ignore
	labels := asking(fail, 3, "namespaces")
	left := asking(fail, 3, "*") // out: Fail, and ten seconds
	left.FailurePolicy, left.TimeoutSeconds = nil, nil
	core, other := asking(fail, 3, "pods"), asking(fail, 3, "*")
	core.Rules[0].APIGroups, other.Rules[0].APIGroups = []string{""}, []string{"apps"}
	updates := asking(fail, 3, "*")
	updates.Rules[0].Operations = []admissionv1.OperationType{admissionv1.Update}
	all := asking(fail, 3, "*/*")
	all.Rules[0].Operations = []admissionv1.OperationType{admissionv1.OperationAll}
	for name, c := range map[string]struct {
		webhooks []admissionv1.ValidatingWebhook
		state    WebhookState
		timeout  int64
		reason   string
		says     []string
	}{
		"as the documents have it":        {[]admissionv1.ValidatingWebhook{asking(fail, 3, "*", "pods/log"), labels}, WebhookEnforces, 3, "True FailurePolicyFail", nil},
		"as the chart has it":             {[]admissionv1.ValidatingWebhook{asking(ignore, 3, "*"), labels}, WebhookIgnores, 3, "False FailurePolicyIgnore", []string{"validatingWebhookFailurePolicy=Fail", "within 3 s"}},
		"it waits no longer than we":      {[]admissionv1.ValidatingWebhook{asking(fail, 2, "*")}, WebhookTimesOut, 2, "False WebhookTimeout", []string{"validatingWebhookTimeoutSeconds=3"}},
		"it waits less than we":           {[]admissionv1.ValidatingWebhook{asking(fail, 1, "*")}, WebhookTimesOut, 1, "False WebhookTimeout", nil},
		"both":                            {[]admissionv1.ValidatingWebhook{asking(ignore, 1, "*")}, WebhookIgnores, 1, "False FailurePolicyIgnore", []string{"validatingWebhookFailurePolicy=Fail", "validatingWebhookTimeoutSeconds=3"}},
		"of two the one that ignores":     {[]admissionv1.ValidatingWebhook{asking(fail, 3, "*"), asking(ignore, 5, "*")}, WebhookIgnores, 3, "False FailurePolicyIgnore", nil},
		"of two the one that waits less":  {[]admissionv1.ValidatingWebhook{asking(fail, 3, "*"), asking(fail, 1, "*")}, WebhookTimesOut, 1, "False WebhookTimeout", nil},
		"a policy that is not known":      {[]admissionv1.ValidatingWebhook{asking("Later", 3, "*")}, WebhookIgnores, 3, "False FailurePolicyIgnore", nil},
		"what is left out":                {[]admissionv1.ValidatingWebhook{left}, WebhookEnforces, 10, "True FailurePolicyFail", nil},
		"Pods alone":                      {[]admissionv1.ValidatingWebhook{core}, WebhookEnforces, 3, "True FailurePolicyFail", nil},
		"everything":                      {[]admissionv1.ValidatingWebhook{all}, WebhookEnforces, 3, "True FailurePolicyFail", nil},
		"namespaces ignored is no matter": {[]admissionv1.ValidatingWebhook{asking(fail, 3, "*"), asking(ignore, 1, "namespaces")}, WebhookEnforces, 3, "True FailurePolicyFail", nil},
		"namespaces alone":                {[]admissionv1.ValidatingWebhook{labels}, WebhookMissing, 0, "False WebhookMissing", []string{"gatekeeper.webhookConfiguration"}},
		"another group alone":             {[]admissionv1.ValidatingWebhook{other}, WebhookMissing, 0, "False WebhookMissing", nil},
		"a subresource alone":             {[]admissionv1.ValidatingWebhook{asking(fail, 3, "pods/exec")}, WebhookMissing, 0, "False WebhookMissing", nil},
		"updates alone":                   {[]admissionv1.ValidatingWebhook{updates}, WebhookMissing, 0, "False WebhookMissing", nil},
		"none":                            {nil, WebhookMissing, 0, "False WebhookMissing", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWebhook("gatekeeper", 2)
			if !w.look(t.Context(), &things{all: []client.Object{configured(c.webhooks...)}}) {
				t.Error("the first look is no news")
			}
			state, timeout := w.State()
			condition, known := w.condition()
			if got := string(condition.Status) + " " + condition.Reason; state != c.state || timeout != c.timeout || got != c.reason || !known {
				t.Errorf("%s, %d s, %s: %s", state, timeout, got, condition.Message)
			}
			for _, want := range c.says {
				if !strings.Contains(condition.Message, want) {
					t.Errorf("no %q in %q", want, condition.Message)
				}
			}
		})
	}
}

// TestAWebhookThatCannotBeReadIsUnknown: never a yes, at once where it may not be read,
// and after a minute where the API server is away.
func TestAWebhookThatCannotBeReadIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resource := schema.GroupResource{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"}
		from := &things{all: []client.Object{configured(asking(admissionv1.Fail, 3, "*"))}}
		w := NewWebhook("gatekeeper", 2)
		expect := func(what string, want WebhookState, news bool) {
			t.Helper()
			changed := w.look(t.Context(), from)
			if state, _ := w.State(); state != want || changed != news {
				t.Errorf("%s: %s, changed: %t", what, state, changed)
			}
		}
		if state, timeout := w.State(); state != WebhookUnknown || timeout != 0 {
			t.Errorf("before the first look: %s, %d", state, timeout)
		}
		if c, known := w.condition(); known || c.Status == metav1.ConditionTrue {
			t.Errorf("before the first look: %+v", c)
		}
		from.err = errors.New("away")
		expect("away from the start", WebhookUnknown, true)
		from.err = nil
		expect("there", WebhookEnforces, true)
		expect("still there", WebhookEnforces, false)
		from.err = errors.New("away")
		time.Sleep(webhookMemory / 2) // synctest's clock
		expect("away for a moment", WebhookEnforces, false)
		time.Sleep(webhookMemory)
		if state, timeout := w.State(); state != WebhookUnknown || timeout != 0 {
			t.Errorf("not looked at for long: %s, %d", state, timeout)
		}
		expect("away for long", WebhookUnknown, true)
		from.err = nil
		expect("there again", WebhookEnforces, true)
		from.err = apierrors.NewForbidden(resource, "gatekeeper", nil)
		expect("forbidden", WebhookUnknown, true)
		if c, _ := w.condition(); c.Status != metav1.ConditionUnknown || !strings.Contains(c.Message, "rbac.create=true") {
			t.Errorf("%+v", c)
		}
		from.err, from.all = nil, nil
		expect("deleted", WebhookMissing, true)
	})
}

// TestAWebhookIsToldOfOncePerChange in the log.
func TestAWebhookIsToldOfOncePerChange(t *testing.T) {
	var log bytes.Buffer
	from := &things{}
	w := &webhookWatch{webhook: NewWebhook("gatekeeper", 2), api: from, decided: newTrigger(), log: slog.New(slog.NewTextHandler(&log, nil))}
	for _, c := range []struct {
		webhook admissionv1.ValidatingWebhook
		err     error
		says    string // once
	}{
		{asking(admissionv1.Fail, 3, "*"), nil, ""},
		{asking(admissionv1.Ignore, 3, "*"), nil, "level=WARN msg=\"Gatekeeper's webhook may admit"},
		{asking(admissionv1.Fail, 2, "*"), nil, "level=WARN msg=\"Gatekeeper's webhook may admit"},
		{asking(admissionv1.Fail, 3, "*"), nil, "level=INFO msg=\"Gatekeeper's webhook admits nothing"},
		{asking(admissionv1.Fail, 3, "*"), apierrors.NewForbidden(schema.GroupResource{}, "gatekeeper", nil), "level=WARN msg=\"Gatekeeper's webhook configuration cannot be read\""},
	} {
		log.Reset()
		from.all, from.err = []client.Object{configured(c.webhook)}, c.err
		for range 3 {
			w.update(t.Context())
		}
		if got := log.String(); !strings.Contains(got, c.says) || strings.Count(got, "\n") > 1 || c.says == "" && got != "" {
			t.Errorf("want once %q:\n%s", c.says, got)
		}
		select {
		case <-w.decided:
		default:
			t.Error("the statuses are not looked at")
		}
	}
}

// TestEachClusterPolicySaysWhetherAdmissionIsEnforced, and no other object does; what
// has not changed is not written.
func TestEachClusterPolicySaysWhetherAdmissionIsEnforced(t *testing.T) {
	ours := skipping("production", "a.example.com", 1)
	theirs := skipping("team", "a.example.com", 1)
	theirs.SetKind("TrustPolicy")
	theirs.SetNamespace("shop")
	from := &things{all: []client.Object{ours, theirs, configured(asking(admissionv1.Ignore, 3, "*"))}}
	p := &policies{from: from, objects: objects(), log: slog.New(slog.DiscardHandler)}
	if err := p.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	recorder := events.NewFakeRecorder(9)
	s := &statuses{client: from, snapshot: p.objects.Snapshot, webhook: NewWebhook("gatekeeper", 2), events: recorder, log: slog.New(slog.DiscardHandler)}
	write := func() (written map[string]string) {
		t.Helper()
		if err := s.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		written = map[string]string{}
		for _, object := range from.patched {
			c := find(conditionsOf(object.(*unstructured.Unstructured)), conditionEnforced)
			written[object.GetName()] = "none"
			if c != nil {
				written[object.GetName()] = string(c.Status) + " " + c.Reason
			}
			for i, one := range from.all { // as the API server has it now
				if one.GetName() == object.GetName() {
					from.all[i] = object
				}
			}
		}
		from.patched = nil
		return written
	}
	if got := write(); len(got) != 2 || got["production"] != "none" || got["team"] != "none" {
		t.Errorf("before the first look: %v", got)
	}
	s.webhook.look(t.Context(), from)
	if got := write(); len(got) != 1 || got["production"] != "False FailurePolicyIgnore" {
		t.Errorf("Ignore: %v", got)
	}
	if got := <-recorder.Events; !strings.HasPrefix(got, "Warning FailurePolicyIgnore") {
		t.Error(got)
	}
	s.webhook.look(t.Context(), from)
	if got := write(); len(got) != 0 {
		t.Errorf("nothing changed: %v", got)
	}
	from.all[2] = configured(asking(admissionv1.Fail, 3, "*"))
	s.webhook.look(t.Context(), from)
	if got := write(); len(got) != 1 || got["production"] != "True FailurePolicyFail" {
		t.Errorf("Fail: %v", got)
	}
}
