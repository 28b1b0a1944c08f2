package verifier_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/verifiertest"
)

// crowd is a store that hangs for some hosts, and a chain over it.
type crowd struct {
	store *verifiertest.Store
	chain *verifier.Chain
	under atomic.Int64 // decisions that hang
}

func newCrowd(hangs func(host string) bool) *crowd {
	c := &crowd{store: &verifiertest.Store{}}
	c.store.BeforeCandidates = func(ctx context.Context, s verifier.Subject) error {
		if !hangs(s.Reference.Registry) {
			return nil
		}
		c.under.Add(1)
		defer c.under.Add(-1)
		<-ctx.Done()
		return ctx.Err()
	}
	c.chain = verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("alice", "alice")}}, c.store, verifier.NewMemory(1<<20))
	return c
}

// begin requests an image and does not wait.
func (c *crowd) begin(t *testing.T, namespace, image string) {
	t.Helper()
	ref := c.store.Tag(image, digestA).Reference
	ctx, leave := context.WithCancel(t.Context())
	leave()
	_, _ = c.chain.Verify(ctx, verifier.Request{Namespace: namespace, Image: ref})
}

// admitted verifies a signed image within the time that an admission has.
func (c *crowd) admitted(t *testing.T, namespace, image string) string {
	t.Helper()
	subject := c.store.Tag(image, digestA)
	c.store.Sign(subject, "alice")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	return answer(c.chain.Verify(ctx, verifier.Request{Namespace: namespace, Image: subject.Reference}))
}

func TestL48_AHostThatHangsLeavesOthersTheirPlaces(t *testing.T) {
	for name, flood := range map[string]func(i int) (namespace, host string){
		"one host":                       func(int) (string, string) { return "mallory", "silent.example.com" },
		"one host, many namespaces":      func(i int) (string, string) { return fmt.Sprint("ns-", i%100), "silent.example.com" },
		"many hosts, one namespace":      func(i int) (string, string) { return "mallory", fmt.Sprintf("silent-%d.example.com", i) },
		"ten hosts, one namespace":       func(i int) (string, string) { return "mallory", fmt.Sprintf("silent-%d.example.com", i%10) },
		"ten hosts, requests of no pod":  func(i int) (string, string) { return "", fmt.Sprintf("silent-%d.example.com", i%10) },
		"the shared host, one namespace": func(int) (string, string) { return "mallory", "shop.example.com" },
		"both hosts, several namespaces": func(i int) (string, string) {
			return fmt.Sprint("ns-", i%3), []string{"shop.example.com", "silent.example.com"}[i%2]
		},
		"as many hosts as there are pods": func(i int) (string, string) { return fmt.Sprint("ns-", i%6), fmt.Sprintf("silent-%d.example.com", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := false
				c := newCrowd(func(string) bool { return !healthy })
				for i := range 1_500 {
					namespace, host := flood(i)
					c.begin(t, namespace, fmt.Sprintf("%s/image-%d:1", host, i))
				}
				synctest.Wait()
				if n := c.under.Load(); n < 64 || n > 512 {
					t.Errorf("%d decisions are worked on", n)
				}
				healthy = true
				if got := c.admitted(t, "victim", "shop.example.com/cart:1"); got != "TRUSTED/TRUSTED" {
					t.Error("another namespace's image:", got)
				}
				time.Sleep(11 * time.Second) // every decision's budget ends
				synctest.Wait()
				if got := c.admitted(t, "mallory", "shop.example.com/after:1"); got != "TRUSTED/TRUSTED" {
					t.Error("when the flood is over:", got)
				}
			})
		})
	}
}

func TestWaitingDecisionsBeginWhenOthersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &verifiertest.Store{BeforeCandidates: func(context.Context, verifier.Subject) error {
			time.Sleep(20 * time.Millisecond)
			return nil
		}}
		chain := verifier.NewChain([]verifier.Policy{{Name: "p", Require: verifiertest.Check("alice", "alice")}}, store, verifier.NewMemory(8<<20))
		const images = 1000
		results := make(chan string, images)
		begun := time.Now()
		for i := range images {
			subject := store.Tag(fmt.Sprintf("shop.example.com/cart-%d:1", i), digestA)
			store.Sign(subject, "alice")
			go func() {
				results <- answer(chain.Verify(t.Context(), verifier.Request{Namespace: "shop", Image: subject.Reference}))
			}()
		}
		for range images {
			if got := <-results; got != "TRUSTED/TRUSTED" {
				t.Fatal(got)
			}
		}
		if took := time.Since(begun); took > 300*time.Millisecond {
			t.Errorf("1,000 images at 20 ms each took %s", took)
		}
	})
}

func TestL48_WhatIsProvedWaitsForNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := false
		c := newCrowd(func(string) bool { return silent })
		subject := c.store.Tag("shop.example.com/cart:1", digestA)
		c.store.Sign(subject, "alice")
		pinned := subject.Reference
		pinned.Tag, pinned.Digest = "", subject.Digest
		request := verifier.Request{Namespace: "shop", Image: pinned}
		if got := answer(c.chain.Verify(t.Context(), request)); got != "TRUSTED/TRUSTED" {
			t.Fatal(got)
		}
		silent = true
		for i := range 1_000 {
			c.begin(t, "shop", fmt.Sprintf("shop.example.com/image-%d:1", i))
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if got := answer(c.chain.Verify(ctx, request)); got != "TRUSTED/TRUSTED" {
			t.Error("beside a thousand of its own namespace:", got)
		}
		time.Sleep(11 * time.Second)
	})
}
