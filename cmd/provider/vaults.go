package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// vaultPatience is how long a start waits for vaults: what they hold is kept
	// from the last time, or its images are undecided.
	vaultPatience = 10 * time.Second
	// readyInterval is how often a start looks whether the policies are read.
	readyInterval = 50 * time.Millisecond
)

// vaults are the vaults that policies refer to, and what follows of a change.
type vaults struct {
	*trust.Vaults
	changed chan struct{} // has room for one
	settled atomic.Bool
}

func newVaults(o trust.Options) *vaults {
	v := &vaults{changed: make(chan struct{}, 1)}
	o.OnChange = func() {
		select {
		case v.changed <- struct{}{}:
		default:
		}
	}
	v.Vaults = trust.New(o)
	return v
}

// errVaults is why a replica that has read its policies is not ready yet.
var errVaults = errors.New("the vaults that policies name are being read")

func (v *vaults) ready() error {
	if v.settled.Load() {
		return nil
	}
	return errVaults
}

// run reads the vaults, and has the policies look at them again when they have
// changed.
func (v *vaults) run(ctx context.Context, of policies) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return v.Run(running) })
	group.Go(func() error { return v.settle(running, of) })
	group.Go(func() error {
		for {
			select {
			case <-running.Done():
				return nil
			case <-v.changed:
				of.refresh(running)
			}
		}
	})
	return group.Wait()
}

// settle waits for the policies, and then for their vaults, but not for long.
func (v *vaults) settle(ctx context.Context, of policies) error {
	for of.Ready() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(readyInterval):
		}
	}
	patient, cancel := context.WithTimeout(ctx, vaultPatience)
	defer cancel()
	_ = v.Settle(patient) // those that are away are tried again
	of.refresh(ctx)
	v.settled.Store(true)
	return nil
}

// once reads the vaults for a command that looks at images and ends.
func (v *vaults) once(ctx context.Context, of policies) error {
	if v.Idle() {
		return nil
	}
	reading, cancel := context.WithTimeout(ctx, vaultPatience)
	defer cancel()
	group, running := errgroup.WithContext(reading)
	group.Go(func() error { return v.Run(running) })
	group.Go(func() error {
		defer cancel()
		_ = v.Settle(running)
		return nil
	})
	err := group.Wait()
	of.refresh(ctx)
	return err
}
