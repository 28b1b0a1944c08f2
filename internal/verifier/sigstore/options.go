package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxKeys bounds the keys of one check: each may be tried on each signature
	// of an image, and nobody trusts so many signers by one name.
	maxKeys = 32
	// maxTrustedRoot bounds a trusted root; the public one has 7 KiB.
	maxTrustedRoot = 1 << 20
)

// Options is what a Verifier trusts, resolved: no path, no vault, no default
// that trusts.
type Options struct {
	// Keys of which any may have signed.
	Keys []PublicKey
	// Repository in which the signatures are kept, its registry and path; the
	// image's own when zero.
	Repository verifier.Reference
	// TransparencyLog says what a log's proof is worth. There is no default.
	TransparencyLog TransparencyLog
	// LogKeys are the public keys of logs of the first version of Rekor. They
	// and the logs of TrustedRoot are the ones that are believed.
	LogKeys []crypto.PublicKey
	// TrustedRoot is Sigstore's trusted_root.json; of it only the logs count.
	TrustedRoot []byte
}

// TransparencyLog says what becomes of a signature without a good proof that
// it was written to a transparency log.
type TransparencyLog string

// The values of TransparencyLog.
const (
	LogRequired TransparencyLog = "required" // it is refused
	LogOptional TransparencyLog = "optional" // it is refused only if there is a proof and it is no good
	LogIgnored  TransparencyLog = "ignored"  // nobody looks
)

// validate refuses what could only be a mistake.
func (o Options) validate() error {
	switch o.TransparencyLog {
	case LogRequired, LogOptional:
		if len(o.LogKeys) == 0 && o.TrustedRoot == nil {
			return fmt.Errorf("transparencyLog: %s, and no log is trusted; give logKeys or a trustedRoot", o.TransparencyLog)
		}
	case LogIgnored:
		if len(o.LogKeys) > 0 || o.TrustedRoot != nil {
			return errors.New("transparencyLog: ignored, and logs are trusted; take out logKeys and trustedRoot, or write required or optional")
		}
	default:
		return fmt.Errorf("transparencyLog: %q is not one of required, optional, ignored", clip(string(o.TransparencyLog)))
	}
	switch {
	case len(o.Keys) == 0:
		return errors.New("keys: none; nobody is trusted to sign")
	case len(o.Keys) > maxKeys:
		return fmt.Errorf("keys: %d are more than the %d that are tried", len(o.Keys), maxKeys)
	}
	type named struct{ byHand bool } // or a version of a vault's object
	names := map[string]named{}
	for i, key := range o.Keys {
		before, twice := names[key.Name]
		if key.Name != "" && twice && (before.byHand || key.Object == "") {
			return fmt.Errorf("keys[%d]: %q is the name of two keys", i, clip(key.Name))
		}
		names[key.Name] = named{key.Object == ""}
	}
	return nil
}

// rekorLogs gathers the logs that are believed, by the hex of their ids.
func (o Options) rekorLogs() (map[string]*root.TransparencyLog, error) {
	logs := map[string]*root.TransparencyLog{}
	if o.TrustedRoot != nil {
		if len(o.TrustedRoot) > maxTrustedRoot {
			return nil, fmt.Errorf("trustedRoot: %d bytes are more than the %d that are read", len(o.TrustedRoot), maxTrustedRoot)
		}
		trusted, err := root.NewTrustedRootFromJSON(o.TrustedRoot)
		if err != nil {
			return nil, fmt.Errorf("trustedRoot: not a Sigstore trusted root: %w", err)
		}
		if len(trusted.RekorLogs()) == 0 {
			return nil, errors.New("trustedRoot: it names no transparency log (tlogs)")
		}
		maps.Copy(logs, trusted.RekorLogs())
	}
	for i, key := range o.LogKeys {
		// Rekor's promises (SET) are ECDSA, and so sigstore-go verifies no others.
		if _, ok := key.(*ecdsa.PublicKey); !ok {
			return nil, fmt.Errorf("logKeys[%d]: a %T; logs of the first version of Rekor sign with ECDSA", i, key)
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("logKeys[%d]: %w", i, err)
		}
		id := sha256.Sum256(der)
		logs[hex.EncodeToString(id[:])] = &root.TransparencyLog{
			ID: id[:], PublicKey: key, HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
			ValidityPeriodStart: time.Unix(0, 0), // sigstore-go wants one; a bare key has none
		}
	}
	return logs, nil
}

// fingerprint is a hash of everything that can change what a Verifier says.
func (o Options) fingerprint(keys keyring) string {
	h := sha256.New()
	encode := json.NewEncoder(h)
	// Cannot fail: a hash takes all bytes, and all is made of strings and bytes.
	_ = encode.Encode([]string{string(o.TransparencyLog), o.Repository.Registry, o.Repository.Repository})
	for _, key := range keys {
		_ = encode.Encode(append([]string{key.name, key.id}, key.parties...))
	}
	logs := make([]string, len(o.LogKeys))
	for i, key := range o.LogKeys {
		der, _ := x509.MarshalPKIXPublicKey(key) // rekorLogs has tried it
		logs[i] = hex.EncodeToString(der)
	}
	slices.Sort(logs)
	_ = encode.Encode(logs)
	_ = encode.Encode(o.TrustedRoot)
	return "cosign:" + hex.EncodeToString(h.Sum(nil))
}
