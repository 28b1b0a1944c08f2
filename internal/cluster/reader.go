package cluster

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/config"
)

// AllNamespaces stands for them in the list of those whose Secrets and
// ConfigMaps the provider may read.
const AllNamespaces = "*"

// Reader reads the Secrets and ConfigMaps that policies refer to, as its cache
// has them. Safe for concurrent use.
type Reader struct {
	namespace  string
	namespaces []string

	mu    sync.Mutex // guards all below
	cache client.Reader
	asked map[config.Object]bool
}

// NewReader makes a Reader for the provider's own namespace and others, which
// may be AllNamespaces. It finds nothing before a Cluster runs with it.
func NewReader(namespace string, others []string) *Reader {
	return &Reader{namespace: namespace, namespaces: append([]string{namespace}, others...), asked: map[config.Object]bool{}}
}

// Namespace is the provider's own.
func (r *Reader) Namespace() string { return r.namespace }

// ReadObject implements config.ObjectReader.
func (r *Reader) ReadObject(name config.Object) (map[string][]byte, error) {
	if !slices.Contains(r.namespaces, name.Namespace) && !slices.Contains(r.namespaces, AllNamespaces) {
		return nil, fs.ErrPermission
	}
	r.mu.Lock()
	from := r.cache
	r.asked[name] = true
	r.mu.Unlock()
	if from == nil {
		return nil, errors.New("the cluster was not read yet")
	}
	key := client.ObjectKey{Namespace: name.Namespace, Name: name.Name}
	// The cache asks nobody, so there is nothing to wait for.
	ctx := context.Background()
	if name.Kind == config.KindSecret {
		var secret corev1.Secret
		err := from.Get(ctx, key, &secret)
		return secret.Data, readError(err)
	}
	var configMap corev1.ConfigMap
	if err := from.Get(ctx, key, &configMap); err != nil {
		return nil, readError(err)
	}
	data := make(map[string][]byte, len(configMap.Data)+len(configMap.BinaryData))
	for key, text := range configMap.Data {
		data[key] = []byte(text)
	}
	for key, bytes := range configMap.BinaryData {
		data[key] = bytes
	}
	return data, nil
}

func readError(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return fs.ErrNotExist
	case apierrors.IsForbidden(err):
		return fs.ErrPermission
	}
	return err
}

// follow reads from another cache from now on.
func (r *Reader) follow(cache client.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache = cache
}

// refers reports whether anybody asked for the object.
func (r *Reader) refers(object client.Object) bool {
	name := config.Object{Kind: config.KindConfigMap, Namespace: object.GetNamespace(), Name: object.GetName()}
	if _, secret := object.(*corev1.Secret); secret {
		name.Kind = config.KindSecret
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[name]
}

// scope is what the caches of Secrets and ConfigMaps hold.
func (r *Reader) scope() cache.ByObject {
	if slices.Contains(r.namespaces, AllNamespaces) {
		return cache.ByObject{}
	}
	scope := cache.ByObject{Namespaces: map[string]cache.Config{}}
	for _, namespace := range r.namespaces {
		scope.Namespaces[namespace] = cache.Config{}
	}
	return scope
}
