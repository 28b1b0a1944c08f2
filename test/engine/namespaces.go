package engine

import (
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// namespaces are those that a request may name; each exists, with the label that
// the API server gives it and those that were set.
type namespaces struct {
	mu     sync.Mutex
	labels map[string]map[string]string
}

// SetNamespace gives a namespace its labels.
func (e *Engine) SetNamespace(name string, labels map[string]string) {
	e.namespaces.mu.Lock()
	defer e.namespaces.mu.Unlock()
	if e.namespaces.labels == nil {
		e.namespaces.labels = map[string]map[string]string{}
	}
	e.namespaces.labels[name] = labels
}

// get is nil for "", as in a request for an object without a namespace.
func (n *namespaces) get(name string) *corev1.Namespace {
	if name == "" {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	namespace := &corev1.Namespace{}
	namespace.Name = name
	namespace.Labels = map[string]string{"kubernetes.io/metadata.name": name}
	maps.Copy(namespace.Labels, n.labels[name])
	return namespace
}
