package v1beta1

// TypeMeta says what a document is.
type TypeMeta struct {
	// APIVersion is countersign.dev/v1beta1.
	APIVersion string `json:"apiVersion"`
	// Kind is ClusterTrustPolicy, TrustPolicy or Exemption.
	Kind string `json:"kind"`
}

// ObjectMeta is the part of Kubernetes' object metadata that a person writes.
// It is not k8s.io/apimachinery's: that would be the only use of a large module
// here, and would take what only the API server writes (uid, managedFields)
// for something that a file may say.
type ObjectMeta struct {
	// Name of the document; shown in every answer that it gives.
	Name string `json:"name"`
	// Namespace in which a TrustPolicy applies. The other kinds have none.
	Namespace string `json:"namespace,omitempty"`
	// Labels are not read by Countersign.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are not read by Countersign.
	Annotations map[string]string `json:"annotations,omitempty"`
}
