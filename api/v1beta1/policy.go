package v1beta1

// Limits of a policy. They bound what one document can make the provider hold
// and do, and what CEL validation of the object may cost the API server.
const (
	// MaxImages is how many patterns one policy has: a pattern covers a registry
	// or a team, and a list that people can still read ends before.
	MaxImages = 128
	// MaxPattern is how long a pattern is: a host and a repository name of 255
	// bytes each, the most that a reference can carry.
	MaxPattern = 512
	// MaxNamespaces is how many names and patterns of namespaces one policy has.
	MaxNamespaces = 128
	// MaxTokenHosts is how many token endpoints one registry has beside itself.
	MaxTokenHosts = 8
	// MaxRegistries is how many hosts one policy has options for.
	MaxRegistries = 32
	// MaxPrivateHosts is how many further hosts at private addresses one policy has:
	// the mirrors and revocation servers of one organization.
	MaxPrivateHosts = 32
	// MaxOwner keeps the owner's place in a denial of 240 bytes.
	MaxOwner = 64
	// MaxHelpURL keeps the link's place in a denial of 240 bytes.
	MaxHelpURL = 128
)

// ClusterTrustPolicy says what must hold for images before they run, in all
// namespaces or in those it names. The most specific pattern wins; an image
// that no ClusterTrustPolicy matches is refused.
type ClusterTrustPolicy struct {
	TypeMeta `json:",inline"`
	Metadata ObjectMeta             `json:"metadata"`
	Spec     ClusterTrustPolicySpec `json:"spec"`
}

// ClusterTrustPolicySpec is what a ClusterTrustPolicy says.
type ClusterTrustPolicySpec struct {
	PolicySpec `json:",inline"`
	// Namespaces in which the policy applies: names, or patterns in which *
	// stands for any characters. All namespaces when absent. Between policies
	// whose patterns are equally specific, one that names the namespace goes
	// before one that names none. An image that is asked about without a
	// namespace must satisfy every policy that could apply to it.
	Namespaces []string `json:"namespaces,omitempty"`
	// Delegate lets a TrustPolicy in an image's namespace replace this policy,
	// registries included. Otherwise a TrustPolicy can only add to it.
	Delegate bool `json:"delegate,omitempty"`
	// PrivateHosts are further hosts that are dialled at private addresses, for this
	// policy and for the TrustPolicies that add to it or replace it: registries and
	// mirrors, and the CRL and OCSP servers that certificates of a TrustPolicy name.
	// Each is exact, with its port unless that is the scheme's own. What registries
	// lists need not be here. A TrustPolicy reaches no other private address.
	PrivateHosts []string `json:"privateHosts,omitempty"`
}

// TrustPolicy says what must hold for images in its own namespace, beside what
// the ClusterTrustPolicy that matches the image says; or in its place, where
// that one delegates. Without a matching ClusterTrustPolicy it allows nothing.
type TrustPolicy struct {
	TypeMeta `json:",inline"`
	Metadata ObjectMeta `json:"metadata"`
	Spec     PolicySpec `json:"spec"`
}

// PolicySpec is what both kinds say.
type PolicySpec struct {
	// Images that the policy is about: patterns of repositories, without tag or
	// digest, anchored at both ends. Host and path are matched apart. In the
	// path, * stands for any characters within a segment and ** for one or more
	// whole segments; in the host, * stays within a label, and ** stands for
	// one or more labels. Docker Hub is docker.io, its official images are
	// docker.io/library/….
	Images []string `json:"images"`
	// Owner is whom to ask; shown in denials.
	Owner string `json:"owner,omitempty"`
	// HelpURL is where to read on; shown in denials.
	HelpURL string `json:"helpURL,omitempty"`
	// Mode says what the policy's answer is worth: enforce, the default, or
	// audit, which admits every image as EXEMPT and says what would have been.
	Mode Mode `json:"mode,omitempty"`
	// WhenUndecided says what happens to an image whose registry is away, as no
	// connection to it succeeds: deny, the default, or allow. Allow needs a literal
	// host in every pattern. Nothing else that is undecided is ever allowed.
	WhenUndecided WhenUndecided `json:"whenUndecided,omitempty"`
	// Registries are options and credentials by exact host. A host that is not
	// listed is asked anonymously, over TLS, with the system's roots. The ones of
	// a TrustPolicy count only where the ClusterTrustPolicy delegates.
	Registries []Registry `json:"registries,omitempty"`
	// KeyVaults are options of Azure Key Vaults by exact URI. One that is not
	// listed is asked with the pod's workload identity, every 5 minutes.
	KeyVaults []KeyVault `json:"keyVaults,omitempty"`
	// Require is what must hold.
	Require Rule `json:"require"`
}

// Mode is what a policy's answer is worth.
type Mode string

// The values of Mode.
const (
	ModeEnforce Mode = "enforce"
	ModeAudit   Mode = "audit"
)

// Values lists what may be written.
func (Mode) Values() []string { return []string{string(ModeEnforce), string(ModeAudit)} }

// WhenUndecided is what happens to an image whose registry is away.
type WhenUndecided string

// The values of WhenUndecided.
const (
	WhenUndecidedDeny  WhenUndecided = "deny"
	WhenUndecidedAllow WhenUndecided = "allow"
)

// Values lists what may be written.
func (WhenUndecided) Values() []string {
	return []string{string(WhenUndecidedDeny), string(WhenUndecidedAllow)}
}
