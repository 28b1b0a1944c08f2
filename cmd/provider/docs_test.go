package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// pages are the documents whose commands and policies must be true.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	verifiers, err := filepath.Glob("../../docs/verifiers/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, file := range append(append(files, verifiers...), "../../README.md") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(data)
	}
	return texts
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```")

// commands are the lines of sh fences that run countersign.
func commands(page string) []string {
	var lines []string
	for _, block := range fence.FindAllStringSubmatch(page, -1) {
		if block[1] != "sh" {
			continue
		}
		for line := range strings.Lines(block[2]) {
			if strings.HasPrefix(line, "countersign ") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}

func TestEveryCommandInTheDocumentsRuns(t *testing.T) {
	texts := pages(t)
	source, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	w := newWorld(t, dir, registrytest.Options{})
	if err := w.build("image cart:1.4\nsign cart:1.4 by=wabbit\nimage pay:2\nsign pay:2 by=wabbit\nimage unsigned:1"); err != nil {
		t.Fatal(err)
	}
	tls, err := makeTLS()
	if err != nil {
		t.Fatal(err)
	}
	tls["policies/production.yaml"] = []byte(strings.ReplaceAll(strings.ReplaceAll(trusting("wabbit"), "$REGISTRY", w.registry.Host()), "wabbit.crt", "../wabbit.crt"))
	// An API server that is away keeps nobody from listening.
	tls["kubeconfig"] = []byte(`{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}], "current-context": "c"}`)
	walkthrough, err := os.ReadFile(filepath.Join(source, "../../internal/ratify/testdata/walkthrough.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	tls["ratify.yaml"] = walkthrough
	if err := errors.Join(os.Mkdir("policies", 0o700), os.Mkdir("shared", 0o700), os.Mkdir("notify", 0o700)); err != nil {
		t.Fatal(err)
	}
	// A server that is away keeps nobody from listening either.
	tls["notify/ops.slack"], tls["token"] = []byte("https://hooks.slack.com/x"), []byte("token")
	tls["shared/url"], tls["shared/secret"] = []byte("redis://127.0.0.1:1\n"), bytes.Repeat([]byte("x"), 32)
	for name, data := range tls {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.registry.Export(t.Context(), "cart", "1.4", "export"); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for file, page := range texts {
		for _, line := range commands(page) {
			ran++
			t.Run(filepath.Base(file)+"/"+line, func(t *testing.T) { runLine(t, line, w.registry.Host()) })
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands found in the documents", ran)
	}
}

// runLine runs a command as it stands in a document, but for the registry and
// the ports. "# exit N" behind it says how it ends.
func runLine(t *testing.T, line, host string) {
	line, comment, _ := strings.Cut(line, "#")
	want := exitTrusted
	if _, code, ok := strings.Cut(comment, "exit "); ok && len(code) == 1 {
		want, _ = strconv.Atoi(code)
	}
	line = strings.ReplaceAll(line, "shop.example.com", host)
	line = regexp.MustCompile(`127\.0\.0\.1:(6001|8080|9099|8888)`).ReplaceAllString(line, "127.0.0.1:0")
	args := strings.Fields(line)[1:]
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stdout, stderr := &bytes.Buffer{}, &syncBuffer{}
	switch args[0] {
	case "serve", "watch":
		for _, flag := range []string{"--listen", "--health-listen", "--metrics-listen"} {
			if !strings.Contains(line, flag+" ") {
				args = append(args, flag, "127.0.0.1:0")
			}
		}
		if args[0] == "serve" && !strings.Contains(line, "--drain-delay") {
			args = append(args, "--drain-delay", "0s")
		}
		go func() {
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					if strings.Contains(stderr.String(), `"msg":"listening"`) {
						cancel()
						return
					}
				}
			}
		}()
	case "ask":
		address := listening(t)
		for i := range args {
			args[i] = strings.Replace(args[i], "127.0.0.1:0", address, 1)
		}
	case "verify", "explain", "discover", "resolve":
		if !strings.Contains(line, "--allow-loopback") {
			args = append(args, "--allow-loopback")
		}
	}
	if got := run(ctx, args, stdout, stderr); got != want {
		t.Errorf("exit %d, want %d\n%s%s", got, want, stdout, stderr)
	}
	if (args[0] == "serve" || args[0] == "watch") && !strings.Contains(stderr.String(), `"msg":"listening"`) {
		t.Errorf("it did not listen: %s", stderr)
	}
}

// listening runs a provider for a command that asks one, and gives its address.
func listening(t *testing.T) string {
	t.Helper()
	stderr := &syncBuffer{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{
			"serve", "--config", "policies", "--tls-cert", "tls.crt", "--tls-key", "tls.key", "--client-ca", "gatekeeper-ca.crt", "--allow-loopback",
			"--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--drain-delay", "0s",
		}, io.Discard, stderr)
	}()
	t.Cleanup(func() { stop(); <-ended })
	said := regexp.MustCompile(`"msg":"listening","provider":"([^"]+)"`)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if found := said.FindStringSubmatch(stderr.String()); found != nil {
			return found[1]
		}
		select {
		case code := <-ended:
			t.Fatalf("exit %d: %s", code, stderr)
		case <-tick.C:
		}
	}
}

func TestEveryFlagHasAnExampleInTheDocuments(t *testing.T) {
	var examples strings.Builder
	for _, page := range pages(t) {
		for _, line := range commands(page) {
			examples.WriteString(" " + line + " ")
		}
	}
	root := rootCommand()
	all := root.Commands()
	for _, command := range root.Commands() {
		all = append(all, command.Commands()...)
	}
	for _, command := range all {
		command.Flags().VisitAll(func(flag *pflag.Flag) {
			if flag.Name == "help" {
				return
			}
			if !strings.Contains(examples.String(), " --"+flag.Name+" ") && (flag.Shorthand == "" || !strings.Contains(examples.String(), " -"+flag.Shorthand+" ")) {
				t.Errorf("countersign %s --%s has no example in docs/", command.Name(), flag.Name)
			}
		})
		if command.Name() != "help" && !hasExample(command, examples.String()) {
			t.Errorf("countersign %s has no example in docs/", command.Name())
		}
	}
}

func hasExample(command *cobra.Command, examples string) bool {
	return strings.Contains(examples, " "+command.CommandPath()+" ")
}

// TestThePoliciesInTheDocumentsAreGood loads each yaml fence that is a whole
// document of ours. The certificates that it names are there.
func TestThePoliciesInTheDocumentsAreGood(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, dir, registrytest.Options{})
	root := w.signers["wabbit"].Root().PEM()
	loaded := 0
	for file, page := range pages(t) {
		for i, block := range fence.FindAllStringSubmatch(page, -1) {
			if block[1] != "yaml" || !strings.HasPrefix(block[2], "apiVersion: countersign.dev/") {
				continue
			}
			loaded++
			t.Run(filepath.Base(file)+"/"+strconv.Itoa(i), func(t *testing.T) {
				dir := t.TempDir()
				for _, named := range regexp.MustCompile(`file: ([\w./-]+)`).FindAllStringSubmatch(block[2], -1) {
					path := named[1]
					if !filepath.IsAbs(path) {
						path = filepath.Join(dir, path)
					} else {
						t.Skipf("names %s, which is on no test machine", path)
					}
					if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
					content := root
					if strings.HasSuffix(path, ".pub") {
						content = sigstoretest.NewKey(sigstoretest.P256).PEM()
					}
					if err := os.WriteFile(path, content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				policy := filepath.Join(dir, "policy.yaml")
				if err := os.WriteFile(policy, []byte(block[2]), 0o600); err != nil {
					t.Fatal(err)
				}
				app, err := newApp(t.Context(), appOptions{config: policy})
				if err != nil {
					t.Fatal(err)
				}
				for _, problem := range app.Snapshot().Problems() {
					if !strings.HasSuffix(problem.Message, " has not been read yet") { // vaults are nobody's to ask here
						t.Error(problem)
					}
				}
			})
		}
	}
	if loaded == 0 {
		t.Error("no policy found in the documents")
	}
}

// TestEveryMetricIsDocumented compares the names in the code with docs/metrics.md.
func TestEveryMetricIsDocumented(t *testing.T) {
	page := pages(t)["../../docs/metrics.md"]
	names := map[string]bool{}
	for _, pattern := range []string{"*.go", "../../internal/provider/*.go", "../../internal/telemetry/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range regexp.MustCompile(`"(countersign_\w+)"`).FindAllStringSubmatch(string(source), -1) {
				names[found[1]] = true
			}
		}
	}
	for name := range names {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/metrics.md does not say what %s is", name)
		}
	}
	if len(names) < 15 {
		t.Errorf("only %d metrics found", len(names))
	}
}
