// Package watch follows what runs in a cluster and verifies it again: through the
// Chain that admission asks, past what that remembers, and at a lower priority.
//
// What is looked at is the digest that a node says it runs, as the index, the
// platform's manifest and the config are one image. Each is looked at once,
// however many containers run it, when it appears, when policies change, and about
// every hour. What cannot be looked at stays listed, as ERROR, with what was last
// known of it.
package watch
