package config

import (
	"fmt"
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/verifier/notation"
)

// What may be dialled at private addresses is decided by who wrote a document. A
// ClusterTrustPolicy, and Ratify's objects of the cluster, are an administrator's. A
// TrustPolicy is compiled to reach public addresses only; where it applies to an image
// together with ClusterTrustPolicies, or in their place, it is compiled once more, with
// the hosts that those list. What they list counts for the images that they match, and
// in no other policy.

// openings are the hosts that the policy lists for TrustPolicies.
func (p *policy) openings() store.Reach {
	if p.Kind != api.KindClusterTrustPolicy || p.broken != nil {
		return store.Reach{}
	}
	hosts := slices.Clone(p.doc.Spec.PrivateHosts)
	for _, r := range p.doc.Spec.Registries {
		hosts = append(append(append(hosts, r.Host), r.TokenHosts...), r.RedirectHosts...)
	}
	return store.Reach{Hosts: canonicalHosts(hosts), Registries: p.literalHosts()}
}

// literalHosts are the hosts that the policy's patterns name without wildcard.
func (p *policy) literalHosts() []string {
	var hosts []string
	for _, pattern := range p.patterns {
		if host := pattern.host.literal; host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// tenants reports whether what the document names is a tenant's choice.
func (doc *Document) tenants() bool { return doc.Kind == api.KindTrustPolicy }

// reach is for which hosts the document's registries are dialled at private addresses.
func (c *compiler) reach() store.Reach {
	if c.doc.tenants() {
		return c.env.opened
	}
	return store.Reach{Administrator: true}
}

// revocation is how servers are called that the document's certificates name.
func (c *compiler) revocation() *notation.Revocation {
	if c.env.Revocation == nil || !c.doc.tenants() && !c.doc.ownTrust {
		return c.env.Revocation
	}
	return c.env.Revocation.Bounded(c.env.opened.Hosts)
}

// widening makes the policy as it is within another reach.
func (c *compiler) widening(narrow *policy) func(store.Reach) *policy {
	env, doc, m := c.env, c.doc, c.material
	return func(within store.Reach) *policy {
		env.opened = within
		wide, problems := compile(env, doc, m)
		if len(problems) > 0 { // the same words were sound before
			return narrow
		}
		wide.serial = narrow.serial
		return wide
	}
}

// within gives the policies as they are where those over them apply as well.
func (s *Snapshot) within(over, policies []*policy) []*policy {
	var open store.Reach
	for _, p := range over {
		of := p.openings()
		open.Hosts, open.Registries = append(open.Hosts, of.Hosts...), append(open.Registries, of.Registries...)
	}
	if len(open.Hosts)+len(open.Registries) == 0 {
		return policies
	}
	list := make([]*policy, len(policies))
	for i, p := range policies {
		list[i] = p
		if p.widen == nil {
			continue
		}
		key := fmt.Sprint(p.serial, " ", strings.Join(open.Hosts, " "), "\n", strings.Join(open.Registries, " "))
		wide, known := s.widened.Load(key)
		if !known {
			wide, _ = s.widened.LoadOrStore(key, p.widen(open))
		}
		list[i] = wide.(*policy)
	}
	return list
}
