package main

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/store/auth"
)

// clusterOptions are the flags of serve about the cluster that it runs in.
type clusterOptions struct {
	enabled          bool
	kubeconfig       string
	namespace        string
	objectNamespaces []string
	podPullSecrets   bool
	lease            string
	lastGood         string

	tlsSecret         string
	selfSigned        bool
	directory         string
	gatekeeperWebhook string
	service           string
	url               string
	verify, mutate    string
	owner             string
	library           string
	ratify            bool
	ratifyObjects     string

	// webhook is followed where it is set.
	webhook *cluster.Webhook
}

// addReading adds those about what is read.
func (o *clusterOptions) addReading(flags *pflag.FlagSet) {
	flags.BoolVar(&o.enabled, "cluster", false, "take policies from the cluster's objects, and not from --config")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server, outside a pod")
	flags.StringVar(&o.namespace, "pod-namespace", "", "the provider's own namespace; a pod knows it")
	flags.StringSliceVar(&o.objectNamespaces, "object-namespaces", nil, "namespaces, beside its own, whose Secrets and ConfigMaps policies may refer to; * for all")
	flags.BoolVar(&o.podPullSecrets, "pod-pull-secrets", false, "read the pull secrets of pods and ServiceAccounts for policies that say so")
	flags.BoolVar(&o.ratify, "ratify", false, "take Ratify's objects as well, and keep its Provider objects")
	flags.StringVar(&o.ratifyObjects, "ratify-objects", "", "the ConfigMap with objects of Ratify that count where the cluster has none of their names; empty: none")
	flags.StringVar(&o.lastGood, "last-good", "", "a file that keeps the policies in force with their Secrets, for a start without API server")
}

// add adds all of them.
func (o *clusterOptions) add(flags *pflag.FlagSet) {
	o.addReading(flags)
	flags.StringVar(&o.lease, "lease", "countersign", "name of the Lease by which replicas agree on who writes")
	flags.StringVar(&o.tlsSecret, "tls-secret", "countersign-tls", "the Secret with our certificate as tls.crt, tls.key and ca.crt, unless --tls-cert names a file")
	flags.BoolVar(&o.selfSigned, "self-signed", true, "make and renew the certificate in --tls-secret")
	flags.StringVar(&o.directory, "certificate-directory", "/run/countersign", "where what is served with is kept")
	flags.StringVar(&o.gatekeeperWebhook, "gatekeeper-webhook", "gatekeeper-validating-webhook-configuration", "the ValidatingWebhookConfiguration that has Gatekeeper's authority")
	flags.StringVar(&o.service, "service", "countersign", "the Service by which Gatekeeper reaches the provider")
	flags.StringVar(&o.url, "service-url", "", "how Gatekeeper reaches the provider, when not as https://SERVICE.NAMESPACE.svc:8443")
	flags.StringVar(&o.verify, "provider", "countersign", "the Provider object to keep for verification; empty: none")
	flags.StringVar(&o.mutate, "mutation-provider", "countersign-mutation", "the Provider object to keep for mutation; empty: none")
	flags.StringVar(&o.owner, "owner-cluster-role", "", "the ClusterRole with which all goes that the provider makes")
	flags.StringVar(&o.library, "library", "", "the ConfigMap with constraints and mutators to apply; empty: none")
}

// The Provider objects that Ratify's templates and mutators ask.
const (
	ratifyProvider         = "ratify-provider"
	ratifyMutationProvider = "ratify-mutation-provider"
)

// portName is what the Service calls the provider's port.
const portName = "provider"

// tls says what is done about certificates and Provider objects, whose calls may
// take as long as ours.
func (o *clusterOptions) tls(namespace string, verify, mutate time.Duration) *cluster.TLSOptions {
	base := o.url
	if base == "" {
		base = "https://" + o.service + "." + namespace + ".svc:8443"
	}
	t := &cluster.TLSOptions{
		Secret: o.tlsSecret, SelfSigned: o.selfSigned, Directory: o.directory, GatekeeperWebhook: o.gatekeeperWebhook,
		Service: o.service, Port: portName,
	}
	type one struct {
		name, path string
		timeout    time.Duration
	}
	wanted := []one{{o.verify, "/v1/verify", verify}, {o.mutate, "/v1/mutate", mutate}}
	if o.ratify {
		wanted = append(wanted, one{ratifyProvider, "/ratify/gatekeeper/v1/verify", verify}, one{ratifyMutationProvider, "/ratify/gatekeeper/v1/mutate", mutate})
	}
	for _, p := range wanted {
		if p.name != "" {
			t.Providers = append(t.Providers, cluster.Provider{Name: p.name, URL: base + p.path, Timeout: wholeSeconds(p.timeout)})
		}
	}
	return t
}

// wholeSeconds is the Provider's timeout for a time that our answer may take.
func wholeSeconds(timeout time.Duration) int64 { return int64(math.Ceil(timeout.Seconds())) }

// clusterPolicies are the objects of a cluster.
type clusterPolicies struct {
	*config.Objects
	cluster   *cluster.Cluster
	refreshed chan struct{} // has room for one
}

func (p *clusterPolicies) refresh(ctx context.Context) {
	p.Refresh(ctx)
	select {
	case p.refreshed <- struct{}{}: // so that the objects tell
	default:
	}
}

// newClusterPolicies connects to the cluster. Files are set where it keeps our
// certificates up to date as well.
func newClusterPolicies(o *clusterOptions, files *cluster.Certificates, timeouts [2]time.Duration, env config.Environment, log *slog.Logger) (*clusterPolicies, error) {
	reach, err := cluster.Connect(o.kubeconfig)
	if err != nil {
		return nil, err
	}
	namespace := o.namespace
	if namespace == "" {
		if namespace, err = cluster.Namespace(); err != nil {
			return nil, err
		}
	}
	if o.podPullSecrets {
		secrets, err := cluster.NewPullSecrets(reach)
		if err != nil {
			return nil, err
		}
		env.Pods = auth.NewPods(secrets)
	}
	reader := cluster.NewReader(namespace, o.objectNamespaces)
	objects := config.NewObjects(config.ObjectsOptions{Environment: env, Reader: reader, LastGood: o.lastGood, Log: log})
	refreshed := make(chan struct{}, 1)
	options := cluster.Options{Config: reach, Reader: reader, Objects: objects, Refreshed: refreshed, Lease: o.lease, Owner: o.owner, Library: o.library, Ratify: o.ratify, RatifyObjects: o.ratifyObjects, Webhook: o.webhook, Log: log}
	if files != nil {
		options.Certificates, options.TLS = files, o.tls(namespace, timeouts[0], timeouts[1])
	}
	return &clusterPolicies{Objects: objects, cluster: cluster.New(options), refreshed: refreshed}, nil
}

// Run follows the cluster until ctx ends.
func (p *clusterPolicies) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Objects.Run(running) })
	group.Go(func() error { return p.cluster.Run(running) })
	return group.Wait()
}
