package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// maxDepth bounds the nesting of signed JSON. A payload of Cosign's has three
// levels; predicates of attestations, which are only told apart, some twenty.
const maxDepth = 64

// element stands for an element of a list where names lead to a value. It is no
// UTF-8, so it is no name.
const element = "\xff"

// readObject reads one JSON object and gives each string, number, bool and
// null in it with the names that lead there.
// Names are compared byte for byte, and one that is there twice is refused:
// two readers might each see another document.
func readObject(data []byte, value func(path []string, value any)) error {
	if !json.Valid(data) { // nor may anything follow, to which a decoder would not come
		return errors.New("not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	return readMembers(decoder, nil, value)
}

func readMembers(d *json.Decoder, path []string, value func([]string, any)) error {
	names := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := token.(string)
		if !ok {
			return errors.New("a JSON object with a name that is none")
		}
		if names[name] {
			return fmt.Errorf("the JSON has %q twice", clip(name))
		}
		names[name] = true
		if err := readValue(d, append(path, name), value); err != nil {
			return err
		}
	}
	_, err := d.Token() // the closing bracket
	return err
}

func readValue(d *json.Decoder, path []string, value func([]string, any)) error {
	if len(path) > maxDepth {
		return fmt.Errorf("the JSON is nested deeper than %d", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return readMembers(d, path, value)
	case json.Delim('['):
		for d.More() {
			if err := readValue(d, append(path, element), value); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	value(path, token)
	return nil
}
