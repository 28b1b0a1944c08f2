package v1beta1

// CloudIdentity is who asks Amazon, Google or Alibaba: one of its fields. The identities
// that are a pod's are the provider's own, so that a TrustPolicy of a cluster has
// none of them.
type CloudIdentity struct {
	// AWSWorkloadIdentity is what the pod's ServiceAccount is to AWS: by EKS Pod
	// Identity, or by IAM roles for service accounts.
	AWSWorkloadIdentity *AWSWorkloadIdentity `json:"awsWorkloadIdentity,omitempty" union:"auth"`
	// AWSAccessKey is a user of AWS.
	AWSAccessKey *AWSAccessKey `json:"awsAccessKey,omitempty" union:"auth"`
	// GoogleWorkloadIdentity is what the pod's ServiceAccount is to Google Cloud, or
	// its node.
	GoogleWorkloadIdentity *GoogleWorkloadIdentity `json:"googleWorkloadIdentity,omitempty" union:"auth"`
	// GoogleServiceAccount is a service account of Google Cloud by its key.
	GoogleServiceAccount *GoogleServiceAccount `json:"googleServiceAccount,omitempty" union:"auth"`
	// AlibabaWorkloadIdentity is what the pod's ServiceAccount is to Alibaba Cloud, by
	// RAM roles for service accounts (RRSA).
	AlibabaWorkloadIdentity *AlibabaWorkloadIdentity `json:"alibabaWorkloadIdentity,omitempty" union:"auth"`
	// AlibabaAccessKey is a user of Alibaba Cloud.
	AlibabaAccessKey *AlibabaAccessKey `json:"alibabaAccessKey,omitempty" union:"auth"`
}

// AWSWorkloadIdentity is an identity of AWS that the pod has.
type AWSWorkloadIdentity struct {
	// RoleARN is the role that the ServiceAccount becomes; AWS_ROLE_ARN, which EKS
	// sets in the pod, when absent.
	RoleARN string `json:"roleARN,omitempty"`
}

// AWSAccessKey is an access key of a user of AWS.
type AWSAccessKey struct {
	// AccessKeyID of the key.
	AccessKeyID string `json:"accessKeyID"`
	// SecretAccessKey of the key.
	SecretAccessKey *DataSource `json:"secretAccessKey"`
}

// GoogleWorkloadIdentity has no settings.
type GoogleWorkloadIdentity struct{}

// GoogleServiceAccount is a service account of Google Cloud.
type GoogleServiceAccount struct {
	// Key of the account, as gcloud iam service-accounts keys create writes it.
	Key *DataSource `json:"key"`
}

// AlibabaWorkloadIdentity is an identity of Alibaba Cloud that the pod has.
type AlibabaWorkloadIdentity struct {
	// InstanceID of the registry, as cri-….
	InstanceID string `json:"instanceID"`
}

// AlibabaAccessKey is an access key of a user of Alibaba Cloud.
type AlibabaAccessKey struct {
	// InstanceID of the registry, as cri-….
	InstanceID string `json:"instanceID"`
	// AccessKeyID of the key.
	AccessKeyID string `json:"accessKeyID"`
	// AccessKeySecret of the key.
	AccessKeySecret *DataSource `json:"accessKeySecret"`
}
