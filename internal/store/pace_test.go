package store

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// crowd has n of a priority ask for a turn; each that gets one keeps it until it is
// told to leave.
type crowd struct {
	t       *testing.T
	pace    *pace
	entered chan verifier.Priority
	leave   chan struct{}
}

func newCrowd(t *testing.T) *crowd {
	return &crowd{t, newPace(), make(chan verifier.Priority, 2*maxInFlight), make(chan struct{})}
}

func (c *crowd) come(n int, host string, priority verifier.Priority) {
	ctx := verifier.WithPriority(c.t.Context(), priority)
	for range n {
		go func() {
			leave, err := c.pace.enter(ctx, host)
			if err != nil {
				return
			}
			c.entered <- priority
			<-c.leave
			leave()
		}()
	}
	synctest.Wait()
}

// in counts who has entered since.
func (c *crowd) in() (n [verifier.Priorities]int) {
	synctest.Wait()
	for {
		select {
		case p := <-c.entered:
			n[p]++
		default:
			return n
		}
	}
}

func (c *crowd) release(n int) {
	for range n {
		c.leave <- struct{}{}
	}
	synctest.Wait()
}

func TestAdmissionsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		const host = "registry.example.com"
		c.come(20, host, verifier.PriorityWatch)
		if n := c.in(); n != [3]int{0, 0, maxInFlightWatch} {
			t.Errorf("of who can wait, %v were let in", n)
		}
		c.come(40, host, verifier.PriorityCommand)
		c.come(maxConns, host, verifier.PriorityAdmission)
		if n := c.in(); n != [3]int{maxConns - maxInFlightWatch - maxInFlightCommand, maxInFlightCommand, 0} {
			t.Errorf("then %v", n)
		}
		waiting := maxInFlightWatch + maxInFlightCommand
		c.release(waiting)
		if n := c.in(); n != [3]int{waiting, 0, 0} {
			t.Errorf("as places became free, %v were let in", n)
		}
		c.come(5, "other.example.com", verifier.PriorityAdmission)
		if n := c.in(); n[verifier.PriorityAdmission] != 5 {
			t.Errorf("another host's wait for this one: %v", n)
		}
		c.release(maxConns + 5)
		if n := c.in(); n[verifier.PriorityCommand] != 40-maxInFlightCommand || n[verifier.PriorityWatch] == 0 {
			t.Errorf("in the end %v", n)
		}
		close(c.leave)
	})
}

func TestAllHostsTogetherAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		for i := range maxInFlight/maxConns + 1 {
			c.come(maxConns, fmt.Sprintf("host-%d", i), verifier.PriorityAdmission)
		}
		if n := c.in(); n[0] != maxInFlight {
			t.Errorf("%d are under way", n[0])
		}
		c.release(10)
		if n := c.in(); n[0] != 10 {
			t.Errorf("%d came in the place of 10", n[0])
		}
		close(c.leave)
	})
}

// TestAHostThatHadTooMuch is asked at half the rate that was too much, then faster
// and faster, and as fast as anybody likes when that is long ago.
func TestAHostThatHadTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		const host = "registry.example.com"
		second := func() (n int) { // how many pass in a second, of any number
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			for n < 500 {
				leave, err := p.enter(ctx, host)
				if err != nil {
					return n
				}
				leave()
				n++
				time.Sleep(5 * time.Millisecond)
			}
			return n
		}
		if n := second(); n < 199 {
			t.Fatalf("%d passed before anything was too much", n)
		}
		p.throttle(host)
		p.throttle(host) // of the same burst
		first := second()
		if first < 80 || first > 115 {
			t.Errorf("after 200 in a second were too much, %d", first)
		}
		for range 9 {
			second()
		}
		if n := second(); n <= first || n > 2*first {
			t.Errorf("ten seconds later %d, after %d", n, first)
		}
		time.Sleep(rateMemory)
		if n := second(); n < 199 {
			t.Errorf("when it was long ago, %d", n)
		}
		quiet := "quiet.example.com"
		p.throttle(quiet)
		began := time.Now()
		for range 3 { // an admission's requests
			leave, err := p.enter(t.Context(), quiet)
			if err != nil {
				t.Fatal(err)
			}
			leave()
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("an admission waits %v", took)
		}
	})
}

// TestWhoGivesUpLeavesNoTrace: the place goes to the next.
func TestWhoGivesUpLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.come(maxConns, "a", verifier.PriorityAdmission)
		c.in()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.pace.enter(impatient, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		c.come(1, "a", verifier.PriorityAdmission)
		c.release(1)
		if n := c.in(); n[0] != 1 {
			t.Errorf("%v", n)
		}
		close(c.leave)
		synctest.Wait()
		if c.pace.waiters != 0 || total(c.pace.all) != 0 || total(c.pace.hosts["a"].underWay) != 0 {
			t.Errorf("%+v", c.pace)
		}
	})
}

// TestManyHostsAreForgotten: their names are an attacker's choice.
func TestManyHostsAreForgotten(t *testing.T) {
	p := newPace()
	for i := range 3 * maxPacedHosts {
		leave, err := p.enter(t.Context(), string(rune('a'+i%26))+time.Duration(i).String())
		if err != nil {
			t.Fatal(err)
		}
		leave()
	}
	if n := len(p.hosts); n > maxPacedHosts {
		t.Errorf("%d hosts are known", n)
	}
}
