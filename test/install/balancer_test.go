package install

import (
	"io"
	"net"
	"slices"
	"sync"
)

// balancer is the Service: it leads each connection to a replica that takes it.
type balancer struct {
	listener net.Listener

	mu   sync.Mutex // guards all below
	to   []string
	next int
}

func newBalancer() (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: listener}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go b.lead(connection)
		}
	}()
	return b, nil
}

func (b *balancer) address() string { return b.listener.Addr().String() }

func (b *balancer) set(to []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.to = to
}

func (b *balancer) lead(from net.Conn) {
	defer func() { _ = from.Close() }()
	b.mu.Lock()
	b.next++
	order := append(slices.Clone(b.to[b.next%max(1, len(b.to)):]), b.to[:b.next%max(1, len(b.to))]...)
	b.mu.Unlock()
	for _, address := range order {
		to, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		go func() {
			_, _ = io.Copy(to, from)
			_ = to.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(from, to)
		_ = to.Close()
		return
	}
}

func (b *balancer) close() { _ = b.listener.Close() }
