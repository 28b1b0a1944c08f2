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
	// Auth is how to sign in; anonymous when absent.
	Auth *RegistryAuth `json:"auth,omitempty"`
	// TokenHosts are other hosts to which the registry may send us for a token,
	// as a GitLab of one's own does. The credential is shown to them as well.
	TokenHosts []string `json:"tokenHosts,omitempty"`
}

// RegistryAuth is how to sign in to a registry: exactly one of its fields.
// Cloud identities and Kubernetes pull secrets are further fields of this
// choice.
type RegistryAuth struct {
	// Anonymous does not sign in.
	Anonymous *Anonymous `json:"anonymous,omitempty" union:"auth"`
	// DockerConfig takes the credential from a Docker configuration file,
	// credential helpers included.
	DockerConfig *DockerConfig `json:"dockerConfig,omitempty" union:"auth"`
	// Static is a credential that does not change by itself.
	Static *StaticCredential `json:"static,omitempty" union:"auth"`
}

// Anonymous has no settings.
type Anonymous struct{}

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

// DataSource is where some bytes are: exactly one of its fields. A Secret's key
// is a further field of this choice.
type DataSource struct {
	// Inline are the bytes themselves.
	Inline string `json:"inline,omitempty" union:"source"`
	// File is the path of a file that holds them; a line break at its end does
	// not count. A relative path starts at the document's own directory.
	File string `json:"file,omitempty" union:"source"`
}
