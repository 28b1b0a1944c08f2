package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	return &crowd{t, newPace(), make(chan verifier.Priority, 4*maxInFlight), make(chan struct{})}
}

func (c *crowd) come(n int, host string, priority verifier.Priority) {
	c.comeTo(n, peer{"view", host}, priority)
}

func (c *crowd) comeTo(n int, at peer, priority verifier.Priority) {
	ctx := verifier.WithPriority(c.t.Context(), priority)
	for range n {
		go func() {
			leave, err := c.pace.enter(ctx, at)
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
		for i := range maxInFlight / maxConns {
			c.come(maxConns+1, fmt.Sprintf("host-%d", i), verifier.PriorityAdmission)
		}
		if n := c.in(); n[0] != maxInFlight {
			t.Errorf("%d are under way", n[0])
		}
		// Each further host has a few places of its own, up to a bound.
		const more = maxInFlight/fewInFlight + 10
		for i := range more {
			c.come(maxConns, fmt.Sprintf("another-%d", i), verifier.PriorityAdmission)
		}
		if n := c.in(); n[0] != maxInFlight*(reserve-1) {
			t.Errorf("beside them, %d are under way", n[0])
		}
		c.release(10)
		if n := c.in(); n[0] != 10 {
			t.Errorf("%d came in the place of 10", n[0])
		}
		close(c.leave)
	})
}

// TestL44_WhoHangsTakesNoOthersPlaces: neither another host's nor, at the same host,
// another view's.
func TestL44_WhoHangsTakesNoOthersPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		const hangs = "registry.example.com"
		c.comeTo(200, peer{"tenant", hangs}, verifier.PriorityAdmission)
		if n := c.in(); n[0] != maxConns {
			t.Errorf("one view has %d under way", n[0])
		}
		for i := range 20 {
			c.comeTo(200, peer{fmt.Sprint("tenant ", i), hangs}, verifier.PriorityAdmission)
		}
		if n := c.in(); n[0] > reserve*maxHostInFlight {
			t.Errorf("twenty views of a host have %d under way", n[0])
		}
		c.comeTo(fewInFlight, peer{"another", hangs}, verifier.PriorityAdmission)
		if n := c.in(); n[0] != fewInFlight {
			t.Errorf("of another view's, %d were let in", n[0])
		}
		for i := range 2 * maxInFlight / maxConns {
			c.come(100, fmt.Sprint("hangs-", i), verifier.PriorityAdmission)
		}
		c.in()
		c.come(fewInFlight, "healthy.example.com", verifier.PriorityAdmission)
		if n := c.in(); n[0] != fewInFlight {
			t.Errorf("of a healthy host's, %d were let in", n[0])
		}
		close(c.leave)
	})
}

// limiter is a host that takes so many requests in each second, and refuses others.
type limiter struct {
	limit, taken int
	second       int64
}

func (l *limiter) answer(now time.Time) int {
	if now.Unix() != l.second {
		l.second, l.taken = now.Unix(), 0
	}
	if l.taken == l.limit {
		return http.StatusTooManyRequests
	}
	l.taken++
	return http.StatusOK
}

// during sends requests to the peer one after another, 5 ms each, for so long, and
// counts the statuses.
func during(t *testing.T, p *pace, at peer, d time.Duration, answer func() int) map[int]int {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	statuses := map[int]int{}
	for {
		leave, err := p.enter(ctx, at)
		if err != nil || ctx.Err() != nil {
			return statuses
		}
		time.Sleep(5 * time.Millisecond)
		status := answer()
		statuses[status]++
		p.count(at, status)
		leave()
	}
}

var limited = peer{"view", "registry.example.com"}

// TestAFewRefusalsAreBadAnswers, as a 500 is: they lower no rate.
func TestAFewRefusalsAreBadAnswers(t *testing.T) {
	for name, every := range map[string]int{"5 %": 20, "10 %": 10} {
		for _, status := range []int{429, 503} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p, n := newPace(), 0
					got := during(t, p, limited, 10*time.Second, func() int {
						if n++; n%every == 0 {
							return status
						}
						return 200
					})
					if got[200]+got[status] < 1990 {
						t.Errorf("%v in ten seconds", got)
					}
				})
			})
		}
	}
}

// TestARateThatDoesNotHelpIsLifted: a fifth is refused however slowly we go.
func TestARateThatDoesNotHelpIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, n := newPace(), 0
		got := during(t, p, limited, 20*time.Second, func() int {
			if n++; n%5 == 0 {
				return 429
			}
			return 200
		})
		if got[200]+got[429] < 3600 { // of 4,000
			t.Errorf("%v in twenty seconds", got)
		}
	})
}

// TestAHostThatLimitsUs is sent about what it takes, and soon more when it takes more.
func TestAHostThatLimitsUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, host := newPace(), &limiter{limit: 50}
		answer := func() int { return host.answer(time.Now()) }
		during(t, p, limited, 3*time.Second, answer)
		got := during(t, p, limited, 20*time.Second, answer)
		if got[200] < 700 || got[429] > got[200]/3 { // of 1,000
			t.Errorf("of 50 a second in twenty seconds: %v", got)
		}
		other := peer{"another view", limited.host}
		if got := during(t, p, other, time.Second, func() int { return 200 }); got[200] < 199 {
			t.Errorf("another view: %v", got)
		}
		host.limit = 1000
		during(t, p, limited, 5*time.Second, answer)
		if got := during(t, p, limited, time.Second, answer); got[200] < 150 {
			t.Errorf("five seconds after it takes more: %v", got)
		}
	})
}

// TestTheFirstSuccessOpensTheWay to a host that refused everything, and until then an
// admission's requests are sent.
func TestTheFirstSuccessOpensTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		refused := during(t, p, limited, 10*time.Second, func() int { return 429 })
		if refused[429] < 10*minRate || refused[429] > 500 {
			t.Errorf("while it refuses everything: %v", refused)
		}
		began := time.Now()
		for range 3 {
			leave, err := p.enter(t.Context(), limited)
			if err != nil {
				t.Fatal(err)
			}
			p.count(limited, 200)
			leave()
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("an admission waits %v", took)
		}
		if got := during(t, p, limited, time.Second, func() int { return 200 }); got[200] < 199 {
			t.Errorf("afterwards: %v", got)
		}
	})
}

// TestWhoseTurnComesTooLate leaves the queue at once, and takes no turn.
func TestWhoseTurnComesTooLate(t *testing.T) {
	for name, test := range map[string]struct {
		shut     bool
		priority verifier.Priority
		deadline time.Duration
		late     bool
	}{
		"before the deadline":                     {false, verifier.PriorityAdmission, 5 * time.Second, false},
		"after the deadline":                      {false, verifier.PriorityAdmission, 2 * time.Second, true},
		"everything is refused":                   {true, verifier.PriorityAdmission, 5 * time.Second, true},
		"everything is refused, and it can wait":  {true, verifier.PriorityWatch, 5 * time.Second, false},
		"a look at what runs, after its deadline": {true, verifier.PriorityWatch, 2 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPace()
				now := time.Now()
				p.book(limited).rate = rate{limit: minRate, refilled: now, learned: now, shut: test.shut}
				for range 3 * minRate { // three seconds of turns
					before := &turn{done: make(chan struct{}), priority: test.priority}
					p.book(limited).turns[test.priority] = append(p.book(limited).turns[test.priority], before)
					go func() {
						<-before.done
						if before.err == nil {
							p.leave(p.book(limited), test.priority)
						}
					}()
				}
				ctx, cancel := context.WithTimeout(verifier.WithPriority(t.Context(), test.priority), test.deadline)
				defer cancel()
				leave, err := p.enter(ctx, limited)
				if test.late && (!errors.Is(err, errNoTurn) || time.Since(now) > 0) {
					t.Errorf("%v after %v", err, time.Since(now))
				}
				if !test.late && err != nil {
					t.Error(err)
				}
				if err == nil {
					leave()
				}
				time.Sleep(time.Minute) // until all have left
			})
		})
	}
}

// TestWhoGivesUpLeavesNoTrace: the place goes to the next.
func TestWhoGivesUpLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t)
		c.come(maxConns, "a", verifier.PriorityAdmission)
		c.in()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.pace.enter(impatient, peer{"view", "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		c.come(1, "a", verifier.PriorityAdmission)
		c.release(1)
		if n := c.in(); n[0] != 1 {
			t.Errorf("%v", n)
		}
		close(c.leave)
		synctest.Wait()
		if len(c.pace.waiting) != 0 || total(c.pace.all) != 0 || len(c.pace.hosts) != 0 || !c.pace.books[peer{"view", "a"}].idle() {
			t.Errorf("%+v", c.pace)
		}
	})
}

// TestManyHostsAreForgotten: their names are an attacker's choice.
func TestManyHostsAreForgotten(t *testing.T) {
	p := newPace()
	for i := range 3 * maxBooks {
		leave, err := p.enter(t.Context(), peer{"view", fmt.Sprint("host-", i)})
		if err != nil {
			t.Fatal(err)
		}
		leave()
		if i%2 == 0 {
			for range 20 {
				p.count(peer{"view", fmt.Sprint("host-", i)}, 429)
			}
		}
		if n := len(p.books); n > maxBooks {
			t.Fatalf("%d hosts are known", n)
		}
	}
}
