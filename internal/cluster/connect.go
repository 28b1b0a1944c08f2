package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// namespaceFile is where a pod finds its own namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Config says how the API server is reached.
type Config = rest.Config

// Connect says how the API server is reached: as the kubeconfig file says, or as
// the pod's ServiceAccount where there is none.
func Connect(kubeconfig string) (*Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return config, nil
}

// Namespace is the pod's own.
func Namespace() (string, error) {
	text, err := os.ReadFile(namespaceFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New("not in a pod: say with --pod-namespace which namespace is the provider's")
	}
	return strings.TrimSpace(string(text)), err
}

// ConnectAsUser says how the API server is reached as kubectl reaches it: by the
// file, or else by KUBECONFIG, ~/.kube/config or the pod's ServiceAccount.
func ConnectAsUser(kubeconfig string) (*Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return config, nil
}
