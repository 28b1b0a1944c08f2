package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxConfigBytes bounds a docker configuration file. A Kubernetes secret holds
// at most 1 MiB.
const maxConfigBytes = 1 << 20

// dockerHub is the key that docker login writes for docker.io.
const dockerHub = "https://index.docker.io/v1/"

// DockerConfig reads credentials from a docker configuration file: auths,
// credHelpers and credsStore. The file is read again when it changed. Safe for
// concurrent use.
type DockerConfig struct {
	path string

	mu     sync.Mutex // guards all below
	read   os.FileInfo
	config dockerConfig
}

type dockerConfig struct {
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"` // base64 of username:password
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// NewDockerConfig is the file at path, often ~/.docker/config.json or a
// mounted secret of type kubernetes.io/dockerconfigjson. It need not exist yet.
func NewDockerConfig(path string) *DockerConfig { return &DockerConfig{path: path} }

// ID names the file.
func (d *DockerConfig) ID() string { return "docker config " + d.path }

// Credential gives what the file has for the host, asking a helper where it
// says so. A host that the file does not know is anonymous.
func (d *DockerConfig) Credential(ctx context.Context, host string) (Credential, error) {
	config, err := d.load()
	if err != nil {
		return Credential{}, fmt.Errorf("docker configuration %s: %w", d.path, err)
	}
	if helper, ok := lookup(config.CredHelpers, host); ok {
		return askHelper(ctx, helper, serverURL(host))
	}
	if config.CredsStore != "" {
		credential, err := askHelper(ctx, config.CredsStore, serverURL(host))
		if err != nil || !credential.Anonymous() {
			return credential, err
		}
	}
	credential, err := config.credential(host)
	if err != nil {
		return Credential{}, fmt.Errorf("docker configuration %s: %w", d.path, err)
	}
	return credential, nil
}

// credential is what auths has for the host; anonymous where it has nothing.
func (c dockerConfig) credential(host string) (Credential, error) {
	entry, ok := lookup(c.Auths, host)
	if !ok {
		return Credential{}, nil
	}
	credential, err := entry.credential()
	if err != nil {
		return Credential{}, fmt.Errorf("auths[%q]: %w", host, err)
	}
	return credential, nil
}

// load reads the file unless it is the one that was read last.
func (d *DockerConfig) load() (dockerConfig, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(d.path)
	if err != nil {
		return dockerConfig{}, err
	}
	if d.read != nil && os.SameFile(d.read, info) && d.read.ModTime().Equal(info.ModTime()) && d.read.Size() == info.Size() && settled(info) {
		return d.config, nil
	}
	file, err := os.Open(d.path)
	if err != nil {
		return dockerConfig{}, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err != nil {
		return dockerConfig{}, err
	}
	if len(data) > maxConfigBytes {
		return dockerConfig{}, errors.New("larger than 1 MiB")
	}
	config, err := parseDockerConfig(data)
	if err != nil {
		return dockerConfig{}, err
	}
	d.read, d.config = info, config
	return config, nil
}

func parseDockerConfig(data []byte) (dockerConfig, error) {
	var config dockerConfig
	if err := json.Unmarshal(data, &config); err != nil {
		return dockerConfig{}, errors.New("not JSON of the expected form") // the decoder's text may quote a secret
	}
	return config, nil
}

// settled reports whether the file is old enough that a change within the same
// tick of the file system's clock would show.
func settled(info os.FileInfo) bool { return time.Since(info.ModTime()) > time.Second }

func (a dockerAuth) credential() (Credential, error) {
	c := Credential{Username: a.Username, Password: a.Password, RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken}
	if a.Auth == "" {
		return c, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return Credential{}, errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(decoded), "\x00"), ":")
	if !ok {
		return Credential{}, errors.New("auth is not base64 of username:password")
	}
	c.Username, c.Password = user, password
	return c, nil
}

// lookup finds the entry of exactly this host. Old clients wrote hosts as
// URLs; a key with a path below the host is another matter (Podman's, for one
// repository) and never matches.
func lookup[V any](entries map[string]V, host string) (V, bool) {
	if v, ok := entries[host]; ok {
		return v, true
	}
	if host == "docker.io" {
		if v, ok := entries[dockerHub]; ok {
			return v, true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if keyHost(key) == host {
			return entries[key], true
		}
	}
	var none V
	return none, false
}

func keyHost(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(key), "https://"), "http://")
	for _, suffix := range []string{"/", "/v1", "/v2"} {
		key = strings.TrimSuffix(key, suffix)
	}
	key = strings.TrimSuffix(key, ":443")
	if key == "index.docker.io" || key == "registry-1.docker.io" {
		return "docker.io"
	}
	return key
}

// serverURL is what docker asks a helper for.
func serverURL(host string) string {
	if host == "docker.io" {
		return dockerHub
	}
	return host
}
