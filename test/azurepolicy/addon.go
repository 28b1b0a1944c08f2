package azurepolicy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// What the add-on leaves out, whatever an assignment says.
var alwaysExcluded = []string{"kube-system", "gatekeeper-system", "azure-arc"}

const (
	// maxRecords is how many components of one assignment the portal shows.
	maxRecords = 500
	// maxMessage is how long Gatekeeper keeps a violation's message, in bytes.
	maxMessage = 256
	// constraintNameLength is how long the name of a constraint is.
	constraintNameLength = 63
)

// Assignment is a definition that is assigned to a cluster.
type Assignment struct {
	// ID and DefinitionID are Azure's.
	ID, DefinitionID string
	// Parameters override the definition's defaults.
	Parameters map[string]any
	// DoNotEnforce is enforcementMode: report, and refuse nothing.
	DoNotEnforce bool
}

// Addon does what the Azure Policy add-on does with assignments, as far as it can
// be seen from outside. It does not poll: Assign is a poll.
type Addon struct {
	// Apply puts an object into the cluster or the engine.
	Apply func(context.Context, ...*unstructured.Unstructured) error
	// Fetch reads a template at a public URL.
	Fetch func(url string) ([]byte, error)

	installed map[string]string // by the template's name, where it came from
}

// The reasons that the portal shows.
const (
	ReasonConflict        = "ConstraintTemplateConflicts"
	ReasonInvalid         = "InvalidConstraint/Template"
	ReasonTemplateInstall = "ConstraintTemplateInstallFailed"
)

// InstallError is why an assignment is not in force.
type InstallError struct {
	Reason string
	Err    error
}

func (e *InstallError) Error() string { return e.Reason + ": " + e.Err.Error() }

// Unwrap gives the cause.
func (e *InstallError) Unwrap() error { return e.Err }

// Assign installs the definition's template and its constraint, and gives the
// constraint; nil for the effect Disabled.
func (a *Addon) Assign(ctx context.Context, definition []byte, assignment Assignment) (*unstructured.Unstructured, error) {
	var d Definition
	if err := json.Unmarshal(definition, &d); err != nil {
		return nil, err
	}
	values, err := resolve(d, assignment.Parameters)
	if err != nil {
		return nil, &InstallError{ReasonInvalid, err}
	}
	effect, _ := values(d.PolicyRule.Then.Effect).(string)
	if effect == "Disabled" {
		return nil, nil
	}
	template, source, err := a.template(d.PolicyRule.Then.Details.TemplateInfo)
	if err != nil {
		return nil, &InstallError{ReasonTemplateInstall, err}
	}
	if _, synced := template.GetAnnotations()["metadata.gatekeeper.sh/requires-sync-data"]; synced {
		return nil, &InstallError{ReasonTemplateInstall, errors.New("the template wants synced data")}
	}
	name := template.GetName()
	if a.installed == nil {
		a.installed = map[string]string{}
	}
	if before, known := a.installed[name]; known && before != source {
		return nil, &InstallError{ReasonConflict, fmt.Errorf("template %s is there from another source", name)}
	}
	annotate(template, map[string]any{
		"azure-policy-definition-id": assignment.DefinitionID, "constraint-template-installed-by": "azure-policy-addon", "constraint-template": source,
	})
	if err := a.Apply(ctx, template); err != nil {
		return nil, &InstallError{ReasonTemplateInstall, err}
	}
	a.installed[name] = source
	constraint, err := constraintOf(d, template, assignment, values, effect, source)
	if err != nil {
		return nil, &InstallError{ReasonInvalid, err}
	}
	if err := a.Apply(ctx, constraint); err != nil {
		return nil, &InstallError{ReasonInvalid, err}
	}
	return constraint, nil
}

var reference = regexp.MustCompile(`^\[parameters\('(\w+)'\)\]$`)

// resolve gives what an expression of the definition stands for, and refuses
// parameters that the assignment may not have.
func resolve(d Definition, given map[string]any) (func(any) any, error) {
	values := map[string]any{}
	for name, p := range d.Parameters {
		values[name] = p.DefaultValue
		value, ok := given[name]
		if !ok {
			continue
		}
		if !typed(p.Type, value) {
			return nil, fmt.Errorf("parameter %s is no %s", name, p.Type)
		}
		if len(p.AllowedValues) > 0 && !slices.Contains(p.AllowedValues, value) {
			return nil, fmt.Errorf("parameter %s may not be %v", name, value)
		}
		values[name] = value
	}
	for name := range given {
		if _, ok := d.Parameters[name]; !ok {
			return nil, fmt.Errorf("there is no parameter %s", name)
		}
	}
	return func(expression any) any {
		text, ok := expression.(string)
		if !ok {
			return expression
		}
		if found := reference.FindStringSubmatch(text); found != nil {
			return values[found[1]]
		}
		return expression
	}, nil
}

func typed(kind string, value any) bool {
	switch value.(type) {
	case string:
		return kind == "String"
	case bool:
		return kind == "Boolean"
	case []any:
		return kind == "Array"
	case map[string]any:
		return kind == "Object"
	}
	return false
}

func (a *Addon) template(info TemplateInfo) (template *unstructured.Unstructured, source string, err error) {
	var content []byte
	switch info.SourceType {
	case "Base64Encoded":
		content, err = base64.StdEncoding.DecodeString(info.Content)
		sum := sha256.Sum256(content)
		source = "base64:" + hex.EncodeToString(sum[:])
	case "PublicURL":
		content, err = a.Fetch(info.URL)
		source = info.URL
	default:
		err = fmt.Errorf("there is no source type %q", info.SourceType)
	}
	if err != nil {
		return nil, "", err
	}
	template = &unstructured.Unstructured{}
	return template, source, yaml.UnmarshalStrict(content, &template.Object)
}

func annotate(object *unstructured.Unstructured, more map[string]any) {
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	for name, value := range more {
		annotations[name] = fmt.Sprint(value)
	}
	object.SetAnnotations(annotations)
}

func constraintOf(d Definition, template *unstructured.Unstructured, assignment Assignment, values func(any) any, effect, source string) (*unstructured.Unstructured, error) {
	kind, _, _ := unstructured.NestedString(template.Object, "spec", "crd", "spec", "names", "kind")
	properties, _, _ := unstructured.NestedMap(template.Object, "spec", "crd", "spec", "validation", "openAPIV3Schema", "properties")
	details := d.PolicyRule.Then.Details
	parameters := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(details.Values)) {
		if _, known := properties[name]; !known {
			return nil, fmt.Errorf("the template has no parameter %s", name)
		}
		parameters[name] = values(details.Values[name])
	}
	match := map[string]any{"kinds": []any{map[string]any{"apiGroups": anys(details.APIGroups), "kinds": anys(details.Kinds)}}}
	excluded, _ := values(details.ExcludedNamespaces).([]any)
	for _, namespace := range alwaysExcluded {
		if !slices.Contains(excluded, any(namespace)) {
			excluded = append(slices.Clone(excluded), namespace)
		}
	}
	match["excludedNamespaces"] = excluded
	if namespaces, _ := values(details.Namespaces).([]any); len(namespaces) > 0 {
		match["namespaces"] = namespaces
	}
	if selector, _ := values(details.LabelSelector).(map[string]any); len(selector) > 0 {
		match["labelSelector"] = selector
	}
	if from, _ := values(details.Source).(string); from != "" && from != "All" {
		match["source"] = from
	}
	action := map[string]string{"Deny": "deny", "Audit": "dryrun"}[effect]
	if action == "" {
		return nil, fmt.Errorf("the add-on knows no effect %q", effect)
	}
	if assignment.DoNotEnforce {
		action = "dryrun"
	}
	if warns, _ := values(details.Warn).(bool); warns && action == "dryrun" {
		action = "warn"
	}
	constraint := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": kind,
		"metadata": map[string]any{"name": constraintName(template.GetName(), assignment.ID), "labels": map[string]any{"managed-by": "azure-policy-addon"}},
		"spec":     map[string]any{"enforcementAction": action, "match": match, "parameters": parameters},
	}}
	annotate(constraint, map[string]any{
		"azure-policy-assignment-id": assignment.ID, "azure-policy-definition-id": assignment.DefinitionID,
		"azure-policy-definition-reference-id": "", "azure-policy-setdefinition-id": "",
		"constraint-installed-by": "azure-policy-addon", "constraint-url": source,
	})
	return through(constraint)
}

// through makes of an object what JSON does.
func through(object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	content, err := json.Marshal(object.Object)
	if err != nil {
		return nil, err
	}
	read := &unstructured.Unstructured{}
	return read, read.UnmarshalJSON(content)
}

// constraintName is azurepolicy-, the template's name cut short, and a hash of the
// assignment.
func constraintName(template, assignment string) string {
	sum := sha256.Sum256([]byte(assignment))
	name := "azurepolicy-" + template[:min(len(template), 30)] + "-" + hex.EncodeToString(sum[:])[:20]
	return name[:min(len(name), constraintNameLength)]
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// Record is a component as the portal's compliance view shows it.
type Record struct {
	Component, State, Reason, Message string
}

// String is a line of the view.
func (r Record) String() string {
	return fmt.Sprintf("%-14s %-40s %s", r.State, r.Component, r.Message)
}

// Records are what the portal shows of an audited constraint: the components that
// do not comply, as many and as much of their messages as fit.
func Records(constraint *unstructured.Unstructured) []Record {
	violations, _, _ := unstructured.NestedSlice(constraint.Object, "status", "violations")
	var records []Record
	for _, v := range violations {
		fields, ok := v.(map[string]any)
		if !ok {
			continue
		}
		text := func(name string) string { s, _ := fields[name].(string); return s }
		records = append(records, Record{
			Component: strings.TrimPrefix(text("namespace")+"/"+text("kind")+"/"+text("name"), "/"),
			State:     "Non-compliant", Reason: constraint.GetKind(), Message: cut(text("message")),
		})
		if len(records) == maxRecords {
			break
		}
	}
	return records
}

func cut(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	message = message[:maxMessage]
	for !utf8.ValidString(message) {
		message = message[:len(message)-1]
	}
	return message
}
