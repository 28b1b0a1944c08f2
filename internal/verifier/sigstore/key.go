package sigstore

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

const (
	// maxKeyBytes bounds the file of one key; one of 8192 bits has 1.5 KiB.
	maxKeyBytes = 64 << 10
	// minRSABits and maxRSABits bound RSA keys: Cosign and Key Vault make 2048
	// to 4096, and verifying costs the square of the size.
	minRSABits = 2048
	maxRSABits = 8192
	// maxSignature is above what the largest of those keys signs.
	maxSignature = 2 << 10
)

// PublicKey is a key that is trusted to sign, under the name that people read.
type PublicKey struct {
	// Name may be empty: then a part of the key's hash stands for it.
	Name string
	Key  crypto.PublicKey
	// Object of a vault of which the key is a version, as its URL without the version;
	// empty where the key is written itself. Versions of one object are one party, and
	// the keys of objects may share a name.
	Object string
}

// ParsePublicKey reads one public key in PEM, as in cosign.pub, or in DER. What
// else is in the file it refuses rather than passing over it.
func ParsePublicKey(data []byte) (crypto.PublicKey, error) {
	if len(data) > maxKeyBytes {
		return nil, fmt.Errorf("public key: %d bytes are more than the %d that are read", len(data), maxKeyBytes)
	}
	kind, der := "PUBLIC KEY", data
	if bytes.Contains(data, []byte("-----BEGIN")) {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("public key: the PEM block cannot be read")
		}
		if bytes.Contains(rest, []byte("-----BEGIN")) {
			return nil, errors.New("public key: there are several PEM blocks; write each key as an entry of its own")
		}
		kind, der = block.Type, block.Bytes
	}
	var key crypto.PublicKey
	var err error
	switch {
	case kind == "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(der)
	case kind == "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(der)
	case strings.HasSuffix(kind, "PRIVATE KEY"):
		return nil, errors.New("public key: this is a private key; a verifier needs none, take it out and consider it disclosed")
	case kind == "CERTIFICATE":
		return nil, errors.New("public key: this is a certificate; write its key, as openssl x509 -pubkey -noout prints it")
	default:
		return nil, fmt.Errorf("public key: a PEM block %q, and not a PUBLIC KEY", clip(kind))
	}
	if err != nil {
		return nil, errors.New("public key: neither PEM (-----BEGIN PUBLIC KEY-----) nor a key in DER")
	}
	if _, err := algorithmsOf(key); err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return key, nil
}

// algorithm is one way in which a key signs.
type algorithm struct {
	hash     crypto.Hash // 0: the message itself is signed
	verifier signature.Verifier
}

// algorithmsOf lists the ways in which Cosign, its old versions, and the key
// vaults that it signs with use a key.
func algorithmsOf(key crypto.PublicKey) ([]algorithm, error) {
	var list []algorithm
	var failed error
	add := func(hash crypto.Hash, v signature.Verifier, err error) {
		list, failed = append(list, algorithm{hash, v}), errors.Join(failed, err)
	}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		var hashes []crypto.Hash
		switch k.Curve {
		case elliptic.P256():
			hashes = []crypto.Hash{crypto.SHA256}
		case elliptic.P384():
			hashes = []crypto.Hash{crypto.SHA384, crypto.SHA256} // older Cosign took SHA-256
		case elliptic.P521():
			hashes = []crypto.Hash{crypto.SHA512, crypto.SHA256}
		default:
			return nil, errors.New("an ECDSA key of a curve other than P-256, P-384 and P-521")
		}
		for _, hash := range hashes {
			v, err := signature.LoadECDSAVerifier(k, hash)
			add(hash, v, err)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits; %d to %d are verified", bits, minRSABits, maxRSABits)
		}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			v, err := signature.LoadRSAPKCS1v15Verifier(k, hash)
			add(hash, halves{v, k.Size()}, err)
			pss, err := signature.LoadRSAPSSVerifier(k, hash, nil)
			add(hash, halves{pss, k.Size()}, err)
		}
	case ed25519.PublicKey:
		pure, err := signature.LoadED25519Verifier(k)
		add(0, pure, err)
		ph, err := signature.LoadED25519phVerifier(k)
		add(crypto.SHA512, ph, err)
	default:
		return nil, fmt.Errorf("a %T; RSA, ECDSA and Ed25519 are verified", key)
	}
	return list, failed
}

// halves verifies RSA signatures also as Cosign writes those of Azure Key Vault:
// each half a number of its own, in ASN.1, as if they were the two numbers of an
// ECDSA signature. A number has no leading zeros, and the half may have had some.
type halves struct {
	signature.Verifier
	size int // of a signature, in bytes
}

func (h halves) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	written, err := io.ReadAll(io.LimitReader(sig, maxSignature+1))
	if err != nil {
		return err
	}
	if joined := h.join(written); joined != nil {
		written = joined
	}
	return h.Verifier.VerifySignature(bytes.NewReader(written), message, opts...)
}

// join gives the signature of which the halves are written; nil where they are not.
func (h halves) join(written []byte) []byte {
	var pair struct{ First, Second *big.Int }
	rest, err := asn1.Unmarshal(written, &pair)
	half := h.size / 2
	if len(written) == h.size || err != nil || len(rest) > 0 || h.size%2 != 0 {
		return nil
	}
	joined := make([]byte, h.size)
	for i, n := range []*big.Int{pair.First, pair.Second} {
		if n.Sign() < 0 || n.BitLen() > half*8 {
			return nil
		}
		n.FillBytes(joined[i*half : (i+1)*half])
	}
	return joined
}

// trustedKey is a PublicKey made ready.
type trustedKey struct {
	// parties are all entries that the key meets: itself, objects of vaults, or both.
	parties []string
	name    string // for people
	// id is the hash of the key (SubjectPublicKeyInfo): one key under two names
	// is one signer.
	id         string
	hint       string // as bundles name the key
	key        crypto.PublicKey
	algorithms []algorithm
}

// keyring is the keys of a check, in the order of the document.
type keyring []*trustedKey

func newKeyring(keys []PublicKey) (keyring, error) {
	ring := make(keyring, len(keys))
	for i, k := range keys {
		algorithms, err := algorithmsOf(k.Key)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Key)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		sum := sha256.Sum256(der)
		ring[i] = &trustedKey{
			name: clip(k.Name), id: "key:" + hex.EncodeToString(sum[:]), hint: base64.StdEncoding.EncodeToString(sum[:]),
			key: k.Key, algorithms: algorithms,
		}
		if k.Name == "" {
			ring[i].name = "key " + hex.EncodeToString(sum[:6])
		}
	}
	for _, k := range ring {
		for j, other := range ring {
			if party := cmp.Or(keys[j].Object, other.id); other.id == k.id && !slices.Contains(k.parties, party) {
				k.parties = append(k.parties, party)
			}
		}
		slices.Sort(k.parties)
	}
	return ring, nil
}

// String names the keys as far as a line has room.
func (r keyring) String() string {
	const shown = 3
	var names []string
	for _, k := range r {
		names = append(names, k.name)
	}
	more := ""
	if len(names) > shown {
		names, more = names[:shown], fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return strings.Join(names, ", ") + more
}

// hinted gives the key that a bundle names, or nil. A hint proves nothing: it
// only chooses the words of a refusal.
func (r keyring) hinted(hint string) *trustedKey {
	for _, k := range r {
		if hint == k.hint {
			return k
		}
	}
	return nil
}

// whose finds the key that made the signature and how, or nil. Where only the
// digest of what was signed is known, it is given instead of the message.
func (r keyring) whose(sig, message, digest []byte) (*trustedKey, signature.Verifier) {
	if len(sig) == 0 || len(sig) > maxSignature {
		return nil, nil
	}
	digests := map[crypto.Hash][]byte{} // a message may be large and the keys many
	for _, k := range r {
		for _, a := range k.algorithms {
			var opts []signature.VerifyOption
			switch {
			case digest != nil && (a.hash == 0 || a.hash.Size() != len(digest)):
				continue
			case digest != nil:
				opts = append(opts, options.WithDigest(digest))
			case a.hash != 0:
				if digests[a.hash] == nil {
					h := a.hash.New()
					h.Write(message)
					digests[a.hash] = h.Sum(nil)
				}
				opts = append(opts, options.WithDigest(digests[a.hash]))
			}
			if a.verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message), opts...) == nil {
				return k, a.verifier
			}
		}
	}
	return nil, nil
}
