package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxInFlight is how many requests are under way at once, to all hosts: as many
	// as the decisions that are worked on make, so that hosts that hang, whoever has
	// named them, do not keep others from being asked.
	maxInFlight = 1024
	// maxInFlightWatch and maxInFlightCommand are what of a host's, or of all, who
	// can wait may take, so that an admission finds a place at once.
	maxInFlightWatch, maxInFlightCommand = 8, 32
	// minRate is the slowest that we ask a host that has had too much of us and does
	// not say until when: an admission is three requests, and has two seconds.
	minRate = 5
	// rateRise is how much faster we ask with each second in which it has not, as a
	// part of the rate, and rateMemory how long it is remembered that it had.
	rateRise, rateMemory = 0.05, 10 * time.Minute
	// burst is how many requests may come at once, in seconds of the rate.
	burst = 0.5
)

// pace lets requests pass: so many at a time, the more urgent ones first, and to a
// host that has answered 429 no faster than it took them before. Safe for
// concurrent use.
type pace struct {
	now func() time.Time

	mu    sync.Mutex // guards all below
	hosts map[string]*hostPace
	all   [verifier.Priorities]int // under way, by priority
	// waiters is how many wait, at all hosts.
	waiters int
}

// hostPace is one host's.
type hostPace struct {
	underWay [verifier.Priorities]int
	waiting  [verifier.Priorities][]*turn

	// rate in requests a second; 0: unlimited. tokens are what may be sent at once.
	rate, tokens float64
	refilled     time.Time
	throttled    time.Time // when it last had too much
	// sent in this second and in the one before, to know the rate that was too much.
	second       int64
	sent, before int
	wake         *time.Timer
}

// turn is somebody who waits.
type turn struct {
	granted  chan struct{}
	priority verifier.Priority
}

func newPace() *pace { return &pace{now: time.Now, hosts: map[string]*hostPace{}} }

// enter waits for a turn at the host. Whoever gets one calls leave.
func (p *pace) enter(ctx context.Context, host string) (leave func(), err error) {
	t := &turn{make(chan struct{}), verifier.PriorityOf(ctx)}
	p.mu.Lock()
	h := p.host(host)
	h.waiting[t.priority] = append(h.waiting[t.priority], t)
	p.waiters++
	p.grantAt(h)
	p.mu.Unlock()
	leave = func() { p.leave(host, t.priority) }
	select {
	case <-t.granted:
		return leave, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	h = p.host(host)
	i := slices.Index(h.waiting[t.priority], t)
	if i >= 0 {
		h.waiting[t.priority] = slices.Delete(h.waiting[t.priority], i, i+1)
		p.waiters--
	}
	p.mu.Unlock()
	if i < 0 { // it came at the same moment
		leave()
	}
	return nil, context.Cause(ctx)
}

func (p *pace) leave(host string, priority verifier.Priority) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.host(host).underWay[priority]--
	p.all[priority]--
	if p.waiters > 0 {
		p.grant() // at another host as well, where all had been too many
	}
}

// host gives the host's books. The caller holds mu.
func (p *pace) host(name string) *hostPace {
	h := p.hosts[name]
	if h == nil {
		for other, of := range p.hosts { // hosts are named by whoever writes an image
			if len(p.hosts) < maxPacedHosts {
				break
			}
			if of.idle(p.now()) {
				delete(p.hosts, other)
			}
		}
		h = &hostPace{}
		p.hosts[name] = h
	}
	return h
}

// maxPacedHosts is how many hosts are known before the idle ones are forgotten.
const maxPacedHosts = 1 << 10

func (h *hostPace) idle(now time.Time) bool {
	return total(h.underWay) == 0 && len(h.waiting[0])+len(h.waiting[1])+len(h.waiting[2]) == 0 && now.Sub(h.throttled) > rateMemory
}

func total(of [verifier.Priorities]int) (sum int) {
	for _, n := range of {
		sum += n
	}
	return sum
}

// grant lets pass who may, the more urgent first. The caller holds mu.
func (p *pace) grant() {
	now := p.now()
	for priority := range verifier.Priority(verifier.Priorities) {
		for _, h := range p.hosts {
			for p.pass(h, priority, now) {
			}
		}
	}
}

// grantAt does the same where only one host's books have changed.
func (p *pace) grantAt(h *hostPace) {
	now := p.now()
	for priority := range verifier.Priority(verifier.Priorities) {
		for p.pass(h, priority, now) {
		}
	}
}

// pass lets one of the host's pass, if there is one and one may. The caller holds mu.
func (p *pace) pass(h *hostPace, priority verifier.Priority, now time.Time) bool {
	if len(h.waiting[priority]) == 0 || !room(p.all, priority, maxInFlight) || !room(h.underWay, priority, maxConns) || !p.spend(h, now) {
		return false
	}
	t := h.waiting[priority][0]
	h.waiting[priority] = h.waiting[priority][1:]
	h.underWay[priority]++
	p.all[priority]++
	p.waiters--
	close(t.granted)
	return true
}

// room reports whether one more of the priority fits.
func room(underWay [verifier.Priorities]int, priority verifier.Priority, limit int) bool {
	if total(underWay) >= limit {
		return false
	}
	switch priority {
	case verifier.PriorityWatch:
		return underWay[priority] < maxInFlightWatch
	case verifier.PriorityCommand:
		return underWay[priority] < maxInFlightCommand
	}
	return true
}

// spend takes a token, or has the host looked at again when there will be one. The
// caller holds mu.
func (p *pace) spend(h *hostPace, now time.Time) bool {
	h.refill(now)
	if h.rate > 0 && h.tokens < 1 {
		if h.wake == nil {
			wait := time.Duration((1 - h.tokens) / h.rate * float64(time.Second))
			h.wake = time.AfterFunc(max(wait, time.Millisecond), func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				h.wake = nil
				p.grant()
			})
		}
		return false
	}
	h.tokens--
	if second := now.Unix(); second != h.second {
		h.before = 0
		if second == h.second+1 {
			h.before = h.sent
		}
		h.second, h.sent = second, 0
	}
	h.sent++
	return true
}

// refill adds what has come since the last time, and asks for more each second.
func (h *hostPace) refill(now time.Time) {
	if h.rate == 0 {
		return
	}
	if now.Sub(h.throttled) > rateMemory {
		h.rate, h.tokens = 0, 0
		return
	}
	passed := max(now.Sub(h.refilled).Seconds(), 0)
	h.refilled = now
	h.tokens = min(h.tokens+passed*h.rate, max(1, h.rate*burst))
	h.rate *= 1 + rateRise*min(passed, 1)
}

// throttle learns from an answer 429: half of what was sent in a second was not
// too much, for all we know.
func (p *pace) throttle(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, now := p.host(host), p.now()
	if now.Sub(h.throttled) < time.Second && h.rate > 0 {
		return // of the same burst
	}
	h.throttled, h.refilled = now, now
	h.rate = max(float64(max(h.sent, h.before))/2, minRate)
	h.tokens = 0
}
