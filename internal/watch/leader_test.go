package watch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// brokenLock is a Lease on an API server that is away.
type brokenLock struct {
	resourcelock.Interface

	asked int
	err   error
}

func (b *brokenLock) Get(context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	b.asked++
	return &resourcelock.LeaderElectionRecord{}, nil, b.err
}

func (b *brokenLock) Update(context.Context, resourcelock.LeaderElectionRecord) error {
	b.asked++
	return b.err
}

// TestAnAPIServerThatIsAwayIsLeftAlone: ten minutes cost it a dozen questions about the
// Lease, and when it is back it is asked as before.
func TestAnAPIServerThatIsAwayIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &brokenLock{err: errors.New("connection refused")}
		lock := &patientLock{Interface: broken}
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(leaseRetry) {
			if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{}); err == nil {
				t.Fatal("it was updated")
			}
			if _, _, err := lock.Get(t.Context()); err == nil {
				t.Fatal("it was read")
			}
		}
		if broken.asked < 5 || broken.asked > 12 {
			t.Errorf("%d questions in ten minutes", broken.asked)
		}
		broken.err, broken.asked = nil, 0
		time.Sleep(maxLeasePause)
		for range 30 {
			if err := lock.Update(t.Context(), resourcelock.LeaderElectionRecord{}); err != nil {
				t.Fatal(err)
			}
		}
		if broken.asked != 30 {
			t.Errorf("%d of 30 were asked", broken.asked)
		}
	})
}
