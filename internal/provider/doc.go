// Package provider is the door: Gatekeeper's external data protocol over
// HTTPS. It turns keys into requests, asks the Chain that its Select gives for
// each, and writes what came of it: parse, ask, write.
//
// It knows no signature and no registry, and decides nothing but that a key is
// no reference. docs/answers.md is its contract.
package provider
