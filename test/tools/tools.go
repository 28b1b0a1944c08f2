// Package tools builds the programs that tests run and nobody imports: each has
// a module of its own below this folder, which says its version. What is built
// is kept outside the tree, so that it is built once.
package tools

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Tool is a program that can be built.
type Tool struct {
	// Name of the executable.
	Name string
	// module is the folder with the go.mod.
	module string
	// path of the main package.
	path string
	// stamped is the Go module whose version the program has to be told; none when
	// empty.
	stamped string
}

// Etcd is Kubernetes' database.
func Etcd() Tool { return Tool{"etcd", "etcd", "go.etcd.io/etcd/server/v3", ""} }

// APIServer is kube-apiserver.
func APIServer() Tool {
	return Tool{"kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes"}
}

// ControllerManager is kube-controller-manager.
func ControllerManager() Tool {
	return Tool{"kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager", "k8s.io/kubernetes"}
}

// Kubectl is Kubernetes' command.
func Kubectl() Tool {
	return Tool{"kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl", "k8s.io/kubernetes"}
}

// Gatekeeper is Gatekeeper's manager.
func Gatekeeper() Tool {
	return Tool{"gatekeeper", "gatekeeper", "github.com/open-policy-agent/gatekeeper/v3", ""}
}

// Cosign3 is Cosign's command, version 3.
func Cosign3() Tool {
	return Tool{"cosign-3", "cosign3", "github.com/sigstore/cosign/v3/cmd/cosign", ""}
}

// Cosign2 is Cosign's command, version 2.
func Cosign2() Tool {
	return Tool{"cosign-2", "cosign2", "github.com/sigstore/cosign/v2/cmd/cosign", ""}
}

// Helm is Helm's command.
func Helm() Tool { return Tool{"helm", "helm", "helm.sh/helm/v3/cmd/helm", ""} }

// Kubeconform checks objects against the schemas of their kinds.
func Kubeconform() Tool {
	return Tool{"kubeconform", "helm", "github.com/yannh/kubeconform/cmd/kubeconform", ""}
}

// All are the tools in the order in which they are built.
func All() []Tool {
	return []Tool{Etcd(), APIServer(), ControllerManager(), Kubectl(), Gatekeeper(), Helm(), Kubeconform(), Cosign3(), Cosign2()}
}

// Build gives the path of a tool, and builds it when it was not built before
// from the same module. It says so on progress. Several processes may build one
// tool at the same time.
func Build(ctx context.Context, tool Tool, progress io.Writer) (string, error) {
	module, err := folder(tool.module)
	if err != nil {
		return "", err
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	sum, err := fingerprint(module, tool)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, tool.Name+"-"+sum)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	_, _ = fmt.Fprintf(progress, "building %s; it is kept in %s\n", tool.Name, cache)
	started := time.Now()
	// Built beside and renamed: what stands there under its name is whole.
	unfinished := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer func() { _ = os.Remove(unfinished) }() // gone when all went well
	flags, err := linkerFlags(ctx, module, tool)
	if err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", flags, "-o", unfinished, tool.path)
	build.Dir = module
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	build.Stdout, build.Stderr = progress, progress
	if err := build.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", tool.Name, err)
	}
	_, _ = fmt.Fprintf(progress, "built %s in %.0f s\n", tool.Name, time.Since(started).Seconds())
	return path, os.Rename(unfinished, path)
}

// linkerFlags give a program that wants it the version that its release has.
func linkerFlags(ctx context.Context, module string, tool Tool) (string, error) {
	const flags = "-s -w"
	if tool.stamped == "" {
		return flags, nil
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", tool.stamped)
	list.Dir = module
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", tool.stamped, err)
	}
	version := strings.TrimSpace(string(out))
	part := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(part) != 3 {
		return "", fmt.Errorf("version of %s: %q", tool.stamped, version)
	}
	const set = " -X k8s.io/component-base/version."
	return flags + set + "gitVersion=" + version + set + "gitMajor=" + part[0] + set + "gitMinor=" + part[1], nil
}

// fingerprint changes with all that decides what is built.
func fingerprint(module string, tool Tool) (string, error) {
	sum := sha256.New()
	_, _ = fmt.Fprintln(sum, runtime.Version(), runtime.GOOS, runtime.GOARCH, tool.path) // a hash takes all
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, file))
		if err != nil {
			return "", err
		}
		_, _ = sum.Write(content)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)[:8]), nil
}

// folder is where a module is in the tree.
func folder(module string) (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(here) {
		return "", errors.New("tools: built with -trimpath, and cannot find its modules")
	}
	return filepath.Join(filepath.Dir(here), module), nil
}

// cacheFolder is the same that the Makefile keeps its tools in.
func cacheFolder() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(base, "countersign", "tools")
	return path, os.MkdirAll(path, 0o755)
}
