package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run this very program as the command countersign.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"countersign": main})
}

// TestScripts drives the real binary as its users do. Beside testscript's own
// words there are:
//
//	world FILE             make a registry with the content, $REGISTRY, NAME.crt
//	expand FILE…           put environment variables into files
//	tls                    make tls.crt, tls.key, ca.crt, client.crt, client.key
//	serve ARG…             run countersign serve in the background; $PROVIDER, $HEALTH, $METRICS
//	logged TEXT            wait until the server has logged the text
//	terminate              SIGTERM to the server, and wait for its end
//	post PATH FILE         send the file to the provider; the answer is stdout
//	ask PATH KEY…          send a ProviderRequest with the keys
//	until TEXT PATH KEY…   ask until the answer has the text
//	get URL                the answer is stdout; fails unless it is 200
//	content LINE           change the registry's content
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/scripts",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world": scriptWorld, "expand": scriptExpand, "tls": scriptTLS, "serve": scriptServe, "logged": scriptLogged,
			"terminate": scriptTerminate, "post": scriptPost, "ask": scriptAsk, "get": scriptGet, "content": scriptContent,
			"plain": scriptPlain, "until": scriptUntil,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[sceneKey{}] = &scriptScene{t: env.T().(testing.TB)}
			env.Setenv("NO_COLOR", "1")
			return nil
		},
	})
}

type sceneKey struct{}

// scriptScene is what one script has running.
type scriptScene struct {
	t      testing.TB
	world  *world
	server *exec.Cmd
	log    *syncBuffer
	logged chan struct{} // closed when the server's log has ended
}

func sceneOf(ts *testscript.TestScript) *scriptScene { return ts.Value(sceneKey{}).(*scriptScene) }

func scriptWorld(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	options, content := registryOptions(ts.ReadFile(args[0]))
	s.world = newWorld(s.t, ts.MkAbs("."), options)
	ts.Check(s.world.build(content))
	ts.Setenv("REGISTRY", s.world.registry.Host())
}

func scriptContent(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(sceneOf(ts).world.build(strings.Join(args, " ")))
}

func scriptExpand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
	}
}

func scriptTLS(ts *testscript.TestScript, _ bool, _ []string) {
	files, err := makeTLS()
	ts.Check(err)
	for name, data := range files {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o600))
	}
}

func scriptServe(ts *testscript.TestScript, _ bool, args []string) {
	s := sceneOf(ts)
	// With the usual deadlines a busy machine answers TIMEOUT. A script that is about
	// deadlines sets its own.
	args = append([]string{
		"serve", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--allow-loopback",
		"--verify-timeout", "15s", "--mutate-timeout", "15s",
	}, args...)
	path, err := lookPath(ts.Getenv("PATH"), "countersign")
	ts.Check(err)
	s.server = exec.Command(path, args...)
	s.server.Dir = ts.MkAbs(".")
	s.server.Env = append(os.Environ(), "HOME="+ts.MkAbs("."), "DOCKER_CONFIG="+ts.MkAbs("."))
	stderr, err := s.server.StderrPipe()
	ts.Check(err)
	ts.Check(s.server.Start())
	ts.Defer(func() {
		_ = s.server.Process.Kill()
		_ = s.server.Wait()
	})
	s.log, s.logged = &syncBuffer{}, make(chan struct{})
	listening := make(chan map[string]any, 1)
	go func() {
		defer close(s.logged)
		defer close(listening)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			_, _ = io.WriteString(s.log, lines.Text()+"\n")
			var record map[string]any
			if json.Unmarshal(lines.Bytes(), &record) == nil && record["msg"] == "listening" {
				listening <- record
			}
		}
	}()
	select {
	case record := <-listening:
		if record == nil {
			ts.Fatalf("the server ended: %s", s.log)
		}
		for _, name := range []string{"provider", "health", "metrics"} {
			ts.Setenv(strings.ToUpper(name), fmt.Sprint(record[name]))
		}
	case <-time.After(30 * time.Second):
		ts.Fatalf("the server did not listen within 30 s: %s", s.log)
	}
}

func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		if p := filepath.Join(dir, name); exec.Command(p).Path != "" {
			if _, err := os.Stat(p); err == nil {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("no %s in %s", name, path)
}

func scriptLogged(ts *testscript.TestScript, neg bool, args []string) {
	s := sceneOf(ts)
	if neg {
		if strings.Contains(s.log.String(), args[0]) {
			ts.Fatalf("logged %q:\n%s", args[0], s.log)
		}
		return
	}
	wait(ts, func() error {
		if !regexp.MustCompile(args[0]).MatchString(s.log.String()) {
			return fmt.Errorf("not logged: %q in\n%s", args[0], s.log)
		}
		return nil
	})
}

func scriptTerminate(ts *testscript.TestScript, _ bool, _ []string) {
	s := sceneOf(ts)
	ts.Check(s.server.Process.Signal(os.Interrupt))
	<-s.logged // Wait closes the pipe, and would lose what is still in it
	ts.Check(s.server.Wait())
}

func scriptPost(ts *testscript.TestScript, _ bool, args []string) {
	body, status := send(ts, args[0], []byte(ts.ReadFile(args[1])))
	_, _ = fmt.Fprintf(ts.Stdout(), "%d\n%s\n", status, body)
}

func providerRequest(ts *testscript.TestScript, keys []string) []byte {
	request, err := json.Marshal(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": keys},
	})
	ts.Check(err)
	return request
}

func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	wait(ts, func() error {
		if body, _ := send(ts, args[1], providerRequest(ts, args[2:])); !strings.Contains(string(body), args[0]) {
			return fmt.Errorf("no %s in %s", args[0], body)
		}
		return nil
	})
}

func scriptAsk(ts *testscript.TestScript, neg bool, args []string) {
	body, status := send(ts, args[0], providerRequest(ts, args[1:]))
	var pretty bytes.Buffer
	ts.Check(json.Indent(&pretty, body, "", " "))
	_, _ = fmt.Fprintf(ts.Stdout(), "%d\n%s\n", status, pretty.String())
	if (status != http.StatusOK) != neg {
		ts.Fatalf("status %d", status)
	}
}

// send posts as Gatekeeper does: over mTLS, TLS 1.3.
func send(ts *testscript.TestScript, path string, body []byte) ([]byte, int) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(ts.ReadFile("ca.crt")))
	certificate, err := tls.X509KeyPair([]byte(ts.ReadFile("client.crt")), []byte(ts.ReadFile("client.key")))
	ts.Check(err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "countersign.example.test", Certificates: []tls.Certificate{certificate},
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+ts.Getenv("PROVIDER")+path, bytes.NewReader(body))
	ts.Check(err)
	response, err := transport.RoundTrip(request)
	ts.Check(err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	ts.Check(err)
	return answer, response.StatusCode
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	wait(ts, func() error {
		response, err := http.Get("http://" + args[0])
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		if (response.StatusCode == http.StatusOK) == neg {
			return fmt.Errorf("%s: %s: %s", args[0], response.Status, body)
		}
		_, _ = ts.Stdout().Write(body)
		return nil
	})
}

// scriptPlain replaces what differs from run to run in a file, for cmp.
func scriptPlain(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	for pattern, word := range map[string]string{
		`sha256:[0-9a-f]{64}`: "DIGEST",
		`\([0-9a-f]{12}\)`:    "(SHORT)",
		`127\.0\.0\.1:[0-9]+`: "REGISTRY",
		`[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+( UTC|Z|[+-][0-9:]+)`: "TIME",
		`"traceID": ?"[0-9a-f]+"`:                                    `"traceID": "TRACE"`,
		`"milliseconds": ?[0-9.]+`:                                   `"milliseconds": 0`,
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, word)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// wait tries until it works, for a minute at most: only a failure takes that long.
func wait(ts *testscript.TestScript, try func() error) {
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
		<-tick.C
	}
}

// syncBuffer is a log that is written and read at once.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
