package provider

import (
	"bytes"
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
// twice, null for a key, bytes that are no text. Fields that it does not know
// may be there, as Gatekeeper's next version may send them.
func parseRequest(body []byte) ([]string, error) {
	p := requestParser{decoder: json.NewDecoder(bytes.NewReader(body))}
	if err := p.object(p.envelope); err != nil {
		return nil, err
	}
	if _, err := p.decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, badRequest("something follows the JSON object")
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
	decoder          *json.Decoder
	apiVersion, kind string
	keys             []string
	inRequest        bool
}

// object reads an object, and hands the name of each field to read.
func (p *requestParser) object(read func(name string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	for p.decoder.More() {
		name, err := p.text()
		if err != nil {
			return err
		}
		if err := read(name); err != nil {
			return err
		}
	}
	return p.delim('}')
}

func (p *requestParser) envelope(name string) (err error) {
	switch name {
	case "apiVersion":
		if p.apiVersion != "" {
			return badRequest("apiVersion is there twice")
		}
		p.apiVersion, err = p.text()
	case "kind":
		if p.kind != "" {
			return badRequest("kind is there twice")
		}
		p.kind, err = p.text()
	case "request":
		if p.inRequest {
			return badRequest("request is there twice")
		}
		p.inRequest = true
		err = p.object(p.request)
	default:
		err = p.skip()
	}
	return err
}

func (p *requestParser) request(name string) error {
	if name != "keys" {
		return p.skip()
	}
	if p.keys != nil {
		return badRequest("keys is there twice")
	}
	if err := p.delim('['); err != nil {
		return err
	}
	p.keys = []string{}
	for p.decoder.More() {
		key, err := p.text()
		if err != nil {
			return err
		}
		if len(p.keys) == maxKeys {
			return tooLarge("the request has more than %d keys", maxKeys)
		}
		p.keys = append(p.keys, key)
	}
	return p.delim(']')
}

func (p *requestParser) token() (json.Token, error) {
	token, err := p.decoder.Token()
	if err != nil {
		return nil, badRequest("the body is not JSON")
	}
	return token, nil
}

func (p *requestParser) delim(want json.Delim) error {
	token, err := p.token()
	if err != nil {
		return err
	}
	if token != want {
		return badRequest("the body is not shaped as a ProviderRequest")
	}
	return nil
}

func (p *requestParser) text() (string, error) {
	token, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", badRequest("there is something else where text should be")
	}
	return s, nil
}

// skip reads over one value of any kind.
func (p *requestParser) skip() error {
	for depth := 0; ; {
		token, err := p.token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxDepth {
			return tooLarge("the request is nested more than %d deep", maxDepth)
		}
		if depth == 0 {
			return nil
		}
	}
}
