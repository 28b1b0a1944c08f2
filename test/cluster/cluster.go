// Package cluster runs a Kubernetes control plane and Gatekeeper as processes
// of this machine: etcd, kube-apiserver, kube-controller-manager and
// Gatekeeper's manager, each its own release, unchanged. There is no scheduler
// and no kubelet: Pods are created and never run.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/kubeyaml"
	"github.com/countersign-dev/countersign/test/pki"
)

// Tools are paths of the executables.
type Tools struct{ Etcd, APIServer, ControllerManager, Gatekeeper string }

// Cluster is a control plane. Its methods are for one test at a time.
type Cluster struct {
	// Config reaches the API server as administrator.
	Config *rest.Config
	// Client is a client of Config.
	Client client.Client
	// Warnings are what the API server told Client beside its answers.
	Warnings Warnings

	dir, etcdURL, serviceAccountKey        string
	tools                                  Tools
	apiserverArgs                          []string
	authority                              *pki.Authority
	etcd, apiserver, controllers, guardian *process
	gatekeeper                             gatekeeper
}

// Start runs a control plane that keeps its files in dir. Stop ends it.
func Start(ctx context.Context, dir string, tools Tools) (*Cluster, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	authority, err := pki.NewAuthority("kubernetes-ca")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, tools: tools, authority: authority}
	for _, step := range []func(context.Context) error{c.startEtcd, c.startAPIServer, c.newClient, c.startControllerManager} {
		if err := step(ctx); err != nil {
			c.Stop()
			return nil, err
		}
	}
	return c, nil
}

// AdminKubeconfig is a file that says how to reach the API server as administrator.
func (c *Cluster) AdminKubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// Stop ends all that runs.
func (c *Cluster) Stop() {
	for _, p := range []*process{c.guardian, c.controllers, c.apiserver, c.etcd} {
		p.stop()
	}
}

// Logs is the end of what Gatekeeper and the API server said.
func (c *Cluster) Logs() string {
	var out string
	for _, p := range []*process{c.apiserver, c.controllers, c.guardian} {
		if p != nil {
			out += fmt.Sprintf("--- %s\n%s\n", p.name, p.tail())
		}
	}
	return out
}

func (c *Cluster) newClient(context.Context) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), authenticationv1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), eventsv1.AddToScheme(scheme)); err != nil {
		return err
	}
	var err error
	c.Client, err = client.New(c.Config, client.Options{Scheme: scheme})
	return err
}

// Namespace makes a namespace in which Pods can be created.
func (c *Cluster) Namespace(ctx context.Context, name string, labels map[string]string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if err := c.Client.Create(ctx, namespace); err != nil {
		return err
	}
	return c.controllers.ready(ctx, func(ctx context.Context) error {
		_, err := c.defaultServiceAccount(ctx, name)
		return err
	})
}

func (c *Cluster) defaultServiceAccount(ctx context.Context, namespace string) (*corev1.ServiceAccount, error) {
	account := &corev1.ServiceAccount{}
	return account, c.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "default"}, account)
}

// Apply makes objects what they are here, by server-side apply. A kind that the
// API server does not know yet is an error; see Eventually.
func (c *Cluster) Apply(ctx context.Context, objects ...*unstructured.Unstructured) error {
	for _, object := range objects {
		sent := object.DeepCopy() // Apply writes the answer into it
		err := c.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(sent), client.FieldOwner("test"), client.ForceOwnership)
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// ApplyFile applies the objects of a YAML file.
func (c *Cluster) ApplyFile(ctx context.Context, path string) error {
	objects, err := kubeyaml.Read(path)
	if err != nil {
		return err
	}
	return c.Apply(ctx, objects...)
}

// Warnings collects warnings. It is safe for concurrent use.
type Warnings struct {
	mu   sync.Mutex
	said []string
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *Warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// Take gives the warnings since the last call.
func (w *Warnings) Take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.said
	w.said = nil
	return said
}
