package config

import (
	"slices"
	"strconv"
	"strings"
	"sync"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// Snapshot is all policies at one moment: which of them an image must satisfy,
// and their Chains. It never changes; a change of configuration is another
// Snapshot. Safe for concurrent use.
type Snapshot struct {
	env     Environment
	cluster *index
	// exemptions go before all policies.
	exemptions exemptions
	// ratify are the policies that Ratify's objects make, by namespace; empty for
	// those that have no objects of their own. They count where no
	// ClusterTrustPolicy matches.
	ratify map[string]*index
	// tenants are the TrustPolicies by namespace. Those whose namespace could
	// not be read are under every.
	tenants map[string]*index
	// dark are documents of which not even the images could be read, so that they
	// may be about any.
	dark []*policy

	chains sync.Map // of *verifier.Chain, by the key of its policies
	// podChains are those that ask registries as one pod may.
	podChains *cache.Cache[*verifier.Chain]
	widened   sync.Map // of *policy: TrustPolicies within the reach of others
	inForce   map[uint64]bool
	policies  []PolicyStatus
	problems  []Problem
	objects   []RatifyStatus
}

// every stands for all namespaces where a TrustPolicy's own is not known.
const every = "*"

// selection is what an image must satisfy.
type selection struct {
	// must are the policies that must hold, cluster's first; none: refused.
	must []*policy
	// reach is the policy whose registry options and credentials count.
	reach *policy
	// over are the cluster's policies where TrustPolicies are among must: they say
	// what those reach beside public addresses.
	over []*policy
}

// For finds the Chain that judges the image. Where there is none, the Verdict
// says why: no policy matches, or all that do skip verification. No I/O.
func (s *Snapshot) For(request verifier.Request) (*verifier.Chain, verifier.Verdict) {
	image := request.Image
	if image.Registry == "" || image.Repository == "" {
		return nil, verifier.Refuse(image.String(), &verifier.Error{
			Reason: verifier.ReasonReferenceInvalid, Message: "names no image", Remedy: "Write it as registry/repository:tag",
		})
	}
	n := newName(image)
	if verdict, ok := s.exemptions.admit(request, &n); ok {
		return nil, verdict
	}
	chosen, refusal := s.choose(request, &n)
	if refusal != nil {
		return nil, verifier.Refuse(image.String(), refusal)
	}
	if why := skipReasons(chosen.must, image); why != "" {
		return nil, verifier.Exempt(image, displayNames(chosen.must), verifier.ReasonSkipped, why)
	}
	return s.chain(chosen, request, s.exemptions.digests(request)), verifier.Verdict{}
}

// darkens reports whether a document whose images could not be read may be about
// an image of the namespace. Of a file not even the namespaces are believed.
func (p *policy) darkens(namespace string) bool {
	switch {
	case p.Kind == api.KindTrustPolicy:
		return namespace != "" && (p.Namespace == every || p.Namespace == namespace)
	case p.doc == nil || !p.doc.inCluster:
		return true
	default:
		return namespace == "" || p.appliesIn(namespace)
	}
}

func (s *Snapshot) choose(request verifier.Request, n *name) (selection, *verifier.Error) {
	for _, p := range s.dark {
		if p.darkens(request.Namespace) {
			return selection{must: []*policy{p}, reach: p}, nil
		}
	}
	if request.Namespace == "" {
		return s.chooseForAll(n)
	}
	winners := s.cluster.winners(n, func(p *policy) bool { return p.appliesIn(request.Namespace) })
	cluster := policiesOf(preferNaming(winners))
	if len(cluster) == 0 {
		cluster = s.ratifys(n, request.Namespace)
	}
	if len(cluster) == 0 {
		return selection{}, notFound("no ClusterTrustPolicy matches this image in namespace " + request.Namespace)
	}
	tenant := s.tenant(n, request.Namespace)
	if len(tenant) > 0 && !slices.ContainsFunc(cluster, func(p *policy) bool { return !p.delegate }) {
		return selection{must: tenant, reach: reach(tenant, n.host), over: cluster}, nil
	}
	chosen := selection{must: append(slices.Clone(cluster), tenant...), reach: reach(cluster, n.host)}
	if len(tenant) > 0 {
		chosen.over = cluster
	}
	return chosen, nil
}

// chooseForAll chooses for an image that is asked about without a namespace,
// so that it may be any. Every policy that could apply in one must hold: those
// that name namespaces, as far as they are not less specific than what applies
// everywhere. Where nothing applies everywhere, some namespace would refuse.
func (s *Snapshot) chooseForAll(n *name) (selection, *verifier.Error) {
	base := ""
	found := s.cluster.match(n, everywhere, func(found []entry, next entry) bool {
		if base == "" && len(found) > 0 && found[len(found)-1].policy.appliesEverywhere() {
			base = found[len(found)-1].pattern.rank
		}
		return base != "" && next.pattern.rank < base
	})
	policies := policiesOf(found)
	if len(policies) == 0 {
		policies = s.ratifys(n, "")
	}
	if len(policies) == 0 {
		return selection{}, notFound("no ClusterTrustPolicy matches this image")
	}
	if !slices.ContainsFunc(policies, (*policy).appliesEverywhere) {
		e := notFound("no ClusterTrustPolicy matches this image in every namespace")
		e.Remedy = "Ask with a namespace, as [namespace]image"
		return selection{}, e
	}
	return selection{must: policies, reach: reach(policies, n.host)}, nil
}

func notFound(message string) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonPolicyNotFound, Message: message,
		Remedy: "Use an image that a policy covers, or have a policy written for it",
	}
}

// preferNaming drops the policies that name no namespaces where one that does
// is as specific.
func preferNaming(winners []entry) []entry {
	var naming []entry
	for _, e := range winners {
		if len(e.policy.namespaces) > 0 {
			naming = append(naming, e)
		}
	}
	if len(naming) > 0 {
		return naming
	}
	return winners
}

// tenant finds the TrustPolicies of this namespace, and of no other.
func (s *Snapshot) tenant(n *name, namespace string) []*policy {
	var list []*policy
	for _, of := range []string{namespace, every} {
		if x := s.tenants[of]; x != nil {
			list = append(list, policiesOf(x.winners(n, everywhere))...)
		}
	}
	return list
}

// reach picks the policy whose options for the host count: the first that has
// some, else the first.
func reach(policies []*policy, host string) *policy {
	for _, p := range policies {
		if p.hosts[host] {
			return p
		}
	}
	return policies[0]
}

// skipReason is why the policy admits the image unverified, or empty.
func (p *policy) skipReason(image verifier.Reference) string {
	switch {
	case p.broken != nil:
		return ""
	case p.skips != nil && p.skips(image.Name()):
		return "its Notary trust policy skips this repository"
	default:
		return p.skip
	}
}

// skipReasons is why all of the policies skip, or empty where one does not:
// then that one must hold, and a skip beside it adds nothing.
func skipReasons(policies []*policy, image verifier.Reference) string {
	var reasons []string
	for _, p := range policies {
		reason := p.skipReason(image)
		if reason == "" {
			return ""
		}
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func displayNames(policies []*policy) string {
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.displayName()
	}
	return strings.Join(names, ", ")
}

// chain gives the Chain of the policies; the same one as long as they are the
// same, so that those who ask for the same decision share it.
func (s *Snapshot) chain(chosen selection, request verifier.Request, exempting []*policy) *verifier.Chain {
	var judging []*policy
	key := strconv.AppendUint(nil, chosen.reach.serial, 36)
	for _, p := range chosen.must {
		if p.skipReason(request.Image) == "" {
			judging = append(judging, p)
			key = strconv.AppendUint(append(key, ' '), p.serial, 36)
		}
	}
	for _, p := range exempting {
		key = strconv.AppendUint(append(key, ' '), p.serial, 36)
	}
	if len(chosen.over) > 0 {
		key = append(key, overMark...)
	}
	for _, p := range chosen.over {
		key = strconv.AppendUint(append(key, ' '), p.serial, 36)
	}
	if chosen.reach.pods != nil {
		return s.podChain(string(key), judging, chosen, request, exempting)
	}
	if known, ok := s.chains.Load(string(key)); ok {
		return known.(*verifier.Chain)
	}
	from := s.within(chosen.over, []*policy{chosen.reach})[0]
	chain, _ := s.chains.LoadOrStore(string(key), s.newChain(s.within(chosen.over, judging), from.store, exempting))
	return chain.(*verifier.Chain)
}

// overMark parts the policies that judge from those that say what is reached.
const overMark = " over"

func (s *Snapshot) newChain(policies []*policy, from verifier.Store, exempting []*policy) *verifier.Chain {
	rules := make([]verifier.Policy, 0, len(policies))
	var broken *verifier.Error
	for _, p := range policies {
		if p.broken != nil && broken == nil {
			broken = p.broken
			rules = append([]verifier.Policy{p.rule}, rules...) // whom to ask about it
			continue
		}
		rules = append(rules, p.rule)
	}
	if broken != nil {
		return verifier.NewBrokenChain(rules, broken)
	}
	exemptions := make([]verifier.Exemption, len(exempting))
	for i, p := range exempting {
		exemptions[i] = *p.exemption
	}
	return verifier.NewChain(rules, from, s.env.Memory, exemptions...)
}

// keepChains takes over the Chains of policies that are still in force.
func (s *Snapshot) keepChains(old *Snapshot) {
	old.chains.Range(func(key, chain any) bool {
		for _, serial := range strings.Fields(strings.Replace(key.(string), overMark, "", 1)) {
			if n, err := strconv.ParseUint(serial, 36, 64); err != nil || !s.inForce[n] {
				return true
			}
		}
		s.chains.Store(key, chain)
		return true
	})
}

// Policies tells how each document fares, in the order of kind, namespace and
// name.
func (s *Snapshot) Policies() []PolicyStatus { return slices.Clone(s.policies) }

// Problems lists all that is wrong, in the order of the documents.
func (s *Snapshot) Problems() []Problem { return slices.Clone(s.problems) }
