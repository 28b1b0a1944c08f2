package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/pflag"

	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// processOptions are the flags of what runs in a pod until it is told to stop.
type processOptions struct {
	config                             string
	listen, healthListen, metricListen string
	logLevel                           string
	allowLoopback                      bool
	vaultCache, contentCache           string
	sharedCache                        string
	contentCacheSize                   int64
	proofAge                           time.Duration
	evidenceMemory                     int64
	cluster                            clusterOptions
}

// add adds them; where it listens, and what is there, is each one's own.
func (o *processOptions) add(flags *pflag.FlagSet, listen, there string) {
	flags.StringVar(&o.config, "config", defaultConfig, "a policy file or a directory of them, without --cluster; watched")
	flags.StringVar(&o.listen, "listen", listen, there)
	flags.StringVar(&o.healthListen, "health-listen", ":9099", "where /healthz and /readyz are, over plain HTTP")
	flags.StringVar(&o.metricListen, "metrics-listen", ":8888", "where /metrics is, over plain HTTP")
	flags.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&o.allowLoopback, "allow-loopback", false, "let registries be on this machine, for development")
	flags.StringVar(&o.vaultCache, "vault-cache", "", "a file that keeps what Azure Key Vaults hold, for a start while one is away; empty: none")
	flags.StringVar(&o.contentCache, "content-cache", "", "a directory that keeps signatures and what they are in, by digest, beyond a restart; empty: none")
	flags.Int64Var(&o.contentCacheSize, "content-cache-size", 512, "how many MiB it may have; what was not used for the longest goes first")
	flags.DurationVar(&o.proofAge, "remember-proofs", verifier.DefaultProofAge, "longest time that a digest is admitted without reading its list of signatures while its registry cannot be reached; 0: none")
	flags.Int64Var(&o.evidenceMemory, "evidence-memory", 0, "maximum MiB that evidence takes while it is read and verified; 0: a fifth of GOMEMLIMIT, which follows the container's memory limit where it is not set")
	flags.StringVar(&o.sharedCache, "shared-cache", "", "a directory, as a Secret is mounted, that says where replicas share what they have read: url, secret and ca.crt; empty: nowhere")
}

// logger writes to stderr at the level that was asked for.
func (o *processOptions) logger(stderr io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level is %q: use debug, info, warn or error", o.logLevel)
	}
	return telemetry.NewLogger(stderr, level), nil
}

// app is what verifies, before each one's own is added.
func (o *processOptions) app(log *slog.Logger, metrics *telemetry.Metrics) appOptions {
	evidence := limitMemory(log)
	if o.evidenceMemory > 0 {
		evidence = o.evidenceMemory << 20
	}
	return appOptions{
		evidenceMemory: evidence,
		config:         o.config, allowLoopback: o.allowLoopback, ratify: o.cluster.ratify, vaultCache: o.vaultCache, contentCache: o.contentCache,
		contentCacheSize: o.contentCacheSize, proofAge: &o.proofAge, sharedCache: o.sharedCache, log: log, metrics: metrics,
	}
}

// listeners are the three of a process: its own, health and metrics. A line says where.
func (o *processOptions) listeners(ctx context.Context, log *slog.Logger) (own, health, metrics net.Listener, err error) {
	var opened [3]net.Listener
	for i, address := range []string{o.listen, o.healthListen, o.metricListen} {
		var config net.ListenConfig
		if opened[i], err = config.Listen(ctx, "tcp", address); err != nil {
			for _, l := range opened[:i] {
				_ = l.Close()
			}
			return nil, nil, nil, err
		}
	}
	log.Info("listening", slog.String("provider", opened[0].Addr().String()), slog.String("health", opened[1].Addr().String()),
		slog.String("metrics", opened[2].Addr().String()), slog.String("version", buildVersion()))
	return opened[0], opened[1], opened[2], nil
}
