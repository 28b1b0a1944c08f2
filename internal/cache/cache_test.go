package cache_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
)

func TestAnEntryIsGoneWhenItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cache.New[string](1 << 20)
		c.Put("k", "v", 1, time.Now().Add(time.Minute))
		time.Sleep(time.Minute - time.Nanosecond)
		if _, ok := c.Get("k"); !ok {
			t.Error("gone before it expired")
		}
		time.Sleep(time.Nanosecond)
		if _, ok := c.Get("k"); ok {
			t.Error("still there at its expiry")
		}
		if s := c.Stats(); s.Bytes != 0 || s.Entries != 0 {
			t.Errorf("an expired entry is still counted: %+v", s)
		}
	})
}

func TestTheByteBudgetHoldsAndTheLeastRecentGoes(t *testing.T) {
	const budget = 10_000
	c := cache.New[int](budget)
	expires := time.Now().Add(time.Hour)
	for i := range 1000 {
		c.Get("k0")
		c.Put(fmt.Sprint("k", i), i, 800, expires)
		if s := c.Stats(); s.Bytes > budget {
			t.Fatalf("%d bytes held, budget %d", s.Bytes, budget)
		}
	}
	if _, ok := c.Get("k0"); !ok {
		t.Error("the entry that was used most recently is gone")
	}
	if _, ok := c.Get("k1"); ok {
		t.Error("an entry that nobody used outlived newer ones")
	}
	c.Put("huge", 1, budget+1, expires)
	if _, ok := c.Get("huge"); ok {
		t.Error("an entry larger than the cache was kept")
	}
}
