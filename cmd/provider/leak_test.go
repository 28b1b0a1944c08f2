package main

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// TestL39_BadSignaturesLeakNothing: 500 bad signatures of each scheme on one
// image, asked for 1,000 times: no race, no goroutine left, no memory.
func TestL39_BadSignaturesLeakNothing(t *testing.T) {
	const cosign = "\n      - {name: ci, cosign: {transparencyLog: ignored, keys: [{name: ci, file: ci.pub}]}}\n"
	for name, content := range map[string]string{
		"Notation":      "junk cart:1 n=500",
		"Cosign's tag":  "cosign cart:1 by=mallory as=tag n=500",
		"bundles":       "cosign cart:1 by=mallory as=bundle n=500",
		"both, garbage": "junk cart:1 n=250\ncosign cart:1 by=ci as=bundle garbage n=250",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, trusting("wabbit")+cosign)
			s.run(t, "image cart:1\n"+content)
			image := "cart@" + s.images["cart:1"].Digest.String()
			before := runtime.NumGoroutine()
			ask := func(requests int) {
				var clients sync.WaitGroup
				for range 10 {
					clients.Go(func() {
						for range requests / 10 {
							if a := s.verify(t, image); a.Success || a.Status == "UNKNOWN" {
								t.Errorf("%s: %s", a.word(), a.Message)
								return
							}
						}
					})
				}
				clients.Wait()
			}
			requests := 1000
			if testing.Short() {
				requests = 300
			}
			ask(requests / 5)
			early := heap()
			ask(requests * 4 / 5)
			if late := heap(); late > early+early/4+1<<20 {
				t.Errorf("the heap has %d bytes after some requests and %d after five times as many", early, late)
			}
			s.registry.Close() // and with it the connections that are kept
			patience := time.After(10 * time.Second)
			for after := runtime.NumGoroutine(); after > before+5; after = runtime.NumGoroutine() {
				select {
				case <-patience:
					t.Fatalf("%d goroutines before, %d after", before, after)
				default:
					runtime.Gosched()
				}
			}
		})
	}
}

// heap is what is in use after all that can go is gone.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what the first only finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
