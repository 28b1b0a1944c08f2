package azurepolicy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Version of the definitions. Azure shows it; it grows with what they can do.
const Version = "1.1.0"

// Definition is a policy definition's properties, as `az policy definition create`
// takes their parts.
// https://learn.microsoft.com/azure/governance/policy/concepts/definition-structure-basics
type Definition struct {
	DisplayName string               `json:"displayName"`
	Description string               `json:"description"`
	PolicyType  string               `json:"policyType"`
	Mode        string               `json:"mode"`
	Metadata    map[string]any       `json:"metadata"`
	Version     string               `json:"version"`
	Parameters  map[string]Parameter `json:"parameters"`
	PolicyRule  Rule                 `json:"policyRule"`
}

// Parameter is one parameter of a definition or an initiative.
type Parameter struct {
	Type          string            `json:"type"`
	Metadata      ParameterMetadata `json:"metadata"`
	AllowedValues []any             `json:"allowedValues,omitempty"`
	DefaultValue  any               `json:"defaultValue"`
	Schema        map[string]any    `json:"schema,omitempty"`
}

// ParameterMetadata is what the portal shows of a parameter.
type ParameterMetadata struct {
	DisplayName string `json:"displayName"`
	Description string `json:"description"`
}

// Rule is a definition's rule.
type Rule struct {
	If   map[string]any `json:"if"`
	Then struct {
		Effect  string  `json:"effect"`
		Details Details `json:"details"`
	} `json:"then"`
}

// Details are what the add-on makes a constraint of.
type Details struct {
	TemplateInfo       TemplateInfo   `json:"templateInfo"`
	APIGroups          []string       `json:"apiGroups"`
	Kinds              []string       `json:"kinds"`
	Namespaces         string         `json:"namespaces"`
	ExcludedNamespaces string         `json:"excludedNamespaces"`
	LabelSelector      string         `json:"labelSelector"`
	Values             map[string]any `json:"values,omitempty"`
	Source             string         `json:"source"`
	Warn               string         `json:"warn"`
}

// TemplateInfo is where the template is.
type TemplateInfo struct {
	SourceType string `json:"sourceType"`
	Content    string `json:"content,omitempty"`
	URL        string `json:"url,omitempty"`
}

// templateHome is where the templates of the PublicURL variants can be fetched.
const templateHome = "https://raw.githubusercontent.com/countersign-dev/countersign/main/azure-policy/templates/"

// policy is one definition before it is written.
type policy struct {
	name, folder, kind, title, description string
	values                                 map[string]Parameter
}

// Policies lists the definitions.
func policies() []policy {
	return []policy{
		{
			"trusted-images", "trusted-images", "CountersignTrustedImagesV1", "Kubernetes clusters should only run images that Countersign trusts",
			"Denies a Pod, or reports it, unless Countersign has found every image in it trusted: signed as the cluster's trust policies want it. Needs Countersign in the cluster.",
			map[string]Parameter{"provider": provider(), "allowedStatuses": statuses(), "requireDigest": digest(), "excludedImages": excluded()},
		},
		{
			"images-by-digest", "images-by-digest", "CountersignImagesByDigestV1", "Kubernetes clusters should name images by their digest",
			"Denies a Pod, or reports it, that names an image by a tag alone: a tag may name another image by the time that it is pulled. Needs nothing in the cluster.",
			map[string]Parameter{"excludedImages": excluded()},
		},
		{
			"no-end-of-life-images", "no-end-of-life", "CountersignNoEndOfLifeV1", "Kubernetes clusters should not run images past their end of life",
			"Denies a Pod, or reports it, with an image that Countersign knows to be past its end of life. Needs Countersign in the cluster.",
			map[string]Parameter{"provider": provider(), "excludedImages": excluded()},
		},
	}
}

func provider() Parameter {
	return Parameter{Type: "String", DefaultValue: "countersign", Metadata: ParameterMetadata{
		"Provider", "Name of the Provider object of Countersign in the cluster. Change it only where Countersign was installed with another provider.name.",
	}}
}

func statuses() Parameter {
	return Parameter{Type: "Array", DefaultValue: []any{"TRUSTED", "EXEMPT"}, Metadata: ParameterMetadata{
		"Allowed statuses", "The verdicts with which an image may run: TRUSTED, EXEMPT, and UNSUPPORTED for images that were trusted and are past their end of life.",
	}}
}

func digest() Parameter {
	return Parameter{Type: "Boolean", DefaultValue: false, Metadata: ParameterMetadata{
		"Require digest", "Whether an image must be named by its digest as well, so that the image that was verified is the one that is pulled.",
	}}
}

func excluded() Parameter {
	return Parameter{Type: "Array", DefaultValue: []any{}, Metadata: ParameterMetadata{
		"Excluded images", "Repositories whose images run without a question: a literal host, then a path in which * stays within a segment and ** crosses them, as mcr.microsoft.com/oss/**.",
	}}
}

// common are the parameters that the portal has for every policy of Kubernetes.
func common() map[string]Parameter {
	return map[string]Parameter{
		"effect": {Type: "String", AllowedValues: []any{"Audit", "Deny", "Disabled"}, DefaultValue: "Audit", Metadata: ParameterMetadata{
			"Effect", "'Audit' reports and lets run, 'Deny' refuses what is not compliant, 'Disabled' does nothing. Begin with 'Audit'.",
		}},
		"excludedNamespaces": {Type: "Array", DefaultValue: []any{"kube-system", "gatekeeper-system", "azure-arc", "aks-istio-system", "countersign-system"}, Metadata: ParameterMetadata{
			"Namespace exclusions", "Namespaces to leave out. What Countersign and Gatekeeper need to start must be among them.",
		}},
		"namespaces": {Type: "Array", DefaultValue: []any{}, Metadata: ParameterMetadata{
			"Namespace inclusions", "The only namespaces to look at. An empty list is all that are not excluded.",
		}},
		"labelSelector": {Type: "Object", DefaultValue: map[string]any{}, Schema: labelSelector(), Metadata: ParameterMetadata{
			"Kubernetes label selector", "The only Pods to look at, by their labels. An empty selector is all.",
		}},
		"source": {Type: "String", AllowedValues: []any{"Original", "Generated", "All"}, DefaultValue: "Original", Metadata: ParameterMetadata{
			"Source", "'Original' looks at Pods as they are made, 'Generated' at the Pods that workloads would make, 'All' at both: then whoever applies a Deployment is told at once.",
		}},
		"warn": {Type: "Boolean", DefaultValue: false, Metadata: ParameterMetadata{
			"Warn", "Whether kubectl shows a warning for what is only reported.",
		}},
	}
}

func labelSelector() map[string]any {
	return map[string]any{
		"description": "A label query over a set of resources: the results of matchLabels and matchExpressions are ANDed. An empty label selector matches all.",
		"type":        "object", "additionalProperties": false,
		"properties": map[string]any{
			"matchLabels": map[string]any{"description": "A map of {key,value} pairs.", "type": "object", "additionalProperties": map[string]any{"type": "string"}, "minProperties": 1},
			"matchExpressions": map[string]any{
				"description": "A list of values, a key, and an operator.", "type": "array", "minItems": 1,
				"items": map[string]any{
					"type": "object", "required": []string{"key", "operator"}, "additionalProperties": false,
					"properties": map[string]any{
						"key":      map[string]any{"description": "The label key that the selector applies to.", "type": "string"},
						"operator": map[string]any{"description": "A key's relationship to a set of values.", "type": "string", "enum": []string{"In", "NotIn", "Exists", "DoesNotExist"}},
						"values":   map[string]any{"description": "The values.", "type": "array", "items": map[string]any{"type": "string"}},
					},
				},
			},
		},
	}
}

func parameter(name string) string { return "[parameters('" + name + "')]" }

// define makes the definition, with its template in it or at a URL.
func (p policy) define(t Template, embedded bool) Definition {
	d := Definition{
		DisplayName: p.title, Description: p.description, PolicyType: "Custom", Mode: "Microsoft.Kubernetes.Data",
		Metadata: map[string]any{"version": Version, "category": "Kubernetes"}, Version: Version, Parameters: common(),
	}
	d.PolicyRule.If = map[string]any{"field": "type", "in": []string{"Microsoft.ContainerService/managedClusters", "Microsoft.Kubernetes/connectedClusters"}}
	d.PolicyRule.Then.Effect = parameter("effect")
	details := &d.PolicyRule.Then.Details
	details.TemplateInfo = TemplateInfo{SourceType: "Base64Encoded", Content: base64.StdEncoding.EncodeToString([]byte(t.Text))}
	if !embedded {
		details.TemplateInfo = TemplateInfo{SourceType: "PublicURL", URL: templateHome + p.name + ".yaml"}
	}
	details.APIGroups, details.Kinds = []string{""}, []string{"Pod"}
	details.Namespaces, details.ExcludedNamespaces, details.LabelSelector = parameter("namespaces"), parameter("excludedNamespaces"), parameter("labelSelector")
	details.Source, details.Warn = parameter("source"), parameter("warn")
	for name, value := range p.values {
		d.Parameters[name] = value
		if details.Values == nil {
			details.Values = map[string]any{}
		}
		field := name
		if name == "excludedImages" { // as Azure calls it
			field = "exemptImages"
		}
		details.Values[field] = parameter(name)
	}
	return d
}

// Initiative groups the definitions. $SCOPE stands for where they are defined.
type Initiative struct {
	DisplayName            string               `json:"displayName"`
	Description            string               `json:"description"`
	PolicyType             string               `json:"policyType"`
	Metadata               map[string]any       `json:"metadata"`
	Version                string               `json:"version"`
	Parameters             map[string]Parameter `json:"parameters"`
	PolicyDefinitions      []Member             `json:"policyDefinitions"`
	PolicyDefinitionGroups []map[string]any     `json:"policyDefinitionGroups"`
}

// Member is one definition of an initiative.
type Member struct {
	PolicyDefinitionID string                    `json:"policyDefinitionId"`
	ReferenceID        string                    `json:"policyDefinitionReferenceId"`
	Parameters         map[string]map[string]any `json:"parameters"`
	GroupNames         []string                  `json:"groupNames"`
}

func initiative() Initiative {
	i := Initiative{
		DisplayName: "Kubernetes clusters should only run images that are trusted, by digest, and supported",
		Description: "Countersign's policies together. Each has an effect of its own.",
		PolicyType:  "Custom", Metadata: map[string]any{"version": Version, "category": "Kubernetes"}, Version: Version,
		Parameters:             map[string]Parameter{},
		PolicyDefinitionGroups: []map[string]any{{"name": "images", "displayName": "Container images", "category": "Supply chain"}},
	}
	for _, p := range policies() {
		effect := camel(p.name) + "Effect"
		member := Member{
			PolicyDefinitionID: "$SCOPE/providers/Microsoft.Authorization/policyDefinitions/countersign-" + p.name,
			ReferenceID:        camel(p.name), GroupNames: []string{"images"},
			Parameters: map[string]map[string]any{"effect": {"value": parameter(effect)}},
		}
		own := common()["effect"]
		own.Metadata.DisplayName = "Effect: " + p.title
		i.Parameters[effect] = own
		shared := []string{"excludedNamespaces", "namespaces", "labelSelector", "source", "warn"}
		for name, value := range p.values {
			i.Parameters[name] = value
			shared = append(shared, name)
		}
		for _, name := range shared {
			if value, ok := common()[name]; ok {
				i.Parameters[name] = value
			}
			member.Parameters[name] = map[string]any{"value": parameter(name)}
		}
		i.PolicyDefinitions = append(i.PolicyDefinitions, member)
	}
	return i
}

// camel makes trustedImages of trusted-images.
func camel(name string) string {
	var b bytes.Buffer
	for i, part := range bytes.Split([]byte(name), []byte("-")) {
		if i > 0 {
			part = append(bytes.ToUpper(part[:1]), part[1:]...)
		}
		b.Write(part)
	}
	return b.String()
}

// encode writes JSON for people, with <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return b.Bytes(), nil
}

// Files makes all files of the folder azure-policy that are generated, by their
// names, of the library's templates by their folders.
func Files(templates map[string]Template) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, p := range policies() {
		t := ForAzure(templates[p.folder])
		files["templates/"+p.name+".yaml"] = []byte(t.Text)
		for suffix, embedded := range map[string]bool{"": true, "-url": false} {
			content, err := encode(p.define(t, embedded))
			if err != nil {
				return nil, err
			}
			files[p.name+suffix+".json"] = content
		}
	}
	content, err := encode(initiative())
	files["initiative.json"] = content
	return files, err
}
