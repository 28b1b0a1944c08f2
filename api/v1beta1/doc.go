// Package v1beta1 is the documents that people write: ClusterTrustPolicy,
// TrustPolicy and Exemption of the API group countersign.dev, the same in a
// cluster and in a file. Doc comments are what `kubectl explain` shows.
//
// It holds sources of trust ("the certificates in this file"), never resolved
// material, and no logic: internal/config decodes, checks and compiles.
//
// Three rules keep a typo from widening trust, even where a client or the API
// server drops unknown fields silently. A field that narrows trust is required
// or an explicit enum. An optional field can only widen trust, be stricter
// when absent, or not touch it. A choice is one non-nil field of a struct,
// never a type name beside free-form parameters.
//
// The schema is read from the types: a field without omitempty is required;
// the fields that share a `union` tag are a choice of exactly one; a type with
// a Values method is an enum.
package v1beta1

const (
	// Group is the API group.
	Group = "countersign.dev"
	// APIVersion is what a document says in apiVersion.
	APIVersion = Group + "/v1beta1"

	// KindClusterTrustPolicy is the kind of a ClusterTrustPolicy.
	KindClusterTrustPolicy = "ClusterTrustPolicy"
	// KindTrustPolicy is the kind of a TrustPolicy.
	KindTrustPolicy = "TrustPolicy"
	// KindExemption is the kind of an Exemption.
	KindExemption = "Exemption"
)
