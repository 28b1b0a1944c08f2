package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// podSecretsTTL is how old what is known of a pod's pull secrets may be, and
	// podSecretsMaxAge how old while the API server cannot be asked.
	podSecretsTTL, podSecretsMaxAge = time.Minute, time.Hour
	// podSecretsBudget ends the reading of them.
	podSecretsBudget = 5 * time.Second
	// maxPodSecrets is how many pull secrets a pod and its ServiceAccount may have.
	maxPodSecrets = 16
	// maxPodBytes bounds what is remembered of all pods.
	maxPodBytes = 32 << 20
)

// PodReader reads what the pods of a cluster are pulled with. What does not exist
// is fs.ErrNotExist, and what may not be read fs.ErrPermission. Safe for concurrent
// use.
type PodReader interface {
	// PullSecret gives the docker configuration of a Secret.
	PullSecret(ctx context.Context, namespace, name string) ([]byte, error)
	// PullSecretNames are the imagePullSecrets of a ServiceAccount.
	PullSecretNames(ctx context.Context, namespace, serviceAccount string) ([]string, error)
}

// Pod says whose pull secrets count.
type Pod struct {
	Namespace, ServiceAccount string
	// Secrets are the names of the pod's own, in their order.
	Secrets []string
}

// Pods turns the pull secrets of pods into credentials. Safe for concurrent use.
type Pods struct {
	reader  PodReader
	known   *cache.Cache[podSecrets]
	flights flight.Group[podSecrets]
}

type podSecrets struct {
	secrets []*PullSecret
	until   time.Time
}

// NewPods asks nobody yet.
func NewPods(reader PodReader) *Pods {
	return &Pods{reader: reader, known: cache.New[podSecrets](maxPodBytes)}
}

// PodSecrets is the credential of a pod: what the first of its pull secrets, and
// after them of its ServiceAccount's, has that knows the host. Safe for concurrent
// use.
type PodSecrets struct {
	pods *Pods
	pod  Pod
	id   string
}

// Of gives the credential of a pod. A nil Pods gives one that says that nobody reads
// pull secrets.
func (p *Pods) Of(pod Pod) *PodSecrets {
	return &PodSecrets{p, pod, fmt.Sprintf("pod %q %q %q", pod.Namespace, pod.ServiceAccount, pod.Secrets)}
}

// ID is the same for pods of one namespace with the same names.
func (s *PodSecrets) ID() string { return s.id }

// Credential gives what the pod's secrets have for the host. A host that they do
// not know is anonymous. The error is a *verifier.Error.
func (s *PodSecrets) Credential(ctx context.Context, host string) (Credential, error) {
	switch {
	case s.pods == nil:
		return Credential{}, unusable("the pull secrets of pods are not read here",
			"Start the provider with --pod-pull-secrets, which the chart does for rbac.podPullSecrets", nil)
	case s.unnamed():
		return Credential{}, nil
	}
	secrets, err := s.pods.read(ctx, s.pod, s.id)
	if err != nil {
		return Credential{}, err
	}
	for _, secret := range secrets {
		credential, err := secret.Credential(ctx, host)
		if err != nil {
			return Credential{}, unusable(fmt.Sprintf("a pull secret in namespace %s is malformed", s.pod.Namespace), "Make it with kubectl create secret docker-registry", err)
		}
		if !credential.Anonymous() {
			return credential, nil
		}
	}
	return Credential{}, nil
}

// unnamed reports whether nobody said which pull secrets.
func (s *PodSecrets) unnamed() bool { return s.pod.ServiceAccount == "" && len(s.pod.Secrets) == 0 }

// Refused forgets what is known of the pod's secrets: perhaps they have changed.
func (s *PodSecrets) Refused(_ string, refused Credential) bool {
	if s.pods != nil {
		s.pods.known.Delete(s.id)
	}
	return !refused.Anonymous()
}

// Grant is how a pod is let read the registry.
func (s *PodSecrets) Grant(host string) string {
	if s.unnamed() {
		return "Nobody said which pull secrets count: set podPullSecrets in the constraint"
	}
	return fmt.Sprintf("Let a pull secret of namespace %s read %s: kubectl create secret docker-registry --namespace %s --docker-server %s", s.pod.Namespace, host, s.pod.Namespace, host)
}

// read gives the pod's secrets as they were a minute ago at most, or an hour while
// the API server is away.
func (p *Pods) read(ctx context.Context, pod Pod, key string) ([]*PullSecret, error) {
	known, ok := p.known.Get(key)
	if ok && time.Now().Before(known.until) {
		return known.secrets, nil
	}
	fresh, err := p.flights.Do(ctx, key, podSecretsBudget, func(ctx context.Context) (podSecrets, error) {
		secrets, size, err := p.ask(ctx, pod)
		if err != nil {
			return podSecrets{}, err
		}
		now := time.Now()
		fresh := podSecrets{secrets, now.Add(podSecretsTTL)}
		p.known.Put(key, fresh, size, now.Add(podSecretsMaxAge))
		return fresh, nil
	})
	switch {
	case err == nil:
		return fresh.secrets, nil
	case ok && !errors.Is(err, fs.ErrPermission):
		return known.secrets, nil
	}
	return nil, unreadable(pod, err)
}

// ask reads the secrets in the order in which they count. One that does not exist
// is passed over, as the kubelet does.
func (p *Pods) ask(ctx context.Context, pod Pod) (secrets []*PullSecret, size int64, err error) {
	names := pod.Secrets
	if pod.ServiceAccount != "" {
		further, err := p.reader.PullSecretNames(ctx, pod.Namespace, pod.ServiceAccount)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("ServiceAccount %s: %w", pod.ServiceAccount, err)
		}
		names = slices.Concat(names, further)
	}
	var seen []string
	for _, name := range names {
		if slices.Contains(seen, name) {
			continue
		}
		if seen = append(seen, name); len(seen) > maxPodSecrets {
			return nil, 0, &verifier.Error{Reason: verifier.ReasonLimitExceeded, Message: fmt.Sprintf("the pod and its ServiceAccount %s have more than %d pull secrets", pod.ServiceAccount, maxPodSecrets),
				Remedy: "Put the credentials into one Secret"}
		}
		data, err := p.reader.PullSecret(ctx, pod.Namespace, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("the pull secret %s: %w", name, err)
		}
		secret, err := NewPullSecret(data)
		if err != nil {
			return nil, 0, unusable(fmt.Sprintf("the pull secret %s in namespace %s is %s", name, pod.Namespace, err), "Make it with kubectl create secret docker-registry", nil)
		}
		secrets, size = append(secrets, secret), size+int64(len(data))
	}
	return secrets, size, nil
}

func unreadable(pod Pod, err error) *verifier.Error {
	var known *verifier.Error
	if errors.As(err, &known) {
		return known
	}
	e := unusable(fmt.Sprintf("the pull secrets of namespace %s cannot be read", pod.Namespace), "Try again; look whether the API server answers", err)
	if errors.Is(err, fs.ErrPermission) {
		what, _, _ := strings.Cut(err.Error(), ":")
		e.Message = what + " in namespace " + pod.Namespace + " may not be read"
		e.Remedy = "Name the namespace in the chart's rbac.podPullSecrets"
	}
	return e
}
