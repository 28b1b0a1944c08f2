package main

import (
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

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

// aWhile is how long the registry takes: long enough that what is asked together
// is seen to be.
const aWhile = 20 * time.Millisecond

// TestRequestsOfACosignDecision pins the same for Cosign, which may have left a
// signature in either of two places. Where nothing is known of a registry both
// are asked at once, so that neither waits for the other; then the one is asked
// first from which proof came, and the other only when that proves nothing. The
// first question to a host goes alone: it may have to be answered with a token.
func TestRequestsOfACosignDecision(t *testing.T) {
	const (
		tag    = "cosign cart:1.4 by=ci as=tag"
		bundle = "cosign cart:1.4 by=ci as=bundle"
		// What the provider knows: an image of the same repository, or of another.
		knownTag    = "image cart:1.3\ncosign cart:1.3 by=ci as=tag"
		knownBundle = "image cart:1.3\ncosign cart:1.3 by=ci as=bundle"
		elsewhere   = "image till:1.3\ncosign till:1.3 by=ci as=tag"
	)
	cosign := "\n      - {name: ci, cosign: {transparencyLog: ignored, keys: [{name: ci, file: ci.pub}]}}\n"
	either := trusting("wabbit") + cosign
	both := strings.Replace(either, "    any:\n", "    all:\n", 1)
	elsewhereKept := strings.Replace(trustingKeys("ignored", "ci"), "cosign: {", "cosign: {signatureRepository: $REGISTRY/signatures/all, ", 1)
	noAPI := registrytest.Options{NoReferrersAPI: true}
	for _, test := range []struct {
		name, policy, known, content string
		options                      registrytest.Options
		tag                          bool
		requests, sequential         int
	}{
		{name: ".sig", known: knownTag, content: tag, requests: 2, sequential: 2},
		{name: ".sig, by tag", known: knownTag, content: tag, tag: true, requests: 3, sequential: 3},
		{name: ".sig, no referrers API", known: knownTag, content: tag, options: noAPI, requests: 2, sequential: 2},
		{name: ".sig, known of another repository", known: elsewhere, content: tag, requests: 2, sequential: 2},
		{name: ".sig, nothing known", content: tag, requests: 3, sequential: 3},
		{name: ".sig, bundles known", known: knownBundle, content: tag, requests: 3, sequential: 3},
		{name: ".sig of ten signers", known: knownTag, content: "cosign cart:1.4 by=mallory as=tag n=9\n" + tag, requests: 11, sequential: 3},
		{name: "bundle", known: knownBundle, content: bundle, requests: 3, sequential: 3},
		{name: "bundle, by tag", known: knownBundle, content: bundle, tag: true, requests: 4, sequential: 4},
		{name: "bundle, fallback tag only", known: knownBundle, content: bundle, options: noAPI, requests: 3, sequential: 3},
		{name: "bundle, nothing known", content: bundle, requests: 4, sequential: 4},
		{name: "bundle, .sig known", known: knownTag, content: bundle, requests: 4, sequential: 4},
		{name: "referrer of Cosign's own format", known: knownBundle, content: "cosign cart:1.4 by=ci as=referrer", requests: 3, sequential: 3},
		{name: ".sig in another repository", policy: elsewhereKept, known: knownTag + " in=signatures/all", content: tag + " in=signatures/all", requests: 2, sequential: 2},
		{name: "both schemes, both wanted", policy: both, content: "sign cart:1.4 by=wabbit\n" + tag, requests: 5, sequential: 4},
		{name: "both schemes, one wanted", policy: either, content: "sign cart:1.4 by=wabbit\n" + tag, requests: 5, sequential: 4},
		{name: "both schemes, bundle and envelope", policy: both, known: knownBundle + "\nsign cart:1.3 by=wabbit", content: "sign cart:1.4 by=wabbit\n" + bundle, requests: 5, sequential: 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			policy := test.policy
			if policy == "" {
				policy = trustingKeys("ignored", "ci")
			}
			test.options.Latency = aWhile
			s := newScene(t, test.options, policy)
			s.run(t, "image cart:1.4\n"+test.content+"\n"+test.known)
			if test.known != "" {
				expect(t, s.verify(t, strings.Fields(test.known)[1]), "TRUSTED/TRUSTED")
			}
			image := "cart:1.4"
			if !test.tag {
				image = "cart@" + s.images["cart:1.4"].Digest.String()
			}
			s.registry.Reset()
			expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
			if n := len(s.registry.Requests()); n > test.requests {
				t.Errorf("cold: %d requests, at most %d: %v", n, test.requests, s.registry.Requests())
			}
			if n := s.registry.RoundTrips(); n > test.sequential {
				t.Errorf("cold: %d in sequence, at most %d: %v", n, test.sequential, s.registry.Requests())
			}
			for range 3 { // what one of two proofs was still being read for is not stopped
				for s.registry.InFlight() > 0 {
					runtime.Gosched()
				}
				s.registry.Reset()
				expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
				if len(s.registry.Requests()) == 0 {
					return
				}
			}
			t.Errorf("warm: %v", s.registry.Requests())
		})
	}
}

// TestRequestsAfterARestart: lists are asked for, and what they name is on disk.
func TestRequestsAfterARestart(t *testing.T) {
	for name, c := range map[string]struct {
		policy, content string
		files, requests int
	}{
		"Notation": {trusting("wabbit"), "image cart:1.4\nsign cart:1.4 by=wabbit", 2, 1},
		// Where it was found is not remembered, so that both places are asked.
		"Cosign's tag":  {trustingKeys("ignored", "ci"), "image cart:1.4\ncosign cart:1.4 by=ci as=tag", 2, 2},
		"Cosign bundle": {trustingKeys("ignored", "ci"), "image cart:1.4\ncosign cart:1.4 by=ci as=bundle", 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, c.policy)
			s.content = filepath.Join(t.TempDir(), "content")
			s.start(t)
			s.run(t, c.content)
			image := "cart@" + s.images["cart:1.4"].Digest.String()
			expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
			for kept := 0; kept < c.files; { // it is written behind
				list, err := filepath.Glob(filepath.Join(s.content, "blobs", "sha256", "*"))
				if err != nil {
					t.Fatal(err)
				}
				kept = len(list)
			}
			s.start(t)
			s.registry.Reset()
			expect(t, s.verify(t, image), "TRUSTED/TRUSTED")
			if n := len(s.registry.Requests()); n > c.requests {
				t.Errorf("%d requests: %v", n, s.registry.Requests())
			}
			if err := s.app.settle(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestADenialAskedEverywhere: where proof came from before says where to look
// first, and never that nothing is elsewhere.
func TestADenialAskedEverywhere(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trustingKeys("ignored", "ci"))
	s.run(t, "image cart:1.3\ncosign cart:1.3 by=ci as=tag\nimage cart:1.4")
	expect(t, s.verify(t, "cart:1.3"), "TRUSTED/TRUSTED")
	s.registry.Reset()
	expect(t, s.verify(t, "cart:1.4"), "UNKNOWN/SIGNATURE_NOT_FOUND")
	asked := fmt.Sprint(s.registry.Requests())
	hex := s.images["cart:1.4"].Digest.Encoded()
	for _, place := range []string{"/manifests/sha256-" + hex + ".sig ", "/referrers/sha256:" + hex + " ", "/manifests/sha256-" + hex + " ", "HEAD /v2/cart/manifests/"} {
		if strings.Count(asked, place) != 1 {
			t.Errorf("%d times asked for %s: %s", strings.Count(asked, place), place, asked)
		}
	}
}

// TestADenialReadsTheSame whatever place was asked first.
func TestADenialReadsTheSame(t *testing.T) {
	s := newScene(t, registrytest.Options{}, trustingKeys("ignored", "ci"))
	s.run(t, "image cart:1.4\ncosign cart:1.4 by=mallory as=bundle\ncosign cart:1.4 by=mallory as=tag\nimage cart:1.3\ncosign cart:1.3 by=ci as=tag")
	before := s.verify(t, "cart:1.4").Checks
	expect(t, s.verify(t, "cart:1.3"), "TRUSTED/TRUSTED")
	after := s.verify(t, "cart:1.4").Checks
	if len(before) != 2 || !reflect.DeepEqual(before, after) {
		t.Errorf("before: %+v\nafter:  %+v", before, after)
	}
}

// TestFiftySignaturesAreFewRequestsAtATime: nobody's flood of signatures is one
// of requests.
func TestFiftySignaturesAreFewRequestsAtATime(t *testing.T) {
	for _, as := range []string{"tag", "referrer", "bundle"} {
		t.Run(as, func(t *testing.T) {
			s := newScene(t, registrytest.Options{}, trustingKeys("ignored", "ci"))
			s.run(t, "image cart:1.4\ncosign cart:1.4 by=mallory n=49 as="+as+"\ncosign cart:1.4 by=ci as="+as)
			release := make(chan struct{})
			s.registry.SetFault(registrytest.On("/blobs/", registrytest.Hang(release)))
			go func() {
				for s.registry.InFlight() < 8 {
					runtime.Gosched()
				}
				close(release)
			}()
			s.registry.Reset()
			expect(t, s.verify(t, "cart:1.4"), "TRUSTED/TRUSTED")
			if n := s.registry.MaxInFlight(); n > 16 {
				t.Errorf("%d requests at a time", n)
			}
		})
	}
}
