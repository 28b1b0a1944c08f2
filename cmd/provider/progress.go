package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// progressDelay is how long work may take before a person is told that it is
// going on.
const progressDelay = 300 * time.Millisecond

// progress shows on a terminal that work is going on, and nothing elsewhere.
type progress struct {
	done chan struct{}
	wg   sync.WaitGroup
}

func startProgress(out io.Writer, what string) *progress {
	p := &progress{done: make(chan struct{})}
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) {
		return p
	}
	p.wg.Go(func() {
		start, tick := time.Now(), time.NewTicker(progressDelay)
		defer tick.Stop()
		for {
			select {
			case <-p.done:
				_, _ = fmt.Fprint(out, "\r\x1b[K")
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(out, "\r%s… %.1f s", what, time.Since(start).Seconds())
			}
		}
	})
	return p
}

func (p *progress) stop() {
	close(p.done)
	p.wg.Wait()
}
