package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/cache"
)

const (
	// accessTTL is how long what a token may see is believed.
	accessTTL = time.Minute
	// accessBytes bounds what is remembered of tokens.
	accessBytes = 4 << 20
	// maxToken bounds a token: of a service account it has some kilobytes.
	maxToken = 16 << 10
	// accessParallel is how many questions about one token are under way.
	accessParallel = 8
)

// ErrAnonymous is that nobody is behind a token.
var ErrAnonymous = errors.New("the API server does not know this token")

// Access finds out what whoever shows a token may see: the namespaces in which they
// may list pods, as the API server says. Safe for concurrent use.
type Access struct {
	api   client.Client
	known *cache.Cache[*viewer]
}

// viewer is who shows a token.
type viewer struct {
	attributes authorizationv1.SubjectAccessReviewSpec
	everywhere bool

	mu         sync.Mutex // guards all below
	namespaces map[string]bool
}

// NewAccess asks nobody yet.
func NewAccess(config *rest.Config) (*Access, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(authenticationv1.AddToScheme(scheme), authorizationv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper(nil) // what is known need not be discovered
	mapper.Add(authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), meta.RESTScopeRoot)
	mapper.Add(authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), meta.RESTScopeRoot)
	api, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return &Access{api, cache.New[*viewer](accessBytes)}, nil
}

// Allowed gives which of the namespaces the token's holder may see. It is
// ErrAnonymous where there is no holder.
func (a *Access) Allowed(ctx context.Context, token string, namespaces []string) (func(string) bool, error) {
	if token == "" || len(token) > maxToken {
		return nil, ErrAnonymous
	}
	v, err := a.viewer(ctx, token)
	if err != nil {
		return nil, err
	}
	if v.everywhere {
		return func(string) bool { return true }, nil
	}
	if err := a.ask(ctx, v, namespaces); err != nil {
		return nil, err
	}
	allowed := make(map[string]bool, len(namespaces))
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, namespace := range namespaces {
		allowed[namespace] = v.namespaces[namespace]
	}
	return func(namespace string) bool { return allowed[namespace] }, nil
}

func (a *Access) viewer(ctx context.Context, token string) (*viewer, error) {
	sum := sha256.Sum256([]byte(token))
	key := string(sum[:])
	if v, ok := a.known.Get(key); ok {
		return v, nil
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if err := a.api.Create(ctx, review); err != nil {
		return nil, fmt.Errorf("ask the API server about a token: %w", err)
	}
	if !review.Status.Authenticated {
		return nil, ErrAnonymous
	}
	user := review.Status.User
	v := &viewer{namespaces: map[string]bool{}, attributes: authorizationv1.SubjectAccessReviewSpec{User: user.Username, UID: user.UID, Groups: user.Groups}}
	if len(user.Extra) > 0 {
		v.attributes.Extra = map[string]authorizationv1.ExtraValue{}
		for name, values := range user.Extra {
			v.attributes.Extra[name] = authorizationv1.ExtraValue(values)
		}
	}
	var err error
	if v.everywhere, err = a.listsPods(ctx, v, ""); err != nil {
		return nil, err
	}
	a.known.Put(key, v, 4<<10, time.Now().Add(accessTTL))
	return v, nil
}

// ask finds out about the namespaces that are not known yet.
func (a *Access) ask(ctx context.Context, v *viewer, namespaces []string) error {
	var wait sync.WaitGroup
	places := make(chan struct{}, accessParallel)
	errs := make([]error, len(namespaces))
	for i, namespace := range namespaces {
		v.mu.Lock()
		_, known := v.namespaces[namespace]
		v.mu.Unlock()
		if known {
			continue
		}
		places <- struct{}{}
		wait.Go(func() {
			defer func() { <-places }()
			allowed, err := a.listsPods(ctx, v, namespace)
			if err != nil {
				errs[i] = err
				return
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			v.namespaces[namespace] = allowed
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

func (a *Access) listsPods(ctx context.Context, v *viewer, namespace string) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: v.attributes}
	review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Version: "v1", Resource: "pods"}
	if err := a.api.Create(ctx, review); err != nil {
		return false, fmt.Errorf("ask the API server who may list pods: %w", err)
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}
