// Package telemetry makes what the rooms report themselves with: a logger of
// JSON lines and a registry of metrics, both made by main and handed in.
//
// It knows none of the rooms' words. A metric's labels come from closed sets
// that its room declares, so that no image, error or host, which are all an
// attacker's choice, ever becomes a series; a log line cannot be forged by the
// text in it, and what looks like a credential is taken out of it.
package telemetry
