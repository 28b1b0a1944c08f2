package sigstoretest

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Log is a transparency log, Rekor of the first version or of the second. Safe
// for concurrent use.
type Log struct {
	Key *Key
	// Time is when entries are integrated; the zero time is now.
	Time    time.Time
	version int
	origin  string // the first line of checkpoints

	mu     sync.Mutex
	leaves [][]byte
}

const logHost = "rekor.example.test"

// NewLog starts a log as Rekor 1: it signs a promise (SET) for each entry, and
// checkpoints of its tree.
func NewLog() *Log { return startLog(1, logHost+" - 1193050959916656506") }

// NewLog2 starts a log as Rekor 2: it signs checkpoints only.
func NewLog2() *Log { return startLog(2, logHost) }

func startLog(version int, origin string) *Log {
	l := &Log{Key: NewKey(P256), version: version, origin: origin}
	for i := range 5 { // so that proofs have a path
		l.leaves = append(l.leaves, fmt.Appendf(nil, "somebody's entry %d", i))
	}
	return l
}

// PEM is the log's public key.
func (l *Log) PEM() []byte { return l.Key.PEM() }

// TrustedRoot is a trusted_root.json that names the logs.
func TrustedRoot(logs ...*Log) []byte {
	var list []any
	for _, l := range logs {
		id := sha256.Sum256(l.Key.DER())
		list = append(list, map[string]any{
			"baseUrl": "https://" + logHost, "hashAlgorithm": "SHA2_256", "logId": map[string]any{"keyId": id[:]},
			"publicKey": map[string]any{
				"rawBytes": l.Key.DER(), "keyDetails": keyDetails[l.Key.Type], "validFor": map[string]any{"start": "2021-01-12T11:53:27Z"},
			},
		})
	}
	return must(json.Marshal(map[string]any{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", "tlogs": list}))
}

var keyDetails = map[KeyType]string{
	P256: "PKIX_ECDSA_P256_SHA_256", P384: "PKIX_ECDSA_P384_SHA_384", P521: "PKIX_ECDSA_P521_SHA_512", Ed25519: "PKIX_ED25519_PH",
	RSA2048: "PKIX_RSA_PKCS1V15_2048_SHA256", RSA3072: "PKIX_RSA_PKCS1V15_3072_SHA256", RSA4096: "PKIX_RSA_PKCS1V15_4096_SHA256",
}

// HashedRekord is the body of the entry of a signature over bytes.
func HashedRekord(by *Key, hash crypto.Hash, message, sig []byte) []byte {
	h := hash.New()
	h.Write(message)
	return HashedRekordOf(by, hash, h.Sum(nil), sig)
}

// HashedRekordOf is the body of the entry of a signature over bytes of which
// only the digest is there.
func HashedRekordOf(by *Key, hash crypto.Hash, digest, sig []byte) []byte {
	return body("hashedrekord", "0.0.1", map[string]any{
		"data":      map[string]any{"hash": map[string]any{"algorithm": hashName(hash), "value": hex.EncodeToString(digest)}},
		"signature": map[string]any{"content": sig, "publicKey": map[string]any{"content": by.PEM()}},
	})
}

// HashedRekord2 is the body of an entry of Rekor 2.
func HashedRekord2(by *Key, hash crypto.Hash, digest, sig []byte) []byte {
	return body("hashedrekord", "0.0.2", map[string]any{"hashedRekordV002": map[string]any{
		"data": map[string]any{"algorithm": strings.Replace(hashName(hash), "sha", "SHA2_", 1), "digest": digest},
		"signature": map[string]any{"content": sig, "verifier": map[string]any{
			"keyDetails": keyDetails[by.Type], "publicKey": map[string]any{"rawBytes": by.DER()},
		}},
	}})
}

// DSSE is the body of the entry of an envelope.
func DSSE(by *Key, payload, sig []byte) []byte {
	sum := func(data []byte) map[string]any {
		s := sha256.Sum256(data)
		return map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(s[:])}
	}
	return body("dsse", "0.0.1", map[string]any{
		"envelopeHash": sum(append([]byte("envelope of "), payload...)), "payloadHash": sum(payload),
		"signatures": []any{map[string]any{"signature": base64.StdEncoding.EncodeToString(sig), "verifier": by.PEM()}},
	})
}

// body is canonical JSON: encoding/json sorts names, and all here is ASCII.
func body(kind, version string, spec map[string]any) []byte {
	return must(json.Marshal(map[string]any{"apiVersion": version, "kind": kind, "spec": spec}))
}

// Promise writes an entry and gives the log's promise as Cosign's own format
// keeps it.
func (l *Log) Promise(body []byte) []byte {
	entry := l.add(body)
	return must(json.Marshal(map[string]any{
		"SignedEntryTimestamp": entry.promise,
		"Payload": map[string]any{
			"body": body, "integratedTime": entry.integrated, "logIndex": entry.index, "logID": l.Key.ID(),
		},
	}))
}

// Entry writes an entry and gives it with its proof, as bundles keep it.
func (l *Log) Entry(body []byte) map[string]any {
	var kind struct{ Kind, APIVersion string }
	if err := json.Unmarshal(body, &kind); err != nil {
		panic(err)
	}
	added := l.add(body)
	id := sha256.Sum256(l.Key.DER())
	entry := map[string]any{
		"logIndex": fmt.Sprint(added.index), "logId": map[string]any{"keyId": id[:]},
		"kindVersion": map[string]any{"kind": kind.Kind, "version": kind.APIVersion},
		"inclusionProof": map[string]any{
			"logIndex": fmt.Sprint(added.index), "treeSize": fmt.Sprint(added.size), "rootHash": added.root, "hashes": added.path,
			"checkpoint": map[string]any{"envelope": added.checkpoint},
		},
		"canonicalizedBody": body,
	}
	if l.version == 1 {
		entry["integratedTime"] = fmt.Sprint(added.integrated)
		entry["inclusionPromise"] = map[string]any{"signedEntryTimestamp": added.promise}
	}
	return entry
}

// enter writes an entry and puts it into a bundle: the promise alone in the
// first version.
func (l *Log) enter(bundle map[string]any, version string, body []byte) {
	entry := l.Entry(body)
	if version == "0.1" {
		delete(entry, "inclusionProof")
	}
	bundle["verificationMaterial"].(map[string]any)["tlogEntries"] = []any{entry}
}

type added struct {
	index, size int
	integrated  int64
	promise     []byte
	root        []byte
	path        [][]byte
	checkpoint  string
}

func (l *Log) add(body []byte) added {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := added{index: len(l.leaves), integrated: time.Now().Unix()}
	if !l.Time.IsZero() {
		a.integrated = l.Time.Unix()
	}
	l.leaves = append(l.leaves, body, []byte("the next one's"))
	a.size, a.root, a.path = len(l.leaves), root(l.leaves), path(a.index, l.leaves)
	a.promise = l.Key.Sign(must(json.Marshal(map[string]any{
		"body": body, "integratedTime": a.integrated, "logID": l.Key.ID(), "logIndex": a.index,
	})), Algorithm{})
	note := fmt.Sprintf("%s\n%d\n%s\n", l.origin, a.size, base64.StdEncoding.EncodeToString(a.root))
	id := sha256.Sum256(l.Key.DER())
	signed := append(id[:4:4], l.Key.Sign([]byte(note), Algorithm{})...)
	a.checkpoint = fmt.Sprintf("%s\n— %s %s\n", note, logHost, base64.StdEncoding.EncodeToString(signed))
	return a
}

// root is the hash of a Merkle tree.
// https://www.rfc-editor.org/rfc/rfc6962#section-2.1
func root(leaves [][]byte) []byte {
	if len(leaves) == 1 {
		sum := sha256.Sum256(append([]byte{0}, leaves[0]...))
		return sum[:]
	}
	k := split(len(leaves))
	sum := sha256.Sum256(append(append([]byte{1}, root(leaves[:k])...), root(leaves[k:])...))
	return sum[:]
}

// path is the audit path of a leaf.
func path(index int, leaves [][]byte) [][]byte {
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(path(index, leaves[:k]), root(leaves[k:]))
	}
	return append(path(index-k, leaves[k:]), root(leaves[:k]))
}

// split is the largest power of two that is less than n.
func split(n int) int {
	k := 1
	for k*2 < n {
		k *= 2
	}
	return k
}
