package ratify

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// Document says a policy as a document of ours, and what of it a document cannot
// say. It is never weaker.
func (p Policy) Document() (api.ClusterTrustPolicy, []string) {
	var doc api.ClusterTrustPolicy
	doc.APIVersion, doc.Kind = api.APIVersion, api.KindClusterTrustPolicy
	doc.Metadata.Name = p.Name
	doc.Spec.Images = p.Images
	if p.Namespace != "" {
		doc.Metadata.Name = clip(p.Namespace, api.MaxName) + "-" + p.Name
		doc.Spec.Namespaces = []string{p.Namespace}
	}
	rule, notes := p.rule()
	doc.Spec.Require = rule
	registries, more := p.registries()
	doc.Spec.Registries, doc.Spec.KeyVaults = registries, p.KeyVaults
	return doc, append(notes, more...)
}

func (p Policy) rule() (api.Rule, []string) {
	if len(p.Parts) == 1 {
		part := p.Parts[0]
		if part.Each {
			return api.Rule{Every: &part.Check}, nil
		}
		return api.Rule{Check: part.Check}, nil
	}
	var all []api.NestedRule
	var notes []string
	for _, part := range p.Parts {
		if !part.Required && len(notes) == 0 {
			notes = []string{"Ratify looks at a kind of signature only where there is one; here each kind is wanted. Write any in place of all if one is enough"}
		}
		if part.Each {
			all = append(all, api.NestedRule{Every: &part.Check})
		} else {
			all = append(all, api.NestedRule{Check: part.Check})
		}
	}
	return api.Rule{All: all}, notes
}

// registries says how the hosts that are named are asked.
func (p Policy) registries() (list []api.Registry, notes []string) {
	if !p.PlainHTTP && p.DockerConfig == "" && p.Azure == nil {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, pattern := range p.Images {
		host, _, _ := strings.Cut(pattern, "/")
		switch {
		case seen[host]:
			continue
		case strings.Contains(host, "*"):
			notes = append(notes, "how registries are asked is said host by host: name under registries those that "+pattern+" is about")
			continue
		}
		seen[host] = true
		list = append(list, api.Registry{Host: host, PlainHTTP: p.PlainHTTP, Auth: p.Auth()})
	}
	return list, notes
}

// Auth is how registries are signed in to; nil: anonymously.
func (p Policy) Auth() *api.RegistryAuth {
	switch {
	case p.Azure != nil:
		return &api.RegistryAuth{AzureIdentity: *p.Azure}
	case p.DockerConfig != "":
		return &api.RegistryAuth{DockerConfig: &api.DockerConfig{Path: p.DockerConfig}}
	}
	return nil
}

// YAML writes a document as people do: in blocks, its fields in the order of its
// type.
func YAML(doc any) ([]byte, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return nil, err
	}
	inBlocks(&node)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(&node), encoder.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func inBlocks(node *yaml.Node) {
	node.Style = 0
	if node.Kind == yaml.ScalarNode && strings.Contains(node.Value, "\n") {
		node.Style = yaml.LiteralStyle
	}
	for _, child := range node.Content {
		inBlocks(child)
	}
}
