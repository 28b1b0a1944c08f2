package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// apiServer has the Secrets and ServiceAccounts of a cluster, by namespace/name.
type apiServer struct {
	mu       sync.Mutex // guards all below
	secrets  map[string]string
	accounts map[string][]string
	err      error
	asked    []string
}

func (s *apiServer) PullSecret(_ context.Context, namespace, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, namespace+"/"+name)
	data, ok := s.secrets[namespace+"/"+name]
	if s.err == nil && !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(data), s.err
}

func (s *apiServer) PullSecretNames(_ context.Context, namespace, serviceAccount string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, ok := s.accounts[namespace+"/"+serviceAccount]
	if s.err == nil && !ok {
		return nil, fs.ErrNotExist
	}
	return names, s.err
}

func (s *apiServer) set(name, config string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[name], s.err = config, err
}

func (s *apiServer) times() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func login(host, user string) string {
	return fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":"secret of %s"}}}`, host, user, user)
}

func newAPIServer() *apiServer {
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprint("s", i)
	}
	return &apiServer{
		secrets: map[string]string{
			"shop/hub": login("https://index.docker.io/v1/", "hub"), "shop/cart": login("registry.example.com", "cart"), "shop/till": login("registry.example.com", "till"),
			"shop/helper": `{"credsStore":"evil"}`, "shop/text": "secret", "shop/broken": `{"auths":{"registry.example.com":{"auth":"?"}}}`,
			"pay/pay": login("registry.example.com", "pay"),
		},
		accounts: map[string][]string{"shop/till": {"till"}, "shop/default": {}, "shop/many": many},
	}
}

// TestWhichPullSecretCounts: the pod's own in their order, then its ServiceAccount's.
func TestWhichPullSecretCounts(t *testing.T) {
	for name, c := range map[string]struct {
		pod  Pod
		host string
		want string
	}{
		"the pod's":                         {Pod{"shop", "", []string{"cart"}}, "registry.example.com", "cart"},
		"the ServiceAccount's":              {Pod{"shop", "till", nil}, "registry.example.com", "till"},
		"the pod's before it":               {Pod{"shop", "till", []string{"cart"}}, "registry.example.com", "cart"},
		"the first that knows the host":     {Pod{"shop", "default", []string{"hub", "cart", "till"}}, "registry.example.com", "cart"},
		"Docker Hub by its older name":      {Pod{"shop", "", []string{"hub"}}, "docker.io", "hub"},
		"one that is not there":             {Pod{"shop", "none", []string{"none", "cart"}}, "registry.example.com", "cart"},
		"of no other namespace":             {Pod{"shop", "", []string{"pay"}}, "registry.example.com", ""},
		"nothing for another host":          {Pod{"shop", "till", []string{"cart"}}, "registry.example.com.evil", ""},
		"nobody said which":                 {Pod{"shop", "", nil}, "registry.example.com", ""},
		"malformed, of a host that is none": {Pod{"shop", "", []string{"broken"}}, "docker.io", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewPods(newAPIServer()).Of(c.pod).Credential(t.Context(), c.host)
			if err != nil || got.Username != c.want {
				t.Errorf("%q, %v", got.Username, err)
			}
		})
	}
}

// TestPullSecretsThatCannotCount say why, without a word of what is in them.
func TestPullSecretsThatCannotCount(t *testing.T) {
	forbidden := newAPIServer()
	forbidden.err = fmt.Errorf("secrets is forbidden: %w", fs.ErrPermission)
	away := newAPIServer()
	away.err = errors.New("connection refused")
	for name, c := range map[string]struct {
		from   *Pods
		pod    Pod
		reason verifier.Reason
		says   string
	}{
		"nobody reads them": {nil, Pod{"shop", "till", nil}, verifier.ReasonRegistryUnauthorized, "not read here. Start the provider with --pod-pull-secrets"},
		"forbidden": {NewPods(forbidden), Pod{"shop", "", []string{"cart"}}, verifier.ReasonRegistryUnauthorized,
			"the pull secret cart in namespace shop may not be read. Name the namespace in the chart's rbac.podPullSecrets"},
		"no ServiceAccount may be read": {NewPods(forbidden), Pod{"shop", "till", nil}, verifier.ReasonRegistryUnauthorized, "ServiceAccount till in namespace shop may not be read"},
		"away":                          {NewPods(away), Pod{"shop", "till", nil}, verifier.ReasonRegistryUnauthorized, "the pull secrets of namespace shop cannot be read"},
		"a helper":                      {NewPods(newAPIServer()), Pod{"shop", "", []string{"helper"}}, verifier.ReasonRegistryUnauthorized, "the pull secret helper in namespace shop is"},
		"no JSON":                       {NewPods(newAPIServer()), Pod{"shop", "", []string{"text"}}, verifier.ReasonRegistryUnauthorized, "not JSON of the expected form"},
		"no base64":                     {NewPods(newAPIServer()), Pod{"shop", "", []string{"broken"}}, verifier.ReasonRegistryUnauthorized, "malformed"},
		"too many":                      {NewPods(newAPIServer()), Pod{"shop", "many", nil}, verifier.ReasonLimitExceeded, "more than 16 pull secrets"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.from.Of(c.pod).Credential(t.Context(), "registry.example.com")
			e := verifier.AsError(err)
			if err == nil || e.Reason != c.reason {
				t.Fatalf("%v", err)
			}
			if said := e.Message + ". " + e.Remedy; !strings.Contains(said, c.says) || strings.Contains(said, "secret of") {
				t.Errorf("%q", said)
			}
		})
	}
}

// TestPullSecretsAreAMinuteOldAtMost, or an hour while the API server is away, and
// are read anew at once where the registry refuses what they hold.
func TestPullSecretsAreAMinuteOldAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		pod := NewPods(server).Of(Pod{"shop", "default", []string{"cart"}})
		user := func() string {
			got, err := pod.Credential(t.Context(), "registry.example.com")
			if err != nil {
				return err.Error()
			}
			return got.Username
		}
		for range 10 {
			if got := user(); got != "cart" {
				t.Fatal(got)
			}
		}
		if n := server.times(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		server.set("shop/cart", login("registry.example.com", "renewed"), nil)
		time.Sleep(61 * time.Second)
		if got := user(); got != "renewed" {
			t.Error(got)
		}
		server.set("shop/cart", login("registry.example.com", "again"), nil)
		if !pod.Refused("registry.example.com", Credential{Username: "renewed"}) {
			t.Error("another may be had")
		}
		if got := user(); got != "again" {
			t.Error(got)
		}
		server.set("shop/cart", "", errors.New("away"))
		time.Sleep(59 * time.Minute)
		if got := user(); got != "again" {
			t.Errorf("%s while the API server is away", got)
		}
		server.set("shop/cart", "", fs.ErrPermission)
		if got := user(); !strings.Contains(got, "may not be read") {
			t.Errorf("%s after it was forbidden", got)
		}
		server.set("shop/cart", "", errors.New("away"))
		time.Sleep(2 * time.Minute)
		if got := user(); !strings.Contains(got, "cannot be read") {
			t.Errorf("%s after an hour", got)
		}
	})
}
