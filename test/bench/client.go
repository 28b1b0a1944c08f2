package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
)

const (
	// patience with one answer: longer than any deadline of the provider.
	patience = 10 * time.Second
	// maxAnswer bounds an answer; one of fifty keys has some 80 KiB.
	maxAnswer = 4 << 20
)

// exchange is a request for the verdicts on some images, with what is known of
// them.
type exchange struct {
	images []*image
	// keys as the request and its answer have them: `"key":"…"`.
	keys    [][]byte
	request []byte
}

// newExchange makes the request that Gatekeeper sends, headers included.
func newExchange(by naming, images ...*image) *exchange {
	return newExchangeIn("shop", by, images...)
}

// newExchangeIn does so for a namespace.
func newExchangeIn(namespace string, by naming, images ...*image) *exchange {
	e := &exchange{images: images}
	keys := make([]string, len(images))
	for i, image := range images {
		keys[i] = image.keyIn(namespace, by)
		e.keys = append(e.keys, fmt.Appendf(nil, `"key":%q`, keys[i]))
	}
	body, err := json.Marshal(externaldata.NewProviderRequest(keys))
	if err != nil {
		panic(err) // strings can be encoded
	}
	e.request = fmt.Appendf(nil, "POST /v1/verify HTTP/1.1\r\nHost: countersign\r\nUser-Agent: Go-http-client/1.1\r\n"+
		"Content-Length: %d\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n%s", len(body), body)
	return e
}

// trusts is the cheap check for what is asked ten thousand times a second: all
// keys are there, in their order, and each is trusted.
func (e *exchange) trusts(answer []byte) error {
	rest := answer
	for _, key := range e.keys {
		_, after, found := bytes.Cut(rest, key)
		if !found || !bytes.HasPrefix(after, []byte(`,"value":{"version":`)) {
			return fmt.Errorf("no value for %s in %.600s", key, answer)
		}
		rest = after
	}
	n := len(e.keys)
	if bytes.Count(answer, []byte(`"isSuccess":true,"succeeded":true`)) != n || bytes.Count(answer, []byte(`"status":"TRUSTED"`)) != n ||
		bytes.Contains(answer, []byte(`"systemError"`)) {
		return fmt.Errorf("want TRUSTED %d times: %.600s", n, answer)
	}
	return nil
}

// outcome is what an answer says of an image. Zero is the worst.
type outcome int

const (
	refused outcome = iota
	undecided
	accepted
)

// outcomes reads the answer with all care and says what it says of each image.
// An unsigned image that is accepted is an error, and so is an answer that is
// about another image.
func (e *exchange) outcomes(answer []byte) ([]outcome, error) {
	var response struct {
		Response struct {
			SystemError string `json:"systemError"`
			Items       []struct {
				Key   string `json:"key"`
				Value struct {
					IsSuccess bool   `json:"isSuccess"`
					Status    string `json:"status"`
					Digest    string `json:"digest"`
				} `json:"value"`
			} `json:"items"`
		} `json:"response"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, fmt.Errorf("%w: %.600s", err, answer)
	}
	items := response.Response.Items
	list := make([]outcome, len(e.images))
	for i, image := range e.images {
		if len(items) == 0 || !bytes.Equal(fmt.Appendf(nil, `"key":%q`, items[0].Key), e.keys[i]) {
			list[i] = undecided
			if response.Response.SystemError == "" {
				return nil, fmt.Errorf("no answer for %s: %.600s", e.keys[i], answer)
			}
			continue
		}
		value := items[0].Value
		items = items[1:]
		if value.IsSuccess {
			list[i] = accepted
		}
		if value.IsSuccess != (value.Status == "TRUSTED") || value.IsSuccess && !image.signed || value.Digest != image.digest.String() {
			return nil, fmt.Errorf("a wrong decision on %s: %.600s", e.keys[i], answer)
		}
	}
	if len(items) > 0 {
		return nil, fmt.Errorf("an answer for a key that was not asked: %s", items[0].Key)
	}
	return list, nil
}

// decided wants the right decision on every image, as a registry that is well
// allows it.
func (e *exchange) decided(answer []byte) error {
	list, err := e.outcomes(answer)
	if err != nil {
		return err
	}
	for i, image := range e.images {
		right := refused
		if image.signed {
			right = accepted
		}
		if list[i] != right {
			return fmt.Errorf("a wrong decision on %s: %.600s", e.keys[i], answer)
		}
	}
	return nil
}

// connection is a client's: HTTP/1.1 over mutual TLS, as Gatekeeper's, but
// written out, because the client shares the machine with what it measures.
type connection struct {
	tls  *tls.Conn
	in   *bufio.Reader
	body []byte
}

// between is how long a client takes between an answer that needed a registry and its
// next Pod. Without it, it would look like a Gatekeeper whose queue is full, which the
// provider answers early.
const between = 4 * time.Millisecond

// dial connects from an address of its own, as another Gatekeeper does.
func dial(ctx context.Context, address string, config *tls.Config) (*connection, error) {
	ours := net.IPv4(127, byte(1+rand.IntN(250)), byte(rand.IntN(256)), byte(1+rand.IntN(250)))
	dialer := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: ours}}, Config: config}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{tls: c.(*tls.Conn), in: bufio.NewReaderSize(c, 32<<10)}, nil
}

func (c *connection) close() { _ = c.tls.Close() }

// ask sends the request and gives the answer's body, which is good until the
// next one.
func (c *connection) ask(request []byte) ([]byte, error) {
	if err := c.tls.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := c.tls.Write(request); err != nil {
		return nil, err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	failed := ""
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		failed = strings.TrimSpace(string(status))
	}
	size := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		if value, found := bytes.CutPrefix(line, []byte("Content-Length: ")); found {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return nil, err
			}
		}
	}
	if size < 0 || size > maxAnswer {
		return nil, errors.New("an answer without a length that makes sense")
	}
	if cap(c.body) < size {
		c.body = make([]byte, size)
	}
	c.body = c.body[:size]
	if _, err := io.ReadFull(c.in, c.body); err != nil {
		return nil, err
	}
	if failed != "" {
		return nil, fmt.Errorf("%s: %.600s", failed, c.body)
	}
	return c.body, nil
}
