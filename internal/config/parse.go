package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// MaxFileSize bounds a file of documents: a thousand policies fit.
	MaxFileSize = 1 << 20
	// MaxDocuments bounds the documents of one file.
	MaxDocuments = 2048
)

// Parse reads all documents of a file: YAML, several of them separated by ---,
// or JSON. The name is for problems and for the paths in the documents. What
// is broken is among the documents with its problems, as far as it could be
// read, and never keeps its neighbours from being read.
func Parse(name string, data []byte) []*Document {
	if cause := unreadable(data); cause != nil {
		cause.File = name
		return []*Document{{File: name, Problems: []Problem{*cause}, unknown: true}}
	}
	var documents []*Document
	for line := 1; len(data) > 0; {
		var chunk []byte
		chunk, data = cutDocument(data)
		documents = append(documents, parseChunk(name, chunk, line)...)
		line += bytes.Count(chunk, []byte("\n"))
		if len(documents) > MaxDocuments {
			return append(documents[:MaxDocuments], &Document{File: name, Line: line, unknown: true, Problems: []Problem{{
				File: name, Line: line, Reason: verifier.ReasonPolicyInvalid,
				Message: fmt.Sprintf("more than %d documents; those from here on are not read", MaxDocuments),
				Remedy:  "Split the file",
			}}})
		}
	}
	return documents
}

// unreadable finds what is wrong with the file as a whole, or nil.
func unreadable(data []byte) *Problem {
	p := Problem{Reason: verifier.ReasonPolicyInvalid}
	switch {
	case len(data) > MaxFileSize:
		p.Message = fmt.Sprintf("%d bytes are more than the %d that are read", len(data), MaxFileSize)
		p.Remedy = "Split the file"
	case !utf8.Valid(data):
		valid := 0
		for r, size := utf8.DecodeRune(data); r != utf8.RuneError || size > 1; r, size = utf8.DecodeRune(data[valid:]) {
			valid += size
		}
		p.Line = 1 + bytes.Count(data[:valid], []byte("\n"))
		p.Message, p.Remedy = "not UTF-8", "Save it as UTF-8"
	default:
		return nil
	}
	return &p
}

// cutDocument cuts the first document off. A line that begins with --- ends
// one whatever stands around it, in a block of text too, so one document that
// is no YAML leaves the others readable.
func cutDocument(data []byte) (chunk, rest []byte) {
	for i := bytes.IndexByte(data, '\n') + 1; i > 0 && i < len(data); {
		if separates(data[i:]) {
			return data[:i], data[i:]
		}
		next := bytes.IndexByte(data[i:], '\n') + 1
		if next == 0 {
			break
		}
		i += next
	}
	return data, nil
}

func separates(line []byte) bool {
	return bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0)
}

// parseChunk reads what stands between two separators. It is one document,
// or none where there are only comments.
func parseChunk(file string, chunk []byte, firstLine int) []*Document {
	if len(bytes.TrimSpace(bytes.TrimPrefix(chunk, []byte("---")))) == 0 {
		return nil
	}
	var documents []*Document
	for decoder := yaml.NewDecoder(bytes.NewReader(chunk)); ; {
		var root yaml.Node
		err := decoder.Decode(&root)
		if errors.Is(err, io.EOF) {
			return documents
		}
		if err != nil {
			line, message, remedy := syntaxError(err, chunk)
			line += firstLine - 1
			return append(documents, &Document{File: file, Line: line, unknown: true, Problems: []Problem{{
				File: file, Line: line, Message: message, Remedy: remedy, Reason: verifier.ReasonPolicyInvalid,
			}}})
		}
		if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
			continue
		}
		body := root.Content[0]
		if body.Kind == yaml.ScalarNode && body.ShortTag() == "!!null" && body.Value == "" {
			continue
		}
		shift(&root, firstLine-1)
		documents = append(documents, parseDocument(file, body))
	}
}

// shift moves the lines of a chunk to where it stands in its file. Aliases
// point back into the tree, so it follows content only.
func shift(node *yaml.Node, lines int) {
	node.Line += lines
	for _, child := range node.Content {
		shift(child, lines)
	}
}

// syntaxError puts the YAML parser's complaint into the user's words.
func syntaxError(err error, chunk []byte) (line int, message, remedy string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line = 1
	if n, rest, found := strings.Cut(strings.TrimPrefix(text, "line "), ": "); found {
		if at, err := strconv.Atoi(n); err == nil {
			line, text = at, rest
		}
	}
	switch {
	case strings.HasPrefix(text, "unknown anchor") || strings.Contains(text, "alphabetic or numeric character"):
		text, remedy = "a value starts with * or &", "Put it in quotes"
		line = max(line, lineOf(chunk, `(^|[\s\[{,:])[*&]`))
	case strings.Contains(text, "cannot start any token"):
		line = max(line, lineOf(chunk, `^\s*\t|(^|[\s\[{,:])[@`+"`"+`%]`))
		remedy = "Indent with spaces, and put text that starts with @, % or ` in quotes"
	case strings.Contains(text, "mapping values are not allowed"):
		remedy = "Check the indentation, and put text that contains : in quotes"
	default:
		remedy = "Check indentation, brackets and quotes from there upwards"
	}
	return line, "not YAML: " + text, remedy
}

// lineOf is the first line that matches, or 0.
func lineOf(chunk []byte, expression string) int {
	re := regexp.MustCompile(expression)
	for i, line := range bytes.Split(chunk, []byte("\n")) {
		if re.Match(line) {
			return i + 1
		}
	}
	return 0
}

// parseDocument reads one document of a file and finds all that is wrong with it.
func parseDocument(file string, root *yaml.Node) *Document {
	doc := &Document{File: file, Line: root.Line}
	doc.glean(root)
	d := newDecoder()
	doc.read(root, d)
	doc.settle(d)
	return doc
}

// read decodes the document and checks it.
func (doc *Document) read(root *yaml.Node, d *decoder) {
	readable := root.Kind == yaml.MappingNode && doc.checkHeader(root, d)
	switch {
	case root.Kind != yaml.MappingNode:
		d.problem(root.Line, "", "not a policy", "A document has apiVersion, kind, metadata and spec")
	case !readable:
	case doc.Kind == api.KindClusterTrustPolicy:
		var policy api.ClusterTrustPolicy
		d.decode(root, reflect.ValueOf(&policy).Elem(), "")
		doc.Metadata, doc.Spec = policy.Metadata, policy.Spec
	case doc.Kind == api.KindExemption:
		var exemption api.Exemption
		d.decode(root, reflect.ValueOf(&exemption).Elem(), "")
		doc.Metadata, doc.Exemption = exemption.Metadata, exemption.Spec
	default:
		var policy api.TrustPolicy
		d.decode(root, reflect.ValueOf(&policy).Elem(), "")
		doc.Metadata, doc.Spec.PolicySpec = policy.Metadata, policy.Spec
	}
	if readable && !d.tooLarge {
		doc.validate(d)
	}
}

// checkHeader reports whether the document says that it is one of ours.
func (doc *Document) checkHeader(root *yaml.Node, d *decoder) bool {
	before := len(d.problems)
	at := func(name string) (value string, line int, there bool) {
		if node := lookUp(root, name); node != nil {
			return node.Value, node.Line, true
		}
		return "", root.Line, false
	}
	kinds := []string{api.KindClusterTrustPolicy, api.KindTrustPolicy, api.KindExemption}
	switch kind, line, there := at("kind"); {
	case !there:
		d.problem(line, "kind", "is missing", "Write kind: "+list(kinds, "or"))
	case kind == "List":
		d.problem(line, "kind", `"List" is not read`, "Write each item as a document of its own, with --- between them")
	case !slices.Contains(kinds, kind):
		remedy := "Write " + list(kinds, "or") + ", and keep other objects elsewhere"
		if meant := suggest(kind, kinds); meant != "" {
			remedy = "Did you mean " + meant + "?"
		}
		d.problem(line, "kind", quote(kind)+" is not a kind that is read here", remedy)
	}
	switch version, line, there := at("apiVersion"); {
	case !there:
		d.problem(line, "apiVersion", "is missing", "Write apiVersion: "+api.APIVersion)
	case len(d.problems) > before: // another kind has another version
	case version != api.APIVersion:
		d.problem(line, "apiVersion", quote(version)+" is not read here", "Write apiVersion: "+api.APIVersion)
	}
	return len(d.problems) == before
}
