// Package notation judges Notary Project signatures: the envelopes JWS and
// COSE, by notation-go, under trust stores and trusted identities that were
// resolved beforehand.
//
// It is not a client of registries, key vaults or files, and it runs no
// verification plug-ins: an envelope comes in through Evidence, certificates
// through Options. The one thing it asks the network for is whether a
// certificate was revoked, through a Revocation whose transport is handed in,
// and only about chains that are trusted.
//
// notation-go decides; what is here on top of it are the checks that it leaves
// to its caller (which descriptor, unknown critical attributes, when it is safe
// to ask about revocation), bounds, and the cause in words.
package notation
