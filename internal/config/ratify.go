package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/azure"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// kindRatify is the kind of the policies that Ratify's objects make.
const kindRatify = "Ratify"

// RatifyStatus tells how one of Ratify's objects fares.
type RatifyStatus struct {
	ratify.Object
	// Error says why it is not used; empty where it is.
	Error string
}

// addRatify compiles what Ratify's objects demand. Where they are wrong, what they
// demanded before stays in force, and if they never were right, the images of
// their namespace are undecided.
func (b *builder) addRatify(s *Snapshot, r revision) {
	policies, notes := ratify.Translate(r.ratify, r.home)
	s.objects = ratifyStatuses(r.ratify, notes)
	for i := range s.objects {
		if s.objects[i].Error == "" {
			s.objects[i].Error = vaultError(s.objects[i].Object, r.sources)
		}
	}
	s.ratify = map[string]*index{}
	byNamespace := policiesByNamespace(policies)
	good, from := map[string][]*policy{}, map[string][]ratify.Object{}
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		inForce, cause := b.compileRatify(namespace, byNamespace[namespace], r.sources)
		if cause == nil {
			good[namespace], from[namespace] = inForce, r.ratify
		} else {
			s.problems = append(s.problems, *cause)
			before, of := b.goodRatify(namespace, r)
			if len(before) > 0 && !cause.Withdrawn {
				inForce, good[namespace], from[namespace] = before, before, of
			} else {
				inForce = []*policy{b.brokenRatify(namespace, *cause)}
			}
		}
		for _, p := range inForce {
			s.inForce[p.serial] = true
		}
		s.ratify[namespace] = newIndex(inForce)
	}
	b.ratify, b.ratifyFrom = good, from
	maps.DeleteFunc(b.kept.ratify, func(namespace string, _ []ratify.Object) bool {
		return len(byNamespace[namespace]) == 0 || len(good[namespace]) > 0
	})
}

func policiesByNamespace(policies []ratify.Policy) map[string][]ratify.Policy {
	list := map[string][]ratify.Policy{}
	for _, p := range policies {
		list[p.Namespace] = append(list[p.Namespace], p)
	}
	return list
}

// goodRatify gives what was good last in a namespace, also in an earlier process,
// and the objects that it was made of.
func (b *builder) goodRatify(namespace string, r revision) ([]*policy, []ratify.Object) {
	left := b.kept.ratify[namespace]
	if len(b.ratify[namespace]) > 0 || len(left) == 0 {
		return b.ratify[namespace], b.ratifyFrom[namespace]
	}
	policies, _ := ratify.Translate(left, r.home)
	of := policiesByNamespace(policies)[namespace]
	good, cause := b.compileRatify(namespace, of, r.sources)
	if cause != nil && !cause.Withdrawn {
		good, cause = b.compileRatify(namespace, of, newSources(b.kept.material).with(b.env.Vaults))
	}
	if cause != nil {
		return nil, nil
	}
	return good, left
}

// ratifyGood are the objects that were good last, by the namespaces in which those
// that there are now are not.
func (b *builder) ratifyGood(now []ratify.Object) map[string][]ratify.Object {
	good := map[string][]ratify.Object{}
	for namespace, of := range b.ratifyFrom {
		if !slices.EqualFunc(of, now, func(x, y ratify.Object) bool { return x.String() == y.String() && bytes.Equal(x.Spec, y.Spec) }) {
			good[namespace] = of
		}
	}
	return good
}

func (b *builder) compileRatify(namespace string, policies []ratify.Policy, from *sources) ([]*policy, *Problem) {
	before := map[ID]*policy{}
	for _, p := range b.ratify[namespace] {
		before[p.ID] = p
	}
	var list []*policy
	for _, of := range policies {
		if of.Broken != nil {
			return nil, &Problem{
				Policy: of.Broken.Object.String(), Message: of.Broken.Message, Remedy: of.Broken.Remedy, Reason: verifier.ReasonPolicyInvalid,
			}
		}
		doc := ratifyDocument(of)
		m, problems := gather(doc, from)
		if len(problems) > 0 {
			problems[0].Withdrawn = problems[0].Withdrawn || m.withdrawn() != ""
			return nil, &problems[0]
		}
		if known := before[doc.ID]; known != nil && known.doc.content == doc.content && known.material == m.sum {
			list = append(list, known)
			continue
		}
		p, problems := compile(b.env, doc, m)
		if len(problems) > 0 {
			return nil, &problems[0]
		}
		p.serial = b.serial()
		list = append(list, p)
	}
	return list, nil
}

// ratifyDocument makes a document of what Ratify's objects demand.
func ratifyDocument(of ratify.Policy) *Document {
	written, _ := of.Document() // what a document cannot say is said below
	doc := &Document{ID: ID{kindRatify, of.Namespace, of.Name}, inCluster: true, Metadata: written.Metadata, Spec: written.Spec}
	doc.Spec.Namespaces = nil // they are asked for by namespace
	doc.Spec.Registries = nil
	if len(of.Parts) > 1 {
		for _, part := range of.Parts {
			doc.required = append(doc.required, part.Required)
		}
	}
	if auth := of.Auth(); of.PlainHTTP || auth != nil {
		doc.others = &api.Registry{PlainHTTP: of.PlainHTTP, Auth: auth}
	}
	doc.ownTrust = of.OwnTrust
	beside, _ := json.Marshal([]any{doc.required, doc.others, doc.ownTrust}) // plain types encode
	doc.content = doc.hash() + string(beside)
	return doc
}

func (b *builder) brokenRatify(namespace string, cause Problem) *policy {
	doc := &Document{ID: ID{kindRatify, namespace, "ratify"}, inCluster: true, images: []string{"**/**"}}
	p := broken(doc, cause)
	p.namespaces = nil
	p.serial = b.serial()
	return p
}

// ratifys are the policies of Ratify's objects that the image must satisfy: the
// namespace's own where it has objects, the cluster's otherwise.
func (s *Snapshot) ratifys(n *name, namespace string) []*policy {
	of, own := s.ratify[namespace]
	if !own {
		of = s.ratify[""]
	}
	if of == nil {
		return nil
	}
	return policiesOf(of.winners(n, everywhere))
}

// present makes a rule of Ratify's of one that wants all parts.
func present(rule verifier.Rule, required []bool) verifier.Rule {
	all, ok := rule.(verifier.All)
	if !ok || len(all) != len(required) {
		return rule
	}
	var p verifier.Present
	for i, part := range all {
		if required[i] {
			p.Required = append(p.Required, part)
		} else {
			p.Optional = append(p.Optional, part)
		}
	}
	return p
}

func ratifyStatuses(objects []ratify.Object, notes []ratify.Note) []RatifyStatus {
	list := make([]RatifyStatus, len(objects))
	for i, object := range objects {
		list[i] = RatifyStatus{Object: object}
		for _, note := range notes {
			if note.Fatal && note.Object.String() == object.String() {
				list[i].Error = strings.TrimSuffix(note.Message+". "+note.Remedy, ". ")
				break
			}
		}
	}
	slices.SortFunc(list, func(a, b RatifyStatus) int { return cmp.Compare(a.String(), b.String()) })
	return list
}

// vaultError says why what an object names in a vault cannot be had; empty where
// it can, or where it names nothing.
func vaultError(o ratify.Object, from *sources) string {
	if o.Kind != ratify.KindKeyManagementProvider && o.Kind != ratify.KindCertificateStore {
		return ""
	}
	vault, err := ratify.VaultOf(o)
	if err != nil || vault == nil {
		return ""
	}
	if _, err := azure.Vault(vault.VaultURI); err != nil {
		return err.Error()
	}
	for kind, objects := range map[trust.Kind][]api.KeyVaultObject{trust.Certificate: vault.Certificates, trust.Key: vault.Keys} {
		for _, one := range objects {
			if _, err := from.vault(vaultReference(vault.KeyVault, kind, one, nil)); err != nil {
				return err.Error()
			}
		}
	}
	return ""
}

// Ratify tells how each of Ratify's objects fares.
func (s *Snapshot) Ratify() []RatifyStatus { return slices.Clone(s.objects) }
