// Package cluster connects the provider with the Kubernetes cluster that it
// runs in: ClusterTrustPolicies, TrustPolicies and Exemptions become the
// Snapshot that decides, their status says what became of them, and the
// certificates and Provider objects by which Gatekeeper finds us are kept up to
// date. Every replica reads; one, the leader, writes.
//
// It decides nothing about images, and its troubles are never a reason to stop
// serving: while the API server is away, what was read last stays in force.
package cluster
