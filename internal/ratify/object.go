package ratify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// Group is Ratify's API group.
	Group = "config.ratify.deislabs.io"
	// maxBytes and maxObjects bound what is read.
	maxBytes   = 1 << 20
	maxObjects = 2048
)

// The kinds. Each has a twin for one namespace, but CertificateStore, which is in
// one anyway.
const (
	KindStore                 = "Store"
	KindVerifier              = "Verifier"
	KindPolicy                = "Policy"
	KindKeyManagementProvider = "KeyManagementProvider"
	KindCertificateStore      = "CertificateStore"
	namespaced                = "Namespaced"
)

// Object is one object of Ratify.
type Object struct {
	// Kind without "Namespaced"; Namespace is empty for a cluster's.
	Kind, Namespace, Name string
	Spec                  json.RawMessage
}

// String is for people.
func (o Object) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Parse reads YAML documents, and passes over objects that are not Ratify's.
func Parse(data []byte) ([]Object, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("larger than %d bytes", maxBytes)
	}
	var objects []Object
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var content any
		switch err := decoder.Decode(&content); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, err
		}
		for _, item := range items(content) {
			text, err := json.Marshal(item)
			if err != nil {
				return nil, err
			}
			object, ours, err := ParseObject(text)
			if err != nil {
				return nil, err
			}
			if ours {
				objects = append(objects, object)
			}
			if len(objects) > maxObjects {
				return nil, fmt.Errorf("more than %d objects", maxObjects)
			}
		}
	}
}

// items are what a List has, as kubectl get -o yaml prints it, or the one object.
func items(content any) []any {
	object, _ := content.(map[string]any)
	if list, ok := object["items"].([]any); ok && object["kind"] == "List" {
		return list
	}
	return []any{content}
}

// ParseObject reads one object as JSON, and reports whether it is Ratify's.
func ParseObject(data []byte) (object Object, ours bool, err error) {
	var head struct {
		APIVersion string
		Kind       string
		Metadata   struct{ Name, Namespace string }
		Spec       json.RawMessage
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Object{}, false, nil //nolint:nilerr // whatever it is, it is not Ratify's
	}
	group, version, _ := strings.Cut(head.APIVersion, "/")
	if group != Group {
		return Object{}, false, nil
	}
	object = Object{Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name, Spec: head.Spec}
	kind, inNamespace := strings.CutPrefix(head.Kind, namespaced)
	switch object.Kind = kind; kind {
	case KindStore, KindVerifier, KindPolicy, KindKeyManagementProvider:
		if !inNamespace {
			object.Namespace = ""
		}
	case KindCertificateStore:
		inNamespace = !inNamespace // there is no twin
	default:
		return Object{}, false, fmt.Errorf("%s is not a kind of Ratify", head.Kind)
	}
	switch {
	case version != "v1beta1" && version != "v1alpha1":
		return Object{}, false, fmt.Errorf("%s: version %s is not read", object, version)
	case object.Name == "":
		return Object{}, false, fmt.Errorf("a %s has no name", head.Kind)
	case inNamespace && object.Namespace == "":
		return Object{}, false, fmt.Errorf("%s is in no namespace", object)
	}
	return object, true, nil
}

// strict decodes parameters, and names fields that nobody knows.
func strict(data json.RawMessage, into any) error {
	if len(data) == 0 || string(data) == "null" {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}
