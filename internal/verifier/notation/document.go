package notation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/notaryproject/notation-go/verifier/trustpolicy"
)

const (
	// maxPolicyBytes and maxStatements bound a Notary trust policy: people
	// write one statement for a few repositories.
	maxPolicyBytes = 1 << 20
	maxStatements  = 1000
)

// parsePolicy reads a Notary trust policy. Unlike notation it refuses fields
// that it does not know and fields that are there twice, because a field that
// is passed over is one that does not narrow trust.
func parsePolicy(data []byte) (*trustpolicy.Document, error) {
	if len(data) > maxPolicyBytes {
		return nil, fmt.Errorf("trustPolicyDoc: %d bytes are more than the %d that are read", len(data), maxPolicyBytes)
	}
	if err := noDuplicates(json.NewDecoder(bytes.NewReader(data)), "trustPolicyDoc"); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var document trustpolicy.Document
	if err := decoder.Decode(&document); err != nil {
		return nil, fmt.Errorf("trustPolicyDoc: %w", err)
	}
	if len(document.TrustPolicies) > maxStatements {
		return nil, fmt.Errorf("trustPolicyDoc: %d statements are more than the %d that are read", len(document.TrustPolicies), maxStatements)
	}
	return &document, nil
}

// noDuplicates walks one JSON value and refuses two fields of one name, which
// encoding/json merges in silence and without regard to case.
func noDuplicates(d *json.Decoder, path string) error {
	if err := walk(d, path, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more follows after the document", path)
	}
	return nil
}

func walk(d *json.Decoder, path string, depth int) error {
	const maxDepth = 16 // a Notary trust policy has 5
	if depth > maxDepth {
		return fmt.Errorf("%s: nested deeper than %d", clip(path), maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("%s: not JSON: %w", clip(path), err)
	}
	switch token {
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := walk(d, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		seen := map[string]bool{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return fmt.Errorf("%s: not JSON: %w", clip(path), err)
			}
			name := key.(string) // a JSON object's key, or Token fails
			if seen[strings.ToLower(name)] {
				return fmt.Errorf("%s: the field %q is there twice", clip(path), clip(name))
			}
			seen[strings.ToLower(name)] = true
			if err := walk(d, path+"."+name, depth+1); err != nil {
				return err
			}
		}
	default:
		return nil
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return fmt.Errorf("%s: not JSON: %w", clip(path), err)
	}
	return nil
}

// canonicalScope spells a registry scope as verifier.Reference spells names,
// so that one repository has one scope.
func canonicalScope(scope string) string {
	host, path, found := strings.Cut(scope, "/")
	if !found {
		return scope // "*"
	}
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	if host == "index.docker.io" {
		host = "docker.io"
	}
	return host + "/" + path
}
