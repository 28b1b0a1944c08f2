package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

const (
	// helperTimeout bounds one call: cloud helpers make a request or two, and a
	// decision waits.
	helperTimeout = 5 * time.Second
	// maxHelperOutput bounds what a helper may print; a token fits in 16 KiB.
	maxHelperOutput = 64 << 10
	// helperNotFound is how the protocol says that there is no credential.
	helperNotFound = "credentials not found in native keychain"
)

// helperName keeps a configuration file from naming a path.
var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// askHelper runs docker-credential-<name> as docker does: "get", the server on
// standard input, JSON on standard output.
func askHelper(ctx context.Context, name, server string) (Credential, error) {
	if !helperName.MatchString(name) {
		return Credential{}, fmt.Errorf("credential helper %q: not a name", name)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	var output bounded
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, "get") //nolint:gosec // running the configured helper is the protocol
	cmd.Stdin = strings.NewReader(server)
	cmd.Stdout = &output
	cmd.WaitDelay = time.Second // a grandchild that keeps the pipe open does not keep us
	err := cmd.Run()
	said := strings.TrimSpace(output.String())
	switch {
	case err != nil && ctx.Err() != nil:
		return Credential{}, fmt.Errorf("credential helper %s: no answer within %s: %w", name, helperTimeout, context.Cause(ctx))
	case err != nil && said == helperNotFound:
		return Credential{}, nil
	case err != nil: // what it printed may hold a secret
		return Credential{}, fmt.Errorf("credential helper %s: %w", name, err)
	}
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal([]byte(said), &answer); err != nil {
		return Credential{}, fmt.Errorf("credential helper %s: its answer is not JSON", name)
	}
	if answer.Username == "<token>" {
		return Credential{RefreshToken: answer.Secret}, nil
	}
	return Credential{Username: answer.Username, Password: answer.Secret}, nil
}

// bounded takes at most maxHelperOutput bytes and then breaks the pipe.
type bounded struct{ buffer bytes.Buffer }

func (b *bounded) Write(data []byte) (int, error) {
	if b.buffer.Len()+len(data) > maxHelperOutput {
		return 0, errors.New("more output than a credential")
	}
	return b.buffer.Write(data)
}

func (b *bounded) String() string { return b.buffer.String() }
