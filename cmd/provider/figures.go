package main

import (
	"strconv"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/cluster"
	"github.com/countersign-dev/countersign/internal/config"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/telemetry"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// observeRegistries counts what registries are asked. Hosts are an attacker's
// choice, so they are no label.
func observeRegistries(metrics *telemetry.Metrics, ratify bool) func(store.Exchange) {
	var codes *telemetry.Counter
	if ratify {
		codes = metrics.Counter("ratify_registry_request_count", "Requests to registries by what they answered.", telemetry.Label{Name: "status_code", Values: []string{
			"200", "206", "301", "302", "307", "308", "400", "401", "403", "404", "429", "500", "502", "503", "504",
		}})
	}
	kinds := telemetry.Label{Name: "kind", Values: []string{"manifest", "tag", "blob", "referrers", "token"}}
	statuses := telemetry.Label{Name: "status", Values: []string{"2xx", "3xx", "4xx", "429", "5xx", "none"}}
	requests := metrics.Counter("countersign_registry_requests_total", "Requests to registries and their token endpoints, retries included.", kinds, statuses)
	// From loopback to the limit of one attempt, in seconds.
	buckets := []float64{.001, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}
	seconds := metrics.Histogram("countersign_registry_request_duration_seconds", "How long one request to a registry took.", buckets, kinds)
	return func(e store.Exchange) {
		requests.Inc(e.Kind, statusClass(e.Status))
		seconds.Observe(e.Duration.Seconds(), e.Kind)
		if codes != nil {
			codes.Inc(strconv.Itoa(e.Status))
		}
	}
}

func statusClass(status int) string {
	switch {
	case status == 0:
		return "none"
	case status == 429:
		return "429"
	case status >= 500:
		return "5xx"
	case status >= 400:
		return "4xx"
	case status >= 300:
		return "3xx"
	default:
		return "2xx"
	}
}

// showCaches shows how everything that is remembered fares.
func showCaches(metrics *telemetry.Metrics, memory *verifier.Memory, registries *store.Store) {
	metrics.Cache("findings", cacheStats(memory.FindingStats))
	for name := range registries.Stats() {
		metrics.Cache(name, cacheStats(func() cache.Stats { return registries.Stats()[name] }))
	}
}

// showPolicies shows how the documents fare: all but "ready" are worth
// an alert.
func showPolicies(metrics *telemetry.Metrics, snapshot func() *config.Snapshot) {
	for _, state := range []config.State{config.StateReady, config.StateLastGood, config.StateBroken, config.StateContested} {
		metrics.GaugeFunc("countersign_policies", "Policies by how they fare.", map[string]string{"state": string(state)},
			func() float64 { return float64(snapshot().Count()[state]) })
	}
}

// showWebhook shows whether the API server admits what Gatekeeper does not answer for:
// all but "enforced" are worth an alert.
func showWebhook(metrics *telemetry.Metrics, read func() (cluster.WebhookState, int64)) {
	for _, state := range cluster.WebhookStates() {
		metrics.GaugeFunc("countersign_gatekeeper_webhook", "1 for how the API server's webhook asks Gatekeeper.", map[string]string{"state": state.String()},
			func() float64 {
				if now, _ := read(); now == state {
					return 1
				}
				return 0
			})
	}
	metrics.GaugeFunc("countersign_gatekeeper_webhook_timeout_seconds", "How long the API server waits for Gatekeeper; 0: not known.", nil,
		func() float64 {
			_, timeout := read()
			return float64(timeout)
		})
}

// showExemptions shows which of them end soon, and which can be deleted.
func showExemptions(metrics *telemetry.Metrics, snapshot func() *config.Snapshot) {
	for _, phase := range []config.Phase{config.PhaseActive, config.PhaseEnding, config.PhaseEnded} {
		metrics.GaugeFunc("countersign_exemptions", "Exemptions by where they are in their life.", map[string]string{"phase": string(phase)},
			func() float64 {
				n, now := 0, time.Now()
				for _, status := range snapshot().Policies() {
					if status.Phase(now) == phase {
						n++
					}
				}
				return float64(n)
			})
	}
}

func cacheStats(read func() cache.Stats) func() telemetry.CacheStats {
	return func() telemetry.CacheStats { return telemetry.CacheStats(read()) }
}

// showVaults shows how old what vaults hold is: a vault that cannot be read any
// more is worth an alert long before its material is too old to count.
func showVaults(metrics *telemetry.Metrics, ages func() []trust.Age) {
	metrics.GaugeFunc("countersign_vault_oldest_seconds", "Since when the oldest certificate or key of a vault that is in use has not been refreshed.", nil,
		func() float64 {
			var oldest time.Duration
			for _, a := range ages() {
				oldest = max(oldest, a.Age)
			}
			return oldest.Seconds()
		})
	for _, state := range []string{"fresh", "stale"} {
		metrics.GaugeFunc("countersign_vault_objects", "Certificates and keys of vaults that are in use, by whether their last refresh went well.", map[string]string{"state": state},
			func() float64 {
				n := 0
				for _, a := range ages() {
					if a.Failed == (state == "stale") {
						n++
					}
				}
				return float64(n)
			})
	}
}
