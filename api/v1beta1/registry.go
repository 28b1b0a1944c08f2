package v1beta1

// Registry is how one registry is reached, by exact host.
type Registry struct {
	// Host as in image references, with its port unless that is 443. No pattern:
	// a credential goes to the host that is written here and to no other.
	Host string `json:"host"`
	// PlainHTTP asks without TLS.
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// CA is trusted for this host, in place of the system's roots.
	CA *DataSource `json:"ca,omitempty"`
	// ClientCertificate is shown to this host, and to no other, where it asks for one.
	ClientCertificate *ClientCertificate `json:"clientCertificate,omitempty"`
	// Mirror is asked in the place of this host, for everything: a host, with its
	// port unless that is 443, and what goes before the repository there. How it is
	// asked is written in an entry of its own.
	Mirror string `json:"mirror,omitempty"`
	// Auth is how to sign in; anonymous when absent.
	Auth *RegistryAuth `json:"auth,omitempty"`
	// TokenHosts are other hosts to which the registry may send us for a token,
	// as a GitLab of one's own does. The credential is shown to them as well.
	TokenHosts []string `json:"tokenHosts,omitempty"`
	// RedirectHosts are other hosts to which the registry sends us for blobs, and
	// which are at private addresses. Public ones need not be listed, nor those of
	// Azure's registries. No credential is shown to them.
	RedirectHosts []string `json:"redirectHosts,omitempty"`
}

// RegistryAuth is how to sign in to a registry: exactly one of its fields.
type RegistryAuth struct {
	// Anonymous does not sign in.
	Anonymous *Anonymous `json:"anonymous,omitempty" union:"auth"`
	// DockerConfig takes the credential from a Docker configuration file,
	// credential helpers included.
	DockerConfig *DockerConfig `json:"dockerConfig,omitempty" union:"auth"`
	// PullSecret takes the credential from a Secret of the type
	// kubernetes.io/dockerconfigjson.
	PullSecret *ObjectReference `json:"pullSecret,omitempty" union:"auth"`
	// PodPullSecrets takes the credential from the pull secrets of the pod that is
	// asked about, and of its ServiceAccount.
	PodPullSecrets *PodPullSecrets `json:"podPullSecrets,omitempty" union:"auth"`
	// Static is a credential that does not change by itself.
	Static        *StaticCredential `json:"static,omitempty" union:"auth"`
	AzureIdentity `json:",inline"`
	CloudIdentity `json:",inline"`
}

// ClientCertificate is a certificate of ours with its key, in PEM.
type ClientCertificate struct {
	// Certificate, with those between it and its authority behind it.
	Certificate *DataSource `json:"certificate"`
	// Key of the certificate.
	Key *DataSource `json:"key"`
}

// Anonymous has no settings.
type Anonymous struct{}

// PodPullSecrets has no settings.
type PodPullSecrets struct{}

// DockerConfig is a Docker configuration file.
type DockerConfig struct {
	// Path of config.json. A relative path starts at the document's own
	// directory.
	Path string `json:"path"`
}

// StaticCredential is a username with a password, or a token alone.
type StaticCredential struct {
	// Username that goes with password.
	Username string `json:"username,omitempty"`
	// Password that goes with username.
	Password *DataSource `json:"password,omitempty" union:"secret"`
	// Token is sent as it is, as a bearer token.
	Token *DataSource `json:"token,omitempty" union:"secret"`
}

// DataSource is where some bytes are: exactly one of its fields.
type DataSource struct {
	// Inline are the bytes themselves.
	Inline string `json:"inline,omitempty" union:"source"`
	// File is the path of a file that holds them; a line break at its end does
	// not count. A relative path starts at the document's own directory; an
	// object of a cluster has none. A TrustPolicy of a cluster reads no files.
	File string `json:"file,omitempty" union:"source"`
	// Secret is a Secret that holds them under a key.
	Secret *KeyReference `json:"secret,omitempty" union:"source"`
	// ConfigMap is a ConfigMap that holds them under a key.
	ConfigMap *KeyReference `json:"configMap,omitempty" union:"source"`
}

// ObjectReference names a Secret or a ConfigMap.
type ObjectReference struct {
	// Name of the object.
	Name string `json:"name"`
	// Namespace of the object: the policy's own for a TrustPolicy, which reaches
	// no other, and the provider's for a ClusterTrustPolicy that names none.
	Namespace string `json:"namespace,omitempty"`
}

// KeyReference names a key of a Secret or a ConfigMap.
type KeyReference struct {
	ObjectReference `json:",inline"`
	// Key in the object's data.
	Key string `json:"key"`
}
