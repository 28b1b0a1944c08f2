package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxNodes bounds one document, with what its aliases stand for counted each
	// time: an alias bomb is small on disk. The largest honest policy has
	// hundreds. Depth needs no bound of its own: the types end, and what they do
	// not know is not looked into.
	maxNodes = 20_000
	// maxProblems is how many problems of one document are worth reading.
	maxProblems = 50
)

// decoder reads a tree of YAML nodes into a typed document, strictly: what the
// type does not know, has twice or has otherwise is a problem, and all of them
// are found at once.
type decoder struct {
	// lines remembers where each path stands, for the checks that follow.
	lines map[string]int
	// meant are fields that are there under a wrong name: they are not missing
	// as well.
	meant    map[string]bool
	problems []Problem
	faulty   map[string]bool // paths that a problem is about
	nodes    int
	tooLarge bool
}

func newDecoder() *decoder {
	return &decoder{lines: map[string]int{}, meant: map[string]bool{}, faulty: map[string]bool{}}
}

func (d *decoder) problem(line int, path, message, remedy string) {
	d.faulty[path] = true
	d.problems = append(d.problems, Problem{
		Line: line, Path: path, Message: message, Remedy: remedy, Reason: verifier.ReasonPolicyInvalid,
	})
}

// decode fills v from the node.
func (d *decoder) decode(node *yaml.Node, v reflect.Value, path string) {
	line := node.Line
	d.lines[path] = line
	node = resolve(node)
	if !d.enter(line) {
		return
	}
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		d.problem(line, path, "nothing is written here", "Give it a value, or delete the line")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(node, v.Elem(), path)
	case reflect.Struct:
		d.decodeStruct(node, v, path, line)
	case reflect.Slice:
		d.decodeList(node, v, path, line)
	case reflect.Map:
		d.decodeMap(node, v, path, line)
	default:
		d.decodeScalar(node, v, path, line)
	}
}

// enter counts a node, and reports whether there is room for it.
func (d *decoder) enter(line int) bool {
	d.nodes++
	if d.tooLarge {
		return false
	}
	if d.nodes > maxNodes {
		d.refuseSize(line, "Write the document without aliases that repeat each other")
		return false
	}
	return true
}

// refuseSize stops reading.
func (d *decoder) refuseSize(line int, remedy string) {
	d.tooLarge = true
	d.problem(line, "", fmt.Sprintf("more than %d values", maxNodes), remedy)
}

// field is one field of a document, wherever the type embeds it.
type field struct {
	name     string
	union    string
	required bool
	value    reflect.Value
}

// fieldsOf lists the fields in the order of the type, embedded ones in place.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		t := v.Type().Field(i)
		name, options, _ := strings.Cut(t.Tag.Get("json"), ",")
		if options == "inline" {
			fields = append(fields, fieldsOf(v.Field(i))...)
			continue
		}
		fields = append(fields, field{
			name: name, union: t.Tag.Get("union"), value: v.Field(i),
			required: options != "omitempty",
		})
	}
	return fields
}

func (d *decoder) decodeStruct(node *yaml.Node, v reflect.Value, path string, line int) {
	fields := fieldsOf(v)
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.name
	}
	if node.Kind != yaml.MappingNode {
		d.mistyped(node, path, line, "an object with "+list(known, "and"))
		return
	}
	strangers := false
	seen := d.eachField(node, path, func(key, value *yaml.Node, child string) {
		i := slices.Index(known, key.Value)
		if i < 0 {
			strangers = true
			d.meant[join(path, suggest(key.Value, known))] = true
			if secret(path) { // {hunter2}, where {inline: hunter2} was meant
				child = join(path, "…")
			}
			d.problem(key.Line, child, "unknown field", remedyForField(path, key.Value, known))
			return
		}
		d.decode(value, fields[i].value, child)
	})
	if d.tooLarge {
		return
	}
	d.checkRequired(fields, seen, path, line)
	d.checkChoices(fields, seen, path, line, strangers)
}

// eachField calls visit for each field of a mapping, once, and returns the
// lines of the names that it met.
func (d *decoder) eachField(node *yaml.Node, path string, visit func(key, value *yaml.Node, child string)) map[string]int {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content) && d.enter(node.Content[i].Line); i += 2 {
		key, value := resolve(node.Content[i]), node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.problem(key.Line, path, "a field's name is no text", "Write name: value")
			continue
		}
		child := join(path, clip(key.Value, 64))
		if first, twice := seen[key.Value]; twice {
			d.problem(key.Line, child, fmt.Sprintf("is there twice, first in line %d", first), "Delete one of them")
			continue
		}
		seen[key.Value] = node.Content[i].Line
		visit(key, value, child)
	}
	return seen
}

// checkRequired finds required fields that are missing.
func (d *decoder) checkRequired(fields []field, seen map[string]int, path string, line int) {
	for _, f := range fields {
		_, there := seen[f.name]
		if child := join(path, f.name); f.required && f.union == "" && !there && !d.meant[child] {
			d.problem(line, child, "is missing", remedyForMissing(f))
		}
	}
}

// checkChoices finds choices of which none or several are made. Where there are
// strangers, one of them is probably what was chosen.
func (d *decoder) checkChoices(fields []field, seen map[string]int, path string, line int, strangers bool) {
	unions := map[string][]string{} // name of the choice to its fields
	for _, f := range fields {
		if f.union != "" {
			unions[f.union] = append(unions[f.union], f.name)
		}
	}
	for _, union := range slices.Sorted(maps.Keys(unions)) {
		choices := unions[union]
		var made []string
		at := line
		for _, choice := range choices {
			if where, there := seen[choice]; there {
				made, at = append(made, choice), where
			}
		}
		remedy := "Keep one of them"
		if union == "rule" {
			remedy = "Keep one of them, or put them as parts into all or any"
		}
		switch {
		case len(made) == 0 && !strangers:
			d.problem(line, path, "nothing is chosen", "Write "+list(choices, "or"))
		case len(made) > 1:
			d.problem(at, path, list(made, "and")+" are both here, and one of them is what holds", remedy)
		}
	}
}

func remedyForMissing(f field) string {
	if enum, ok := f.value.Interface().(interface{ Values() []string }); ok {
		return "Write " + f.name + ": " + list(enum.Values(), "or")
	}
	return "Add it"
}

func (d *decoder) decodeList(node *yaml.Node, v reflect.Value, path string, line int) {
	if node.Kind != yaml.SequenceNode {
		d.mistyped(node, path, line, "a list")
		return
	}
	if len(node.Content) == 0 {
		d.problem(line, path, "the list is empty", "Put something in, or delete the field")
	}
	for i, part := range node.Content {
		if d.tooLarge {
			return
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(part, item, element(path, i))
		v.Set(reflect.Append(v, item))
	}
}

// decodeMap reads labels and annotations.
func (d *decoder) decodeMap(node *yaml.Node, v reflect.Value, path string, line int) {
	if node.Kind != yaml.MappingNode {
		d.mistyped(node, path, line, "an object")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.eachField(node, path, func(key, value *yaml.Node, child string) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, item, child)
		v.SetMapIndex(reflect.ValueOf(key.Value), item)
	})
}

func (d *decoder) decodeScalar(node *yaml.Node, v reflect.Value, path string, line int) {
	tag := node.ShortTag()
	switch {
	case v.Kind() == reflect.String && node.Kind == yaml.ScalarNode && (tag == "!!str" || tag == "!!timestamp" && v.Type() == reflect.TypeFor[api.Time]()):
		d.decodeText(node.Value, v, path, line)
	case v.Kind() == reflect.String:
		d.mistyped(node, path, line, "text")
	case v.Kind() == reflect.Bool && tag == "!!bool" && node.Kind == yaml.ScalarNode:
		v.SetBool(strings.EqualFold(node.Value, "true"))
	case v.Kind() == reflect.Bool:
		d.mistyped(node, path, line, "true or false")
	case v.Kind() == reflect.Int:
		n, err := strconv.Atoi(node.Value)
		if err != nil || tag != "!!int" || node.Kind != yaml.ScalarNode {
			d.mistyped(node, path, line, "a number")
			return
		}
		v.SetInt(int64(n))
	default: // a type that the documents do not have
		d.mistyped(node, path, line, "something else")
	}
}

func (d *decoder) decodeText(text string, v reflect.Value, path string, line int) {
	if enum, ok := v.Interface().(interface{ Values() []string }); ok && !slices.Contains(enum.Values(), text) {
		d.problem(line, path, fmt.Sprintf("%s is not one of %s", quote(text), list(enum.Values(), "or")), remedyForValue(path, text, enum.Values()))
		return
	}
	v.SetString(text)
}

// mistyped says what was expected and what is there.
func (d *decoder) mistyped(node *yaml.Node, path string, line int, expected string) {
	found, remedy := "", ""
	switch node.Kind {
	case yaml.MappingNode:
		found = "an object"
	case yaml.SequenceNode:
		found = "a list"
	default:
		found = "a text"
		if !secret(path) {
			found = quote(node.Value)
		}
		switch tag := node.ShortTag(); tag {
		case "!!int", "!!float":
			found += " that reads as a number"
		case "!!bool":
			found += " that reads as true or false"
		case "!!timestamp":
			found += " that reads as a date"
		case "!!str":
		default:
			found += " tagged " + clip(tag, 32)
		}
		if expected == "text" {
			remedy = "Put it in quotes"
		}
	}
	switch expected {
	case "true or false", "a number":
		remedy = "Write " + expected + ", without quotes"
	case "a list":
		remedy = "Write it as a list, in [ ] or with a - before each part"
	}
	d.problem(line, path, "expected "+expected+", found "+found, remedy)
}

// secret reports whether what stands there must not be shown.
func secret(path string) bool {
	return strings.Contains(path, ".auth.static") || strings.Contains(path, ".clientSecret")
}

// join appends a field's name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
