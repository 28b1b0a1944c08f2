package v1beta1

// MaxDigests is how many digests one Exemption has.
const MaxDigests = 128

// Exemption admits images without verification for a while, in some
// namespaces, whatever policies say. Such images are reported as EXEMPT.
type Exemption struct {
	TypeMeta `json:",inline"`
	Metadata ObjectMeta    `json:"metadata"`
	Spec     ExemptionSpec `json:"spec"`
}

// ExemptionSpec is what an Exemption says: images by exactly one of images and
// digests, where, why, whose decision it was and until when.
type ExemptionSpec struct {
	// Images are patterns of repositories as policies have them. They are tried
	// before anything is asked of a registry.
	Images []string `json:"images,omitempty" union:"subject"`
	// Digests of images, as sha256:…, in whatever repository. An image that is
	// asked for by its tag is looked up first, as the policy that matches it
	// says; without such a policy it is not exempt.
	Digests []string `json:"digests,omitempty" union:"subject"`
	// Namespaces in which the exemption applies: names, or patterns in which *
	// stands for any characters. An image that is asked about without a
	// namespace is exempt only with "*".
	Namespaces []string `json:"namespaces"`
	// Reason why; shown in every answer.
	Reason string `json:"reason"`
	// Owner is who decided so and is to be asked.
	Owner string `json:"owner"`
	// ExpiresAt is when the exemption ends, as 2026-12-31T18:00:00Z.
	ExpiresAt Time `json:"expiresAt"`
}

// Time is a moment as RFC 3339 writes it, with seconds and an offset.
type Time string
