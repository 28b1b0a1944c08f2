package config

import (
	"fmt"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// podChainBytes bounds the Chains of single pods in a Snapshot, and podChainSize
	// is what one weighs with its view: thousands.
	podChainBytes, podChainSize = 16 << 20, 4 << 10
	// podChainTTL is for how long a Chain of a pod is kept.
	podChainTTL = time.Hour
)

// podViews makes a policy's views of the registries as single pods may ask them.
type podViews struct {
	env     Environment
	options store.ViewOptions
	scoped  []int // those of options.Registries that a pod's pull secrets count for
}

// of makes the view of a pod.
func (v *podViews) of(pod auth.Pod) (verifier.Store, error) {
	options := v.options
	options.Registries = slices.Clone(options.Registries)
	for _, i := range v.scoped {
		options.Registries[i].Credential = v.env.Pods.Of(pod)
	}
	return v.env.View(options)
}

// podChain gives the Chain of the policies for one pod, by the key of what it asks
// registries through: the same one as long as that is kept.
func (s *Snapshot) podChain(key string, judging []*policy, chosen selection, request verifier.Request, exempting []*policy) *verifier.Chain {
	pod := auth.Pod{Namespace: request.Namespace, ServiceAccount: request.ServiceAccount, Secrets: request.PullSecrets}
	key += fmt.Sprintf(" %q %q %q", pod.Namespace, pod.ServiceAccount, pod.Secrets)
	if known, ok := s.podChains.Get(key); ok {
		return known
	}
	reach := s.within(chosen.over, []*policy{chosen.reach})[0]
	from := reach.store
	if view, err := reach.pods.of(pod); err == nil { // the same options made a view before
		from = view
	}
	chain := s.newChain(s.within(chosen.over, judging), from, exempting)
	s.podChains.Put(key, chain, int64(podChainSize+len(key)), time.Now().Add(podChainTTL))
	return chain
}

func newPodChains() *cache.Cache[*verifier.Chain] {
	return cache.New[*verifier.Chain](podChainBytes)
}
