package config

import (
	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
)

// chosenCloud reports which identity of Amazon, Google or Alibaba is chosen, by the name of
// its field, and whether it is the pod's own; empty: none.
func chosenCloud(c api.CloudIdentity) (field string, pods bool) {
	switch {
	case c.AWSWorkloadIdentity != nil:
		return "awsWorkloadIdentity", true
	case c.AWSAccessKey != nil:
		return "awsAccessKey", false
	case c.GoogleWorkloadIdentity != nil:
		return "googleWorkloadIdentity", true
	case c.GoogleServiceAccount != nil:
		return "googleServiceAccount", false
	case c.AlibabaWorkloadIdentity != nil:
		return "alibabaWorkloadIdentity", true
	case c.AlibabaAccessKey != nil:
		return "alibabaAccessKey", false
	}
	return "", false
}

// cloudRegistry holds an identity to hosts that are its cloud's.
func (v validator) cloudRegistry(path string, r api.Registry) {
	field, _ := chosenCloud(r.Auth.CloudIdentity)
	if field == "" {
		return
	}
	path += ".auth." + field
	if r.PlainHTTP {
		v.at(path, "there is no TLS with plainHTTP, and an identity is shown over nothing else", "Delete plainHTTP")
	}
	host := canonicalHost(r.Host)
	c := r.Auth.CloudIdentity
	switch {
	case (c.AWSWorkloadIdentity != nil || c.AWSAccessKey != nil) && !auth.IsECR(host):
		v.at(path, quote(r.Host)+" is not a registry of Amazon by its name", "Write the host as aws ecr describe-repositories does, or another way to sign in")
	case (c.GoogleWorkloadIdentity != nil || c.GoogleServiceAccount != nil) && !auth.IsGoogleRegistry(host):
		v.at(path, quote(r.Host)+" is not a registry of Google by its name", "Write the host as REGION-docker.pkg.dev, or another way to sign in")
	case (c.AlibabaWorkloadIdentity != nil || c.AlibabaAccessKey != nil) && !auth.IsAlibabaRegistry(host):
		v.at(path, quote(r.Host)+" is not a registry of Alibaba by its name", "Write the host as NAME-registry.REGION.cr.aliyuncs.com, or another way to sign in")
	}
	v.cloudFields(path, c)
}

// cloudFields checks what an identity has to say.
func (v validator) cloudFields(path string, c api.CloudIdentity) {
	if k := c.AWSAccessKey; k != nil {
		v.dataSource(path+".secretAccessKey", k.SecretAccessKey)
		if k.AccessKeyID == "" {
			v.empty(path + ".accessKeyID")
		}
	}
	if s := c.GoogleServiceAccount; s != nil {
		v.dataSource(path+".key", s.Key)
	}
	if i := c.AlibabaWorkloadIdentity; i != nil && i.InstanceID == "" {
		v.empty(path + ".instanceID")
	}
	if k := c.AlibabaAccessKey; k != nil {
		v.dataSource(path+".accessKeySecret", k.AccessKeySecret)
		if k.InstanceID == "" {
			v.empty(path + ".instanceID")
		}
		if k.AccessKeyID == "" {
			v.empty(path + ".accessKeyID")
		}
	}
}

// cloud reads the secrets of an identity, and refuses a tenant the provider's own.
func (g *gatherer) cloud(path string, c api.CloudIdentity) {
	field, pods := chosenCloud(c)
	if pods && g.doc.inCluster && g.doc.Kind == api.KindTrustPolicy {
		g.refuse(path+"."+field, "a TrustPolicy has no identity of the provider's", "Write a pullSecret, or a ClusterTrustPolicy with namespaces")
		return
	}
	if c.AWSAccessKey != nil {
		g.data(path+".awsAccessKey.secretAccessKey", c.AWSAccessKey.SecretAccessKey)
	}
	if c.GoogleServiceAccount != nil {
		g.data(path+".googleServiceAccount.key", c.GoogleServiceAccount.Key)
	}
	if c.AlibabaAccessKey != nil {
		g.data(path+".alibabaAccessKey.accessKeySecret", c.AlibabaAccessKey.AccessKeySecret)
	}
}

// cloudCredential is the identity's credential for its cloud's registries.
func (c *compiler) cloudCredential(path string, identity api.CloudIdentity) store.CredentialSource {
	clouds := c.env.Clouds
	if clouds == nil {
		c.problem(path, "the cloud cannot be asked here", "Use another way to sign in")
		return nil
	}
	switch {
	case identity.AWSWorkloadIdentity != nil:
		return clouds.AWS(auth.AWSIdentity{RoleARN: identity.AWSWorkloadIdentity.RoleARN})
	case identity.AWSAccessKey != nil:
		k := identity.AWSAccessKey
		return clouds.AWS(auth.AWSIdentity{AccessKeyID: k.AccessKeyID, SecretAccessKey: c.secret(path+".awsAccessKey.secretAccessKey", k.SecretAccessKey)})
	case identity.AlibabaWorkloadIdentity != nil:
		return clouds.Alibaba(auth.AlibabaIdentity{InstanceID: identity.AlibabaWorkloadIdentity.InstanceID})
	case identity.AlibabaAccessKey != nil:
		k := identity.AlibabaAccessKey
		return clouds.Alibaba(auth.AlibabaIdentity{InstanceID: k.InstanceID, AccessKeyID: k.AccessKeyID, AccessKeySecret: c.secret(path+".alibabaAccessKey.accessKeySecret", k.AccessKeySecret)})
	case identity.GoogleServiceAccount != nil:
		path += ".googleServiceAccount.key"
		source, err := clouds.GoogleKey([]byte(c.secret(path, identity.GoogleServiceAccount.Key)))
		if err != nil {
			c.problem(path, err.Error(), "Make it with gcloud iam service-accounts keys create")
			return nil
		}
		return source
	}
	return clouds.GoogleWorkload()
}
