package library

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/countersign-dev/countersign/test/engine"
	"github.com/countersign-dev/countersign/test/fake"
)

// kind is that of the template in trusted-images; bareKind that of the same
// rules without a schema, which shows what the rules do with parameters that
// the schema refuses.
const (
	kind     = "CountersignTrustedImagesV1"
	bareKind = "CountersignBare"
)

// Case is one file of library/trusted-images/cases: a request, what the provider
// says, and what comes of it.
type Case struct {
	// Parameters of the constraint; without them, those of the template.
	Parameters map[string]any `json:"parameters"`
	// SchemaRefuses says that no API server would store these parameters.
	SchemaRefuses bool `json:"schemaRefuses"`
	// Operation of the request; CREATE when empty.
	Operation admissionv1.Operation `json:"operation"`
	// Audit looks at the object without a request.
	Audit     bool           `json:"audit"`
	Object    map[string]any `json:"object"`
	OldObject map[string]any `json:"oldObject"`
	// Answer is what the provider says when it is asked.
	Answer fake.Answer `json:"answer"`
	// Asked are the keys of the one request that the provider sees; none where
	// nobody may be asked.
	Asked []string `json:"asked"`
	// Messages are what the user reads, all of it; none where the object passes.
	Messages []string `json:"messages"`
}

// outcome is what came of a case.
type outcome struct {
	Asked    [][]string
	Messages []string
}

// readCases gives the cases of a folder by name, checked for what their names
// promise.
func readCases(dir string) (map[string]Case, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	cases := map[string]Case{}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var c Case
		if err := yaml.UnmarshalStrict(content, &c); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		denied := strings.HasPrefix(name, "denied-")
		if !denied && !strings.HasPrefix(name, "allowed-") || denied != (len(c.Messages) > 0) {
			return nil, fmt.Errorf("%s: want allowed-* without messages, or denied-* with messages", path)
		}
		if !bytes.HasPrefix(content, []byte("# ")) {
			return nil, fmt.Errorf("%s: starts without a comment that says why it is here", path)
		}
		cases[name] = c
	}
	return cases, nil
}

// judge applies a constraint of the kind, with the case's parameters and no
// match, and decides. An error says that the constraint is not taken.
func (s *suite) judge(ctx context.Context, c Case, kind string) (outcome, error) {
	constraint := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "constraints.gatekeeper.sh/v1beta1",
		"kind":       kind,
		"metadata":   map[string]any{"name": "case"},
		"spec":       map[string]any{},
	}}
	if c.Parameters != nil {
		constraint.Object["spec"] = map[string]any{"parameters": c.Parameters}
	}
	if err := s.engine.Apply(ctx, constraint); err != nil {
		return outcome{}, fmt.Errorf("the constraint is refused: %w", err)
	}
	defer func() { _ = s.engine.Remove(ctx, constraint) }()

	s.provider.Say(c.Answer)
	decision, err := s.decide(ctx, c)
	if err != nil { // which the webhook answers with 500: nobody is admitted, nobody knows why
		return outcome{Messages: []string{"error: " + err.Error()}}, nil
	}
	return outcome{Asked: s.provider.Asked(), Messages: decision.Denials}, nil
}

func (s *suite) decide(ctx context.Context, c Case) (engine.Decision, error) {
	object, old := object(c.Object), object(c.OldObject)
	switch {
	case c.Audit:
		return s.engine.Audit(ctx, object)
	case c.Operation == admissionv1.Delete:
		return s.engine.Admit(ctx, engine.Delete(old.GetNamespace(), old))
	case c.Operation == admissionv1.Update:
		return s.engine.Admit(ctx, engine.Update(object.GetNamespace(), old, object))
	default:
		return s.engine.Admit(ctx, engine.Create(object.GetNamespace(), object))
	}
}

// check gives the difference between what came of a case and what its file
// says; "" for none.
func (s *suite) check(ctx context.Context, c Case) string {
	want := outcome{Messages: slices.Sorted(slices.Values(c.Messages))}
	if len(c.Asked) > 0 {
		want.Asked = [][]string{c.Asked}
	}
	of := kind
	if c.SchemaRefuses {
		if _, err := s.judge(ctx, c, kind); err == nil {
			return "the schema takes the parameters"
		}
		of = bareKind
	}
	got, err := s.judge(ctx, c, of)
	if err != nil {
		return err.Error()
	}
	return cmp.Diff(want, got)
}

// object is nil for no object.
func object(content map[string]any) *unstructured.Unstructured {
	if content == nil {
		return nil
	}
	return &unstructured.Unstructured{Object: content}
}
