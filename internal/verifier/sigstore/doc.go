// Package sigstore judges what Cosign writes: simple-signing signatures and
// Sigstore bundles, by sigstore-go, under public keys and transparency logs
// that were resolved beforehand.
//
// It is not a client of registries, key stores, Rekor or TUF: evidence comes in
// through Evidence, keys through Options, and a log's proof is verified
// offline. It judges signatures; an attestation is told apart and refused.
//
// sigstore-go decides whether a signature and a log's proof hold. What is here
// on top of it are the checks that it leaves to its caller (which of several
// keys with which hash, what kind of statement was signed, that a proof is this
// signature's own), bounds, and the cause in words.
package sigstore
