package tools

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// File gives the path of a file in a module, as path@version, that nothing of ours
// imports: the definitions of others' objects.
func File(ctx context.Context, module, name string) (string, error) {
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	download.Dir = os.TempDir() // in no module: it stays out of every go.sum
	download.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	out, err := download.Output()
	var found struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &found); jsonErr != nil || found.Dir == "" {
		return "", fmt.Errorf("download %s: %w: %s", module, err, found.Error)
	}
	return filepath.Join(found.Dir, name), nil
}
