package cluster

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// spread is how long Gatekeeper's pods have to learn of a new authority from
	// the Provider objects before what it issued is served.
	spread = 5 * time.Second
	// lookAgain is how often it is looked whether the Provider objects have it.
	lookAgain = time.Second
)

// TLSOptions say where the provider's certificate comes from and who must trust it.
type TLSOptions struct {
	// Secret in the provider's namespace with tls.crt, tls.key and ca.crt.
	Secret string
	// SelfSigned lets the leader make and renew what is in it.
	SelfSigned bool
	// Directory where each replica keeps what it serves with.
	Directory string
	// GatekeeperWebhook is the ValidatingWebhookConfiguration whose CA has signed
	// the certificate that Gatekeeper shows as a client.
	GatekeeperWebhook string
	// Providers are kept up to date by the leader; none: somebody else does.
	Providers []Provider
	// Service is the one by which the replicas are reached, and Port the name of
	// its port.
	Service, Port string
}

// Provider is one of Gatekeeper's Provider objects.
type Provider struct {
	// Name of the object, and the URL that it has Gatekeeper ask.
	Name, URL string
	// Timeout in seconds.
	Timeout int64
}

// Files of the directory. A certificate and its key are one file, so that nobody
// reads one without the other.
const (
	servingFile    = "serving.pem"
	gatekeeperFile = "gatekeeper-ca.pem"
)

// Certificates are files that are kept up to date: what a replica serves with.
type Certificates struct {
	directory string
	once      sync.Once
	written   chan struct{}
}

// NewCertificates are in a directory, where those of an earlier run may be.
func NewCertificates(directory string) *Certificates {
	c := &Certificates{directory: directory, written: make(chan struct{})}
	c.look()
	return c
}

// Serving is the file with certificate and key, and Gatekeeper the one with the
// authorities of Gatekeeper's certificate.
func (c *Certificates) Serving() string { return filepath.Join(c.directory, servingFile) }

// Gatekeeper is the file with the authorities of Gatekeeper's certificate.
func (c *Certificates) Gatekeeper() string { return filepath.Join(c.directory, gatekeeperFile) }

// Written is closed when both files are there.
func (c *Certificates) Written() <-chan struct{} { return c.written }

// Ready says why the replica has nothing to serve with, or gives nil.
func (c *Certificates) Ready() error {
	select {
	case <-c.written:
		return nil
	default:
		return errors.New("there is no certificate to serve with, or none of Gatekeeper's authority, yet")
	}
}

func (c *Certificates) look() {
	for _, file := range []string{c.Serving(), c.Gatekeeper()} {
		if _, err := os.Stat(file); err != nil {
			return
		}
	}
	c.once.Do(func() { close(c.written) })
}

func (c *Certificates) write(file string, content []byte) error {
	if err := replace(file, content); err != nil {
		return err
	}
	c.look()
	return nil
}

// replace swaps a file for another, for its owner's eyes only.
func replace(path string, content []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, content, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// presenting keeps the files up to date. It runs in every replica.
type presenting struct {
	options TLSOptions
	files   *Certificates
	// cached reads Secrets and webhooks, and api reads Provider objects: those
	// may not be there before Gatekeeper is.
	cached, api client.Reader
	namespace   string
	changed     trigger
	log         *slog.Logger
	// since is when the Provider objects were first seen to vouch for next.
	next  []byte
	since time.Time
}

// NeedLeaderElection reports that every replica serves.
func (p *presenting) NeedLeaderElection() bool { return false }

// Start keeps the files up to date until ctx ends.
func (p *presenting) Start(ctx context.Context) error {
	told := ""
	return repeat(ctx, p.changed, func() time.Duration {
		waiting, err := p.present(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if err.Error() != told { // once, for as long as it is the same
				told = err.Error()
				p.log.WarnContext(ctx, "the certificates are not up to date", slog.Any("error", err))
			}
			return lookAgain
		case waiting:
			return lookAgain
		}
		told = ""
		return lookAround
	})
}

// present writes what changed, and reports whether a certificate waits for the
// Provider objects.
func (p *presenting) present(ctx context.Context) (waiting bool, err error) {
	errGatekeeper := p.presentGatekeeper(ctx)
	waiting, err = p.presentServing(ctx)
	return waiting, errors.Join(errGatekeeper, err)
}

func (p *presenting) presentGatekeeper(ctx context.Context) error {
	var webhooks admissionv1.ValidatingWebhookConfiguration
	if err := p.cached.Get(ctx, client.ObjectKey{Name: p.options.GatekeeperWebhook}, &webhooks); err != nil {
		return fmt.Errorf("read Gatekeeper's authority: %w", err)
	}
	var authorities bundle
	for _, webhook := range webhooks.Webhooks {
		authorities = authorities.with(parseBundle(webhook.ClientConfig.CABundle)...)
	}
	if len(authorities) == 0 {
		return fmt.Errorf("ValidatingWebhookConfiguration %s has no caBundle yet", p.options.GatekeeperWebhook)
	}
	if p.options.SelfSigned { // for the client that we made a certificate for
		var secret corev1.Secret
		if err := p.cached.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: p.options.Secret}, &secret); err == nil {
			authorities = authorities.with(parseBundle(secret.Data[keyAuthority])...)
		}
	}
	content := authorities.pem()
	if before, err := os.ReadFile(p.files.Gatekeeper()); err == nil && bytes.Equal(before, content) {
		return nil
	}
	return p.files.write(p.files.Gatekeeper(), content)
}

// presentServing serves what the Secret has, once Gatekeeper trusts it.
func (p *presenting) presentServing(ctx context.Context) (waiting bool, err error) {
	var secret corev1.Secret
	if err := p.cached.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: p.options.Secret}, &secret); err != nil {
		return true, fmt.Errorf("read our certificate: %w", err)
	}
	id := identityOf(secret.Data)
	if len(id.serving) == 0 {
		return true, nil // nobody has made one yet
	}
	if _, err := id.leaf(); err != nil {
		return true, fmt.Errorf("secret %s: %w", p.options.Secret, err)
	}
	content := append(append([]byte{}, id.serving...), id.servingKey...)
	before, err := os.ReadFile(p.files.Serving())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	if bytes.Equal(before, content) {
		return false, nil
	}
	trusted, err := p.trusted(ctx, id)
	if !trusted || err != nil {
		return true, err
	}
	if !bytes.Equal(p.next, content) {
		p.next, p.since = content, time.Now()
	}
	if before != nil && time.Since(p.since) < spread {
		return true, nil
	}
	if err := p.files.write(p.files.Serving(), content); err != nil {
		return true, err
	}
	p.log.InfoContext(ctx, "a new certificate is served")
	return false, nil
}

// trusted reports whether the Provider objects vouch for a certificate.
func (p *presenting) trusted(ctx context.Context, id identity) (bool, error) {
	for _, provider := range p.options.Providers {
		known, err := providerBundle(ctx, p.api, provider.Name)
		if err != nil || !known.vouches(parseBundle(id.serving), time.Now()) {
			return false, err
		}
	}
	return true, nil
}

// providerBundle is what a Provider object has Gatekeeper trust.
func providerBundle(ctx context.Context, from client.Reader, name string) (bundle, error) {
	object := newObject(providerKind())
	if err := from.Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	spec, _ := object.Object["spec"].(map[string]any)
	text, _ := spec["caBundle"].(string)
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, nil // somebody wrote something else; it is replaced
	}
	return parseBundle(data), nil
}
