// Package binary builds and runs countersign as a user does: the executable,
// with files and flags, asked over mTLS. It looks at nothing inside it.
package binary

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/countersign-dev/countersign/test/pki"
)

// Variable is the environment variable that names an executable to use instead
// of building one.
const Variable = "COUNTERSIGN"

// RaceVariable has the executable built with the race detector, of what the tests
// beside it are built of as well: that is half the compiling.
const RaceVariable = "COUNTERSIGN_RACE"

// CachesVariable has each server keep content on disk, and where it is a URL share
// evidence through the server there: test/shared runs the attack list so.
const CachesVariable = "COUNTERSIGN_CACHES"

const (
	// startTimeout is for the first line of a process on a busy machine.
	startTimeout = 30 * time.Second
	// stopTimeout is more than the answers under way may take.
	stopTimeout = 10 * time.Second
	// readyPoll is how often /readyz is asked.
	readyPoll = 10 * time.Millisecond
)

// Find gives the executable that the environment names, or builds one into dir
// from the product module at root.
func Find(ctx context.Context, root, dir string, progress io.Writer) (string, error) {
	if path := os.Getenv(Variable); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "countersign")
	arguments, cgo := []string{"build", "-trimpath", "-o", path}, "CGO_ENABLED=0"
	if os.Getenv(RaceVariable) != "" {
		arguments, cgo = []string{"build", "-race", "-o", path}, "CGO_ENABLED=1"
	}
	build := exec.CommandContext(ctx, "go", append(arguments, "./cmd/provider")...)
	build.Dir = root
	build.Env = append(os.Environ(), cgo)
	build.Stdout, build.Stderr = progress, progress
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("go build ./cmd/provider: %w", err)
	}
	return path, nil
}

// Options say how the server is started.
type Options struct {
	// Path of the executable.
	Path string
	// Dir takes the certificates.
	Dir string
	// Config is the policy file or directory.
	Config string
	// Authority signs the server's certificate.
	Authority *pki.Authority
	// ClientAuthority is the one whose clients the server lets in; Authority when nil.
	ClientAuthority *pki.Authority
	// Listen is the provider's address; a free loopback port when empty.
	Listen string
	// Args are further flags.
	Args []string
}

// Server is a running process.
type Server struct {
	// Provider, Health and Metrics are host:port of the three listeners.
	Provider, Health, Metrics string

	command *exec.Cmd
	log     *log
	ended   chan error
}

// Start runs `countersign serve` until Stop, and returns when it listens. It is
// ready when Ready says so.
func Start(ctx context.Context, o Options) (*Server, error) {
	pair, err := o.Authority.Issue("countersign.countersign-system.svc")
	if err != nil {
		return nil, err
	}
	certFile, keyFile, err := pair.Write(filepath.Join(o.Dir, "serving"))
	if err != nil {
		return nil, err
	}
	if o.ClientAuthority == nil {
		o.ClientAuthority = o.Authority
	}
	clientCA := filepath.Join(o.Dir, "gatekeeper-ca.crt")
	if err := os.WriteFile(clientCA, o.ClientAuthority.PEM, 0o600); err != nil {
		return nil, err
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	args := append([]string{
		"serve", "--config", o.Config, "--listen", o.Listen,
		"--health-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
		"--tls-cert", certFile, "--tls-key", keyFile, "--client-ca", clientCA,
		"--allow-loopback", "--drain-delay", "0s",
	}, o.Args...)
	caches, err := caches(o.Dir)
	if err != nil {
		return nil, err
	}
	return Run(ctx, o.Path, append(args, caches...)...)
}

// caches are the flags that CachesVariable asks for.
func caches(dir string) ([]string, error) {
	url := os.Getenv(CachesVariable)
	if url == "" {
		return nil, nil
	}
	flags := []string{"--content-cache", filepath.Join(dir, "content")}
	if url == "disk" {
		return flags, nil
	}
	shared := filepath.Join(dir, "shared")
	return append(flags, "--shared-cache", shared), errors.Join(os.MkdirAll(shared, 0o700),
		os.WriteFile(filepath.Join(shared, "url"), []byte(url), 0o600), os.WriteFile(filepath.Join(shared, "secret"), []byte(rand.Text()+rand.Text()), 0o600))
}

// Run runs the binary with these arguments until Stop, and returns when it listens.
func Run(ctx context.Context, path string, args ...string) (*Server, error) {
	return RunIn(ctx, nil, path, args...)
}

// RunIn runs it with variables beside those of this process.
func RunIn(ctx context.Context, variables []string, path string, args ...string) (*Server, error) {
	s := &Server{
		command: exec.CommandContext(context.WithoutCancel(ctx), path, args...),
		log:     newLog(),
		ended:   make(chan error, 1),
	}
	s.command.Stderr = s.log
	s.command.Env = append(os.Environ(), variables...)
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.command.Wait() }()

	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case line := <-s.log.listening:
		s.Provider, s.Health, s.Metrics = line.Provider, line.Health, line.Metrics
		return s, nil
	case err := <-s.ended:
		return nil, fmt.Errorf("countersign serve ended: %w\n%s", err, s.log)
	case <-starting.Done():
		return nil, errors.Join(fmt.Errorf("countersign serve does not listen: %w\n%s", starting.Err(), s.log), s.Stop())
	}
}

// Ready waits until /readyz says 200.
func (s *Server) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		status, body, err := s.get(ctx, s.Health, "/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %s %w", body, errors.Join(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// Figures gives what /metrics shows.
func (s *Server) Figures(ctx context.Context) (string, error) {
	_, body, err := s.get(ctx, s.Metrics, "/metrics")
	return body, err
}

// VerifyURL is what a Provider object says for verification.
func (s *Server) VerifyURL() string { return "https://" + s.Provider + "/v1/verify" }

// MutateURL is what a Provider object says for mutation.
func (s *Server) MutateURL() string { return "https://" + s.Provider + "/v1/mutate" }

// PID of the process.
func (s *Server) PID() int { return s.command.Process.Pid }

// Log is what the process has logged so far.
func (s *Server) Log() string { return s.log.String() }

// Kill ends the process as a node that is lost does.
func (s *Server) Kill() {
	_ = s.command.Process.Kill()
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case <-s.ended: //nolint:errcheck // a process that was killed has one
	case <-patience.C:
	}
}

// Stop ends the process as Kubernetes does, and waits for it.
func (s *Server) Stop() error {
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return nil // it has ended already
	}
	patience := time.NewTimer(stopTimeout)
	defer patience.Stop()
	select {
	case err := <-s.ended:
		return err
	case <-patience.C:
		_ = s.command.Process.Kill()
		return fmt.Errorf("countersign serve did not stop within %v: %w\n%s", stopTimeout, <-s.ended, s.log)
	}
}

func (s *Server) get(ctx context.Context, address, path string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}
