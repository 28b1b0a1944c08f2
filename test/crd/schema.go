package main

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// schemas makes structural schemas of types, by the rules in the comment of
// package v1beta1.
type schemas struct {
	comments comments
	// nested is how many rules, or parts of them that are seldom there, deep we are.
	nested int
}

// described is how many rules deep fields have descriptions. The rules within
// rules have the same fields, and with their descriptions a definition would be
// larger than the API server takes from kubectl apply.
const described = 1

// property is a field wherever the type embeds it.
type property struct {
	owner, name, union string
	required           bool
	of                 reflect.Type
}

func properties(t reflect.Type) []property {
	var list []property
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if options == "inline" {
			list = append(list, properties(f.Type)...)
			continue
		}
		list = append(list, property{t.Name(), name, f.Tag.Get("union"), options != "omitempty", f.Type})
	}
	return list
}

// of gives the schema of a type.
func (s *schemas) of(t reflect.Type) (*apiextensions.JSONSchemaProps, error) {
	if t.Kind() == reflect.Pointer {
		return s.of(t.Elem())
	}
	if values, ok := reflect.Zero(t).Interface().(interface{ Values() []string }); ok {
		return &apiextensions.JSONSchemaProps{Type: "string", Enum: enum(values.Values())}, nil
	}
	if t == reflect.TypeFor[api.Time]() {
		return &apiextensions.JSONSchemaProps{Type: "string", Format: "date-time"}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return &apiextensions.JSONSchemaProps{Type: "string"}, nil
	case reflect.Bool:
		return &apiextensions.JSONSchemaProps{Type: "boolean"}, nil
	case reflect.Int:
		return &apiextensions.JSONSchemaProps{Type: "integer"}, nil
	case reflect.Slice:
		items, err := s.of(t.Elem())
		return &apiextensions.JSONSchemaProps{Type: "array", Items: &apiextensions.JSONSchemaPropsOrArray{Schema: items}}, err
	case reflect.Struct:
		return s.object(t)
	default:
		return nil, fmt.Errorf("a field of the kind %s", t.Kind())
	}
}

// refers reports whether the property is a part of a reference to an object.
// Those within rules within rules are the most there is, and no validation
// reads them: the reader's own check is enough.
func refers(p property) bool {
	return p.owner == "ObjectReference" || p.owner == "KeyReference" || strings.HasPrefix(p.owner, "KeyVault")
}

func (s *schemas) object(t reflect.Type) (*apiextensions.JSONSchemaProps, error) {
	switch t.Name() {
	case "NestedRule", "InnerRule", "NotaryTrustPolicy", "AtLeast":
		s.nested++
		defer func() { s.nested-- }()
	}
	object := &apiextensions.JSONSchemaProps{Type: "object", Properties: map[string]apiextensions.JSONSchemaProps{}}
	choices := map[string][]string{}
	var order []string
	for _, p := range properties(t) {
		schema, err := s.of(p.of)
		if err != nil {
			return nil, fmt.Errorf("%s.%s: %w", p.owner, p.name, err)
		}
		if schema.Description = s.comments.of(p.owner + "." + p.name); schema.Description == "" {
			return nil, fmt.Errorf("%s.%s has no comment", p.owner, p.name)
		}
		if s.nested > described {
			schema.Description = ""
		}
		if s.nested == 0 || !refers(p) || schema.Type == "array" {
			if err := limit(p, schema); err != nil {
				return nil, err
			}
		}
		object.Properties[p.name] = *schema
		if p.required {
			object.Required = append(object.Required, p.name)
		}
		if p.union != "" {
			if choices[p.union] == nil {
				order = append(order, p.union)
			}
			choices[p.union] = append(choices[p.union], p.name)
		}
	}
	slices.Sort(object.Required)
	for _, union := range order {
		if union == "object" && s.nested > 0 { // many of them, in a list of lists
			continue
		}
		object.XValidations = append(object.XValidations, oneOf(choices[union]))
	}
	object.XValidations = append(object.XValidations, rules(t.Name(), choices["rule"])...)
	return object, nil
}

// oneOf is a choice of exactly one of the fields. It counts, because the API
// server estimates that to be the cheapest, and there are many of them.
func oneOf(fields []string) apiextensions.ValidationRule {
	has := make([]string, len(fields))
	for i, field := range fields {
		has[i] = "(has(self." + field + ") ? 1 : 0)"
	}
	return apiextensions.ValidationRule{
		Rule:    strings.Join(has, " + ") + " == 1",
		Message: "write exactly one of " + strings.Join(fields, ", "),
	}
}

func enum(values []string) []apiextensions.JSON {
	list := make([]apiextensions.JSON, len(values))
	for i, value := range values {
		raw, _ := json.Marshal(value) // a string can be
		list[i] = apiextensions.JSON{Raw: raw}
	}
	return list
}
