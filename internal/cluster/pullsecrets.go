package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// PullSecrets reads pull secrets and ServiceAccounts of any namespace, each when it
// is asked for, so that it needs the verb get and no list, and keeps none. It
// implements auth.PodReader. Safe for concurrent use.
type PullSecrets struct{ api client.Reader }

// NewPullSecrets asks nobody yet.
func NewPullSecrets(config *rest.Config) (*PullSecrets, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper(nil) // what is known need not be discovered
	for _, kind := range []string{"Secret", "ServiceAccount"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	api, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return &PullSecrets{api}, nil
}

// PullSecret implements auth.PodReader. A Secret of another type is none: what it
// holds is nobody's credential for a registry.
func (p *PullSecrets) PullSecret(ctx context.Context, namespace, name string) ([]byte, error) {
	var secret corev1.Secret
	if err := p.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &secret); err != nil {
		return nil, readError(err)
	}
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		return secret.Data[corev1.DockerConfigJsonKey], nil
	case corev1.SecretTypeDockercfg: // the older form: the entries alone
		return json.Marshal(map[string]json.RawMessage{"auths": secret.Data[corev1.DockerConfigKey]})
	}
	return nil, fs.ErrNotExist
}

// PullSecretNames implements auth.PodReader.
func (p *PullSecrets) PullSecretNames(ctx context.Context, namespace, serviceAccount string) ([]string, error) {
	var account corev1.ServiceAccount
	if err := p.api.Get(ctx, client.ObjectKey{Namespace: namespace, Name: serviceAccount}, &account); err != nil {
		return nil, readError(err)
	}
	names := make([]string, len(account.ImagePullSecrets))
	for i, reference := range account.ImagePullSecrets {
		names[i] = reference.Name
	}
	return names, nil
}
