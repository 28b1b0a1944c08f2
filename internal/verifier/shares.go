package verifier

import (
	"context"
	"slices"
	"sync"
)

const (
	// maxDecisions bounds the decisions that are worked on at once, those included
	// whose callers have left. The last quarter is only for hosts and namespaces
	// that have few under way.
	maxDecisions      = 512
	unreservedInTotal = maxDecisions * 3 / 4
	// maxDecisionsOfHost is one registry's share: a registry is asked over 64
	// connections, so that more decisions than twice that only wait. The last
	// quarter is only for namespaces that have few at that registry.
	maxDecisionsOfHost = 128
	unreservedOfHost   = maxDecisionsOfHost * 3 / 4
	// maxDecisionsOfNamespace is one namespace's share.
	maxDecisionsOfNamespace = maxDecisions / 2
	// fewDecisions is up to how many a host or a namespace may use of what is
	// reserved, and fewAtHost how many a namespace may at one host.
	fewDecisions = 16
	fewAtHost    = 4
	// maxWaitingOfHost bounds the decisions that wait for a place at one host: each
	// holds some kilobytes until its budget ends.
	maxWaitingOfHost = 1 << 10
	// maxWaiting bounds those that wait at all hosts together, because anyone who
	// may create Pods names hosts.
	maxWaiting = 4 << 10
)

// shares limits the decisions that are worked on at once, in all and by host and
// namespace, so that neither a registry that is silent nor a tenant who asks for
// thousands of images keeps the decisions of others from being worked on. Safe for
// concurrent use.
type shares struct {
	mu        sync.Mutex // guards all below
	total     int
	waiters   int
	ofHost    map[string]int
	ofSpace   map[string]int
	ofBoth    map[sharer]int
	waiting   map[string][]*sharer // by host, in the order of arrival
	hostOrder []string             // of those that wait, so that each gets its turn
}

// sharer is the host and the namespace that a decision counts for.
type sharer struct {
	host, namespace string
	granted         chan struct{} // closed when a waiting one may begin; nil in keys
}

func newShares() *shares {
	return &shares{ofHost: map[string]int{}, ofSpace: map[string]int{}, ofBoth: map[sharer]int{}, waiting: map[string][]*sharer{}}
}

// enter waits until a decision about an image of the host may begin that the
// namespace asked for. Its caller calls leave when the decision is over.
func (s *shares) enter(ctx context.Context, host, namespace string) (leave func(), refused *Error) {
	d := &sharer{host: host, namespace: namespace}
	s.mu.Lock()
	switch {
	case s.fits(d): // those that wait do not, or they would have begun
		s.begin(d)
		s.mu.Unlock()
		return func() { s.leave(d) }, nil
	case len(s.waiting[host]) >= maxWaitingOfHost, s.waiters >= maxWaiting:
		s.mu.Unlock()
		return nil, tooManyDecisions(host)
	}
	d.granted = make(chan struct{})
	if len(s.waiting[host]) == 0 {
		s.hostOrder = append(s.hostOrder, host)
	}
	s.waiting[host] = append(s.waiting[host], d)
	s.waiters++
	s.mu.Unlock()
	select {
	case <-d.granted:
		return func() { s.leave(d) }, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.waiting[host], d)
	if i >= 0 {
		s.unqueue(host, i)
	}
	s.mu.Unlock()
	if i < 0 { // it was granted at the same moment
		s.leave(d)
	}
	return nil, tooManyDecisions(host)
}

func tooManyDecisions(host string) *Error {
	return &Error{
		Reason: ReasonLimitExceeded, Message: "too many images of " + host + ", or of this namespace, are being verified at once",
		Remedy: "Try again in a few seconds",
	}
}

func (s *shares) leave(d *sharer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	decrease(s.ofHost, d.host)
	decrease(s.ofSpace, d.namespace)
	decrease(s.ofBoth, d.key())
	s.grant()
}

func decrease[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

func (d *sharer) key() sharer { return sharer{host: d.host, namespace: d.namespace} }

// fits reports whether the decision may begin now. The caller holds mu.
func (s *shares) fits(d *sharer) bool {
	ofHost, ofSpace := s.ofHost[d.host], s.ofSpace[d.namespace]
	switch {
	case s.total >= maxDecisions, ofHost >= maxDecisionsOfHost, ofSpace >= maxDecisionsOfNamespace:
		return false
	case s.total >= unreservedInTotal && (ofHost >= fewDecisions || ofSpace >= fewDecisions):
		return false
	case ofHost >= unreservedOfHost && s.ofBoth[d.key()] >= fewAtHost:
		return false
	}
	return true
}

// begin counts the decision. The caller holds mu.
func (s *shares) begin(d *sharer) {
	s.total++
	s.ofHost[d.host]++
	s.ofSpace[d.namespace]++
	s.ofBoth[d.key()]++
}

// grant begins those that wait and may, one of each host in turn. The caller holds mu.
func (s *shares) grant() {
	for granted := true; granted && s.total < maxDecisions; {
		granted = false
		for _, host := range slices.Clone(s.hostOrder) {
			if s.total >= maxDecisions {
				return
			}
			i := slices.IndexFunc(s.waiting[host], s.fits)
			if i < 0 {
				continue
			}
			d := s.waiting[host][i]
			s.unqueue(host, i)
			if at := slices.Index(s.hostOrder, host); at >= 0 {
				s.hostOrder = append(slices.Delete(s.hostOrder, at, at+1), host)
			}
			s.begin(d)
			close(d.granted)
			granted = true
		}
	}
}

// unqueue takes one out of those that wait at the host. The caller holds mu.
func (s *shares) unqueue(host string, i int) {
	s.waiting[host] = slices.Delete(s.waiting[host], i, i+1)
	s.waiters--
	if len(s.waiting[host]) == 0 {
		delete(s.waiting, host)
		s.hostOrder = slices.DeleteFunc(s.hostOrder, func(h string) bool { return h == host })
	}
}
