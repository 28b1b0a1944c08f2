package config

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
)

// Environment is what compiled policies use of the process.
type Environment struct {
	// View makes the view of the registries for one policy's options.
	View func(store.ViewOptions) (verifier.Store, error)
	// Memory outlives all Snapshots.
	Memory *verifier.Memory
	// Revocation is asked by Notation checks.
	Revocation *notation.Revocation
	// Azure signs in to the registries of Azure; nil: nobody does.
	Azure *auth.AzureExchanges
	// Clouds signs in to the registries of Amazon and Google; nil: nobody does.
	Clouds *auth.Clouds
	// Pods reads the pull secrets of pods; nil: nobody does.
	Pods *auth.Pods
	// Vaults are read for certificates and keys; nil: there are none.
	Vaults VaultReader

	// opened is what a TrustPolicy reaches beside public addresses.
	opened store.Reach
}

// policy is a document compiled, or one that is broken and owns its images
// none the less. Immutable, and kept from Snapshot to Snapshot as long as
// neither the document nor its material changes.
type policy struct {
	ID
	serial   uint64 // tells policies apart in keys of chains
	doc      *Document
	material string
	// withdrawn names what the document refers to and what did not count when it
	// was compiled.
	withdrawn string

	patterns []pattern
	// namespaces in which a ClusterTrustPolicy applies; nil: all.
	namespaces []string
	delegate   bool

	// exemption is set for an Exemption, which has nothing of what follows.
	exemption *verifier.Exemption

	// broken says why the policy answers undecided, or nil.
	broken *verifier.Error
	// skip is why the images are admitted without verification; empty: they are not.
	skip string
	// skips says the same for single repositories, as a Notary trust policy can.
	skips func(repository string) bool
	// hosts are those that the policy has options for.
	hosts map[string]bool
	store verifier.Store
	// pods are the views in the place of store where a pod's pull secrets count; nil:
	// they do not.
	pods *podViews
	rule verifier.Policy
	// widen makes a TrustPolicy as it is where private addresses are dialled for more
	// hosts; nil for all others.
	widen func(store.Reach) *policy
}

// displayName is how answers call the policy.
func (id ID) displayName() string {
	if id.Namespace != "" {
		return id.Namespace + "/" + id.Name
	}
	return id.Name
}

// compiler makes a policy of a document without problems.
type compiler struct {
	env      Environment
	doc      *Document
	material material
	problems []Problem
}

func compile(env Environment, doc *Document, m material) (*policy, []Problem) {
	c := &compiler{env: env, doc: doc, material: m}
	spec := doc.Spec
	p := &policy{
		ID: doc.ID, doc: doc, material: m.sum, withdrawn: m.withdrawn(), namespaces: spec.Namespaces, delegate: spec.Delegate,
		hosts: map[string]bool{},
		rule: verifier.Policy{
			Name: doc.displayName(), Owner: spec.Owner, HelpURL: spec.HelpURL,
			AuditOnly: spec.Mode == api.ModeAudit, AllowAway: spec.WhenUndecided == api.WhenUndecidedAllow,
		},
	}
	for i, text := range spec.Images {
		pattern, e := parsePattern(text)
		if e != nil {
			c.problem(element("spec.images", i), e.what, e.remedy)
		}
		p.patterns = append(p.patterns, pattern)
	}
	p.store = c.view(p)
	root := ruleOf(spec.Require)
	if root.word == wordSkip {
		p.skip = root.skip.Reason
	} else {
		p.rule.Require = c.rule(root)
		p.skips = c.skips(root, p.rule.Require)
		p.rule.Require = present(p.rule.Require, doc.required)
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	if doc.tenants() {
		p.widen = c.widening(p)
	}
	return p, nil
}

func (c *compiler) problem(path, message, remedy string) {
	c.problems = append(c.problems, c.doc.problem(path, message, remedy, verifier.ReasonPolicyInvalid))
}

// rule compiles the tree.
func (c *compiler) rule(r rule) verifier.Rule {
	switch r.word {
	case wordAll:
		return verifier.All(c.rules(r.parts))
	case wordAny:
		return verifier.Any(c.rules(r.parts))
	case wordAtLeast:
		atLeast := verifier.AtLeast{Count: r.count}
		for _, part := range r.parts {
			atLeast.Of = append(atLeast.Of, c.check(part))
		}
		return atLeast
	case wordEvery:
		return verifier.Every{Check: c.check(r.parts[0])}
	case wordCheck:
		return c.check(r)
	default: // found by the decoder; a nil rule denies
		c.problem(r.path, "nothing is chosen", "Write a rule")
		return nil
	}
}

func (c *compiler) rules(parts []rule) []verifier.Rule {
	rules := make([]verifier.Rule, len(parts))
	for i, part := range parts {
		rules[i] = c.rule(part)
	}
	return rules
}

func (c *compiler) check(r rule) *verifier.Check {
	check := &verifier.Check{Name: r.check.Name, Kind: verifier.KindSignature}
	name, chosen := schemeOf(r.check)
	if chosen == nil {
		c.problem(r.path, "nothing is chosen", "Write a scheme")
		return check
	}
	if v := chosen.compile(c, join(r.path, name)); v != nil {
		check.Scheme, check.Verifier, check.Fingerprint = name, v, v.Fingerprint()
	}
	return check
}

// view makes the policy's view of the registries.
func (c *compiler) view(p *policy) verifier.Store {
	var options store.ViewOptions
	var scoped []int
	for i, r := range c.doc.Spec.Registries {
		path := element("spec.registries", i)
		host := canonicalHost(r.Host)
		p.hosts[host] = true
		registry := store.Registry{Host: host, PlainHTTP: r.PlainHTTP, Credential: c.credential(path+".auth", r.Auth)}
		if r.CA != nil {
			registry.CAs = c.bundle(path+".ca", r.CA)
		}
		if r.ClientCertificate != nil {
			registry.ClientCertificate = c.clientCertificate(path+".clientCertificate", r.ClientCertificate)
		}
		if r.Mirror != "" {
			host, path, _ := strings.Cut(r.Mirror, "/")
			registry.Mirror = strings.TrimSuffix(canonicalHost(host)+"/"+path, "/")
		}
		registry.TokenHosts, registry.RedirectHosts = canonicalHosts(r.TokenHosts), canonicalHosts(r.RedirectHosts)
		if r.Auth != nil && r.Auth.PodPullSecrets != nil {
			scoped = append(scoped, i)
		}
		options.Registries = append(options.Registries, registry)
	}
	options.Reach = c.reach()
	options.Named = append(p.literalHosts(), canonicalHosts(c.doc.Spec.PrivateHosts)...)
	// Ratify's objects name no hosts, and its users' registries are where they are.
	options.OthersPrivate = c.doc.Kind == kindRatify
	if r := c.doc.others; r != nil {
		options.Others = store.Registry{PlainHTTP: r.PlainHTTP, Credential: c.credential("others.auth", r.Auth)}
	}
	if len(c.problems) > 0 {
		return nil
	}
	view, err := c.env.View(options)
	if err != nil {
		c.problem("spec.registries", err.Error(), "Correct the options of this registry")
		return nil
	}
	if len(scoped) > 0 {
		p.pods = &podViews{c.env, options, scoped}
	}
	return view
}

// canonicalHost spells a host as verifier.Reference does.
func canonicalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ":443") }

func canonicalHosts(hosts []string) []string {
	var list []string
	for _, host := range hosts {
		list = append(list, canonicalHost(host))
	}
	return list
}

func (c *compiler) credential(path string, a *api.RegistryAuth) store.CredentialSource {
	switch {
	case a == nil, a.Anonymous != nil:
		return nil
	case a.PodPullSecrets != nil: // its place is taken for each pod
		return c.env.Pods.Of(auth.Pod{})
	case a.DockerConfig != nil:
		return auth.NewDockerConfig(c.doc.locate(a.DockerConfig.Path))
	case a.PullSecret != nil:
		return c.pullSecret(path + ".pullSecret")
	case a.Static != nil && a.Static.Password != nil:
		return auth.NewStatic(auth.Credential{
			Username: a.Static.Username, Password: c.secret(path+".static.password", a.Static.Password),
		})
	case chosenIdentity(a.AzureIdentity) != "":
		return c.azureCredential(path, a.AzureIdentity)
	case a.Static != nil && a.Static.Token != nil:
		return auth.NewStatic(auth.Credential{AccessToken: c.secret(path+".static.token", a.Static.Token)})
	case a.CloudIdentity != (api.CloudIdentity{}):
		return c.cloudCredential(path, a.CloudIdentity)
	default:
		c.problem(path, "nothing is chosen", "Write a way to sign in")
		return nil
	}
}

// pullSecret reads the credentials that a Secret has.
func (c *compiler) pullSecret(path string) store.CredentialSource {
	pieces := c.material.pieces[path]
	if len(pieces) == 0 { // found when it was gathered
		return nil
	}
	source, err := auth.NewPullSecret(pieces[0].data)
	if err != nil {
		c.problem(path, pieces[0].file+": "+err.Error(), "Make it with kubectl create secret docker-registry")
		return nil
	}
	return source
}

// secret reads a secret, of which the last line break is no part, unless it is
// written in the document itself.
func (c *compiler) secret(path string, s *api.DataSource) string {
	text := secretText(c.material, path, s)
	if text == "" {
		c.problem(path, "the secret is empty", "Write it there")
	}
	return text
}

func secretText(m material, path string, s *api.DataSource) string {
	data, _ := m.data(path, *s)
	text := string(data)
	if s.Inline == "" {
		text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	}
	return text
}

// data reads what a source has, and says which of its fields has it.
func (c *compiler) data(path string, s api.DataSource) (data []byte, at string) {
	return c.material.data(path, s)
}

func (m material) data(path string, s api.DataSource) (data []byte, at string) {
	data, at = []byte(s.Inline), path+".inline"
	for _, field := range []string{path + ".file", path + ".secret", path + ".configMap"} {
		for _, p := range m.pieces[field] {
			data, at = p.data, field
		}
	}
	return data, at
}

// bundle reads a registry's CA certificates as PEM.
func (c *compiler) bundle(path string, s *api.DataSource) []byte {
	data, at := c.data(path, *s)
	if err := checkBundle(data); err != nil {
		c.problem(at, err.Error(), "Write certificates in PEM and nothing else")
	}
	return data
}

// clientCertificate reads a certificate with its key.
func (c *compiler) clientCertificate(path string, s *api.ClientCertificate) *tls.Certificate {
	certificate, _ := c.data(path+".certificate", *s.Certificate)
	key, _ := c.data(path+".key", *s.Key)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		c.problem(path, "the certificate and the key are no pair that can be read", "Write both in PEM, the certificate of the key first")
		return nil
	}
	return &pair
}

// checkBundle reads every certificate, where x509.CertPool would pass over
// what it cannot read.
func checkBundle(data []byte) error {
	for n := 1; ; n++ {
		block, rest := pem.Decode(data)
		if block == nil {
			if n == 1 || bytes.Contains(data, []byte("-----BEGIN")) {
				return errors.New("not certificates in PEM")
			}
			return nil
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("block %d is a %s, not a certificate", n, clip(block.Type, 32))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d: %w", n, err)
		}
		data = rest
	}
}
