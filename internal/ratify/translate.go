package ratify

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// The artifact types that Ratify's own verifiers are about.
const (
	notationType = "application/vnd.cncf.notary.signature"
	cosignType   = "application/vnd.dev.cosign.artifact.sig.v1+json"
)

// Note is what became of an object, where that is not all that it says.
type Note struct {
	Object Object
	// Fatal is set where the object is not used at all.
	Fatal   bool
	Message string
	Remedy  string
}

// String is object: message. Remedy.
func (n Note) String() string {
	text := n.Object.String() + ": " + n.Message
	if n.Remedy != "" {
		text += ". " + n.Remedy
	}
	return text
}

// Policy is what Ratify's objects demand of some images.
type Policy struct {
	// Namespace in which they count; empty for all that have none of their own.
	Namespace string
	Name      string
	Images    []string
	Parts     []Part
	// PlainHTTP and DockerConfig are how registries are asked, whichever.
	PlainHTTP    bool
	DockerConfig string
	Azure        *api.AzureIdentity
	// OwnTrust is set where certificates that count are an object's of the namespace,
	// not the cluster's.
	OwnTrust bool
	// KeyVaults are how vaults are asked.
	KeyVaults []api.KeyVault
	// Broken says why nothing is known of what is demanded; then all images are
	// meant, and there is nothing else in it.
	Broken *Note
}

// Part is what must hold for the artifacts of one type.
type Part struct {
	Check api.Check
	// Required is set where there must be an artifact of the type; otherwise it is
	// looked at only where there is one. Of parts that are not required, one at
	// least must be there.
	Required bool
	// Each is set where every artifact of the type must pass, not just one.
	Each bool
}

// Translate says what the objects demand, for the cluster and for each namespace
// that has objects of its own. Home is the namespace of Ratify itself, whose
// CertificateStores count in all.
func Translate(objects []Object, home string) ([]Policy, []Note) {
	t := &translator{objects: objects, home: home}
	var policies []Policy
	namespaces := map[string]bool{"": true}
	for _, o := range objects {
		if o.Kind != KindKeyManagementProvider && o.Kind != KindCertificateStore {
			namespaces[o.Namespace] = true
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(namespaces)) {
		found := t.policies(namespace)
		if found == nil && t.broken != nil {
			found = []Policy{{Namespace: namespace, Name: "ratify", Images: []string{"**/**"}, Broken: t.broken}}
		}
		policies = append(policies, found...)
		t.broken = nil
	}
	for _, o := range objects {
		if o.Kind == KindKeyManagementProvider || o.Kind == KindCertificateStore {
			if _, err := t.read(o, ""); err != nil {
				t.note(o, true, strings.TrimPrefix(err.Error(), o.String()+": "), "")
			}
		}
	}
	slices.SortStableFunc(t.notes, func(a, b Note) int {
		return cmp.Or(strings.Compare(a.Object.String(), b.Object.String()), strings.Compare(a.Message, b.Message))
	})
	return policies, t.notes
}

type translator struct {
	objects []Object
	home    string
	notes   []Note
	vaults  []api.KeyVault // that the policies at work refer to
	own     bool           // certificates are the namespace's own
	broken  *Note          // why there are no policies of the namespace that is at work
}

func (t *translator) note(o Object, fatal bool, message, remedy string) {
	n := Note{o, fatal, message, remedy}
	if fatal && t.broken == nil {
		t.broken = &n
	}
	for _, known := range t.notes {
		if known.String() == n.String() { // said for another namespace
			return
		}
	}
	t.notes = append(t.notes, n)
}

// of gives the objects of a kind that count in a namespace: its own, or the
// cluster's where it has none.
func (t *translator) of(kind, namespace string) []Object {
	var own, cluster []Object
	for _, o := range t.objects {
		switch {
		case o.Kind != kind:
		case o.Namespace == namespace:
			own = append(own, o)
		case o.Namespace == "":
			cluster = append(cluster, o)
		}
	}
	if len(own) > 0 {
		return own
	}
	return cluster
}

// policies makes the policies of one namespace: one for the images of each scope
// that a Cosign verifier has, and one for all others.
func (t *translator) policies(namespace string) []Policy {
	base := Policy{Namespace: namespace, Name: "ratify", Images: []string{"**/**"}}
	t.vaults, t.own = nil, false
	if !t.store(namespace, &base) {
		return nil
	}
	demands, ok := t.demands(namespace)
	if !ok {
		return nil
	}
	scoped := map[string][]Part{} // by pattern
	for _, o := range t.of(KindVerifier, namespace) {
		part, byScope, err := t.verifier(o, namespace)
		if err != nil {
			t.note(o, true, err.Error(), "")
			return nil // without it, others would decide alone
		}
		if part != nil {
			base.Parts = append(base.Parts, demands.of(notationType, *part))
		}
		for _, s := range byScope {
			for _, pattern := range s.images {
				if _, twice := scoped[pattern]; twice {
					t.note(o, true, "scope "+pattern+" is there twice", "Delete one of them")
					return nil
				}
				scoped[pattern] = append(scoped[pattern], demands.of(cosignType, s.check))
			}
		}
	}
	base.KeyVaults, base.OwnTrust = t.vaults, t.own
	return t.spread(base, scoped, demands)
}

// spread makes a policy for each scope, and the one for the rest.
func (t *translator) spread(base Policy, scoped map[string][]Part, demands demands) []Policy {
	var policies []Policy
	for i, pattern := range slices.Sorted(maps.Keys(scoped)) {
		p := base
		p.Images, p.Parts = []string{pattern}, append(slices.Clone(base.Parts), scoped[pattern]...)
		p.Name = fmt.Sprintf("%s-%d", base.Name, i+1)
		if pattern == "**/**" {
			p.Name = base.Name
		}
		policies = append(policies, p)
	}
	// Where a verifier wants Cosign's signatures of all images, the scopes that
	// are there are all that can pass.
	_, everywhere := scoped["**/**"]
	if !everywhere && len(base.Parts) > 0 && !demands.wants(cosignType) {
		policies = append(policies, base)
	}
	return policies
}

// store takes over how registries are asked.
func (t *translator) store(namespace string, into *Policy) bool {
	stores := t.of(KindStore, namespace)
	for _, o := range stores {
		var spec storeSpec
		if err := strict(o.Spec, &spec); err != nil {
			t.note(o, true, err.Error(), "")
			return false
		}
		var parameters storeParameters
		switch err := strict(spec.Parameters, &parameters); {
		case spec.Name != "oras":
			t.note(o, true, "store "+spec.Name+" is not there", "Use oras")
			return false
		case err != nil:
			t.note(o, true, "parameters: "+err.Error(), "")
			return false
		}
		into.PlainHTTP = into.PlainHTTP || parameters.UseHTTP
		if !t.signIn(o, parameters, into) {
			return false
		}
	}
	if len(stores) > 1 {
		t.note(stores[1], false, "several stores are taken as one", "")
	}
	return true
}

func (t *translator) signIn(o Object, parameters storeParameters, into *Policy) bool {
	if len(parameters.AuthProvider) == 0 {
		return true
	}
	var provider authProvider
	err := strict(parameters.AuthProvider, &provider)
	switch {
	case err == nil && provider.Name == "dockerConfig":
		into.DockerConfig = cmp.Or(provider.ConfigPath, "/root/.docker/config.json")
		return true
	case err == nil && (provider.Name == "azureWorkloadIdentity" || provider.Name == "azureManagedIdentity"):
		if into.Azure, err = azureSignIn(provider); err != nil {
			t.note(o, true, err.Error(), "Write each host")
		} else if parameters.UseHTTP {
			t.note(o, true, "useHttp is about registries without TLS, and an identity is shown over nothing else", "Delete it")
			err = errors.New("refused")
		}
		return err == nil
	case provider.Name == "":
		t.note(o, true, "authProvider has no name", "")
	default:
		t.note(o, true, "authProvider "+provider.Name+" is not carried over", "Write a ClusterTrustPolicy with registries and their auth")
	}
	return false
}

// demands are what the policy wants of artifact types.
type demands struct {
	byType map[string]string // any or all
	rest   string
}

func (t *translator) demands(namespace string) (demands, bool) {
	d := demands{byType: map[string]string{}, rest: "all"}
	for _, o := range t.of(KindPolicy, namespace) {
		var spec policySpec
		err := strict(o.Spec, &spec)
		kind := spec.Type
		if kind == "" { // v1alpha1 had it in the name
			kind = o.Name
		}
		var parameters configPolicyParameters
		switch {
		case err != nil:
		case kind == "rego-policy" || kind == "regopolicy":
			err = errors.New("a rego-policy is not carried over")
		case kind != "config-policy" && kind != "configpolicy" && kind != "ratify-policy":
			err = errors.New("policy type " + kind + " is not there")
		default:
			err = strict(spec.Parameters, &parameters)
		}
		for artifactType, want := range parameters.ArtifactVerificationPolicies {
			switch {
			case want != "any" && want != "all":
				err = fmt.Errorf("%s: %q is neither any nor all", artifactType, want)
			case artifactType == "default":
				d.rest = want
			case artifactType != notationType && artifactType != cosignType:
				err = fmt.Errorf("artifacts of the type %s are not verified here", artifactType)
			default:
				d.byType[artifactType] = want
			}
		}
		if err != nil {
			t.note(o, true, err.Error(), "Write a ClusterTrustPolicy that says what must hold")
			return demands{}, false
		}
	}
	return d, true
}

func (d demands) wants(artifactType string) bool { return d.byType[artifactType] != "" }

func (d demands) of(artifactType string, check api.Check) Part {
	want, named := d.byType[artifactType]
	return Part{Check: check, Required: named, Each: cmp.Or(want, d.rest) == "all"}
}
