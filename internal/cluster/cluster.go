package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/countersign-dev/countersign/internal/config"
)

const (
	// firstRetry and lastRetry are how soon the API server is tried again when it
	// cannot be read at all.
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// stopping is how long the parts have to end.
	stopping = 5 * time.Second
	// controller is how Events name us.
	controller = "countersign"
)

// Options say what a Cluster is made of.
type Options struct {
	// Config reaches the API server.
	Config *rest.Config
	// Reader reads what policies refer to; the same that Objects has.
	Reader *Reader
	// Objects take the policies.
	Objects *config.Objects
	// Refreshed tells that Objects has looked at what policies refer to elsewhere.
	Refreshed <-chan struct{}
	// TLS, when set, keeps our certificate and the Provider objects up to date, and
	// Certificates are the files for it.
	TLS          *TLSOptions
	Certificates *Certificates
	// Library is the ConfigMap with the constraints and mutators to apply; empty:
	// none.
	Library string
	// Owner is a ClusterRole; what the leader applies goes when it goes.
	Owner string
	// Ratify follows Ratify's objects as well.
	Ratify bool
	// RatifyObjects is a ConfigMap with objects of Ratify that count where the
	// cluster has none of their kinds and names; empty: none.
	RatifyObjects string
	// Lease is the name of the Lease by which replicas agree on a leader; empty: this
	// one writes nothing, and so needs none.
	Lease string
	// Webhook, when set, follows how the API server asks Gatekeeper.
	Webhook *Webhook
	Log     *slog.Logger
}

// Cluster follows the API server.
type Cluster struct {
	options Options
	log     *slog.Logger
}

// New makes a Cluster; see Run. The log of Kubernetes' client library, of which
// there is one for the whole process, goes to the same place.
func New(options Options) *Cluster {
	klog.SetSlogLogger(options.Log)
	return &Cluster{options: options, log: options.Log}
}

// Run follows the cluster until ctx ends. It gives up for nothing else: what
// fails is tried again, and what was read stays in force.
func (c *Cluster) Run(ctx context.Context) error {
	delay := firstRetry
	for {
		start := time.Now()
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > lastRetry {
			delay = firstRetry
		}
		c.log.WarnContext(ctx, "the cluster cannot be followed; trying again", slog.Any("error", err), slog.Duration("after", delay))
		if !wait(ctx, delay) {
			return nil
		}
		delay = min(2*delay, lastRetry)
	}
}

// follow runs one manager until it fails.
func (c *Cluster) follow(ctx context.Context) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), admissionv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme)); err != nil {
		return err
	}
	grace := stopping
	m, err := manager.New(c.options.Config, manager.Options{
		Scheme: scheme,
		Logger: logr.FromSlogHandler(c.log.Handler()),
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         c.scopes(),
		},
		Client:                        client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics:                       server.Options{BindAddress: "0"}, // ours are elsewhere
		HealthProbeBindAddress:        "0",
		LeaderElection:                c.options.Lease != "",
		LeaderElectionID:              c.options.Lease,
		LeaderElectionNamespace:       c.options.Reader.Namespace(),
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       &grace,
	})
	if err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	changed, decided, applied, told := newTrigger(), newTrigger(), newTrigger(), newTrigger()
	if err := c.watch(ctx, m.GetCache(), changed); err != nil {
		return err
	}
	c.options.Reader.follow(m.GetCache())
	parts, err := c.writers(ctx, m, decided, applied, told)
	if err != nil {
		return err
	}
	parts = append(parts, &policies{from: m.GetCache(), objects: c.options.Objects, ratify: c.options.Ratify, defaults: c.ratifyDefaults, changed: changed, refreshed: c.options.Refreshed, decided: []trigger{decided, applied, told}, log: c.log})
	if c.options.Lease != "" {
		parts = append(parts, &statuses{client: m.GetClient(), snapshot: c.options.Objects.Snapshot, webhook: c.options.Webhook, decided: decided, events: m.GetEventRecorder(controller), log: c.log})
	}
	for _, part := range parts {
		if err := m.Add(part); err != nil {
			return err
		}
	}
	return m.Start(ctx)
}

// scopes are what the caches hold of kinds that we need little of.
func (c *Cluster) scopes() map[client.Object]cache.ByObject {
	scopes := map[client.Object]cache.ByObject{&corev1.Secret{}: c.options.Reader.scope(), &corev1.ConfigMap{}: c.options.Reader.scope()}
	if tls := c.options.TLS; tls != nil {
		scopes[&admissionv1.ValidatingWebhookConfiguration{}] = cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", tls.GatekeeperWebhook)}
	}
	return scopes
}

// writers keep certificates, Provider objects, the library and what is known of
// Gatekeeper's webhook up to date.
func (c *Cluster) writers(ctx context.Context, m manager.Manager, decided, applied, told trigger) ([]manager.Runnable, error) {
	api, err := client.New(c.options.Config, client.Options{Scheme: m.GetScheme(), HTTPClient: m.GetHTTPClient(), Mapper: m.GetRESTMapper()})
	if err != nil {
		return nil, err
	}
	var parts []manager.Runnable
	if c.options.TLS != nil {
		if parts, err = c.certificateParts(ctx, m.GetCache(), api); err != nil {
			return nil, err
		}
	}
	if c.options.Webhook != nil {
		edited := newTrigger()
		if c.options.TLS != nil { // else the caches have no such kind
			if err := follow(ctx, m.GetCache(), &admissionv1.ValidatingWebhookConfiguration{}, edited, always); err != nil {
				return nil, err
			}
		}
		parts = append(parts, &webhookWatch{webhook: c.options.Webhook, api: api, changed: edited, decided: decided, log: c.log})
	}
	if c.options.Ratify && c.options.Lease != "" {
		parts = append(parts, &ratifyStatuses{client: m.GetClient(), snapshot: c.options.Objects.Snapshot, decided: told, log: c.log})
	}
	if c.options.Library != "" {
		parts = append(parts, &library{
			name: c.options.Library, namespace: c.options.Reader.Namespace(), owner: ownerOf(api, c.options.Owner),
			cached: m.GetCache(), api: api, snapshot: c.options.Objects.Snapshot, changed: applied, log: c.log,
		})
	}
	return parts, nil
}

func (c *Cluster) certificateParts(ctx context.Context, from cache.Cache, api client.Client) ([]manager.Runnable, error) {
	namespace, here, written := c.options.Reader.Namespace(), newTrigger(), newTrigger()
	ours := func(_, after client.Object) bool {
		return after.GetNamespace() == namespace && after.GetName() == c.options.TLS.Secret
	}
	for _, pulled := range []trigger{here, written} {
		if err := follow(ctx, from, &corev1.Secret{}, pulled, ours); err != nil {
			return nil, err
		}
	}
	if err := follow(ctx, from, &admissionv1.ValidatingWebhookConfiguration{}, here, always); err != nil {
		return nil, err
	}
	return []manager.Runnable{
		&presenting{
			options: *c.options.TLS, files: c.options.Certificates, cached: from, api: api,
			namespace: namespace, changed: here, log: c.log,
		},
		&providers{
			options: *c.options.TLS, api: api, owner: ownerOf(api, c.options.Owner),
			namespace: namespace, changed: written, log: c.log,
		},
	}, nil
}

// watch pulls the trigger when something changes that a Snapshot is made of. A
// status is nothing of the kind.
func (c *Cluster) watch(ctx context.Context, from cache.Cache, changed trigger) error {
	followed := kinds()
	if c.options.Ratify {
		followed = append(followed, ratifyKinds()...)
	}
	for _, kind := range followed {
		if err := follow(ctx, from, newObject(kind), changed, func(before, after client.Object) bool {
			return before == nil || before.GetGeneration() != after.GetGeneration()
		}); err != nil {
			return err
		}
	}
	for _, object := range []client.Object{&corev1.Secret{}, &corev1.ConfigMap{}} {
		if err := follow(ctx, from, object, changed, func(_, after client.Object) bool { return c.options.Reader.refers(after) }); err != nil {
			return err
		}
	}
	return nil
}

// always is for kinds of which every change matters.
func always(client.Object, client.Object) bool { return true }

// follow pulls the trigger for changes of a kind that matter. Before is nil for
// what is new or gone.
func follow(ctx context.Context, from cache.Cache, object client.Object, changed trigger, matters func(before, after client.Object) bool) error {
	informer, err := from.GetInformer(ctx, object, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch %T: %w", object, err)
	}
	one := func(before, after any) {
		b, _ := before.(client.Object)
		if gone, ok := after.(toolscache.DeletedFinalStateUnknown); ok {
			after = gone.Obj
		}
		if a, ok := after.(client.Object); ok && matters(b, a) {
			changed.pull()
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { one(nil, o) },
		UpdateFunc: one,
		DeleteFunc: func(o any) { one(nil, o) },
	})
	return err
}
