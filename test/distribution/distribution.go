// Package distribution is CNCF Distribution's registry inside a test: version 3,
// unmodified, in memory, over plain HTTP, without the referrers API, which it
// does not have.
package distribution

import (
	"context"
	"io"
	"net/http/httptest"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // registers itself
	"github.com/sirupsen/logrus"
)

// Start gives a registry. Close ends it.
func Start(ctx context.Context) *httptest.Server {
	logrus.SetOutput(io.Discard)
	config := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory":    nil,
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	config.HTTP.Secret = "the same on every start"
	return httptest.NewServer(handlers.NewApp(ctx, config))
}
