package watch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/rest"

	"github.com/countersign-dev/countersign/internal/cache"
)

const (
	// accessTTL is how long what a token may see is believed.
	accessTTL = time.Minute
	// accessBytes bounds what is remembered of tokens, and viewerSize is what one
	// weighs: namespaces have names of 63 bytes at most.
	accessBytes, viewerSize = 16 << 20, 64 << 10
	// maxToken bounds a token: of a service account it has some kilobytes.
	maxToken = 16 << 10
	// maxReview bounds an answer of the API server.
	maxReview = 64 << 10
	// accessParallel is how many questions about one token are under way.
	accessParallel = 8
)

// ErrAnonymous is that nobody is behind a token.
var ErrAnonymous = errors.New("the API server does not know this token")

// Access finds out what whoever shows a token may see: the namespaces in which they
// may list pods. It asks the API server with that very token, so that it needs no
// rights of its own. Safe for concurrent use.
type Access struct {
	url    string
	client *http.Client
	known  *cache.Cache[*viewer]
}

// viewer is who shows a token.
type viewer struct {
	token      string
	everywhere bool

	mu         sync.Mutex // guards all below
	namespaces map[string]bool
}

// NewAccess asks nobody yet.
func NewAccess(config *rest.Config) (*Access, error) {
	anonymous := rest.AnonymousClientConfig(config) // its own credentials vouch for nobody else
	client, err := rest.HTTPClientFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	client.Timeout = 10 * time.Second
	base, _, err := rest.DefaultServerUrlFor(anonymous)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return &Access{strings.TrimSuffix(base.String(), "/") + "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", client, cache.New[*viewer](accessBytes)}, nil
}

// Allowed gives which of the namespaces the token's holder may see. It is
// ErrAnonymous where there is no holder.
func (a *Access) Allowed(ctx context.Context, token string, namespaces []string) (func(string) bool, error) {
	if token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
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
	v := &viewer{token: token, namespaces: map[string]bool{}}
	var err error
	if v.everywhere, err = a.listsPods(ctx, v, ""); err != nil {
		return nil, err
	}
	a.known.Put(key, v, viewerSize, time.Now().Add(accessTTL))
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

// listsPods asks on behalf of who shows the token (Kubernetes, SelfSubjectAccessReview).
func (a *Access) listsPods(ctx context.Context, v *viewer, namespace string) (bool, error) {
	review := authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Version: "v1", Resource: "pods"},
	}}
	review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
	body, err := json.Marshal(review)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body)) //nolint:gosec // G704: the API server, as the operator says where it is
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+v.token)
	resp, err := a.client.Do(req) //nolint:gosec // G704: the same
	if err != nil {
		return false, fmt.Errorf("ask the API server who may list pods: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReview))
	switch {
	case err != nil:
		return false, fmt.Errorf("ask the API server who may list pods: %w", err)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return false, ErrAnonymous // whom it knows it lets ask about themselves
	case resp.StatusCode != http.StatusCreated:
		return false, fmt.Errorf("ask the API server who may list pods: it answered %d", resp.StatusCode)
	}
	var reviewed authorizationv1.SelfSubjectAccessReview
	if err := json.Unmarshal(answer, &reviewed); err != nil {
		return false, fmt.Errorf("ask the API server who may list pods: %w", err)
	}
	return reviewed.Status.Allowed && !reviewed.Status.Denied, nil
}
