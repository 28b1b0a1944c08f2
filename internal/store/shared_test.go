package store

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// keeper is as much of a Redis server as Shared needs, and whoever may write to it
// can see and change all that it keeps. Real servers are in test/shared.
type keeper struct {
	listener net.Listener

	mu     sync.Mutex // guards all below
	values map[string]string
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{listener: listener, values: map[string]string{}}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go k.serve(connection)
		}
	}()
	return k
}

// shared connects to it, and waits until it answers in time.
func (k *keeper) shared(t *testing.T, secret string) *Shared {
	t.Helper()
	s, err := NewShared(SharedOptions{URL: "redis://" + k.listener.Addr().String(), Secret: []byte(secret)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	until(t, "the server answers", func() bool { return s.use() != nil })
	return s
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func (k *keeper) serve(connection net.Conn) {
	defer func() { _ = connection.Close() }()
	in := bufio.NewReader(connection)
	for {
		var n int
		if _, err := fmt.Fscanf(in, "*%d\r\n", &n); err != nil {
			return
		}
		words := make([]string, n)
		for i := range words {
			var size int
			if _, err := fmt.Fscanf(in, "$%d\r\n", &size); err != nil {
				return
			}
			word := make([]byte, size+2)
			if _, err := io.ReadFull(in, word); err != nil {
				return
			}
			words[i] = string(word[:size])
		}
		if _, err := io.WriteString(connection, k.answer(words)); err != nil {
			return
		}
	}
}

func (k *keeper) answer(words []string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch strings.ToUpper(words[0]) {
	case "HELLO":
		return "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n"
	case "PING":
		return "+PONG\r\n"
	case "CLUSTER":
		return "-ERR This instance has cluster support disabled\r\n"
	case "SET":
		k.values[words[1]] = words[2]
	case "GETRANGE":
		value := k.values[words[1]]
		return fmt.Sprintf("$%d\r\n%s\r\n", len(value), value)
	}
	return "+OK\r\n"
}

// keys are those of all values.
func (k *keeper) keys() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []string
	for key := range k.values {
		list = append(list, key)
	}
	return list
}

func (k *keeper) set(key string, change func(string) string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values[key] = change(k.values[key])
}

const ourSecret = "0123456789abcdef0123456789abcdef"

// TestL05_WhatReplicasShareIsHeldToItsKeyAndItsTime: who may write to the server, and
// a replica whose clock is wrong, make nobody believe what he would not believe alone.
func TestL05_WhatReplicasShareIsHeldToItsKeyAndItsTime(t *testing.T) {
	const ttl = time.Minute
	for name, c := range map[string]struct {
		holds  time.Duration         // as the replica that wrote it says
		change func(*keeper, string) // of what it wrote, by its key
		secret string                // of the replica that reads; ours where empty
		want   bool
	}{
		"as it was written":                   {holds: ttl, want: true},
		"by a replica whose clock is ahead":   {holds: ttl + time.Hour},
		"by a replica that keeps it too long": {holds: 24 * time.Hour},
		"about to end":                        {holds: ttl / 10},
		"a byte of the value is another": {holds: ttl, change: func(k *keeper, key string) {
			k.set(key, func(v string) string { return v[:len(v)-2] + "x" + v[len(v)-1:] })
		}},
		"a byte of its end is another": {holds: ttl, change: func(k *keeper, key string) {
			k.set(key, func(v string) string { return v[:32] + "\x7f" + v[33:] })
		}},
		"without its MAC": {holds: ttl, change: func(k *keeper, key string) {
			k.set(key, func(v string) string { return v[32:] })
		}},
		"nothing is left of it": {holds: ttl, change: func(k *keeper, key string) {
			k.set(key, func(string) string { return "" })
		}},
		"of replicas with another secret": {holds: ttl, secret: strings.Repeat("x", 32)},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			writer := k.shared(t, ourSecret)
			writer.remember("view tag", "sha256:aa", time.Now().Add(c.holds))
			until(t, "it was written", func() bool { return len(k.keys()) == 1 })
			if c.change != nil {
				c.change(k, k.keys()[0])
			}
			if c.secret == "" {
				c.secret = ourSecret
			}
			reader := k.shared(t, c.secret)
			if c.secret != ourSecret { // even where the entry is at the reader's own place
				key := k.keys()[0]
				k.set(sharedPrefix+reader.hidden("view tag"), func(string) string { return k.values[key] })
			}
			var got string
			if c.want { // the server has five milliseconds, which a busy machine does not always keep
				until(t, "it is read", func() bool {
					_, ok := reader.recall(t.Context(), "view tag", ttl, &got)
					return ok && got == "sha256:aa"
				})
				return
			}
			for range 3 {
				until(t, "the server answers", func() bool { return reader.use() != nil })
				if end, ok := reader.recall(t.Context(), "view tag", ttl, &got); ok {
					t.Errorf("read %q, which holds until %s", got, end)
				}
			}
		})
	}
}

// TestL05_AnEntryIsItsOwnKeys: an entry that was copied to another place is none there.
func TestL05_AnEntryIsItsOwnKeys(t *testing.T) {
	k := newKeeper(t)
	s := k.shared(t, ourSecret)
	s.remember("view good:1", "sha256:aa", time.Now().Add(time.Minute))
	until(t, "it was written", func() bool { return len(k.keys()) == 1 })
	from := k.keys()[0]
	k.set(sharedPrefix+s.hidden("view bad:1"), func(string) string { return k.values[from] })
	var got string
	until(t, "the good one is read", func() bool {
		_, ok := s.recall(t.Context(), "view good:1", time.Minute, &got)
		return ok
	})
	for range 3 {
		until(t, "the server answers", func() bool { return s.use() != nil })
		if _, ok := s.recall(t.Context(), "view bad:1", time.Minute, &got); ok {
			t.Error("an entry counts for another key")
		}
	}
}

// TestL02_SharedContentIsWhatItsDigestSays.
func TestL02_SharedContentIsWhatItsDigestSays(t *testing.T) {
	k := newKeeper(t)
	s := k.shared(t, ourSecret)
	content := []byte("the envelope")
	of := digest.FromBytes(content)
	s.putContent(of, content)
	until(t, "it was written", func() bool { return len(k.keys()) == 1 })
	until(t, "it is read", func() bool {
		got, ok := s.content(t.Context(), of, int64(len(content)))
		return ok && bytes.Equal(got, content)
	})
	k.set(k.keys()[0], func(string) string { return "the attacker" })
	for range 3 {
		until(t, "the server answers", func() bool { return s.use() != nil })
		if got, ok := s.content(t.Context(), of, int64(len(content))); ok {
			t.Errorf("read %q", got)
		}
	}
}
