package store_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// TestAStuckReadIsAskedTwice, and who answers first is heard.
func TestAStuckReadIsAskedTwice(t *testing.T) {
	for name, transport := range map[string]registrytest.Options{"HTTP/1.1": {}, "HTTP/2": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, transport)
			image := r.PushImage(repo, "v1")
			options := quick()
			options.HedgeAfter, options.AttemptTimeout = 20*time.Millisecond, time.Minute
			v := open(t, store.New(options), r, nil)
			var stuck atomic.Int32
			gone := make(chan struct{})
			r.SetFault(func(_ http.ResponseWriter, req *http.Request) bool {
				if stuck.Add(1) > 1 {
					return false
				}
				<-req.Context().Done() // until it is told to stop
				close(gone)
				return true
			})
			s, err := v.Resolve(t.Context(), byTag(r, "v1"))
			if err != nil || s.Digest != image.Digest {
				t.Fatalf("%v, %v", s, err)
			}
			<-gone
			if n := len(r.Requests()); n != 2 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// TestASlowRegistryIsNotAskedForTwiceAsMuch: only a small part is asked again.
func TestASlowRegistryIsNotAskedForTwiceAsMuch(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	options := quick()
	options.HedgeAfter = time.Nanosecond
	v := open(t, store.New(options), r, nil)
	const questions = 100
	for i := range questions {
		layer := r.PushBlob(repo, "application/octet-stream", []byte{byte(i)})
		if _, err := v.Fetch(context.Background(), subjectOf(r, image), layer); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(r.Requests()); n > questions+questions/20+4 {
		t.Errorf("%d requests for %d questions", n, questions)
	}
}

// TestBothTriesFail: then the question has failed once, and is tried again as ever.
func TestBothTriesFail(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	image := r.PushImage(repo, "v1")
	options := quick()
	options.HedgeAfter = 10 * time.Millisecond
	v := open(t, store.New(options), r, nil)
	var n atomic.Int32
	r.SetFault(func(http.ResponseWriter, *http.Request) bool {
		if n.Add(1) > 2 {
			return false
		}
		for n.Load() < 2 { // so that both are under way
			time.Sleep(time.Millisecond)
		}
		panic(http.ErrAbortHandler)
	})
	if s, err := v.Resolve(t.Context(), byTag(r, "v1")); err != nil || s.Digest != image.Digest {
		t.Errorf("%v, %v", s, err)
	}
}
