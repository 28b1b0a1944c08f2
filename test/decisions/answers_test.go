package decisions

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

// TestL05_PolicyEditIsFollowed: a signer is taken out of the policy while all is
// warm; what only he signed is refused from the next look at the policy on.
func TestL05_PolicyEditIsFollowed(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	s.wantAdmitted(t, s.Name("cart:1.4"))
	_, err := s.Signer("ci")
	do(t, err, s.Policy("production.yaml", strings.ReplaceAll(production, "wabbit", "ci")))
	eventually(t, "the signer is no longer trusted", func() bool { return !s.admit(t, s.Name("cart:1.4")).Allowed })
	s.wantDenied(t, s.Name("cart:1.4"), "not in trust store")
	do(t, s.Policy("production.yaml", production))
	eventually(t, "he is trusted again", func() bool { return s.admit(t, s.Name("cart:1.4")).Allowed })
}

// TestL33_AuditLevelShows: what only an audit level let through runs as EXEMPT,
// says so in the metric, and does not run where a constraint wants TRUSTED.
func TestL33_AuditLevelShows(t *testing.T) {
	s := newScene(t, options{policy: strings.ReplaceAll(production, "level: strict", "level: audit")})
	ctx := t.Context()
	longAgo := time.Now().Add(-20 * time.Minute)
	do(t,
		s.Push(ctx, "expired:1"), s.Sign(ctx, "expired:1", "wabbit", notationtest.SignOptions{Time: longAgo, Expiry: longAgo.Add(time.Minute)}),
		s.Push(ctx, "good:1"), s.Sign(ctx, "good:1", "wabbit", notationtest.SignOptions{}),
		s.Push(ctx, "unsigned:1"),
	)
	s.wantAdmitted(t, s.Name("expired:1"))
	s.wantAdmitted(t, s.Name("good:1"))
	s.wantDenied(t, s.Name("unsigned:1"), "no signature found")
	figures, err := s.server.Figures(ctx)
	must(t, err)
	if !strings.Contains(figures, "AUDIT_ONLY") {
		t.Errorf("no metric tells of AUDIT_ONLY:\n%s", figures)
	}

	objects, err := kubeyaml.Read(libraryDir + "/trusted-images/samples/pods.yaml")
	must(t, err)
	must(t, unstructured.SetNestedStringSlice(objects[0].Object, []string{"TRUSTED"}, "spec", "parameters", "allowedStatuses"))
	must(t, s.engine.Apply(ctx, objects...))
	s.wantDenied(t, s.Name("expired:1"), "expired")
	s.wantAdmitted(t, s.Name("good:1"))
}

// TestL36_OneImageDoesNotHarmAnother: ten images, one of them no reference and one
// that its registry never answers about. The Pod is refused for those two, and
// each of the other eight may run.
func TestL36_OneImageDoesNotHarmAnother(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	var images []string
	for i := range 8 {
		image := fmt.Sprintf("good%d:1", i)
		do(t, s.Push(ctx, image), s.Sign(ctx, image, "wabbit", notationtest.SignOptions{}))
		images = append(images, s.Name(image))
	}
	release := make(chan struct{})
	defer close(release)
	s.registry.SetFault(registrytest.On("/hangs/", registrytest.Hang(release)))
	s.wantAdmitted(t, images[0])

	hangs := s.Name("hangs:1")
	decision := s.admit(t, append([]string{hangs, "no reference"}, images...)...)
	if decision.Allowed || len(decision.Denials) != 2 {
		t.Errorf("want two denials of ten images: %q", decision.Denials)
	}
	wantMessage(t, decision, hangs, "undecided", "TIMEOUT")
	if !strings.Contains(decision.Text, "no reference: not an image reference") {
		t.Errorf("nothing about the malformed one: %q", decision.Text)
	}
	s.wantAdmitted(t, images...)
}

// TestL36_FirstContactThatHangs: the first question that the provider ever puts to
// a registry is not answered. Others about that registry are.
func TestL36_FirstContactThatHangs(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	do(t, s.Push(ctx, "cart:1.4"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
	release := make(chan struct{})
	defer close(release)
	asked := make(chan struct{}, 1)
	s.registry.SetFault(registrytest.On("/hangs/", func(w http.ResponseWriter, r *http.Request) bool {
		select {
		case asked <- struct{}{}:
		default:
		}
		return registrytest.Hang(release)(w, r)
	}))
	first := make(chan engine.Decision, 1)
	go func() {
		decision, err := s.engine.Admit(ctx, engine.Create("shop", pod(s.Name("hangs:1"))))
		if err != nil {
			t.Error(err)
		}
		first <- decision
	}()
	<-asked
	s.wantAdmitted(t, s.Name("cart:1.4"))
	wantMessage(t, <-first, s.Name("hangs:1"), "undecided", "TIMEOUT")
}
