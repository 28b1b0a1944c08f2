package watch

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
)

// apiServer is the API server as the watcher reaches it: counted, and away when it is
// said to be.
type apiServer struct {
	*httptest.Server

	mu    sync.Mutex // guards all below
	asked []string   // method and path, watches left out
	away  bool
}

// before gives what stands before the API server, and a kubeconfig for it with an
// administrator's rights.
func (s *scene) before(t *testing.T) (api *apiServer, kubeconfig string) {
	t.Helper()
	transport, err := rest.TransportFor(s.Config)
	must(t, err)
	to, err := url.Parse(s.Config.Host)
	must(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	api = &apiServer{}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.mu.Lock()
		away := api.away
		if r.URL.Query().Get("watch") == "" || away {
			api.asked = append(api.asked, r.Method+" "+r.URL.Path)
		}
		api.mu.Unlock()
		if away {
			panic(http.ErrAbortHandler) // the connection ends
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
`, api.URL), 0o600))
	return api, kubeconfig
}

// setAway has the API server be away, and ends what it has under way.
func (a *apiServer) setAway(away bool) {
	a.mu.Lock()
	a.away = away
	a.mu.Unlock()
	if away {
		a.CloseClientConnections()
	}
}

// questions are those since the last call.
func (a *apiServer) questions() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

// instead runs another watcher in the place of the scene's, for the rest of the test.
func (s *scene) instead(t *testing.T, arguments ...string) *binary.Server {
	t.Helper()
	must(t, s.watcher.Stop())
	w, err := binary.Run(t.Context(), s.executable, append([]string{"watch", "--config", s.Policies, "--pod-namespace", namespace, "--allow-loopback",
		"--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"}, arguments...)...)
	must(t, err)
	t.Cleanup(func() {
		_ = w.Stop()
		must(t, s.startWatcher(context.WithoutCancel(t.Context())))
	})
	must(t, w.Ready(t.Context()))
	return w
}

// figure reads one of a watcher's figures.
func figure(ctx context.Context, w *binary.Server, name string) (float64, error) {
	text, err := w.Figures(ctx)
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("there is no %s", name)
	}
	return strconv.ParseFloat(found[1], 64)
}

// TestManyPodsAreWatched within the bounds that a large cluster sets: 10,000 pods of
// 2,000 digests over a registry that takes 3,000 requests a minute; a fifth of that in
// CI, and there every image twice.
func TestManyPodsAreWatched(t *testing.T) {
	const namespaces = 10
	pods, digests, interval := 10_000, 2_000, time.Hour
	if os.Getenv("CI") != "" {
		pods, digests, interval = 2_000, 400, time.Minute
	}
	var names []string
	for i := range namespaces {
		names = append(names, fmt.Sprint("scale-", i))
	}
	s := in(t, names...)
	for i := range digests {
		s.push(t, fmt.Sprintf("scale/cart-%d:1", i), true)
	}
	must(t, s.watcher.Stop())
	create := func(ctx context.Context, from, to int) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(32)
		for i := from; i < to; i++ {
			group.Go(func() error {
				image := fmt.Sprintf("scale/cart-%d:1", i%digests)
				p := &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: names[i%namespaces], Name: fmt.Sprint("cart-", i)},
					Spec:       corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "main", Image: s.Name(image)}}},
				}
				if err := s.Client.Create(ctx, p); err != nil {
					return err
				}
				created := client.MergeFrom(p.DeepCopy())
				p.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Image: s.Name(image), ImageID: s.imageID(image)}}}
				return s.Client.Status().Patch(ctx, p, created)
			})
		}
		return group.Wait()
	}
	must(t, create(t.Context(), 0, pods))

	limit := rate.NewLimiter(50, 500) // 3,000 a minute
	var refused atomic.Int64
	s.registry.SetFault(func(w http.ResponseWriter, r *http.Request) bool {
		if limit.Allow() {
			return false
		}
		refused.Add(1)
		return registrytest.Throttle("5")(w, r)
	})
	t.Cleanup(func() { s.registry.SetFault(nil) })
	s.registry.Reset()
	api, kubeconfig := s.before(t)
	began := time.Now()
	w := s.instead(t, "--kubeconfig", kubeconfig, "--state", t.TempDir(), "--interval", interval.String())
	t.Cleanup(func() {
		for _, name := range names {
			_ = s.Client.DeleteAllOf(context.WithoutCancel(t.Context()), &corev1.Pod{}, client.InNamespace(name), client.GracePeriodSeconds(0))
		}
	})
	trusted := func(ctx context.Context) error {
		text, err := w.Figures(ctx)
		if err != nil {
			return err
		}
		sum := 0
		for _, found := range regexp.MustCompile(`(?m)^countersign_watch_containers\{namespace="scale-\d+",status="TRUSTED"\} (\d+)$`).FindAllStringSubmatch(text, -1) {
			n, _ := strconv.Atoi(found[1])
			sum += n
		}
		if sum != pods {
			return fmt.Errorf("%d of %d containers are trusted", sum, pods)
		}
		return nil
	}
	eventuallyWithin(t, 15*time.Minute, trusted)
	cold := len(s.registry.Requests())
	t.Logf("%d pods of %d digests: %v, %d requests, %d refused, %d MiB resident", pods, digests, time.Since(began).Round(time.Second), cold, refused.Load(), resident(t, w))
	if refused.Load() > 1 {
		t.Errorf("the registry refused %d requests", refused.Load())
	}

	// What is asked of the API server once all is known.
	api.questions()
	asked := time.Now()
	if interval == time.Minute { // and what an hourly look costs
		eventuallyWithin(t, 5*time.Minute, func(ctx context.Context) error {
			oldest, err := figure(ctx, w, "countersign_watch_oldest_check_timestamp_seconds")
			if err == nil && oldest < float64(asked.Unix()) {
				err = fmt.Errorf("not all were looked at again")
			}
			return err
		})
		again := len(s.registry.Requests()) - cold
		t.Logf("%.2f requests for a look: %.2f a second for 2,000 digests looked at every hour", float64(again)/float64(digests), float64(again)/float64(digests)*2000/3600)
		if perLook := float64(again) / float64(digests); perLook > 1.6 { // some were looked at twice meanwhile
			t.Errorf("a look costs %.2f requests", perLook)
		}
	} else {
		eventuallyWithin(t, time.Minute, func(context.Context) error {
			if time.Since(asked) < 30*time.Second {
				return fmt.Errorf("half a minute is not over")
			}
			return nil
		})
	}
	reads := 0
	for _, q := range api.questions() {
		if strings.HasPrefix(q, "GET ") {
			reads++
		}
	}
	if perSecond := float64(reads) / time.Since(asked).Seconds(); perSecond > 1 {
		t.Errorf("the API server is asked %.2f times a second", perSecond)
	}

	// A third is replaced: nothing is asked of the registry, and all is as it was.
	s.registry.Reset()
	third := pods / 3
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for i := range third {
		group.Go(func() error {
			return s.Client.Delete(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: names[i%namespaces], Name: fmt.Sprint("cart-", i)}}, client.GracePeriodSeconds(0))
		})
	}
	must(t, group.Wait())
	must(t, create(t.Context(), pods, pods+third/digests*digests)) // of the same images
	pods = pods - third + third/digests*digests
	eventuallyWithin(t, 2*time.Minute, trusted)
	if n := len(s.registry.Requests()); interval == time.Hour && n > digests/10 {
		t.Errorf("replacing a third cost %d requests", n)
	}
	text, err := w.Figures(t.Context())
	must(t, err)
	series := len(regexp.MustCompile(`(?m)^countersign_watch_`).FindAllString(text, -1))
	known := len(regexp.MustCompile(`(?m)^countersign_watch_containers\{.*status="TRUSTED"`).FindAllString(text, -1))
	if series > 8*known+600 {
		t.Errorf("%d series of %d namespaces", series, known)
	}
	t.Logf("%d series; %d MiB resident", series, resident(t, w))
	if n := resident(t, w); n >= 200 {
		t.Errorf("%d MiB resident", n)
	}
}

// resident is what a process has of memory, in MiB.
func resident(t *testing.T, w *binary.Server) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	must(t, err)
	found := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(data)
	if found == nil {
		t.Fatal("there is no VmRSS")
	}
	n, err := strconv.Atoi(string(found[1]))
	must(t, err)
	return n / 1024
}
