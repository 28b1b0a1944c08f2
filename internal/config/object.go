package config

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// ParseObject reads an object of the cluster: its JSON, decoded once by the
// client that received it, so that no second reader can understand another
// thing. The object is not changed and not kept.
//
// Kind, namespace, name, UID, generation and creationTimestamp are those of the
// object, and so are its images: nothing in any other field changes what the
// document is called and which images it is about. Everything else in metadata,
// and the status, is left out.
func ParseObject(object map[string]any) *Document {
	metadata, _ := object["metadata"].(map[string]any)
	doc := &Document{
		ID:        ID{Kind: textIn(object, "kind"), Namespace: textIn(metadata, "namespace"), Name: textIn(metadata, "name")},
		inCluster: true, uid: textIn(metadata, "uid"), generation: integerIn(metadata, "generation"),
	}
	if doc.Kind != api.KindTrustPolicy {
		doc.Namespace = ""
	}
	// The API server writes it; an object without is older than all.
	doc.created, _ = time.Parse(time.RFC3339, textIn(metadata, "creationTimestamp"))
	doc.gleanObject(object)

	written, kept := map[string]any{}, map[string]any{}
	for field, value := range object {
		if field != "status" {
			written[field] = value
		}
	}
	for _, field := range []string{"name", "namespace"} {
		if value, there := metadata[field]; there {
			kept[field] = value
		}
	}
	written["metadata"] = kept
	d := newDecoder()
	left := maxNodes
	doc.read(treeOf(written, &left), d)
	if left < 0 && !d.tooLarge {
		d.refuseSize(1, "Split the policy")
	}
	doc.settle(d)
	for i := range doc.Problems {
		doc.Problems[i].Line = 0 // an object has none
	}
	doc.keep(written, kept, metadata)
	return doc
}

// keep remembers the object as a file of last good documents has it.
func (doc *Document) keep(written, kept, metadata map[string]any) {
	for _, field := range []string{"uid", "generation", "creationTimestamp"} {
		if value, there := metadata[field]; there {
			kept[field] = value
		}
	}
	written["metadata"] = kept
	doc.raw, _ = json.Marshal(written) // it was JSON a moment ago; nil is not kept
}

// gleanObject reads what an object claims, whatever else is wrong with it.
func (doc *Document) gleanObject(object map[string]any) {
	spec, _ := object["spec"].(map[string]any)
	doc.images, doc.namespaces = textsIn(spec, "images"), textsIn(spec, "namespaces")
	doc.owner = printable(clip(textIn(spec, "owner"), api.MaxOwner))
}

// textIn is a field's text, or empty where it has none.
func textIn(object map[string]any, field string) string {
	text, _ := object[field].(string)
	return text
}

// integerIn is a field's whole number, or 0 where it has none.
func integerIn(object map[string]any, field string) int64 {
	text, _ := numberOf(object[field])
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// textsIn is a list's texts. What is no text is an empty one.
func textsIn(object map[string]any, field string) []string {
	value, there := object[field]
	if !there {
		return nil
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var texts []string
	for _, item := range list {
		if len(texts) == maxGleaned {
			return append(texts, "")
		}
		text, _ := item.(string)
		texts = append(texts, clip(text, api.MaxPattern+1))
	}
	return texts
}

// printable leaves out what does not belong into an answer.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}

// treeOf makes the tree that the decoder reads of decoded JSON. At most left
// values are taken; it is negative where there are more.
func treeOf(value any, left *int) *yaml.Node {
	*left--
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: 1}
	switch value := value.(type) {
	case map[string]any:
		node.Kind, node.Tag = yaml.MappingNode, "!!map"
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if *left < 0 {
				break
			}
			node.Content = append(node.Content, treeOf(name, left), treeOf(value[name], left))
		}
	case []any:
		node.Kind, node.Tag = yaml.SequenceNode, "!!seq"
		for _, item := range value {
			if *left < 0 {
				break
			}
			node.Content = append(node.Content, treeOf(item, left))
		}
	case string:
		node.Tag, node.Value = "!!str", value
	case bool:
		node.Tag, node.Value = "!!bool", strconv.FormatBool(value)
	case nil:
		node.Tag = "!!null"
	default:
		text, whole := numberOf(value)
		node.Tag, node.Value = "!!float", text
		if whole {
			node.Tag = "!!int"
		}
	}
	return node
}

// numberOf spells a number as JSON does, and reports whether it is a whole one.
func numberOf(value any) (text string, whole bool) {
	switch value.(type) {
	case int64, float64, json.Number:
	default:
		return "", false
	}
	data, err := json.Marshal(value)
	if err != nil { // no number that JSON has
		return "", false
	}
	_, err = strconv.ParseInt(string(data), 10, 64)
	return string(data), err == nil
}
