package main

import (
	"sync"
	"testing"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// TestRequestsOfADecision pins what a decision asks of the registry: the fewest
// sequential round trips there are, and nothing when it is warm.
func TestRequestsOfADecision(t *testing.T) {
	for _, test := range []struct {
		name                          string
		options                       registrytest.Options
		byDigest                      bool
		requests, sequential, maxWarm int
	}{
		{"by digest", registrytest.Options{}, true, 3, 3, 0},
		{"by tag", registrytest.Options{}, false, 4, 4, 0},
		{"by digest, fallback tag only", registrytest.Options{NoReferrersAPI: true}, true, 4, 4, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, test.options, trusting("wabbit"))
			s.run(t, "image cart:1.4\nsign cart:1.4 by=wabbit")
			image := "cart:1.4"
			if test.byDigest {
				image = "cart@" + s.images["cart:1.4"].Digest.String()
			}
			s.registry.Reset()
			expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
			if n := len(s.registry.Requests()); n > test.requests {
				t.Errorf("cold: %d requests, at most %d: %v", n, test.requests, s.registry.Requests())
			}
			if n := s.registry.RoundTrips(); n > test.sequential {
				t.Errorf("cold: %d in sequence, at most %d", n, test.sequential)
			}
			s.registry.Reset()
			expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
			if n := len(s.registry.Requests()); n > test.maxWarm {
				t.Errorf("warm: %d requests: %v", n, s.registry.Requests())
			}
		})
	}
}

func TestATokenIsFetchedOncePerScope(t *testing.T) {
	s := newScene(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}}, trusting("wabbit"))
	s.run(t, "image cart:1\nimage cart:2\nimage cart:3\nsign cart:1 by=wabbit\nsign cart:2 by=wabbit\nsign cart:3 by=wabbit")
	var wg sync.WaitGroup
	for _, image := range []string{"cart:1", "cart:2", "cart:3"} {
		wg.Go(func() { expect(t, s.verify(t, image), "TRUSTED/TRUSTED") })
	}
	wg.Wait()
	for scope, n := range s.registry.Tokens() {
		if n != 1 {
			t.Errorf("%d tokens for %s", n, scope)
		}
	}
	if len(s.registry.Tokens()) != 1 {
		t.Errorf("scopes %v, want one", s.registry.Tokens())
	}
}
