// Package sigstoretest makes what Cosign and Rekor make: signatures of Cosign's
// own format, Sigstore bundles of every version, the manifests that hold them,
// and the entries of transparency logs, in memory and with real keys. Tests
// and the demo use it.
//
// It is not for production, and it is not lenient: what cannot be made panics,
// because then the fixture is wrong and not the code under test. It writes each
// format by hand, as its specification has it, so that a fault of the libraries
// that verify is not made twice.
package sigstoretest

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
