package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// TestL47_AHostLeavesBytesToOthers: however many hosts take all that they can, a small body
// of another one is read at once.
func TestL47_AHostLeavesBytesToOthers(t *testing.T) {
	for _, hosts := range []int{1, 2, 5, 60} {
		t.Run(fmt.Sprint(hosts), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newInFlight(64 << 20)
				over, end := context.WithCancel(t.Context())
				for h := range hosts {
					for _, size := range []int64{1 << 10, firstOfHost, smallBytes, 1 << 20, 32 << 20} {
						for range 100 {
							go func() {
								if release, err := f.take(over, stageRead, fmt.Sprint("hostile", h), size); err == nil {
									<-over.Done()
									release()
								}
							}()
						}
					}
				}
				synctest.Wait()
				f.mu.Lock()
				for name, h := range f.pool[stageRead].hosts {
					if h.taken > f.pool[stageRead].all/2 {
						t.Errorf("%s has %d of %d", name, h.taken, f.pool[stageRead].all)
					}
				}
				if f.pool[stageRead].taken > f.pool[stageRead].all+int64(hosts)*firstOfHost {
					t.Errorf("%d of %d are taken", f.pool[stageRead].taken, f.pool[stageRead].all)
				}
				f.mu.Unlock()
				begun := time.Now()
				release, err := f.take(t.Context(), stageRead, "healthy", 10<<10)
				if err != nil || time.Since(begun) > 0 {
					t.Fatalf("a healthy host waited for %v: %v", time.Since(begun), err)
				}
				release()
				end()
				synctest.Wait()
				f.mu.Lock()
				defer f.mu.Unlock()
				if p := f.pool[stageRead]; p.taken != 0 || len(p.hosts) != 0 || len(p.waiting) != 0 {
					t.Errorf("when all is over: %d bytes of %d hosts, %d wait", p.taken, len(p.hosts), len(p.waiting))
				}
			})
		})
	}
}

// TestL47_WhoWaitsForBytesIsUndecided, for its deadline or three seconds, and whoever
// gives up leaves nothing behind.
func TestL47_WhoWaitsForBytesIsUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(0)
		hold, err := f.take(t.Context(), stageHeld, "host", 1<<40)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ deadline, want time.Duration }{{time.Second, time.Second}, {time.Minute, maxBytesWait}} {
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			begun := time.Now()
			_, err := f.take(ctx, stageHeld, "host", 1<<40)
			cancel()
			var known *verifier.Error
			if !errors.As(err, &known) || known.Reason != verifier.ReasonLimitExceeded || !known.Reason.Undecided() || time.Since(begun) != c.want {
				t.Errorf("after %v: %v", time.Since(begun), err)
			}
		}
		waited := make(chan error, 1)
		go func() {
			release, err := f.take(t.Context(), stageHeld, "host", 1<<20)
			if err == nil {
				release()
			}
			waited <- err
		}()
		synctest.Wait()
		hold()
		hold() // once only
		if err := <-waited; err != nil {
			t.Error(err)
		}
		if f.pool[stageHeld].taken != 0 {
			t.Errorf("%d bytes are left", f.pool[stageHeld].taken)
		}
	})
}

// TestL47_HostsComeInTurn: one that has a thousand waiters comes no oftener than one
// that has one.
func TestL47_HostsComeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newInFlight(64 << 20)
		var mu sync.Mutex
		var order []string
		work := func(host string) {
			release, err := f.take(t.Context(), stageHeld, host, 1<<40)
			if err != nil {
				return
			}
			mu.Lock()
			order = append(order, host)
			mu.Unlock()
			time.Sleep(time.Millisecond) // in the bubble, no time passes
			release()
		}
		var wait sync.WaitGroup
		for range 100 {
			wait.Go(func() { work("hostile") })
		}
		synctest.Wait()
		for _, host := range []string{"one", "other"} {
			wait.Go(func() { work(host) })
		}
		wait.Wait()
		for i, host := range order {
			if host != "hostile" && i > 4 {
				t.Errorf("%s came after %d others", host, i)
			}
		}
		if len(order) != 102 {
			t.Errorf("%d came", len(order))
		}
	})
}

func BenchmarkInFlight(b *testing.B) {
	f := newInFlight(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		release, err := f.take(b.Context(), stageRead, "host", 4<<10)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
