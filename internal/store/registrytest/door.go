package registrytest

import (
	"net"
	"sync"
)

// door is a listener that can refuse connections for a while, and listens at the same
// address afterwards.
type door struct {
	address string

	mu       sync.Mutex // guards all below
	changed  *sync.Cond
	listener net.Listener // nil: connections are refused
	closed   bool
}

func newDoor(listener net.Listener) *door {
	d := &door{address: listener.Addr().String(), listener: listener}
	d.changed = sync.NewCond(&d.mu)
	return d
}

// Accept implements net.Listener. While connections are refused it waits.
func (d *door) Accept() (net.Conn, error) {
	for {
		d.mu.Lock()
		for d.listener == nil && !d.closed {
			d.changed.Wait()
		}
		listener, closed := d.listener, d.closed
		d.mu.Unlock()
		if closed {
			return nil, net.ErrClosed
		}
		conn, err := listener.Accept()
		if err == nil {
			return conn, nil
		}
		d.mu.Lock()
		same := d.listener == listener
		d.mu.Unlock()
		if same {
			return nil, err
		}
	}
}

// Close implements net.Listener.
func (d *door) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	return d.shut()
}

// Addr implements net.Listener.
func (d *door) Addr() net.Addr {
	addr, err := net.ResolveTCPAddr("tcp", d.address)
	if err != nil {
		panic(err) // it was written from one
	}
	return addr
}

func (d *door) shut() (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.listener != nil {
		err = d.listener.Close()
	}
	d.listener = nil
	d.changed.Broadcast()
	return err
}

func (d *door) open() error {
	listener, err := net.Listen("tcp", d.address)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listener = listener
	d.changed.Broadcast()
	return nil
}

// Refuse cuts all connections, and has others refused until Listen is called.
func (r *Registry) Refuse() {
	_ = r.door.shut()
	r.server.CloseClientConnections()
}

// Listen ends Refuse: the registry is at its address again.
func (r *Registry) Listen() error { return r.door.open() }
