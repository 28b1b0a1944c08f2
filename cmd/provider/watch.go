package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/admission"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/watch"
)

// watchOptions are the flags of watch.
type watchOptions struct {
	processOptions

	state, notify, owner, admission string
	reports, events                 bool
	namespaces                      []string
	interval                        time.Duration
	parallel                        int
	rate                            float64
}

func watchCommand() *cobra.Command {
	var o watchOptions
	command := &cobra.Command{
		Use:   "watch",
		Short: "Verify what runs in a cluster, again and again",
		Example: `  countersign watch --cluster --state /var/lib/countersign
  countersign watch --config policies --kubeconfig ~/.kube/config --pod-namespace countersign-system --state .`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return o.run(command.Context(), command.ErrOrStderr())
		},
	}
	flags := command.Flags()
	o.add(flags, "127.0.0.1:8080", "where the API is, over plain HTTP: for kubectl port-forward, or a proxy with TLS in the same pod")
	flags.StringVar(&o.state, "state", "", "a directory that keeps what was last known of images, and for 90 days what became of them; empty: none")
	flags.StringVar(&o.notify, "notify", "", "a directory, as a Secret is mounted, with the services to tell what became of images: NAME.slack, .teams, .webhook, .cloudevents or .alertmanager with a URL each; empty: none")
	flags.BoolVar(&o.reports, "reports", false, "write in each namespace a report of what runs there and should not: openreports.io, else wgpolicyk8s.io, where the cluster has one of them")
	flags.StringVar(&o.owner, "reports-owner", "", "the ClusterRole that reports belong to, so that they go with it; with --namespaces the Role NAME-pods of each; empty: none")
	flags.StringVar(&o.admission, "admission", "", "where the provider's replicas show what they were asked, beside their metrics: a host that has the addresses of all; empty: nobody knows what runs without")
	flags.BoolVar(&o.events, "events", false, "write an Event on a workload when its image has become something else, one an hour at most")
	flags.StringSliceVar(&o.namespaces, "namespaces", nil, "watch these only, with no rights elsewhere; empty: all")
	flags.DurationVar(&o.interval, "interval", time.Hour, "how often an image is looked at again, a fifth sooner or later")
	flags.IntVar(&o.parallel, "parallel", 8, "how many images are looked at at once")
	flags.Float64Var(&o.rate, "rate", 10, "how many images a second are begun to be looked at at most")
	o.cluster.addReading(flags)
	flags.StringVar(&o.cluster.lease, "lease", "countersign-watch", "name of the Lease by which replicas agree on who watches")
	return command
}

func (o *watchOptions) run(ctx context.Context, stderr io.Writer) error {
	log, err := o.logger(stderr)
	if err != nil {
		return err
	}
	if o.interval < time.Minute || o.parallel < 1 || o.rate <= 0 {
		return errors.New("--interval is a minute at least, --parallel one, and --rate more than nothing")
	}
	metrics := telemetry.NewMetrics(telemetry.Build{Version: buildVersion()})
	reach, err := cluster.Connect(o.cluster.kubeconfig)
	if err != nil {
		return err
	}
	if o.cluster.namespace == "" {
		if o.cluster.namespace, err = cluster.Namespace(); err != nil {
			return err
		}
	}
	app, err := o.open(ctx, log, metrics)
	if err != nil {
		return err
	}
	w := &watcher{options: o, app: app, reach: reach, log: log, metrics: metrics}
	if o.notify != "" {
		if w.sinks, err = watch.ReadSinks(o.notify); err != nil {
			return fmt.Errorf("--notify: %w", err)
		}
	}
	names := make([]string, len(w.sinks))
	for i, sink := range w.sinks {
		names[i] = sink.Name
	}
	w.notices = metrics.Counter("countersign_watch_notices_total", "Notices of what became of images, by where they go and whether they arrived.",
		telemetry.Label{Name: "sink", Values: names}, telemetry.Label{Name: "result", Values: []string{"sent", "failed", "dropped"}})
	return w.run(ctx)
}

// open wires what verifies. Lists are believed for as long as nobody looks again: a
// look asks past them, and a change of policy asks nobody.
func (o *watchOptions) open(ctx context.Context, log *slog.Logger, metrics *telemetry.Metrics) (*app, error) {
	options := o.app(log, metrics)
	options.lists = 2 * o.interval
	if o.cluster.enabled {
		reading := o.cluster
		reading.lease = "" // it writes nothing to the policies' objects
		options.cluster = &reading
	}
	return newApp(ctx, options)
}

// watcher is a replica of watch.
type watcher struct {
	options *watchOptions
	app     *app
	reach   *cluster.Config
	log     *slog.Logger
	metrics *telemetry.Metrics
	sinks   []watch.Sink
	notices *telemetry.Counter
	// current is set while this replica watches.
	current atomic.Pointer[watch.Watch]
}

func (w *watcher) run(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var listeners [3]net.Listener
	if listeners[0], listeners[1], listeners[2], err = w.options.listeners(ctx, w.log); err != nil {
		return err
	}
	var serving atomic.Pointer[http.Handler]
	servers := []*http.Server{
		provider.PlainServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if handler := serving.Load(); handler != nil {
				(*handler).ServeHTTP(rw, r)
				return
			}
			http.Error(rw, "another replica watches", http.StatusServiceUnavailable)
		})),
		provider.PlainServer(w.health()), provider.PlainServer(w.metrics.Handler()),
	}
	group, running := errgroup.WithContext(ctx)
	for i, server := range servers {
		group.Go(func() error { return servePlain(server, listeners[i]) })
	}
	watch.ShowCurrent(w.metrics, w.current.Load)
	group.Go(func() error { return w.app.Run(running) })
	lease := watch.Lease{Namespace: w.options.cluster.namespace, Name: w.options.cluster.lease, Identity: fmt.Sprintf("%s-%d", host, os.Getpid())}
	group.Go(func() error {
		return watch.Lead(running, w.reach, lease, func(ctx context.Context) error { return w.lead(ctx, &serving) })
	})
	group.Go(func() error {
		<-running.Done()
		var err error
		for _, server := range servers {
			err = errors.Join(err, server.Close())
		}
		return err
	})
	err = group.Wait()
	w.log.Info("stopped")
	return err
}

// part runs until ctx ends.
type part func(ctx context.Context) error

// lead watches until ctx ends.
func (w *watcher) lead(ctx context.Context, serving *atomic.Pointer[http.Handler]) error {
	o := w.options
	w.log.Info("watching")
	var parts []part
	var history *watch.History
	var memory watch.Memory
	if o.state != "" {
		var err error
		if history, err = watch.OpenHistory(filepath.Join(o.state, "history"), w.log); err != nil {
			return err
		}
		memory = history
		parts = append(parts, history.Run)
	}
	viewers, err := watch.NewAccess(w.reach)
	if err != nil {
		return err
	}
	asked, err := w.admission(history)
	if err != nil {
		return err
	}
	if asked != nil {
		parts = append(parts, asked.Run)
	}
	var notifier *watch.Notifier // nil: nobody is told anything
	current := watch.New(watch.Options{
		Select:   func(r verifier.Request) (*verifier.Chain, verifier.Verdict) { return w.app.Snapshot().For(r) },
		Snapshot: func() any { return w.app.Snapshot() },
		Interval: o.interval, Parallel: o.parallel, Rate: o.rate, Memory: memory, Admission: asked, Log: w.log,
		Changed: func(t watch.Transition) {
			w.log.Info("became", slog.String("namespace", t.Namespace), slog.String("image", t.Image), slog.String("digest", t.Digest),
				slog.String("from", string(t.From)), slog.String("to", string(t.To)), slog.String("reason", string(t.Reason)), slog.String("message", t.Message))
		},
		Found: func(key string, t watch.Transition) {
			if notifier != nil {
				notifier.Tell(key, t)
			}
		},
	})
	notifier, tellers, err := w.tellers(current)
	if err != nil {
		return err
	}
	source, err := watch.NewSource(w.reach, o.namespaces, current)
	if err != nil {
		return err
	}
	parts = append(append(parts, tellers...), source.Run, func(ctx context.Context) error {
		if err := w.ready(ctx); err != nil {
			return nil //nolint:nilerr // it ends
		}
		return current.Run(ctx)
	})
	handler := watch.NewServer(current, history, viewers, w.log).Handler()
	w.current.Store(current)
	serving.Store(&handler)
	defer func() {
		w.current.Store(nil)
		serving.Store(nil)
	}()
	group, running := errgroup.WithContext(ctx)
	for _, run := range parts {
		group.Go(func() error { return run(running) })
	}
	return group.Wait()
}

// admission follows what the provider is asked; nil: nobody says where it is.
func (w *watcher) admission(history *watch.History) (*admission.Watcher, error) {
	if w.options.admission == "" {
		return nil, nil
	}
	var kept admission.Memory
	if history != nil {
		kept = history
	}
	asked, err := admission.NewWatcher(w.options.admission, kept, w.log)
	if err != nil {
		return nil, fmt.Errorf("--admission: %w", err)
	}
	return asked, nil
}

// tellers tell others what becomes of images: services, workloads, reports.
func (w *watcher) tellers(current *watch.Watch) (notifier *watch.Notifier, parts []part, err error) {
	o := w.options
	if o.reports {
		reporter, err := watch.NewReporter(w.reach, o.namespaces, o.owner, current, w.log)
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, reporter.Run)
	}
	event := func(watch.Transition) {}
	if o.events {
		events, err := watch.NewEvents(w.reach, w.log)
		if err != nil {
			return nil, nil, err
		}
		event = events.Tell
		parts = append(parts, events.Run)
	}
	if !o.events && len(w.sinks) == 0 {
		return nil, parts, nil
	}
	told, err := watch.NewToldMap(w.reach, o.cluster.namespace, o.cluster.lease)
	if err != nil {
		return nil, nil, err
	}
	notifier = watch.NewNotifier(watch.NotifierOptions{
		Sinks: w.sinks, Sent: func(sink, result string) { w.notices.Inc(sink, result) }, Event: event, Runs: current.Runs, Kept: told, Log: w.log,
	})
	return notifier, append(parts, notifier.Run), nil
}

// ready waits until there are policies: without them all would be refused.
func (w *watcher) ready(ctx context.Context) error {
	for w.app.Ready() != nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// health is ready where this replica watches and knows all pods.
func (w *watcher) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok\n") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		current := w.current.Load()
		switch {
		case w.app.Ready() != nil:
			http.Error(rw, w.app.Ready().Error(), http.StatusServiceUnavailable)
		case current == nil:
			http.Error(rw, "another replica watches", http.StatusServiceUnavailable)
		case !current.Synced():
			http.Error(rw, "the pods are not known yet", http.StatusServiceUnavailable)
		default:
			_, _ = io.WriteString(rw, "ok\n")
		}
	})
	return mux
}
