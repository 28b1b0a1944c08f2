package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"unicode/utf8"
)

const (
	// maxBody bounds a request. A pod with all its images fits into etcd's
	// 1.5 MiB together with the rest of the object; real ones need a few KiB.
	maxBody = 1 << 20
	// maxKeys bounds the keys of a request. Gatekeeper asks for the images of
	// one object at a time, in admission and in audit; the largest pods known
	// have some dozens of containers.
	maxKeys = 1000
	// maxDepth bounds what may be nested in fields that we do not know; a
	// ProviderRequest itself is three deep.
	maxDepth = 16
	// maxBodies bounds the bodies held in memory at once, so that no number of
	// clients exhausts it: some 60 of the largest, and any number of real ones.
	maxBodies = 64 << 20
)

// requestError says why a whole request has no answer. Its text goes into
// systemError, and never quotes the request.
type requestError struct {
	status  int
	outcome string
	text    string
}

func (e *requestError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &requestError{http.StatusBadRequest, outcomeMalformed, "bad request: " + fmt.Sprintf(format, args...)}
}

func tooLarge(format string, args ...any) error {
	return &requestError{http.StatusRequestEntityTooLarge, outcomeTooLarge, "LIMIT_EXCEEDED: " + fmt.Sprintf(format, args...)}
}

// readBody reads the whole body, or says that it is too large without reading
// more of it than the limit.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, tooLarge("the request is larger than %d bytes", maxBody)
	}
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge("the request is larger than %d bytes", maxBody)
	case err != nil:
		return nil, badRequest("the body ended early")
	case len(body) == 0:
		return nil, badRequest("the body is empty")
	case !utf8.Valid(body):
		return nil, badRequest("the body is not UTF-8")
	}
	return body, nil
}

// parseRequest gives the keys of a ProviderRequest. It is stricter than
// json.Unmarshal where that repairs or guesses: names in another case, a field
// twice, null for a key. Fields that it does not know may be there, as
// Gatekeeper's next version may send them.
func parseRequest(body []byte) ([]string, error) {
	if !json.Valid(body) {
		return nil, badRequest("the body is not JSON")
	}
	p := requestParser{scanner: scanner{json: string(body)}}
	if err := p.object(p.envelope); err != nil {
		return nil, err
	}
	switch {
	case p.kind != "ProviderRequest":
		return nil, badRequest("kind is not ProviderRequest")
	case p.apiVersion != "externaldata.gatekeeper.sh/v1beta1" && p.apiVersion != "externaldata.gatekeeper.sh/v1alpha1":
		return nil, badRequest("apiVersion is not externaldata.gatekeeper.sh/v1beta1")
	case len(p.keys) == 0:
		return nil, badRequest("there are no keys")
	}
	return p.keys, nil
}

type requestParser struct {
	scanner
	apiVersion, kind string
	keys             []string
	seen             [4]bool // apiVersion, kind, request, keys
}

// once says that a field is there twice: of two values, each reader of the
// same JSON may take another.
func (p *requestParser) once(field int, name string) error {
	if p.seen[field] {
		return badRequest("%s is there twice", name)
	}
	p.seen[field] = true
	return nil
}

func (p *requestParser) object(read func(name string) error) error {
	if !p.step('{') {
		return badRequest("the body is not shaped as a ProviderRequest")
	}
	for !p.step('}') {
		name, _ := p.text()
		if err := read(name); err != nil {
			return err
		}
	}
	return nil
}

func (p *requestParser) envelope(name string) error {
	switch name {
	case "apiVersion":
		return p.field(0, name, &p.apiVersion)
	case "kind":
		return p.field(1, name, &p.kind)
	case "request":
		if err := p.once(2, name); err != nil {
			return err
		}
		return p.object(p.request)
	}
	return p.ignore()
}

func (p *requestParser) field(field int, name string, value *string) error {
	if err := p.once(field, name); err != nil {
		return err
	}
	return p.string(value)
}

func (p *requestParser) string(value *string) error {
	s, ok := p.text()
	if !ok {
		return badRequest("there is something else where text should be")
	}
	*value = s
	return nil
}

func (p *requestParser) request(name string) error {
	if name != "keys" {
		return p.ignore()
	}
	if err := p.once(3, name); err != nil {
		return err
	}
	if !p.step('[') {
		return badRequest("the body is not shaped as a ProviderRequest")
	}
	for !p.step(']') {
		if len(p.keys) == maxKeys {
			return tooLarge("the request has more than %d keys", maxKeys)
		}
		var key string
		if err := p.string(&key); err != nil {
			return err
		}
		p.keys = append(p.keys, key)
	}
	return nil
}

func (p *requestParser) ignore() error {
	if !p.skip(maxDepth) {
		return tooLarge("the request is nested more than %d deep", maxDepth)
	}
	return nil
}
