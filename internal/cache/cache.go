// Package cache remembers values until they expire, within a budget of bytes.
// It knows nothing of what it holds; who may see an entry, and for how long it
// is true, is the business of the key and the expiry that its user gives.
package cache

import (
	"container/list"
	"sync"
	"time"
)

// entryOverhead is what an entry costs beside its value: map slot, list
// element, key header. Measured at about 200 bytes on amd64.
const entryOverhead = 200

// Cache is a least-recently-used map with an expiry for each entry. Safe for
// concurrent use. Values are shared between readers: they must not be changed.
type Cache[V any] struct {
	maxBytes int64

	mu      sync.Mutex // guards all below
	entries map[string]*list.Element
	recent  *list.List // front is the most recent; of *entry[V]
	bytes   int64
	stats   Stats
}

type entry[V any] struct {
	key     string
	value   V
	size    int64
	expires time.Time
}

// Stats counts what happened since the cache was made.
type Stats struct {
	Hits, Misses, Evictions uint64
	Bytes                   int64
	Entries                 int
}

// Plus is the sum of two caches' figures.
func (s Stats) Plus(other Stats) Stats {
	return Stats{
		Hits: s.Hits + other.Hits, Misses: s.Misses + other.Misses, Evictions: s.Evictions + other.Evictions,
		Bytes: s.Bytes + other.Bytes, Entries: s.Entries + other.Entries,
	}
}

// New makes a cache that holds at most maxBytes, as its users count them.
func New[V any](maxBytes int64) *Cache[V] {
	return &Cache[V]{maxBytes: maxBytes, entries: map[string]*list.Element{}, recent: list.New()}
}

// Get gives the value if it is there and has not expired.
func (c *Cache[V]) Get(key string) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var none V
	element, ok := c.entries[key]
	if !ok {
		c.stats.Misses++
		return none, false
	}
	e := element.Value.(*entry[V])
	if !time.Now().Before(e.expires) {
		c.remove(element)
		c.stats.Misses++
		return none, false
	}
	c.recent.MoveToFront(element)
	c.stats.Hits++
	return e.value, true
}

// Put remembers the value until expires, counted as size bytes beside the key.
// A value that is larger than the whole cache, or has expired, is not kept.
func (c *Cache[V]) Put(key string, value V, size int64, expires time.Time) {
	size += int64(len(key)) + entryOverhead
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.entries[key]; ok {
		c.remove(old)
	}
	if size > c.maxBytes || !time.Now().Before(expires) {
		return
	}
	for c.bytes+size > c.maxBytes {
		c.remove(c.recent.Back())
		c.stats.Evictions++
	}
	c.entries[key] = c.recent.PushFront(&entry[V]{key, value, size, expires})
	c.bytes += size
}

// Delete forgets the key.
func (c *Cache[V]) Delete(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[key]; ok {
		c.remove(element)
	}
}

// Stats tells how the cache fares.
func (c *Cache[V]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Bytes, s.Entries = c.bytes, len(c.entries)
	return s
}

func (c *Cache[V]) remove(element *list.Element) {
	e := c.recent.Remove(element).(*entry[V])
	delete(c.entries, e.key)
	c.bytes -= e.size
}
