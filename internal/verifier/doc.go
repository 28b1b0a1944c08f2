// Package verifier is the heart: the words that every other package speaks,
// and the Chain that turns evidence into a Verdict.
//
// It decides and nothing else. It knows no registry, no signature format, no
// file and no HTTP; those come in through the Store and Verifier interfaces,
// which are declared here because they are used here.
//
// Everything fails closed: a zero Finding proves nothing, a zero Verdict
// denies, an error of unknown Reason is undecided, and only a Chain can make
// a Verdict that says TRUSTED.
package verifier
