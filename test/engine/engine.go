// Package engine is Gatekeeper without a cluster: its constraint framework with
// the Rego driver and external data, its mutation system and its expansion
// system, wired and called as its manager wires and calls them. It is not a
// webhook, and it knows no objects but those it is given.
package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	externaldatav1 "github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	constraintclient "github.com/open-policy-agent/frameworks/constraint/pkg/client"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/drivers/rego"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/expansion"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/util"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	logf "sigs.k8s.io/controller-runtime/pkg/log"
)

// errReplaced says that a newer Engine took over the process.
var errReplaced = errors.New("engine: a newer Engine was made, and external_data is one per process")

// latest is the Engine whose driver external_data calls: OPA's built-ins are
// global to a process, so the last one made has them.
var latest atomic.Pointer[Engine]

// Config is what differs between one Gatekeeper and another.
type Config struct {
	// ResponseCacheTTL is --external-data-provider-response-cache-ttl; Gatekeeper's
	// default is 3 minutes. 0 means no cache.
	ResponseCacheTTL time.Duration
	// CertFile and KeyFile hold the certificate that is offered to providers.
	CertFile, KeyFile string
}

// Engine decides on requests. It is safe for concurrent use, but only the last
// one made in a process can be used.
type Engine struct {
	providers  *externaldata.ProviderCache
	client     *constraintclient.Client
	mutation   *mutation.System
	expansion  *expansion.System
	namespaces namespaces
}

// New wires an Engine. It runs until ctx is done.
func New(ctx context.Context, config Config) (*Engine, error) {
	logf.SetLogger(logr.Discard()) // Gatekeeper's and the watcher's; errors come back as values
	watcher, err := certwatcher.New(config.CertFile, config.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	go func() { _ = watcher.Start(ctx) }() // ends with ctx

	providers := externaldata.NewCache()
	args := []rego.Arg{
		rego.Tracing(false),
		rego.DisableBuiltins("http.send"),
		rego.Externs("inventory"),
		rego.AddExternalDataProviderCache(providers),
		rego.EnableExternalDataClientAuth(),
		rego.AddExternalDataClientCertWatcher(watcher),
	}
	if config.ResponseCacheTTL > 0 {
		args = append(args, rego.AddExternalDataProviderResponseCache(
			externaldata.NewProviderResponseCache(ctx, config.ResponseCacheTTL)))
	}
	driver, err := rego.New(args...)
	if err != nil {
		return nil, fmt.Errorf("rego driver: %w", err)
	}
	client, err := constraintclient.NewClient(
		constraintclient.Targets(&target.K8sValidationTarget{}),
		constraintclient.Driver(driver),
		constraintclient.EnforcementPoints(util.WebhookEnforcementPoint, util.AuditEnforcementPoint),
	)
	if err != nil {
		return nil, fmt.Errorf("constraint client: %w", err)
	}
	mutators := mutation.NewSystem(mutation.SystemOpts{ProviderCache: providers, ClientCertWatcher: watcher})
	e := &Engine{
		providers: providers,
		client:    client,
		mutation:  mutators,
		expansion: expansion.NewSystem(mutators),
	}
	latest.Store(e)
	return e, nil
}

// SetProvider adds the Provider called name, or replaces it. The authority is
// PEM; the timeout is in whole seconds, as in the object.
func (e *Engine) SetProvider(name, url string, timeout int, authority []byte) error {
	provider := &externaldatav1.Provider{}
	provider.Name = name
	provider.Spec.URL = url
	provider.Spec.Timeout = timeout
	provider.Spec.CABundle = base64.StdEncoding.EncodeToString(authority)
	if err := e.providers.Upsert(provider); err != nil {
		return fmt.Errorf("provider %s: %w", name, err)
	}
	return nil
}

// RemoveProvider takes the Provider called name away.
func (e *Engine) RemoveProvider(name string) { e.providers.Remove(name) }

// usable is nil while this Engine is the one that external_data belongs to.
func (e *Engine) usable() error {
	if latest.Load() != e {
		return errReplaced
	}
	return nil
}
