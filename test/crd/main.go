// Command crd writes the CustomResourceDefinitions of the API group
// countersign.dev, as the types of package v1beta1 and their comments say. It
// is what `make generate` runs.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

//go:generate go run . ../../api/v1beta1 ../../charts/countersign/definitions

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: crd SOURCES DIRECTORY")
	}
	comments, err := readComments(args[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		return err
	}
	for _, kind := range kinds() {
		definition, err := kind.definition(&schemas{comments: comments})
		if err != nil {
			return fmt.Errorf("%s: %w", kind.name, err)
		}
		content, err := yaml.Marshal(definition)
		if err != nil {
			return err
		}
		path := filepath.Join(args[1], kind.plural+".yaml")
		if err := os.WriteFile(path, append([]byte("# Generated from api/v1beta1 by make generate.\n"), content...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// kind is one CustomResourceDefinition.
type kind struct {
	name, plural, short string
	scope               apiextensions.ResourceScope
	spec                reflect.Type
	columns             []apiextensions.CustomResourceColumnDefinition
}

func kinds() []kind {
	return []kind{
		{api.KindClusterTrustPolicy, "clustertrustpolicies", "ctp", apiextensions.ClusterScoped, reflect.TypeFor[api.ClusterTrustPolicySpec](), policyColumns()},
		{api.KindTrustPolicy, "trustpolicies", "tp", apiextensions.NamespaceScoped, reflect.TypeFor[api.PolicySpec](), policyColumns()},
		{api.KindExemption, "exemptions", "exempt", apiextensions.ClusterScoped, reflect.TypeFor[api.ExemptionSpec](), exemptionColumns()},
	}
}

func (k kind) definition(s *schemas) (map[string]any, error) {
	spec, err := s.of(k.spec)
	if err != nil {
		return nil, err
	}
	spec.Description = s.comments.of(k.spec.Name())
	definition := apiextensions.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: apiextensions.SchemeGroupVersion.String(), Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: k.plural + "." + api.Group, Annotations: annotations()},
		Spec: apiextensions.CustomResourceDefinitionSpec{
			Group: api.Group, Scope: k.scope,
			Names: apiextensions.CustomResourceDefinitionNames{
				Kind: k.name, ListKind: k.name + "List", Plural: k.plural, Singular: lower(k.name),
				ShortNames: []string{k.short}, Categories: []string{"countersign"},
			},
			Versions: []apiextensions.CustomResourceDefinitionVersion{{
				Name: "v1beta1", Served: true, Storage: true,
				Subresources: &apiextensions.CustomResourceSubresources{Status: &apiextensions.CustomResourceSubresourceStatus{}},
				Schema: &apiextensions.CustomResourceValidation{OpenAPIV3Schema: &apiextensions.JSONSchemaProps{
					Type: "object", Description: s.comments.of(k.name), Required: []string{"spec"},
					Properties: map[string]apiextensions.JSONSchemaProps{"spec": *spec, "status": status()},
				}},
				AdditionalPrinterColumns: k.columns,
			}},
		},
	}
	// Through JSON, to leave out the status that the API server writes.
	content, err := yaml.Marshal(definition)
	if err != nil {
		return nil, err
	}
	var object map[string]any
	if err := yaml.Unmarshal(content, &object); err != nil {
		return nil, err
	}
	delete(object, "status")
	delete(object["metadata"].(map[string]any), "creationTimestamp")
	return object, nil
}

// annotations let the definitions outlive the release, with everybody's objects,
// and tell Argo CD that they are larger than what a client-side apply may send.
func annotations() map[string]string {
	return map[string]string{
		"helm.sh/resource-policy":         "keep",
		"argocd.argoproj.io/sync-options": "ServerSideApply=true",
	}
}

func readyColumns() []apiextensions.CustomResourceColumnDefinition {
	return []apiextensions.CustomResourceColumnDefinition{
		{Name: "Ready", Type: "string", JSONPath: `.status.conditions[?(@.type=="Ready")].status`, Description: "Whether it is in force as it is written."},
		{Name: "Reason", Type: "string", JSONPath: `.status.conditions[?(@.type=="Ready")].reason`, Description: "Why it is, or is not."},
	}
}

func exemptionColumns() []apiextensions.CustomResourceColumnDefinition {
	return append(readyColumns(), []apiextensions.CustomResourceColumnDefinition{
		{Name: "Expires", Type: "string", JSONPath: ".spec.expiresAt", Description: "When it ends."},
		{Name: "Owner", Type: "string", JSONPath: ".spec.owner", Description: "Whom to ask."},
		{Name: "Images", Type: "string", JSONPath: ".spec.images", Description: "What it is about, by name.", Priority: 1},
		{Name: "Digests", Type: "string", JSONPath: ".spec.digests", Description: "What it is about, by digest.", Priority: 1},
		{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
	}...)
}

func policyColumns() []apiextensions.CustomResourceColumnDefinition {
	return append(readyColumns(), []apiextensions.CustomResourceColumnDefinition{
		{Name: "Mode", Type: "string", JSONPath: ".spec.mode", Description: "Whether it is enforced or only audited."},
		{Name: "Images", Type: "string", JSONPath: ".spec.images", Description: "What it is about.", Priority: 1},
		{Name: "Owner", Type: "string", JSONPath: ".spec.owner", Description: "Whom to ask."},
		{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"},
	}...)
}

// status is what the controller writes.
func status() apiextensions.JSONSchemaProps {
	text := apiextensions.JSONSchemaProps{Type: "string"}
	zero := 0.0
	most := int64(8)
	listType := "map"
	return apiextensions.JSONSchemaProps{
		Type: "object", Description: "Status is what became of the policy; Countersign writes it.",
		Properties: map[string]apiextensions.JSONSchemaProps{
			"observedGeneration": {Type: "integer", Format: "int64", Minimum: &zero, Description: "ObservedGeneration is the generation of spec that the status is about."},
			"conditions": {
				Type: "array", Description: "Conditions tell whether the policy is in force, and if not, what to do.",
				MaxItems: &most, XListType: &listType, XListMapKeys: []string{"type"},
				Items: &apiextensions.JSONSchemaPropsOrArray{Schema: &apiextensions.JSONSchemaProps{
					Type: "object", Required: []string{"type", "status", "lastTransitionTime", "reason", "message"},
					Properties: map[string]apiextensions.JSONSchemaProps{
						"type": text, "reason": text, "message": text,
						"status":             {Type: "string", Enum: enum([]string{"True", "False", "Unknown"})},
						"lastTransitionTime": {Type: "string", Format: "date-time"},
						"observedGeneration": {Type: "integer", Format: "int64", Minimum: &zero},
					},
				}},
			},
		},
	}
}
