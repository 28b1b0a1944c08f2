// Package notationtest makes what a signer, a certificate authority and a
// timestamping authority make: certificates, Notary Project signatures in both
// envelopes, RFC 3161 tokens, CRLs and OCSP answers, in memory and with real
// keys. Tests and the demo use it.
//
// It is not for production, and it is not lenient: what cannot be made panics,
// because then the fixture is wrong and not the code under test. Signatures
// come from notation-core-go itself; only what no honest signer would write,
// such as a foreign chain beside a good signature, is put in afterwards.
package notationtest
