package provider_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/provider"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// admissions is Gatekeeper as the provider meets it: so many threads, and a queue.
type admissions struct {
	replicas []*provider.Server
	threads  chan int
	// overhead is what Gatekeeper and the network need between an answer and the next
	// request.
	overhead time.Duration

	mu      sync.Mutex // guards all below
	waited  []time.Duration
	refused map[string]int // by namespace
	total   map[string]int
}

// review is one admission, from the moment that the API server sends it.
func (a *admissions) review(t *testing.T, image string) {
	kind, _, _ := strings.Cut(strings.TrimPrefix(image, "shop.example.com/"), "-")
	a.reviewIn(t, kind, image)
}

// reviewIn is one of a Pod in a namespace.
func (a *admissions) reviewIn(t *testing.T, namespace, image string) {
	sent := time.Now()
	thread := <-a.threads
	time.Sleep(a.overhead)
	server := a.replicas[thread%len(a.replicas)] // over a connection that is kept open
	response := post(t, server, "/v1/verify", "["+namespace+"]"+image)
	took := time.Since(sent)
	a.threads <- thread
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waited = append(a.waited, took)
	a.total[namespace]++
	if response.Response.SystemError != "" {
		a.refused[namespace]++
	}
}

func newAdmissions(threads int, replicas ...*provider.Server) *admissions {
	a := &admissions{
		replicas: replicas, threads: make(chan int, threads), overhead: 2 * time.Millisecond,
		refused: map[string]int{}, total: map[string]int{},
	}
	for thread := range threads {
		a.threads <- thread
	}
	return a
}

// load is a shop whose images take as long as their names say.
func load(t *testing.T) (*shop, *provider.Server) {
	t.Helper()
	s := stocked()
	s.store.BeforeCandidates = func(ctx context.Context, subject verifier.Subject) error {
		pause := time.Duration(0)
		switch name := subject.Reference.Repository; {
		case strings.HasPrefix(name, "hanging-"):
			pause = time.Hour
		case strings.HasPrefix(name, "slow-"):
			pause = time.Second
		case strings.HasPrefix(name, "late-"):
			pause = 400 * time.Millisecond
		case strings.HasPrefix(name, "cold-"):
			pause = 60 * time.Millisecond
		}
		select {
		case <-time.After(pause):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	snapshot := new(int)
	return s, newServer(t, provider.Options{Select: s.Select, Snapshot: func() any { return snapshot }})
}

// TestL56_NoAdmissionWaitsInGatekeepersQueueBeyondItsTimeout, whatever mix of images
// is slow, at up to 40 Pods a second and two threads: the API server would let it in
// unseen. What is proved is admitted all the while.
func TestL56_NoAdmissionWaitsInGatekeepersQueueBeyondItsTimeout(t *testing.T) {
	const webhookTimeout = 3 * time.Second
	for name, kinds := range map[string][]string{
		"hanging": {"hanging"}, "slow": {"slow"}, "cold": {"cold"}, "all": {"hanging", "slow", "cold", "cold"}, "some hang": {"hanging", "good", "good", "good"},
	} {
		for _, c := range []struct{ threads, replicas int }{{1, 1}, {2, 1}, {2, 2}, {4, 3}} {
			for _, rate := range []int{8, 40} {
				t.Run(fmt.Sprintf("%s, %d threads, %d replicas, %d a second", name, c.threads, c.replicas, rate), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a := newAdmissions(c.threads)
						var shops []*shop
						for range c.replicas {
							s, server := load(t)
							shops, a.replicas = append(shops, s), append(a.replicas, server)
						}
						add := func(image string) {
							for _, s := range shops {
								s.add(image, "CN=wabbit")
							}
						}
						const proved = "shop.example.com/proved-1:1"
						add(proved)
						a.review(t, proved)
						random := rand.New(rand.NewPCG(1, 2))
						var wait sync.WaitGroup
						for i := range rate * 6 {
							image := fmt.Sprintf("shop.example.com/%s-%d:1", kinds[random.IntN(len(kinds))], i)
							add(image)
							wait.Go(func() { a.review(t, image) })
							if i%4 == 0 {
								wait.Go(func() { a.review(t, proved) })
							}
							time.Sleep(time.Second / time.Duration(rate))
						}
						wait.Wait()
						if longest := slices.Max(a.waited); longest >= webhookTimeout {
							t.Errorf("an admission took %s", longest)
						}
						if a.refused["proved"] > 0 || a.refused["good"] > 0 {
							t.Errorf("what is known is refused: %v of %v", a.refused, a.total)
						}
						time.Sleep(11 * time.Second) // what goes on ends
					})
				})
			}
		}
	}
}

// TestAQuietClusterIsNoQueue: nothing is refused for the sake of others where there
// are none.
func TestAQuietClusterIsNoQueue(t *testing.T) {
	for name, c := range map[string]struct {
		at    func(i int) time.Duration // when image i comes
		pods  int
		image string
	}{
		"one Pod, of a slow registry":             {func(int) time.Duration { return 0 }, 1, "slow-%d"},
		"one Pod after the other":                 {func(i int) time.Duration { return time.Duration(i) * 1030 * time.Millisecond }, 20, "slow-%d"},
		"two Pods at once, of a quick registry":   {func(int) time.Duration { return 0 }, 2, "cold-%d"},
		"eight Pods at once, of a quick registry": {func(int) time.Duration { return 0 }, 8, "cold-%d"},
		"two Pods at once, of a slow registry":    {func(int) time.Duration { return 0 }, 2, "slow-%d"},
		"a hundred a second, at random": {func(i int) time.Duration {
			return time.Duration(i)*10*time.Millisecond + time.Duration(i*i*7919%37)*time.Millisecond
		}, 400, "cold-%d"},
		"three Pods a second, of a slow registry": {func(i int) time.Duration {
			return time.Duration(i)*330*time.Millisecond + time.Duration(i*i*7919%300)*time.Millisecond
		}, 60, "late-%d"},
		"ten Pods a second, at random": {func(i int) time.Duration {
			return time.Duration(i)*100*time.Millisecond + time.Duration(i*i*7919%97)*time.Millisecond
		}, 100, "cold-%d"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, server := load(t)
				a := newAdmissions(16, server)
				var wait sync.WaitGroup
				for i := range c.pods {
					image := "shop.example.com/" + fmt.Sprintf(c.image, i) + ":1"
					s.add(image, "CN=wabbit")
					wait.Go(func() {
						time.Sleep(c.at(i))
						a.review(t, image)
					})
				}
				wait.Wait()
				if len(a.refused) > 0 {
					t.Errorf("refused %v of %v", a.refused, a.total)
				}
				time.Sleep(11 * time.Second) // what goes on ends
			})
		})
	}
}

// TestL56_WhoFillsTheQueueStopsNoNeighbour: a namespace whose images hang, as many as come,
// stops no cold image of another but where two of those come at once, which together need
// both threads; and many namespaces that do the same still leave no admission in the queue
// beyond its timeout.
func TestL56_WhoFillsTheQueueStopsNoNeighbour(t *testing.T) {
	for name, c := range map[string]struct {
		namespaces   int
		rate         int
		mayBeRefused bool
	}{
		"one namespace, 10 a second": {1, 10, false}, "one namespace, 40 a second": {1, 40, false},
		"three namespaces": {3, 40, false},
		"hundreds":         {300, 40, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, server := load(t)
				a := newAdmissions(2, server)
				var wait sync.WaitGroup
				for i := range c.rate * 10 {
					bad := fmt.Sprintf("shop.example.com/hanging-%d:1", i)
					s.add(bad, "CN=wabbit")
					wait.Go(func() { a.reviewIn(t, fmt.Sprint("bad-", i%c.namespaces), bad) })
					if at := i * 4 / c.rate; i > 3*c.rate && at != (i-1)*4/c.rate { // four a second, when it is known
						good := fmt.Sprintf("shop.example.com/cold-%d:1", i)
						s.add(good, "CN=wabbit")
						wait.Go(func() { a.reviewIn(t, "good", good) })
					}
					time.Sleep(time.Second / time.Duration(c.rate))
				}
				wait.Wait()
				if longest := slices.Max(a.waited); longest >= 3*time.Second {
					t.Errorf("an admission took %s", longest)
				}
				if a.total["good"] < 20 || a.refused["good"] > a.total["good"]/8 && !c.mayBeRefused {
					t.Errorf("refused %v of %v", a.refused, a.total)
				}
				time.Sleep(11 * time.Second) // what goes on ends
			})
		})
	}
}
