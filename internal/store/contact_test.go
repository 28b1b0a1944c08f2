package store_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier"
)

func TestL36_AFirstContactThatHangsHoldsNobodyUp(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	want := r.PushImage("cart", "1")
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	defer close(release)
	r.SetFault(registrytest.On("/hangs/", func(w http.ResponseWriter, req *http.Request) bool {
		select {
		case asked <- struct{}{}:
		default:
		}
		return registrytest.Hang(release)(w, req)
	}))
	options := quick()
	options.ContactWait = time.Millisecond
	options.AttemptTimeout, options.Budget = time.Hour, time.Hour // it does not end by itself
	v := open(t, store.New(options), r, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		_, _ = v.Resolve(ctx, verifier.Reference{Registry: r.Host(), Repository: "hangs", Tag: "1"})
	}()
	<-asked
	got, err := v.Resolve(ctx, verifier.Reference{Registry: r.Host(), Repository: "cart", Tag: "1"})
	if err != nil || got.Digest != want.Digest {
		t.Errorf("got %s, %v", got.Digest, err)
	}
}
