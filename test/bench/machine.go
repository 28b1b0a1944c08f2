package main

import (
	"runtime"
	"time"
)

// machine is what the run shares with others. The provider and the echo have
// one core, which no other part of the run uses: the clients and the registry
// have the rest.
type machine struct {
	all    []int
	pinned bool
	core   int // the provider's, when pinned

	began      time.Time
	busy, used time.Duration // when it began
	load       string
}

func newMachine() *machine {
	return &machine{all: allowedCores(), began: time.Now(), busy: busy(), used: used(), load: loadAverage()}
}

// pin takes us off the provider's core, if there is another.
func (m *machine) pin() {
	if len(m.all) < 2 {
		return
	}
	m.pinned, m.core = true, m.all[len(m.all)-1]
	keepOff(m.core, m.all)
}

// onProviderCore starts a process there.
func (m *machine) onProviderCore(start func() error) error {
	if !m.pinned {
		return start()
	}
	return startOn(m.core, start)
}

// others is the part of the machine that was others' since it began: not ours
// and not that of processes that we started, which must have ended.
func (m *machine) others() float64 {
	cores := float64(runtime.NumCPU())
	taken := busy() - m.busy - (used() - m.used)
	return min(max(taken.Seconds()/(time.Since(m.began).Seconds()*cores), 0), 1)
}
