package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// annotationRotate asks for a new authority: any value that is not the one of
	// annotationRotated.
	annotationRotate  = "countersign.dev/rotate"
	annotationRotated = "countersign.dev/rotated"
	// maxOldAuthorities bounds what a rotation that never ends accumulates.
	maxOldAuthorities = 8
	// dialPatience is how long one replica may take to show its certificate.
	dialPatience = 2 * time.Second
)

func providerKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: "externaldata.gatekeeper.sh", Version: "v1beta1", Kind: "Provider"}
}

// providers keeps the Provider objects and our certificate up to date. Only the
// leader runs it.
//
// A certificate changes in this order, so that no call fails: the Secret has the
// new one; the Provider objects vouch for it and for all that replicas still
// serve; each replica serves it once it sees that; and when all do, the
// Provider objects forget the old authority.
type providers struct {
	options   TLSOptions
	api       client.Client // no cache: what is written follows from what is read
	owner     func(context.Context) ([]any, error)
	namespace string
	changed   trigger
	log       *slog.Logger
}

// Start keeps them up to date until ctx ends.
func (p *providers) Start(ctx context.Context) error {
	told := ""
	return repeat(ctx, p.changed, func() time.Duration {
		err := p.write(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			told = ""
			return lookAround
		case err.Error() != told: // once, for as long as it is the same
			told = err.Error()
			p.log.WarnContext(ctx, "the Provider objects are not up to date", slog.Any("error", err))
		}
		return lookAgain
	})
}

func (p *providers) write(ctx context.Context) error {
	id, err := p.identity(ctx)
	if err != nil {
		return err
	}
	if _, err := id.leaf(); err != nil {
		return fmt.Errorf("secret %s: %w", p.options.Secret, err)
	}
	var failed error
	for _, provider := range p.options.Providers {
		failed = errors.Join(failed, p.apply(ctx, provider, parseBundle(id.authority)))
	}
	return failed
}

// identity reads our certificate, and makes one where that is ours to do.
func (p *providers) identity(ctx context.Context) (identity, error) {
	var secret corev1.Secret
	if err := p.api.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: p.options.Secret}, &secret); err != nil {
		return identity{}, fmt.Errorf("read our certificate: %w", err)
	}
	id := identityOf(secret.Data)
	if !p.options.SelfSigned {
		return id, nil
	}
	names, err := p.names()
	if err != nil {
		return identity{}, err
	}
	asked := secret.Annotations[annotationRotate]
	next, changed, err := id.renew(names, time.Now(), asked != secret.Annotations[annotationRotated])
	if err != nil || !changed {
		return next, err
	}
	secret.Data = next.data()
	if asked != "" {
		secret.Annotations[annotationRotated] = asked
	}
	if err := p.api.Update(ctx, &secret); err != nil {
		return identity{}, fmt.Errorf("write our certificate: %w", err)
	}
	p.log.InfoContext(ctx, "a new certificate was made", slog.String("secret", p.options.Secret),
		slog.Bool("newAuthority", !bytes.Equal(next.authority, id.authority)))
	return next, nil
}

// names are those by which we are reached: the Service's, and the hosts of the
// Providers' URLs.
func (p *providers) names() ([]string, error) {
	service := p.options.Service + "." + p.namespace
	known := map[string]bool{service + ".svc": true, service + ".svc.cluster.local": true, service: true, p.options.Service: true}
	addresses := map[string]bool{}
	for _, provider := range p.options.Providers {
		u, err := url.Parse(provider.URL)
		if err != nil {
			return nil, err
		}
		if ip := net.ParseIP(u.Hostname()); ip != nil {
			addresses[ip.String()] = true
		} else {
			known[u.Hostname()] = true
		}
	}
	return append(slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(addresses))...), nil
}

// apply makes a Provider object what it should be.
func (p *providers) apply(ctx context.Context, provider Provider, current bundle) error {
	before, err := providerBundle(ctx, p.api, provider.Name)
	if err != nil {
		return fmt.Errorf("read Provider %s: %w", provider.Name, err)
	}
	trusted, err := p.stillNeeded(ctx, current, before)
	if err != nil {
		return err
	}
	object := newObject(providerKind())
	object.SetName(provider.Name)
	owner, err := p.owner(ctx)
	if err != nil {
		return err
	}
	if owner != nil {
		object.Object["metadata"].(map[string]any)["ownerReferences"] = owner
	}
	object.Object["spec"] = map[string]any{
		"url": provider.URL, "timeout": provider.Timeout, "caBundle": base64.StdEncoding.EncodeToString(trusted.pem()),
	}
	err = p.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(controller), client.ForceOwnership)
	if err != nil {
		return fmt.Errorf("apply Provider %s: %w", provider.Name, err)
	}
	return nil
}

// stillNeeded adds to the current authorities those of before by which a
// replica is still trusted. Where not all can be asked, none is dropped.
func (p *providers) stillNeeded(ctx context.Context, current, before bundle) (bundle, error) {
	if len(current.with(before...)) == len(current) {
		return current, nil
	}
	chains, err := p.served(ctx)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		if !current.vouches(chain, time.Now()) {
			chains = nil
			break
		}
	}
	if len(chains) == 0 { // nor where nobody could be asked
		return current.with(before[max(0, len(before)-maxOldAuthorities):]...), nil
	}
	return current, nil
}

// served asks each replica for the certificate that it serves with. One that
// cannot be asked has an empty chain.
func (p *providers) served(ctx context.Context) ([][]*x509.Certificate, error) {
	var slices discoveryv1.EndpointSliceList
	if err := p.api.List(ctx, &slices, client.InNamespace(p.namespace), client.MatchingLabels{discoveryv1.LabelServiceName: p.options.Service}); err != nil {
		return nil, fmt.Errorf("find the replicas: %w", err)
	}
	var chains [][]*x509.Certificate
	for _, slice := range slices.Items {
		for _, port := range slice.Ports {
			if port.Port == nil || port.Name == nil || *port.Name != p.options.Port {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				// One that is not ready serves nobody; one that is going away still does.
				if c := endpoint.Conditions; c.Serving != nil && !*c.Serving || len(endpoint.Addresses) == 0 {
					continue
				}
				address := net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*port.Port)))
				chains = append(chains, presented(ctx, address))
			}
		}
	}
	return chains, nil
}

// presented is the chain that a server shows; nil where it shows none. Who it is
// is not checked: the chain is only compared with what is trusted.
func presented(ctx context.Context, address string) []*x509.Certificate {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}} //nolint:gosec // G402: nothing is sent
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil
	}
	defer func() { _ = connection.Close() }()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates
}

// ownerOf gives the reference by which what we make goes away with the chart:
// to a ClusterRole, or to nothing.
func ownerOf(api client.Reader, clusterRole string) func(context.Context) ([]any, error) {
	return func(ctx context.Context) ([]any, error) {
		if clusterRole == "" {
			return nil, nil
		}
		var role metav1.PartialObjectMetadata
		role.SetGroupVersionKind(rbacv1.SchemeGroupVersion.WithKind("ClusterRole"))
		if err := api.Get(ctx, client.ObjectKey{Name: clusterRole}, &role); err != nil {
			return nil, fmt.Errorf("read ClusterRole %s: %w", clusterRole, err)
		}
		return []any{map[string]any{
			"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": "ClusterRole", "name": role.Name, "uid": string(role.UID),
		}}, nil
	}
}
