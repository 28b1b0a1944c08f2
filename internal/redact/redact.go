// Package redact takes secrets out of the errors of HTTP clients. A registry sends
// its clients to a store of blobs with signed URLs: for some minutes such a URL is as
// good as a password, and net/http writes it into each error. Each room cleans an
// error where its HTTP client returns it. The package is no filter for logs.
package redact

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// quoting is what net/http writes before it quotes a header of the answer as it came,
// which may be that of a redirect. What follows is left out.
var quoting = []string{"failed to parse Location header", "malformed MIME header"}

// Error gives the error of an HTTP client without the secrets of its URLs: user,
// query and fragment. What errors.Is and errors.As find in it stays there, except for
// an error whose own text has a secret, or wraps one, which is replaced by its clean
// text. An error without a secret is returned as it is, nil too; none is changed.
func Error(err error) error {
	if err == nil || !dirty(err) {
		return err
	}
	if at, ok := err.(*url.Error); ok { //nolint:errorlint // each layer is rebuilt
		return &url.Error{Op: at.Op, URL: URL(at.URL), Err: Error(at.Err)}
	}
	c := &clean{text: Text(err.Error())}
	for _, cause := range causes(err) {
		c.causes = append(c.causes, Error(cause))
	}
	return c
}

// dirty reports whether the error or one that it wraps has a secret.
func dirty(err error) bool {
	if at, ok := err.(*url.Error); ok { //nolint:errorlint // each layer is looked at
		return URL(at.URL) != at.URL || at.Err != nil && dirty(at.Err)
	}
	text := err.Error()
	return Text(text) != text || slices.ContainsFunc(causes(err), dirty)
}

// causes are what the error wraps.
func causes(err error) []error {
	var list []error
	switch wrapping := err.(type) { //nolint:errorlint // this layer's
	case interface{ Unwrap() error }:
		list = []error{wrapping.Unwrap()}
	case interface{ Unwrap() []error }:
		list = wrapping.Unwrap()
	}
	return slices.DeleteFunc(slices.Clone(list), func(err error) bool { return err == nil })
}

// Cause gives the error of an HTTP client without its URL, for URLs that are secrets
// as a whole: a webhook's has them in its path.
func Cause(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return Error(err)
}

// clean is an error that had a secret in its text; what it wraps is clean too.
type clean struct {
	text   string
	causes []error
}

func (c *clean) Error() string   { return c.text }
func (c *clean) Unwrap() []error { return c.causes }

// URL gives the URL without user, query and fragment. It does the same as far as it
// can for a text that is no URL.
func URL(text string) string {
	u, err := url.Parse(text)
	if err == nil && u.Opaque != "" {
		return u.Scheme + ":"
	}
	if err != nil {
		text, _, _ = strings.Cut(text, "#")
		text, _, _ = strings.Cut(text, "?")
		return users.ReplaceAllString(text, "//")
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}

var (
	// users are what stands before the host of a URL.
	users = regexp.MustCompile(`//[^/?#\s"]*@`)
	// queries are what follows a URL's path, up to the end of the quotes that the
	// URL stands in, in which quotes are escaped.
	queries = regexp.MustCompile(`(//[^?#\s"]*)[?#](?:\\.|[^\s"\\])*`)
)

// Text gives a text without the users, queries and fragments of the URLs in it, and
// without what it quotes of an answer's headers.
func Text(text string) string {
	for _, before := range quoting {
		if at := strings.Index(text, before); at >= 0 {
			text = text[:at+len(before)]
		}
	}
	if !strings.Contains(text, "//") {
		return text
	}
	return queries.ReplaceAllString(users.ReplaceAllString(text, "//"), "$1")
}
