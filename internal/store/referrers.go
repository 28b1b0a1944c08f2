package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unique"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/redact"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// listing is what was read of one list, and what kept us from reading more.
type listing struct {
	entries []entry
	err     error
	noAPI   bool // the registry did not speak as one with the referrers API
}

// entry is one line of a list: where a candidate's manifest is.
type entry struct {
	descriptor ocispec.Descriptor // media type, digest, size and artifact type as listed
	source     verifier.Source
	suffix     string // of the tag, for verifier.SourceTagSuffix
}

// referrersByAPI follows the API's pages.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers
func (c *client) referrersByAPI(ctx context.Context, repository string, subject digest.Digest, wanted verifier.Wanted) listing {
	_, known := c.store.referrersAPI.Get(c.key())
	l, status := c.pages(ctx, repository, subject, wanted)
	if status == apiSpoken || status == apiAbsent && !known {
		c.store.referrersAPI.Put(c.key(), status == apiSpoken, 1, time.Now().Add(c.store.options.ReferrersAPITTL))
	}
	l.noAPI = status != apiSpoken
	return l
}

type apiStatus int

const (
	apiUnclear apiStatus = iota // an error, or a repository that is not there
	apiSpoken
	apiAbsent
)

func (c *client) pages(ctx context.Context, repository string, subject digest.Digest, wanted verifier.Wanted) (listing, apiStatus) {
	at := c.endpoint(repository, "referrers/"+subject.String())
	if len(wanted.ArtifactTypes) == 1 && wanted.ArtifactTypes[0] != verifier.AnyArtifactType {
		at.RawQuery = url.Values{"artifactType": wanted.ArtifactTypes}.Encode()
	}
	collected := collector{wanted: wanted, source: verifier.SourceReferrersAPI}
	for page := 1; ; page++ {
		next, status, err := c.page(ctx, repository, at, page, &collected)
		if err != nil || next == nil {
			return collected.end(err), status
		}
		at = next
	}
}

// page reads one page of the list into those that were read before, and says where the
// next one is, if there is one.
func (c *client) page(ctx context.Context, repository string, at *url.URL, page int, collected *collector) (next *url.URL, _ apiStatus, _ error) {
	ctx, done := withBodies(ctx)
	defer done()
	a, err := c.ask(ctx, question{
		method:     http.MethodGet,
		url:        at,
		repository: repository,
		accept:     ocispec.MediaTypeImageIndex,
		kind:       "referrers",
		limit:      maxPageBytes,
	})
	switch {
	case err != nil:
		return nil, apiUnclear, err
	case a.status == http.StatusNotFound && saysUnknown(a.body):
		return nil, apiUnclear, nil
	case page > 1 && a.status != http.StatusOK:
		return nil, apiSpoken, c.unexpected(a.url.Host, a.status).err
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed, a.status == http.StatusNotImplemented,
		a.status == http.StatusOK && mediaType(a.header) != ocispec.MediaTypeImageIndex:
		return nil, apiAbsent, nil
	case a.status != http.StatusOK:
		return nil, apiUnclear, c.unexpected(a.url.Host, a.status).err
	}
	if err := collected.page(a.body, a.longer); err != nil {
		return nil, apiSpoken, c.badList(err)
	}
	next, err = c.nextPage(a)
	switch {
	case err != nil:
		return nil, apiSpoken, c.badList(err)
	case next != nil && page == maxPages:
		return nil, apiSpoken, tooMany("pages", maxPages)
	case next != nil && collected.bytes > maxListBytes:
		return nil, apiSpoken, tooMany("bytes of referrers", maxListBytes)
	}
	return next, apiSpoken, nil
}

// referrersByTag reads the index that clients keep where there is no API.
// https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema
func (c *client) referrersByTag(ctx context.Context, repository string, subject digest.Digest, wanted verifier.Wanted) listing {
	ctx, done := withBodies(ctx)
	defer done()
	collected := collector{wanted: wanted, source: verifier.SourceReferrersTag}
	d, body, err := c.tagged(ctx, repository, referrersTag(subject))
	// Some registries lead such a tag to the subject itself, which may be an
	// index: what it lists is not attached to it.
	if err != nil || d == nil || d.MediaType != ocispec.MediaTypeImageIndex || d.Digest == subject {
		return collected.end(err)
	}
	if err := collected.page(body, d.Size < 0); err != nil {
		return collected.end(c.badList(err))
	}
	return collected.end(nil)
}

// referrersTag is the algorithm up to 32 characters and the hash up to 64.
func referrersTag(d digest.Digest) string {
	return fmt.Sprintf("%.32s-%.64s", d.Algorithm(), d.Encoded())
}

// suffixed reads a tag of Cosign's: sha256-<hex> and a suffix.
func (c *client) suffixed(ctx context.Context, repository string, subject digest.Digest, suffix string) listing {
	tag := subject.Algorithm().String() + "-" + subject.Encoded() + suffix
	if len(tag) > maxTag {
		return listing{}
	}
	ctx, done := withBodies(ctx)
	defer done()
	d, body, err := c.tagged(ctx, repository, tag)
	switch {
	case err != nil:
		return listing{err: err}
	case d == nil:
		return listing{}
	case d.Size < 0:
		return listing{err: &verifier.Error{
			Reason:  verifier.ReasonLimitExceeded,
			Message: fmt.Sprintf("the manifest at %.19s…%s is larger than 4 MiB", tag, suffix),
		}}
	}
	m := decodeManifest(d.MediaType, body)
	c.store.manifests.Put(manifestKey(*d), m, m.cost(), forever())
	c.store.options.Content.put(d.Digest, body)
	c.store.options.Shared.putContent(d.Digest, body)
	return listing{entries: []entry{{*d, verifier.SourceTagSuffix, suffix}}}
}

// listed is what makes two lines of a list one.
type listed struct {
	mediaType string
	digest    digest.Digest
	size      int64
}

// collector gathers the entries of one list's pages.
type collector struct {
	wanted  verifier.Wanted
	source  verifier.Source
	read    int
	bytes   int // of all pages
	seen    map[listed]bool
	entries []entry
}

var errTooManyEntries = errors.New("too many entries")
var errPageTooLong = errors.New("page too long")

// page takes the descriptors of one index, each as it is decoded, so that a
// page costs no more than the entries that are kept. Annotations are not: they
// are copies that nobody checked. When truncated, all that is whole is taken.
func (l *collector) page(data []byte, truncated bool) error {
	l.bytes += len(data)
	decoder := json.NewDecoder(bytes.NewReader(data))
	err := l.index(decoder)
	if truncated && !errors.Is(err, errTooManyEntries) {
		return errPageTooLong
	}
	return err
}

func (l *collector) index(decoder *json.Decoder) error {
	if err := open(decoder, '{'); err != nil {
		return err
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		if name != "manifests" {
			var skipped json.RawMessage
			if err := decoder.Decode(&skipped); err != nil {
				return err
			}
			continue
		}
		if err := open(decoder, '['); err != nil {
			return err
		}
		for decoder.More() {
			if l.read == maxReferrers {
				return errTooManyEntries
			}
			var d struct {
				MediaType    string        `json:"mediaType"`
				Digest       digest.Digest `json:"digest"`
				Size         int64         `json:"size"`
				ArtifactType string        `json:"artifactType"`
			}
			if err := decoder.Decode(&d); err != nil {
				return err
			}
			l.read++
			l.take(ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
		}
		if _, err := decoder.Token(); err != nil {
			return err
		}
	}
	_, err := decoder.Token()
	return err
}

func open(decoder *json.Decoder, want json.Delim) error {
	token, err := decoder.Token()
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("%v where %v belongs", token, want)
	}
	return nil
}

// take keeps a descriptor once, if it names something that is or may be of a
// wanted type.
func (l *collector) take(d ocispec.Descriptor) {
	d.MediaType, d.ArtifactType, d.Digest = name(d.MediaType), name(d.ArtifactType), digest.Digest(short(string(d.Digest)))
	line := listed{d.MediaType, d.Digest, d.Size}
	if d.Digest == "" || l.seen[line] || !selects(l.wanted, d.ArtifactType) && !undetermined(d.ArtifactType) {
		return
	}
	if l.seen == nil {
		l.seen = map[listed]bool{}
	}
	l.seen[line] = true
	l.entries = append(l.entries, entry{d, l.source, ""})
}

// name is a media type as it is kept, once for all lists, and so short that a list costs
// no more than its entries.
func name(mediaType string) string { return unique.Make(short(mediaType)).Value() }

func short(s string) string {
	if len(s) <= maxName {
		return s
	}
	return strings.Clone(s[:maxName])
}

func (l *collector) end(err error) listing { return listing{entries: l.entries, err: err} }

func (c *client) badList(err error) error {
	switch {
	case errors.Is(err, errTooManyEntries):
		return tooMany("referrers", maxReferrers)
	case errors.Is(err, errPageTooLong):
		return tooMany("bytes on one page of referrers", maxPageBytes)
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF // the decoder's word for a body that is not whole
	}
	return &verifier.Error{
		Reason:  verifier.ReasonRegistryInvalid,
		Message: fmt.Sprintf("the registry %s sent a list of referrers that cannot be read", c.host),
		Err:     redact.Error(err),
	}
}

func tooMany(what string, limit int) error {
	return &verifier.Error{
		Reason:  verifier.ReasonLimitExceeded,
		Message: fmt.Sprintf("the image has more than %d %s", limit, what),
		Remedy:  "Remove referrers that are not needed from the image",
	}
}

// nextPage reads Link (RFC 8288). A page at another origin would carry our
// token, or us, to wherever the registry likes.
func (c *client) nextPage(a *answer) (*url.URL, error) {
	for _, header := range a.header.Values("Link") {
		for rest := header; ; {
			_, after, ok := strings.Cut(rest, "<")
			if !ok {
				break
			}
			target, after, ok := strings.Cut(after, ">")
			if !ok {
				break
			}
			var params string
			params, rest, _ = strings.Cut(after, ",")
			if !isNext(params) {
				continue
			}
			next, err := a.url.Parse(target)
			if err != nil {
				return nil, err
			}
			if !sameOrigin(c.endpoint("", ""), next) || next.User != nil {
				return nil, fmt.Errorf("the next page is at another origin, %s", next.Host)
			}
			return next, nil
		}
	}
	return nil, nil
}

func isNext(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") {
			return strings.EqualFold(strings.Trim(strings.TrimSpace(value), `"`), "next")
		}
	}
	return false
}

// saysUnknown reports whether a 404 speaks of the repository or the image, and
// so says nothing about the API.
func saysUnknown(body []byte) bool {
	var said struct {
		Errors []struct {
			Code string `json:"code"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &said) != nil {
		return false
	}
	for _, e := range said.Errors {
		if e.Code == "NAME_UNKNOWN" || e.Code == "MANIFEST_UNKNOWN" {
			return true
		}
	}
	return false
}

func mediaType(header http.Header) string {
	parsed, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return parsed
}
