package watch

import (
	"io"
	"net/http"
	"testing"

	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
)

var signOptions = notationtest.SignOptions{}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(body)
}
