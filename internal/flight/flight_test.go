package flight_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/flight"
)

func TestAnImpatientCallerSpoilsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[string]
		var runs atomic.Int32
		work := func(ctx context.Context) (string, error) {
			runs.Add(1)
			select {
			case <-time.After(time.Second):
				return "true verdict", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		impatient, giveUp := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer giveUp()
		first := make(chan error, 1)
		go func() {
			_, err := group.Do(impatient, "k", time.Minute, work)
			first <- err
		}()
		synctest.Wait()
		value, err := group.Do(t.Context(), "k", time.Minute, work)
		if value != "true verdict" || err != nil {
			t.Errorf("the patient caller got %q, %v", value, err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient caller got %v", err)
		}
		if runs.Load() != 1 {
			t.Errorf("work ran %d times", runs.Load())
		}
	})
}

func TestWorkEndsWithItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[int]
		_, err := group.Do(t.Context(), "k", time.Second, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAPanicReachesAllWaitersAndOnlyThem(t *testing.T) {
	var group flight.Group[int]
	_, err := group.Do(t.Context(), "k", time.Second, func(context.Context) (int, error) { panic("boom") })
	var p *flight.PanicError
	if !errors.As(err, &p) || p.Value != "boom" {
		t.Errorf("got %v", err)
	}
	value, err := group.Do(t.Context(), "k", time.Second, func(context.Context) (int, error) { return 7, nil })
	if value != 7 || err != nil {
		t.Errorf("after a panic: %d, %v", value, err)
	}
}
