package watch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	// leaseTime is how long a leader that has died is waited for, leaseRenewal how
	// long one tries that cannot renew its Lease, and leaseRetry how often.
	leaseTime, leaseRenewal, leaseRetry = 15 * time.Second, 10 * time.Second, 2 * time.Second
	// maxLeasePause is the pause after which an API server that was away is asked again
	// who leads; it doubles from leaseRetry on.
	maxLeasePause = 2 * time.Minute
)

// Lease is what replicas agree by on which of them watches.
type Lease struct{ Namespace, Name, Identity string }

// Lead does the work while this replica holds the Lease, again whenever it gets it,
// until ctx ends. It ends with the first error of the work.
func Lead(ctx context.Context, config *rest.Config, lease Lease, work func(context.Context) error) error {
	config = rest.CopyConfig(config)
	config.Timeout = leaseRenewal / 2
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return onceTransport{next} })
	leases, err := coordinationv1.NewForConfig(config) // the whole set of clients is megabytes
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: lease.Namespace, Name: lease.Name}, Client: leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: lease.Identity},
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // whoever begins, begins before its time is over
	var working sync.WaitGroup
	begin := func(leading context.Context) bool {
		mu.Lock()
		defer mu.Unlock()
		if leading.Err() != nil {
			return false
		}
		working.Add(1)
		return true
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &patientLock{Interface: lock}, LeaseDuration: leaseTime, RenewDeadline: leaseRenewal, RetryPeriod: leaseRetry, ReleaseOnCancel: true, Name: lease.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				if !begin(leading) {
					return
				}
				defer working.Done()
				if err := work(leading); err != nil {
					cancel(err)
				}
			},
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", lease.Namespace, lease.Name, err)
	}
	for ctx.Err() == nil {
		elector.Run(ctx)
		mu.Lock()
		working.Wait() // who has begun; nobody else will
		mu.Unlock()
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// onceTransport keeps the client from asking ten times where a connection ends: how
// often is patientLock's to say.
type onceTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t onceTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil && (utilnet.IsProbableEOF(err) || utilnet.IsConnectionReset(err)) {
		return nil, errors.New("the API server ended the connection")
	}
	return resp, err
}

// patientLock leaves an API server alone that does not answer, ever longer.
type patientLock struct {
	resourcelock.Interface

	mu    sync.Mutex // guards all below
	err   error      // of the last question; nil: it was answered
	pause time.Duration
	until time.Time
}

// Get implements resourcelock.Interface.
func (l *patientLock) Get(ctx context.Context) (record *resourcelock.LeaderElectionRecord, raw []byte, err error) {
	err = l.ask(func() error {
		record, raw, err = l.Interface.Get(ctx)
		return err
	})
	return record, raw, err
}

// Update implements resourcelock.Interface.
func (l *patientLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.ask(func() error { return l.Interface.Update(ctx, record) })
}

// ask asks unless the API server is left alone.
func (l *patientLock) ask(question func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil && time.Now().Before(l.until) {
		return l.err
	}
	err := question()
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		l.err, l.pause = nil, 0
		return err
	}
	l.pause = min(max(2*l.pause, leaseRetry), maxLeasePause)
	l.err, l.until = err, time.Now().Add(l.pause)
	return err
}
