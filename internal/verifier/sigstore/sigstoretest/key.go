package sigstoretest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
)

// KeyType is a kind of key that Cosign signs with.
type KeyType string

// The kinds of keys. RSA-4096 takes seconds to make.
const (
	P256    KeyType = "ECDSA P-256"
	P384    KeyType = "ECDSA P-384"
	P521    KeyType = "ECDSA P-521"
	RSA2048 KeyType = "RSA-2048"
	RSA3072 KeyType = "RSA-3072"
	RSA4096 KeyType = "RSA-4096"
	Ed25519 KeyType = "Ed25519"
)

// Key signs.
type Key struct {
	Type    KeyType
	Private crypto.Signer
}

// NewKey makes a key.
func NewKey(t KeyType) *Key {
	k := &Key{Type: t}
	switch t {
	case P256:
		k.Private = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	case P384:
		k.Private = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	case P521:
		k.Private = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	case RSA2048:
		k.Private = must(rsa.GenerateKey(rand.Reader, 2048))
	case RSA3072:
		k.Private = must(rsa.GenerateKey(rand.Reader, 3072))
	case RSA4096:
		k.Private = must(rsa.GenerateKey(rand.Reader, 4096))
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		k.Private = must(private, err)
	default:
		panic("no key type " + t)
	}
	return k
}

// Public is the public key.
func (k *Key) Public() crypto.PublicKey { return k.Private.Public() }

// DER is the public key as SubjectPublicKeyInfo.
func (k *Key) DER() []byte { return must(x509.MarshalPKIXPublicKey(k.Public())) }

// PEM is the public key as cosign.pub has it.
func (k *Key) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.DER()})
}

// ID is the hash of the public key in hex.
func (k *Key) ID() string {
	sum := sha256.Sum256(k.DER())
	return hex.EncodeToString(sum[:])
}

// Hint is the hash of the public key as bundles name it.
func (k *Key) Hint() string {
	sum := sha256.Sum256(k.DER())
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Algorithm is a way to sign. The zero value is what Cosign does with the key:
// the hash of the curve's size, PKCS #1 v1.5 with SHA-256, Ed25519ph.
type Algorithm struct {
	Hash crypto.Hash
	// PSS pads as RSASSA-PSS does.
	PSS bool
	// Pure takes Ed25519 and not Ed25519ph.
	Pure bool
	// P1363 writes an ECDSA signature as key vaults do, r and s one after the other.
	P1363 bool
	// Halves writes an RSA signature as Cosign does those of Azure Key Vault: each
	// half a number of its own, in ASN.1.
	Halves bool
}

func (k *Key) hash(a Algorithm) crypto.Hash {
	switch {
	case a.Pure:
		return 0
	case a.Hash != 0:
		return a.Hash
	case k.Type == P384:
		return crypto.SHA384
	case k.Type == P521, k.Type == Ed25519:
		return crypto.SHA512
	}
	return crypto.SHA256
}

// Sign signs a message.
func (k *Key) Sign(message []byte, a Algorithm) []byte {
	hash := k.hash(a)
	if hash == 0 {
		return must(k.Private.Sign(rand.Reader, message, crypto.Hash(0)))
	}
	h := hash.New()
	h.Write(message)
	return k.SignDigest(h.Sum(nil), hash, a)
}

// SignDigest signs a message of which only the digest is there.
func (k *Key) SignDigest(digest []byte, hash crypto.Hash, a Algorithm) []byte {
	var options crypto.SignerOpts = hash
	if a.PSS {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	if private, ok := k.Private.(*ecdsa.PrivateKey); ok && a.P1363 {
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			panic(err)
		}
		size := (private.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
	sig := must(k.Private.Sign(rand.Reader, digest, options))
	if _, ok := k.Private.(*rsa.PrivateKey); ok && a.Halves {
		half := len(sig) / 2
		return must(asn1.Marshal(struct{ First, Second *big.Int }{new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])}))
	}
	return sig
}

func hashName(h crypto.Hash) string {
	switch h {
	case crypto.SHA256:
		return "sha256"
	case crypto.SHA384:
		return "sha384"
	case crypto.SHA512:
		return "sha512"
	}
	panic(fmt.Sprint("no name for ", h))
}
