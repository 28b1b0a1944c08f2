package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// PullSecret has the credentials of a Secret of the type
// kubernetes.io/dockerconfigjson. Safe for concurrent use.
type PullSecret struct {
	config dockerConfig
	id     string
}

// NewPullSecret reads the Secret's configuration. One that names credential
// helpers is an error: whoever may write a Secret must not choose what we run.
func NewPullSecret(data []byte) (*PullSecret, error) {
	config, err := parseDockerConfig(data)
	switch {
	case err != nil:
		return nil, err
	case config.CredsStore != "" || len(config.CredHelpers) > 0:
		return nil, errors.New("credential helpers do not run for a Secret")
	}
	sum := sha256.Sum256(data)
	return &PullSecret{config, "pull secret " + hex.EncodeToString(sum[:])}, nil
}

// Credential gives what the Secret has for the host. A host that it does not
// know is anonymous.
func (s *PullSecret) Credential(_ context.Context, host string) (Credential, error) {
	credential, err := s.config.credential(host)
	if err != nil {
		return Credential{}, fmt.Errorf("pull secret: %w", err)
	}
	return credential, nil
}

// ID differs between two Secrets, as Static.ID does. Not for logs.
func (s *PullSecret) ID() string { return s.id }
