// Package shared holds what replicas share to its promises, with a real Redis
// server: it is right whatever the server does, and costs nobody time.
package shared

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/test/pki"
)

const (
	repo      = "team/app"
	signature = "application/vnd.cncf.notary.signature"
	patience  = 20 * time.Second
)

var wanted = verifier.Wanted{ArtifactTypes: []string{signature}}

// server is a redis-server of the test's own.
type server struct {
	address string
	process *exec.Cmd
	dir     string
}

// start runs redis-server with more options.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{address: free(t), dir: t.TempDir()}
	plain := []string{"--port", s.port(t)}
	if len(args) > 0 && args[0] == "--tls" {
		plain, args = []string{"--port", "0", "--tls-port", s.port(t)}, args[1:]
	}
	s.run(t, append(append([]string{"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir}, plain...), args...)...)
	return s
}

// free is an address at which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	return listener.Addr().String()
}

func (s *server) port(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(s.address)
	must(t, err)
	return port
}

// run runs Debian's redis-server until the test ends, and waits until it listens.
func (s *server) run(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server here: apt-get install redis-server")
	}
	s.process = exec.CommandContext(t.Context(), path, args...)
	s.process.Stdout, s.process.Stderr = t.Output(), t.Output()
	must(t, s.process.Start())
	t.Cleanup(func() {
		_ = s.process.Process.Kill()
		_ = s.process.Wait()
	})
	eventually(t, func() error {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// cli runs redis-cli.
func (s *server) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", s.port(t)}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// get and set are for values of any bytes.
func (s *server) get(t *testing.T, key string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "redis-cli", "-p", s.port(t), "--raw", "GET", key).Output()
	must(t, err)
	return bytes.TrimSuffix(out, []byte("\n"))
}

func (s *server) set(t *testing.T, key string, value []byte) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "redis-cli", "-p", s.port(t), "-x", "SET", key)
	command.Stdin = bytes.NewReader(value)
	out, err := command.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "OK") {
		t.Fatalf("%v: %s", err, out)
	}
}

func (s *server) keys(t *testing.T, pattern string) []string {
	t.Helper()
	return strings.Fields(s.cli(t, "--raw", "KEYS", pattern))
}

// secret is all replicas' of a test.
var secret = bytes.Repeat([]byte("s"), 32)

func shared(t *testing.T, url string, change ...func(*store.SharedOptions)) *store.Shared {
	t.Helper()
	options := store.SharedOptions{URL: url, Secret: secret}
	for _, c := range change {
		c(&options)
	}
	s, err := store.NewShared(options)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// replica is a provider's view of the registry, as it is after a start.
type replica struct {
	*store.View
	shared   *store.Shared
	registry *registrytest.Registry
}

func newReplica(t *testing.T, r *registrytest.Registry, s *store.Shared) *replica {
	t.Helper()
	made := store.New(store.Options{AllowLoopback: true, Shared: s, RetryBase: time.Millisecond})
	t.Cleanup(made.CloseIdleConnections)
	v, err := made.View(store.ViewOptions{Registries: []store.Registry{{Host: r.Host(), PlainHTTP: true}}})
	must(t, err)
	return &replica{v, s, r}
}

// look makes what a decision makes: the tag, the list, the manifest and the blob.
func (r *replica) look(t *testing.T, tag string) (digest.Digest, string) {
	t.Helper()
	subject, err := r.Resolve(t.Context(), verifier.Reference{Registry: r.registry.Host(), Repository: repo, Tag: tag})
	must(t, err)
	text := ""
	for c, err := range r.Candidates(t.Context(), subject, wanted).All {
		must(t, err)
		data, err := r.Fetch(t.Context(), subject, c.Manifest.Layers[0])
		must(t, err)
		text += string(data)
	}
	return subject.Digest, text
}

// signed pushes an image with a signature.
func signed(t *testing.T, r *registrytest.Registry, tag, text string) ocispec.Descriptor {
	t.Helper()
	image := r.PushImage(repo, tag)
	r.AttachReferrer(repo, image, registrytest.Artifact{ConfigMediaType: signature, Layers: []registrytest.Layer{{MediaType: "application/jose+json", Data: []byte(text)}}})
	return image
}

// warm has one replica look, until the server has all of it.
func warm(t *testing.T, s *server, r *registrytest.Registry, through *store.Shared, tag string) {
	t.Helper()
	eventually(t, func() error {
		newReplica(t, r, through).look(t, tag)
		if n := len(s.keys(t, "countersign:1:*")); n < 4 {
			return fmt.Errorf("%d keys are shared", n)
		}
		return nil
	})
}

// TestAReplicaAsksNobodyAgain for what another has read.
func TestAReplicaAsksNobodyAgain(t *testing.T) {
	authority, err := pki.NewAuthority("redis")
	must(t, err)
	dir := t.TempDir()
	pair, err := authority.Issue("127.0.0.1")
	must(t, err)
	for name, data := range map[string][]byte{"ca.crt": authority.PEM, "tls.crt": pair.Cert, "tls.key": pair.Key} {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	users := filepath.Join(dir, "users.acl")
	must(t, os.WriteFile(users, []byte("user default off\nuser countersign on >pass%word ~countersign:* +set +getrange +ping +client +hello\n"), 0o600))
	acl := []string{"--aclfile", users}
	for name, c := range map[string]struct {
		args   []string
		url    string
		change func(*store.SharedOptions)
	}{
		"plain":            {nil, "redis://%s", func(*store.SharedOptions) {}},
		"a user of an ACL": {acl, "redis://countersign:pass%%25word@%s/0", func(*store.SharedOptions) {}},
		"TLS with its own CA": {[]string{"--tls", "--tls-cert-file", dir + "/tls.crt", "--tls-key-file", dir + "/tls.key", "--tls-ca-cert-file", dir + "/ca.crt", "--tls-auth-clients", "no"}, "rediss://%s",
			func(o *store.SharedOptions) { o.CAs = authority.PEM }},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c.args...)
			r := registrytest.Start(t, registrytest.Options{})
			image := signed(t, r, "v1", "an envelope")
			url := fmt.Sprintf(c.url, s.address)
			one, other := shared(t, url, c.change), shared(t, url, c.change)
			newReplica(t, r, one).look(t, "v1")
			eventually(t, func() error { // it is written behind
				r.Reset()
				if d, text := newReplica(t, r, other).look(t, "v1"); d != image.Digest || text != "an envelope" {
					t.Fatalf("%s, %q", d, text)
				}
				newReplica(t, r, one).look(t, "v1")
				if n := len(r.Requests()); n > 0 {
					return fmt.Errorf("%d requests", n)
				}
				return nil
			})
			if other.Stats().Hits < 4 {
				t.Errorf("%+v", other.Stats())
			}
		})
	}
}

// TestAServerThatLies: whatever it gives, the decision's evidence is the registry's.
func TestAServerThatLies(t *testing.T) {
	for name, lie := range map[string]func(t *testing.T, s *server){
		"other content of the same size": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:content:*") {
				value := s.get(t, key)
				value[len(value)/2] ^= 1
				s.set(t, key, value)
			}
		},
		"another image for the tag": func(t *testing.T, s *server) {
			of := digest.FromString("an attacker's")
			forge(t, s, func(payload []byte) []byte {
				return regexp.MustCompile(`sha256:[0-9a-f]{64}`).ReplaceAll(payload, []byte(of))
			})
		},
		"a longer life": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:entry:*") {
				value := s.get(t, key)
				value[38] ^= 0x7f // of the nanoseconds
				s.set(t, key, value)
			}
		},
		"entries exchanged": func(t *testing.T, s *server) { // each is genuine
			keys := s.keys(t, "countersign:1:entry:*")
			values := map[string][][]byte{}
			kind := func(value []byte) string { return string(value[40:45]) } // of its JSON
			for _, key := range keys {
				values[kind(s.get(t, key))] = append(values[kind(s.get(t, key))], s.get(t, key))
			}
			for _, key := range keys {
				own := s.get(t, key)
				for _, other := range values[kind(own)] {
					if !bytes.Equal(own, other) {
						s.set(t, key, other)
						break
					}
				}
			}
		},
		"other entries": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:entry:*") {
				s.cli(t, "SET", key, strings.Repeat("x", 200))
			}
		},
		"entries cut short": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:*") {
				value := s.get(t, key)
				s.set(t, key, value[:len(value)-5])
			}
		},
		"things of another kind": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:*") {
				s.cli(t, "DEL", key)
				s.cli(t, "LPUSH", key, "a", "list")
			}
		},
		"what is too large": func(t *testing.T, s *server) {
			for _, key := range s.keys(t, "countersign:1:*") {
				s.cli(t, "SETRANGE", key, "3000000", "x")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			r := registrytest.Start(t, registrytest.Options{})
			image := signed(t, r, "v1", "an envelope")
			through := shared(t, "redis://"+s.address)
			signed(t, r, "v2", "another envelope")
			warm(t, s, r, through, "v1")
			eventually(t, func() error {
				newReplica(t, r, through).look(t, "v2")
				if n := len(s.keys(t, "countersign:1:*")); n < 8 {
					return fmt.Errorf("%d keys are shared", n)
				}
				return nil
			})
			lie(t, s)
			if d, text := newReplica(t, r, through).look(t, "v1"); d != image.Digest || text != "an envelope" {
				t.Errorf("%s, %q", d, text)
			}
		})
	}
}

// forge changes what entries say, and leaves their MAC.
func forge(t *testing.T, s *server, change func(payload []byte) []byte) {
	t.Helper()
	changed := 0
	for _, key := range s.keys(t, "countersign:1:entry:*") {
		value := s.get(t, key)
		if forged := change(bytes.Clone(value[40:])); !bytes.Equal(forged, value[40:]) {
			s.set(t, key, append(value[:40:40], forged...))
			changed++
		}
	}
	if changed == 0 {
		t.Fatal("nothing was forged")
	}
}

// TestAnotherSecretIsAStranger: it neither takes from us nor gives to us, and sees
// no image's name.
func TestAnotherSecretIsAStranger(t *testing.T) {
	s := start(t)
	r := registrytest.Start(t, registrytest.Options{})
	image := signed(t, r, "v1", "an envelope")
	warm(t, s, r, shared(t, "redis://"+s.address), "v1")
	for _, key := range s.keys(t, "*") {
		if strings.Contains(key, "team") || strings.Contains(key, r.Host()) {
			t.Errorf("the key %s tells what runs", key)
		}
	}
	stranger := shared(t, "redis://"+s.address, func(o *store.SharedOptions) { o.Secret = bytes.Repeat([]byte("t"), 32) })
	r.Reset()
	if d, _ := newReplica(t, r, stranger).look(t, "v1"); d != image.Digest {
		t.Error(d)
	}
	if n := len(r.Requests()); n < 2 { // tag and list
		t.Errorf("a stranger's entries were taken: %d requests", n)
	}
}

// TestAnOldEntryIsNotBelieved: put back after its time, it is nothing.
func TestAnOldEntryIsNotBelieved(t *testing.T) {
	s := start(t)
	r := registrytest.Start(t, registrytest.Options{})
	signed(t, r, "v1", "an envelope")
	through := shared(t, "redis://"+s.address)
	warm(t, s, r, through, "v1")
	for _, key := range s.keys(t, "countersign:1:entry:*") {
		s.cli(t, "PERSIST", key)
	}
	moved := signed(t, r, "v2", "another envelope")
	r.Tag(repo, "v1", moved.Digest)
	eventually(t, func() error { // a tag is believed for ten seconds
		if d, _ := newReplica(t, r, through).look(t, "v1"); d != moved.Digest {
			return errors.New("the old one is believed")
		}
		return nil
	})
}

// TestAFullServerHarmsNobody: what it does not take is read from the registry.
func TestAFullServerHarmsNobody(t *testing.T) {
	s := start(t, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction")
	r := registrytest.Start(t, registrytest.Options{})
	image := signed(t, r, "v1", "an envelope")
	through := shared(t, "redis://"+s.address)
	for range 3 {
		if d, text := newReplica(t, r, through).look(t, "v1"); d != image.Digest || text != "an envelope" {
			t.Errorf("%s, %q", d, text)
		}
	}
}

// gate is a way to the server that can be made slow, silent or dead.
type gate struct {
	address string
	silent  atomic.Bool
	// far is how long a new connection takes.
	far atomic.Int64

	mu    sync.Mutex // guards all below
	conns []net.Conn
}

// cut ends all connections.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, conn := range g.conns {
		_ = conn.Close()
	}
	g.conns = nil
}

func newGate(t *testing.T, target string) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	g := &gate{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", target)
			if err != nil {
				_ = conn.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, conn)
			g.mu.Unlock()
			go func() {
				time.Sleep(time.Duration(g.far.Load()))
				_, _ = io.Copy(up, conn)
				_ = up.Close()
			}()
			go func() {
				buffer := make([]byte, 1<<16)
				for {
					n, err := up.Read(buffer)
					for g.silent.Load() && err == nil {
						time.Sleep(time.Millisecond)
					}
					if n > 0 {
						_, _ = conn.Write(buffer[:n])
					}
					if err != nil {
						_ = conn.Close()
						return
					}
				}
			}()
		}
	}()
	return g
}

// TestASilentServerCostsMilliseconds, once; then it is left alone until it answers.
func TestASilentServerCostsMilliseconds(t *testing.T) {
	s := start(t)
	g := newGate(t, s.address)
	r := registrytest.Start(t, registrytest.Options{})
	image := signed(t, r, "v1", "an envelope")
	through := shared(t, "redis://"+g.address)
	warm(t, s, r, through, "v1")
	took := func(through *store.Shared) time.Duration {
		v := newReplica(t, r, through)
		began := time.Now()
		if d, text := v.look(t, "v1"); d != image.Digest || text != "an envelope" {
			t.Errorf("%s, %q", d, text)
		}
		return time.Since(began)
	}
	usedAgain := func() {
		eventually(t, func() error {
			before := through.Stats().Hits
			took(through)
			if through.Stats().Hits == before {
				return errors.New("it is still left alone")
			}
			return nil
		})
	}
	// What else the machine does only ever adds to a look, so the shortest of a few is
	// what a look costs. Rounds of all kinds follow each other, for the load to meet them
	// alike.
	const never = time.Hour
	first, later, without := never, never, never
	for range 5 {
		g.silent.Store(true)
		first = min(first, took(through))
		for range 4 {
			later = min(later, took(through))
			without = min(without, took(nil))
		}
		g.silent.Store(false)
		usedAgain()
	}
	if first > without+10*time.Millisecond {
		t.Errorf("the first look took %v, and without a server %v", first, without)
	}
	if later > without+5*time.Millisecond {
		t.Errorf("a later look took %v, and without a server %v", later, without)
	}
	must(t, s.process.Process.Kill())
	dead := never
	for range 20 {
		dead = min(dead, took(through))
	}
	if dead > without+10*time.Millisecond {
		t.Errorf("with a dead server a look took %v, and without one %v", dead, without)
	}
}

// TestAServerThatIsFar is used again when its connections have ended, although a new one
// takes longer than anybody waits for an answer.
func TestAServerThatIsFar(t *testing.T) {
	s := start(t)
	g := newGate(t, s.address)
	r := registrytest.Start(t, registrytest.Options{})
	signed(t, r, "v1", "an envelope")
	through := shared(t, "redis://"+g.address)
	warm(t, s, r, through, "v1")
	g.far.Store(int64(30 * time.Millisecond))
	g.cut()
	eventually(t, func() error {
		before := through.Stats().Hits
		newReplica(t, r, through).look(t, "v1")
		if through.Stats().Hits == before {
			return errors.New("it is left alone")
		}
		return nil
	})
}

// TestAServerThatIsAwayAtTheStart keeps nobody from starting.
func TestAServerThatIsAwayAtTheStart(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := signed(t, r, "v1", "an envelope")
	began := time.Now()
	if d, _ := newReplica(t, r, shared(t, "redis://127.0.0.1:1")).look(t, "v1"); d != image.Digest {
		t.Error(d)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("%v", took)
	}
	for name, o := range map[string]store.SharedOptions{
		"no URL":         {URL: "valkey.example.com", Secret: secret},
		"a short secret": {URL: "redis://valkey.example.com", Secret: []byte("short")},
		"a CA for plain": {URL: "redis://valkey.example.com", Secret: secret, CAs: []byte("x")},
		"no CA":          {URL: "rediss://valkey.example.com", Secret: secret, CAs: []byte("x")},
	} {
		if _, err := store.NewShared(o); err == nil || strings.Contains(err.Error(), "short\"") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := store.NewShared(store.SharedOptions{URL: "redis://user:hunter2@host:port/x/y", Secret: secret}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
