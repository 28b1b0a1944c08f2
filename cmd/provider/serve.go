package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/admission"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	processOptions

	certFile, keyFile, clientCA  string
	clientAuth                   string
	verifyTimeout, mutateTimeout time.Duration
	drainDelay                   time.Duration
	decisions                    decisionOptions
	traces                       telemetry.TraceOptions
}

// decisionOptions are the flags about the log of decisions.
type decisionOptions struct {
	path    string
	repeats uint64
	redact  []string
}

// answersUnderWay is how long a stop waits for answers that are being made,
// once no new ones begin: more than any of them may take.
const answersUnderWay = 5 * time.Second

func serveCommand() *cobra.Command {
	var o serveOptions
	command := &cobra.Command{
		Use:   "serve",
		Short: "Answer Gatekeeper",
		Example: `  countersign serve --config policies --tls-cert tls.crt --tls-key tls.key --client-ca gatekeeper-ca.crt
  countersign serve --config policies --tls-cert tls.crt --tls-key tls.key --client-auth none --allow-loopback`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return o.serve(command.Context(), command.ErrOrStderr())
		},
	}
	flags := command.Flags()
	o.add(flags, ":6001", "where Gatekeeper asks, over TLS 1.3")
	flags.StringVar(&o.certFile, "tls-cert", "", "our certificate in PEM; watched")
	flags.StringVar(&o.keyFile, "tls-key", "", "our private key in PEM; watched")
	flags.StringVar(&o.clientCA, "client-ca", "", "the authority of Gatekeeper's certificate in PEM; watched")
	flags.StringVar(&o.clientAuth, "client-auth", "required", "whether Gatekeeper must show its certificate: required, optional or none")
	flags.DurationVar(&o.verifyTimeout, "verify-timeout", provider.DefaultVerifyTimeout, "answer a verification by then; keep it below the Provider's timeout")
	flags.DurationVar(&o.mutateTimeout, "mutate-timeout", provider.DefaultMutateTimeout, "answer a mutation by then; keep it below the Provider's timeout")
	flags.DurationVar(&o.drainDelay, "drain-delay", provider.DefaultDrainDelay, "how long to go on serving after SIGTERM, until nobody is sent here any more")
	flags.StringVar(&o.decisions.path, "decision-log", "", "a file for a JSON line about each decision, rotated at 64 MiB; empty: none")
	flags.Uint64Var(&o.decisions.repeats, "decision-log-repeats", 100, "of so many repeated decisions one is written; 0: none")
	flags.StringSliceVar(&o.decisions.redact, "decision-log-redact", nil, "fields whose values are replaced by a hash: image,message")
	flags.StringVar(&o.traces.Endpoint, "traces", "", "the URL of a collector that takes OpenTelemetry's traces over OTLP/HTTP; empty: none")
	flags.Float64Var(&o.traces.Sample, "traces-sample", 0.01, "the part of requests that is traced, from 0 to 1")
	o.cluster.add(flags)
	return command
}

// prepare says where the certificates are: in files that somebody else keeps, or
// that we keep ourselves in a cluster.
func (o *serveOptions) prepare() (*cluster.Certificates, error) {
	switch {
	case o.certFile != "" && o.keyFile != "":
		return nil, nil
	case o.certFile != "" || o.keyFile != "":
		return nil, errors.New("a certificate goes with its key: give --tls-cert and --tls-key")
	case !o.cluster.enabled:
		return nil, errors.New("there is nothing to serve with: give --tls-cert and --tls-key, or --cluster")
	}
	files := cluster.NewCertificates(o.cluster.directory)
	o.certFile, o.keyFile = files.Serving(), files.Serving()
	if o.clientCA == "" {
		o.clientCA = files.Gatekeeper()
	}
	return files, nil
}

func (o *serveOptions) serve(ctx context.Context, stderr io.Writer) error {
	log, err := o.logger(stderr)
	if err != nil {
		return err
	}
	metrics := telemetry.NewMetrics(telemetry.Build{Version: buildVersion()})
	clientAuth, err := provider.ParseClientAuth(o.clientAuth)
	if err != nil {
		return fmt.Errorf("--client-auth: %w", err)
	}
	files, err := o.prepare()
	if err != nil {
		return err
	}
	door := &door{files: files, options: provider.CertificateOptions{
		CertFile: o.certFile, KeyFile: o.keyFile, ClientCAFile: o.clientCA, ClientAuth: clientAuth, Logger: log, Metrics: metrics,
	}}
	if files == nil { // what is broken now shall not wait
		if err := door.load(); err != nil {
			return err
		}
	}
	options := o.app(log, metrics)
	if o.cluster.enabled {
		options.cluster, options.certificates = &o.cluster, files
		options.timeouts = [2]time.Duration{o.verifyTimeout, o.mutateTimeout}
		o.cluster.webhook = cluster.NewWebhook(o.cluster.gatekeeperWebhook, wholeSeconds(o.verifyTimeout))
		showWebhook(metrics, o.cluster.webhook.State)
	}
	app, err := newApp(ctx, options)
	if err != nil {
		return err
	}
	decisions, err := o.decisions.open(metrics, log)
	if err != nil {
		return err
	}
	traces, err := o.openTraces(ctx)
	if err != nil {
		return err
	}
	record := admission.NewRecord()
	server, err := provider.New(provider.Options{
		Select:          func(r verifier.Request) (*verifier.Chain, verifier.Verdict) { return app.Snapshot().For(r) },
		Snapshot:        func() any { return app.Snapshot() },
		Ready:           func() error { return cmp.Or(door.ready(), app.Ready()) },
		Logger:          log,
		Metrics:         metrics,
		Traces:          traces,
		Decisions:       decisions.logger(),
		DecisionRepeats: o.decisions.repeats,
		Answered:        record.Add,
		VerifyTimeout:   o.verifyTimeout,
		MutateTimeout:   o.mutateTimeout,
		RatifyMetrics:   o.cluster.ratify,
		DrainDelay:      cmp.Or(o.drainDelay, -1), // there, zero is the default
	})
	if err != nil {
		return err
	}
	asked, looked, read, err := o.listeners(ctx, log)
	if err != nil {
		return err
	}
	shown := http.NewServeMux() // what a neighbour may read
	shown.Handle("/", metrics.Handler())
	shown.Handle("GET /answered", record)
	health, figures := provider.PlainServer(server.Health()), provider.PlainServer(shown)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return door.serve(running, server, asked) })
	group.Go(func() error { return servePlain(health, looked) })
	group.Go(func() error { return servePlain(figures, read) })
	group.Go(func() error { return app.Run(running) })
	group.Go(func() error { return decisions.run(running) })
	group.Go(func() error {
		<-running.Done()
		log.Info("stopping")
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(o.drainDelay, 0)+answersUnderWay)
		defer cancel()
		err := server.Shutdown(stopping)
		return errors.Join(err, app.settle(stopping), traces.Shutdown(stopping), health.Close(), figures.Close())
	})
	err = group.Wait()
	log.Info("stopped")
	return err
}

func (o *serveOptions) openTraces(ctx context.Context) (*telemetry.Traces, error) {
	if o.traces.Endpoint == "" {
		return nil, nil
	}
	o.traces.Version = buildVersion()
	traces, err := telemetry.NewTraces(ctx, o.traces)
	if err != nil {
		return nil, fmt.Errorf("--traces: %w", err)
	}
	return traces, nil
}

// decisionLog is the file of decisions, or none.
type decisionLog struct{ file *telemetry.DecisionLog }

func (o *decisionOptions) open(metrics *telemetry.Metrics, log *slog.Logger) (decisionLog, error) {
	if o.path == "" {
		return decisionLog{}, nil
	}
	file, err := telemetry.OpenDecisionLog(telemetry.DecisionLogOptions{Path: o.path, Redact: o.redact, Metrics: metrics, Log: log})
	if err != nil {
		return decisionLog{}, fmt.Errorf("--decision-log: %w", err)
	}
	return decisionLog{file}, nil
}

func (d decisionLog) logger() *slog.Logger {
	if d.file == nil {
		return nil
	}
	return d.file.Logger()
}

func (d decisionLog) run(ctx context.Context) error {
	if d.file == nil {
		return nil
	}
	return d.file.Run(ctx)
}

// door is the listener to which Gatekeeper comes, once there is a certificate to
// serve with.
type door struct {
	files        *cluster.Certificates // nil: the certificates are somebody else's files
	options      provider.CertificateOptions
	certificates *provider.Certificates
}

func (d *door) load() (err error) {
	d.certificates, err = provider.LoadCertificates(d.options)
	return err
}

// ready says why nobody can come in yet, or gives nil.
func (d *door) ready() error {
	if d.files == nil {
		return nil
	}
	return d.files.Ready()
}

// serve waits for the certificates and serves until the server is shut down.
func (d *door) serve(ctx context.Context, server *provider.Server, listener net.Listener) error {
	if d.files != nil {
		select {
		case <-d.files.Written():
		case <-ctx.Done():
			return nil
		}
		if err := d.load(); err != nil {
			return err
		}
	}
	go d.certificates.Watch(ctx)
	return server.Serve(listener, d.certificates.TLSConfig())
}

// servePlain serves until the server is closed.
func servePlain(server *http.Server, listener net.Listener) error {
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
