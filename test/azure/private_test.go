package azure_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/countersign-dev/countersign/internal/store"
)

// privateEndpoint is where the names of the registry lead to in its network.
var privateEndpoint = net.IPv4(10, 10, 0, 4)

const inOwnNetwork = "COUNTERSIGN_TEST_OWN_NETWORK"

// ownNetwork runs the test again in a network of its own, where the names lead to
// the private address, and reports whether this is that run.
func ownNetwork(t *testing.T, names ...string) bool {
	t.Helper()
	if os.Getenv(inOwnNetwork) != "" {
		if err := enterOwnNetwork(t.TempDir(), names); errors.Is(err, fs.ErrPermission) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
		return true
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), inOwnNetwork+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := again.CombinedOutput()
	switch {
	case again.ProcessState == nil:
		t.Skipf("this machine gives no process a network of its own: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Skipf("this machine gives no process a network of its own:\n%s", out)
	}
	return false
}

// enterOwnNetwork gives the loopback interface the address, and the process a
// hosts file of its own.
func enterOwnNetwork(dir string, names []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for name, addr := range map[string]net.IP{"lo": net.IPv4(127, 0, 0, 1), "lo:1": privateEndpoint} {
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := request.SetInet4Addr(addr.To4()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, request); err != nil {
			return fmt.Errorf("the address of %s: %w", name, err)
		}
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
			return fmt.Errorf("%s up: %w", name, err)
		}
	}
	hosts := filepath.Join(dir, "hosts")
	if err := os.WriteFile(hosts, fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n", privateEndpoint, strings.Join(names, " ")), 0o600); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of our own: %w", err)
	}
	return unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, "")
}

// TestPrivateEndpoints: the registry and its data endpoint are at a private address,
// as they are in a virtual network; no proxy leads there, and the address is dialled.
func TestPrivateEndpoints(t *testing.T) {
	const registry = "testprivateendpoints"
	data, elsewhere := registry+".westeurope.data.azurecr.io", "blobs.corp.example.com"
	if !ownNetwork(t, registry+".azurecr.io", data, elsewhere) {
		return
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(privateEndpoint.String(), "443"))
	must(t, err)
	cloud.Listen(listener)

	byPattern := strings.Replace(trusting, "$ACR", "other.azurecr.io", 1)
	named := strings.Replace(trusting, "    - host: $ACR\n", "    - host: $ACR\n      redirectHosts: ["+elsewhere+"]\n", 1)
	for name, c := range map[string]struct {
		policy, data, reason string
		says                 []string
	}{
		"the registry is named":            {trusting, "", "TRUSTED", nil},
		"its data endpoint is private too": {trusting, data, "TRUSTED", nil},
		"blobs at a host that nobody named": {trusting, elsewhere, "REGISTRY_UNREACHABLE",
			[]string{elsewhere, "10.10.0.4, a private address", "redirectHosts"}},
		"blobs at a host that is named": {named, elsewhere, "TRUSTED", nil},
		"only a pattern matches it": {byPattern, "", "REGISTRY_UNREACHABLE",
			[]string{"10.10.0.4, a private address", "under registries"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			acr, err := cloud.Registry(registry+".azurecr.io", s.Host)
			must(t, err)
			s.acr = acr
			s.identity.Grant(acr.Host, "AcrPull")
			if c.data != "" {
				acr.DataEndpoint(c.data)
			}
			s.signed(t, "shop/cart:1", "wabbit")
			s.network = store.Options{Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}
			s.start(t, c.policy)
			cloud.Reset()
			s.want(t, "shop/cart:1", c.reason, c.says...)
			if c.data != "" && c.reason == "TRUSTED" && cloud.Count(c.data, "/") == 0 {
				t.Errorf("no blob came from %s", c.data)
			}
			if c.reason != "TRUSTED" && c.data == "" && len(cloud.Seen()) > 0 {
				t.Errorf("it was asked: %v", cloud.Seen())
			}
		})
	}
}
