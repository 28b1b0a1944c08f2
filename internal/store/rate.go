package store

import (
	"net/http"
	"time"
)

const (
	// A rate is learned only where a peer refused more than minRefused requests, and
	// more than one in refusedPart, in a second: fewer are bad answers like a 500.
	minRefused, refusedPart = 5, 8
	// minRate is the lowest, in requests a second: an admission is three or four
	// requests, and has 1.8 s.
	minRate = 10
	// rateRise is the part by which a rate rises in each second, and rateMemory is
	// how long after the last refusals in number it is dropped.
	rateRise, rateMemory = 0.25, 10 * time.Second
	// burst is how many requests may come at once, in seconds of the rate.
	burst = 0.25
	// failsAfter is how many bad answers in a row are not chance.
	failsAfter = 10
	// unrelated is how long no rate is learned after one that did not help.
	unrelated = 30 * time.Second
)

// tally counts answers to requests.
type tally struct{ answers, good, refused int }

func (t tally) plus(other tally) tally {
	return tally{t.answers + other.answers, t.good + other.good, t.refused + other.refused}
}

// window counts the answers of the last second or two.
type window struct {
	begun, before time.Time // of now, and of last where there is one
	now, last     tally
}

// at gives the tally of this second.
func (w *window) at(now time.Time) *tally {
	switch age := now.Sub(w.begun); {
	case age >= 2*time.Second:
		*w = window{begun: now, before: now}
	case age >= time.Second:
		*w = window{begun: now, before: w.begun, last: w.now}
	}
	return &w.now
}

// sum gives what was counted, and in how many seconds.
func (w *window) sum(now time.Time) (tally, float64) {
	w.at(now)
	return w.now.plus(w.last), now.Sub(w.before).Seconds()
}

// rate is how many requests a second a peer is sent, learned from what it refused.
// The zero rate is unlimited.
type rate struct {
	window window
	// bad answers came one after another, the last ones.
	bad int
	// limit in requests a second; 0: unlimited. tokens are what may be sent at once.
	limit, tokens float64
	refilled      time.Time
	// learned is when the limit was, from how many answers a second, and part is the
	// part of them that were refusals. shut: it was all.
	learned time.Time
	from    float64
	part    float64
	// vain is how many limits in a row had as much refused as the ones before.
	vain int
	shut bool
	// quiet is until when no other limit is learned.
	quiet time.Time
}

func (r *rate) limits(now time.Time) bool { return r.limit > 0 && now.Sub(r.learned) <= rateMemory }

// spend takes a token; where there is none it says for how long.
func (r *rate) spend(now time.Time) (wait time.Duration) {
	if !r.limits(now) {
		r.limit = 0
		return 0
	}
	passed := max(now.Sub(r.refilled).Seconds(), 0)
	r.refilled = now
	r.tokens = min(r.tokens+passed*r.limit, max(1, r.limit*burst))
	r.limit *= 1 + rateRise*min(passed, 1)
	if r.tokens < 1 {
		return max(time.Duration((1-r.tokens)/r.limit*float64(time.Second)), time.Millisecond)
	}
	r.tokens--
	return 0
}

// count learns from an answer; status 0 is none. An answer with Retry-After is not
// for here: that is a time, and needs no rate.
func (r *rate) count(now time.Time, status int) {
	t := r.window.at(now)
	t.answers++
	r.bad++
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		t.refused++
		r.learn(now)
	case status != 0 && status != http.StatusRequestTimeout && status < 500:
		t.good++
		r.bad = 0
		if r.shut { // the first success opens the way
			r.limit, r.shut = 0, false
		}
	}
}

// learn lowers the rate to what the peer took of late. Where lower rates were refused
// as much as those before, twice, refusals are not for the rate, and it is lifted.
func (r *rate) learn(now time.Time) {
	sum, seconds := r.window.sum(now)
	from := float64(sum.answers) / max(seconds, 1)
	part := float64(sum.refused) / float64(sum.answers)
	switch {
	case now.Before(r.quiet), sum.refused <= minRefused, sum.refused*refusedPart <= sum.answers:
		return
	case seconds < 1 && sum.good > 0: // less than a second tells too little
		return
	}
	vain := 0
	if r.limits(now) && !r.shut && from <= 0.9*r.from && part >= 0.6*r.part {
		vain = r.vain + 1
	}
	if vain == 2 {
		*r = rate{quiet: now.Add(unrelated), bad: r.bad}
		return
	}
	*r = rate{
		bad: r.bad, vain: vain, limit: max(0.9*float64(sum.good)/max(seconds, 1), minRate), refilled: now,
		learned: now, from: from, part: part, shut: sum.good == 0, quiet: now.Add(time.Second),
	}
}

// count learns from an answer of the peer; status 0 is none.
func (p *pace) count(at peer, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.book(at)
	b.rate.count(p.now(), status)
	p.dismiss(b)
}

// fails reports whether the peer gave no good answer of late: so many bad ones in a
// row are not chance.
func (p *pace) fails(at peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book(at).rate.bad >= failsAfter
}
