package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
)

const (
	// defaultConfig is where the chart will mount policies.
	defaultConfig = "/etc/countersign/policies"
	// findingBytes is what findings may take in memory: some 50,000 of them.
	findingBytes = 64 << 20
)

// appOptions are what the program is wired with.
type appOptions struct {
	config        string
	allowLoopback bool
	ratify        bool // count by Ratify's names as well
	vaultCache    string
	// contentCache is a directory and contentCacheSize its bound in MiB.
	contentCache     string
	contentCacheSize int64
	// proofAge is how long proofs are remembered; nil: the default.
	proofAge *time.Duration
	// evidenceMemory is what evidence may take while it is read and judged, in bytes; 0:
	// the store's default.
	evidenceMemory int64
	// sharedCache is a directory with what is needed to share evidence.
	sharedCache string
	// lists is how long tags and lists of evidence are believed, empty ones too; 0: as
	// long as an admission believes them.
	lists time.Duration
	// layout is asked in the place of registries, when it is set.
	layout string
	// cluster is set where the policies are objects of a cluster.
	cluster      *clusterOptions
	certificates *cluster.Certificates
	timeouts     [2]time.Duration
	log          *slog.Logger       // nil: nobody hears
	metrics      *telemetry.Metrics // nil: nobody counts
}

// policies are where the documents come from: files, or objects of a cluster.
type policies interface {
	Snapshot() *config.Snapshot
	// Ready says why nothing can be decided, or gives nil.
	Ready() error
	// Run keeps the Snapshot up to date until ctx ends.
	Run(ctx context.Context) error
	// refresh looks at what documents refer to in vaults.
	refresh(ctx context.Context)
}

// files are policies in files.
type files struct{ *config.Source }

func (f files) refresh(ctx context.Context) { f.Reload(ctx) }

// app is the program wired: what serve and the commands share.
type app struct {
	policies
	vaults *vaults
	// content is what is kept on disk; nil: nothing is.
	content *store.Directory
}

// Ready says why nothing can be decided, or gives nil.
func (a *app) Ready() error {
	if err := a.policies.Ready(); err != nil {
		return err
	}
	return a.vaults.ready()
}

// settle waits until what is kept on disk is there.
func (a *app) settle(ctx context.Context) error {
	if a.content == nil {
		return nil
	}
	return a.content.Settle(ctx)
}

// Run keeps policies and what they refer to up to date until ctx ends.
func (a *app) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return a.policies.Run(running) })
	group.Go(func() error { return a.vaults.run(running, a.policies) })
	return group.Wait()
}

func newApp(ctx context.Context, o appOptions) (*app, error) {
	memory := verifier.NewMemory(findingBytes)
	options := store.Options{AllowLoopback: o.allowLoopback, UserAgent: "countersign/" + buildVersion(), InFlightBytes: o.evidenceMemory, TagTTL: o.lists, ListTTL: o.lists, EmptyListTTL: o.lists}
	if o.metrics != nil {
		options.Observe = observeRegistries(o.metrics, o.ratify)
	}
	if o.contentCache != "" {
		var err error
		if options.Content, err = store.OpenDirectory(o.contentCache, o.contentCacheSize<<20); err != nil {
			o.log.Warn("nothing is kept on disk; registries are asked instead", slog.Any("error", err))
		}
	}
	if o.sharedCache != "" {
		var err error
		if options.Shared, err = openShared(o.sharedCache, o.log); err != nil {
			return nil, err
		}
	}
	if o.proofAge != nil {
		memory.KeepProofs(*o.proofAge, store.NewRecords(options.Content, options.Shared, *o.proofAge))
	}
	registries := store.New(options)
	revocation, err := notation.NewRevocation(notation.RevocationOptions{Transport: registries.Transport(), Bounded: registries.Bounded, Count: registries.Count})
	if err != nil {
		return nil, err
	}
	if o.metrics != nil {
		showCaches(o.metrics, memory, registries)
	}
	credentials := azure.NewCredentials(azure.Options{})
	vaults := newVaults(trust.Options{Credentials: credentials, Path: o.vaultCache, Log: o.log})
	view := func(options store.ViewOptions) (verifier.Store, error) { return registries.View(options) }
	if o.layout != "" {
		layout, err := store.OpenLayout(o.layout)
		if err != nil {
			return nil, err
		}
		view = func(store.ViewOptions) (verifier.Store, error) { return layout, nil }
	}
	from, err := newPolicies(ctx, o, config.Environment{
		View:       view,
		Memory:     memory,
		Revocation: revocation,
		Azure:      auth.NewAzureExchanges(credentials, registries.Transport(), o.log),
		Clouds:     auth.NewClouds(auth.CloudOptions{Transport: registries.Transport()}),
		Vaults:     vaults,
	})
	if err != nil {
		return nil, err
	}
	if o.metrics != nil {
		showPolicies(o.metrics, from.Snapshot)
		showExemptions(o.metrics, from.Snapshot)
		showVaults(o.metrics, vaults.Ages)
	}
	return &app{from, vaults, options.Content}, nil
}

func newPolicies(ctx context.Context, o appOptions, env config.Environment) (policies, error) {
	if o.cluster != nil {
		return newClusterPolicies(o.cluster, o.certificates, o.timeouts, env, o.log)
	}
	source, err := config.Load(ctx, config.Options{Path: o.config, Environment: env, Log: o.log})
	if err != nil {
		return nil, err
	}
	return files{source}, nil
}

// inspectOptions are the flags of the commands that look at images.
type inspectOptions struct {
	config, namespace, output string
	timeout                   time.Duration
	allowLoopback             bool
	layout                    string
}

func (o *inspectOptions) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&o.config, "config", defaultConfig, "a policy file or a directory of them")
	flags.StringVar(&o.namespace, "namespace", "", "the namespace that would ask; without it cluster policies only")
	flags.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up after this long")
	flags.BoolVar(&o.allowLoopback, "allow-loopback", false, "let registries be on this machine, for development")
	flags.StringVar(&o.layout, "oci-layout", "", "a directory with images and their signatures, to look at in the place of registries")
	addOutput(command, &o.output)
}

// layoutScheme begins a reference to an image in an OCI image layout.
const layoutScheme = "oci:"

// named gives the names of images, which in a layout are written oci:DIR:NAME. A
// command looks at one layout, or at registries.
func (o *inspectOptions) named(images []string) ([]string, error) {
	names := make([]string, len(images))
	for i, image := range images {
		rest, inLayout := strings.CutPrefix(image, layoutScheme)
		dir, name, ok := strings.Cut(rest, ":")
		switch {
		case !inLayout:
			dir, name = o.layout, image
		case !ok || dir == "" || name == "":
			return nil, fmt.Errorf("%s: write it as oci:DIR:NAME, with the name that policies know the image by", image)
		case i == 0 && o.layout == "":
			o.layout = dir
		}
		if dir != o.layout || inLayout != strings.HasPrefix(images[0], layoutScheme) {
			return nil, errors.New("a command looks at one OCI layout, or at registries")
		}
		names[i] = name
	}
	return names, nil
}

// open wires the program for a command. Whoever looks at images on a terminal
// wants to know what is wrong with the policies before the answer.
func (o *inspectOptions) open(command *cobra.Command) (*app, error) {
	app, err := newApp(command.Context(), appOptions{config: o.config, allowLoopback: o.allowLoopback, layout: o.layout})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w. Say with --config where the policies are", err)
	}
	if err != nil {
		return nil, err
	}
	if err := app.vaults.once(command.Context(), app.policies); err != nil {
		return nil, err
	}
	for _, problem := range app.Snapshot().Problems() {
		_, _ = fmt.Fprintln(command.ErrOrStderr(), problem)
	}
	return app, nil
}
