// Package flight lets callers who want the same thing at the same time share
// one piece of work. The work belongs to nobody's request: it has a budget of
// its own, callers only wait, and one who gives up spoils nothing for the rest.
package flight

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Group shares work by key. The zero Group is ready. Safe for concurrent use.
type Group[V any] struct {
	mu    sync.Mutex // guards calls
	calls map[string]*call[V]
}

type call[V any] struct {
	done  chan struct{} // closed when value and err are set
	value V
	err   error
}

// PanicError is what work that panicked gives to all who waited for it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Do gives the result of work for the key, started here or already under way.
// Work runs under ctx's values but not its cancellation, for at most budget.
// When ctx ends first, Do returns context.Cause(ctx) and the work goes on.
func (g *Group[V]) Do(ctx context.Context, key string, budget time.Duration, work func(context.Context) (V, error)) (V, error) {
	g.mu.Lock()
	if g.calls == nil {
		g.calls = map[string]*call[V]{}
	}
	c, underWay := g.calls[key]
	if !underWay {
		c = &call[V]{done: make(chan struct{})}
		g.calls[key] = c
		workCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
		go func() {
			defer cancel()
			g.run(workCtx, key, c, work)
		}()
	}
	g.mu.Unlock()

	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var none V
		return none, context.Cause(ctx)
	}
}

func (g *Group[V]) run(ctx context.Context, key string, c *call[V], work func(context.Context) (V, error)) {
	defer func() {
		if p := recover(); p != nil {
			c.err = &PanicError{Value: p, Stack: debug.Stack()}
		}
		g.mu.Lock()
		delete(g.calls, key)
		g.mu.Unlock()
		close(c.done)
	}()
	c.value, c.err = work(ctx)
}
