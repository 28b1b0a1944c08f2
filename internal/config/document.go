package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// ID tells documents apart: of two with the same ID, one is a version of the
// other.
type ID struct{ Kind, Namespace, Name string }

// String is for people.
func (id ID) String() string {
	if id.Namespace != "" {
		return id.Kind + " " + id.Namespace + "/" + id.Name
	}
	return id.Kind + " " + id.Name
}

// Document is one policy or exemption as written, sound or not. A TrustPolicy is
// held as a ClusterTrustPolicy that names no namespaces and does not delegate.
// Not changed once it is made.
type Document struct {
	ID
	File string
	Line int
	// Metadata and Spec are whole only where there are no Problems.
	Metadata api.ObjectMeta
	Spec     api.ClusterTrustPolicySpec
	// Exemption is an Exemption's spec; then Spec is empty.
	Exemption api.ExemptionSpec
	Problems  []Problem

	// inCluster is set for an object of a cluster: it has no file beside it.
	inCluster bool
	// raw is what an object says, and generation which version of its spec that is;
	// uid and created tell it from another object of the same name, and from
	// younger ones. A file's document has none of these.
	raw        []byte
	generation int64
	uid        string
	created    time.Time
	// required, of a document that was Ratify's, tells for each part of its rule
	// whether it is wanted where there is nothing for it; others is how the
	// registries are asked that it does not name.
	required []bool
	others   *api.Registry
	// ownTrust is set for a document of Ratify's whose certificates are a namespace's.
	ownTrust bool
	// unknown is set where not even kind and name could be read; never in an object.
	unknown bool
	// images and namespaces are what the document claims, as far as they could
	// be read, so that a broken one still keeps weaker policies from its images.
	images     []string
	namespaces []string
	owner      string
	// lines is where each path stands.
	lines map[string]int
	// content is equal for two versions that say the same.
	content string
}

// glean reads what it can of a document that may be broken in any way.
func (doc *Document) glean(root *yaml.Node) {
	doc.Kind = textOf(lookUp(root, "kind"))
	metadata, spec := lookUp(root, "metadata"), lookUp(root, "spec")
	doc.Name, doc.Namespace = textOf(lookUp(metadata, "name")), textOf(lookUp(metadata, "namespace"))
	if doc.Kind != api.KindTrustPolicy {
		doc.Namespace = ""
	}
	doc.images, doc.namespaces = textsOf(lookUpAll(spec, "images")), textsOf(lookUpAll(spec, "namespaces"))
	doc.owner = printable(clip(textOf(lookUp(spec, "owner")), api.MaxOwner))
	switch doc.Kind {
	case api.KindClusterTrustPolicy, api.KindExemption:
		doc.unknown = doc.Name == ""
	case api.KindTrustPolicy:
		doc.unknown = doc.Name == "" || doc.Namespace == ""
	default:
		doc.unknown = true
	}
}

// resolve gives what an alias stands for; never another alias, says YAML.
func resolve(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// lookUp finds a field of a mapping, or nil.
func lookUp(node *yaml.Node, name string) *yaml.Node {
	if found := lookUpAll(node, name); len(found) > 0 {
		return found[0]
	}
	return nil
}

// lookUpAll finds a field as often as it is there, which should be once.
func lookUpAll(node *yaml.Node, name string) []*yaml.Node {
	node = resolve(node)
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	var found []*yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := resolve(node.Content[i]); key.Kind == yaml.ScalarNode && key.Value == name {
			found = append(found, resolve(node.Content[i+1]))
		}
	}
	return found
}

func textOf(node *yaml.Node) string {
	if node == nil || node.Kind != yaml.ScalarNode || node.ShortTag() == "!!null" {
		return ""
	}
	return clip(node.Value, api.MaxPattern+1)
}

// textsOf reads lists of texts, and lone ones. What is no text is an empty one.
func textsOf(nodes []*yaml.Node) []string {
	var texts []string
	for _, node := range nodes {
		parts := []*yaml.Node{node}
		if node.Kind == yaml.SequenceNode {
			parts = node.Content
		}
		for _, part := range parts {
			if len(texts) == maxGleaned {
				return append(texts, "")
			}
			texts = append(texts, textOf(resolve(part)))
		}
	}
	return texts
}

// maxGleaned is how many texts of a list in a broken document are looked at;
// what follows counts as one that cannot be read.
const maxGleaned = 8 * api.MaxImages

// settle takes over what the decoder found and closes the document.
func (doc *Document) settle(d *decoder) {
	for i := range d.problems {
		d.problems[i].File = doc.File
		d.problems[i].Policy = doc.label()
	}
	sortProblems(d.problems)
	d.problems = slices.CompactFunc(d.problems, func(a, b Problem) bool { return a == b })
	if len(d.problems) > maxProblems {
		d.problems = append(d.problems[:maxProblems], Problem{
			File: doc.File, Line: doc.Line, Policy: doc.label(), Reason: d.problems[0].Reason,
			Message: "there are more problems", Remedy: "Mend these first",
		})
	}
	doc.Problems, doc.lines = d.problems, d.lines
	if len(doc.Problems) == 0 {
		doc.unknown = false
		doc.content = doc.hash()
	}
}

// label names the document for people, as far as it is known.
func (doc *Document) label() string {
	if doc.unknown {
		return ""
	}
	return doc.String()
}

// hash covers all that the document says; where it stands only as far as that
// decides what its paths mean.
func (doc *Document) hash() string {
	h := sha256.New()
	encoder := json.NewEncoder(h)
	// Neither can fail: a hash takes all bytes, and the types are plain.
	_ = encoder.Encode([]string{doc.String(), filepath.Dir(doc.File)})
	_ = encoder.Encode(doc.Spec)
	_ = encoder.Encode(doc.Exemption)
	return hex.EncodeToString(h.Sum(nil))
}

// line is where a path stands, or the nearest part of it that does; 0 in an
// object.
func (doc *Document) line(path string) int {
	if doc.inCluster {
		return 0
	}
	for path != "" {
		if line, ok := doc.lines[path]; ok {
			return line
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return doc.Line
}
