package sigstore

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// maxPromise bounds the annotation that holds a log's promise; real ones have
// about 1.5 KiB.
const maxPromise = 64 << 10

// logged holds a signature to what is wanted of its proof in a transparency
// log, and gives the time that the log vouches for, zero if none does.
func (v *Verifier) logged(e *envelope, key *trustedKey, by signature.Verifier) (time.Time, *verifier.Error) {
	switch {
	case v.log == LogIgnored:
		return time.Time{}, nil
	case e.proof == nil && v.log == LogOptional:
		return time.Time{}, nil
	case e.proof == nil:
		return time.Time{}, noProof()
	}
	entity, err := e.proof()
	if err != nil {
		return time.Time{}, badProof(err, "the proof of the transparency log cannot be read")
	}
	entries, err := entity.TlogEntries()
	if err != nil {
		return time.Time{}, badProof(err, "the proof of the transparency log cannot be read")
	}
	var known int
	for _, entry := range entries {
		if v.logs[hex.EncodeToString([]byte(entry.LogKeyID()))] == nil {
			continue
		}
		known++
		// sigstore-go compares them too, but not for every entry that it takes
		// for one of the second version of Rekor.
		if !bytes.Equal(entry.Signature(), e.signature) {
			return time.Time{}, badProof(nil, "the transparency log's entry is another signature's")
		}
		if logged, ok := entry.PublicKey().(interface{ Equal(crypto.PublicKey) bool }); !ok || !logged.Equal(key.key) {
			return time.Time{}, badProof(nil, "the transparency log's entry names another key than %s", key.name)
		}
	}
	if known == 0 {
		e := badProof(nil, "the proof is of a transparency log that is not trusted here")
		e.Remedy = "Trust the log (logKeys or trustedRoot), or sign with one that is trusted"
		return time.Time{}, e
	}
	times, err := verify.VerifyTlogEntry(entity, &material{key: by, logs: v.logs}, 1, true)
	if err != nil {
		return time.Time{}, badProof(err, "the proof of the transparency log does not hold for this signature")
	}
	for _, t := range times {
		return t.Time, nil
	}
	return time.Time{}, nil
}

// promisedBundle is a signature of Cosign's own format with the log's promise
// that lies beside it, as a bundle.
func promisedBundle(promise string, sig, payload []byte) (*bundle.Bundle, error) {
	if len(promise) > maxPromise {
		return nil, fmt.Errorf("%d bytes are more than the %d that are read", len(promise), maxPromise)
	}
	var p struct {
		set, body, logID         string
		integratedTime, logIndex json.Number
	}
	err := readObject([]byte(promise), func(path []string, value any) {
		text, _ := value.(string)
		number, _ := value.(json.Number)
		switch {
		case slices.Equal(path, []string{"SignedEntryTimestamp"}):
			p.set = text
		case slices.Equal(path, []string{"Payload", "body"}):
			p.body = text
		case slices.Equal(path, []string{"Payload", "logID"}):
			p.logID = text
		case slices.Equal(path, []string{"Payload", "integratedTime"}):
			p.integratedTime = number
		case slices.Equal(path, []string{"Payload", "logIndex"}):
			p.logIndex = number
		}
	})
	if err != nil {
		return nil, err
	}
	set, errSET := base64.StdEncoding.DecodeString(p.set)
	body, errBody := base64.StdEncoding.DecodeString(p.body)
	logID, errID := hex.DecodeString(p.logID)
	integrated, errTime := p.integratedTime.Int64()
	index, errIndex := p.logIndex.Int64()
	if err := errors.Join(errSET, errBody, errID, errTime, errIndex); err != nil {
		return nil, err
	}
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(body, &kind); err != nil {
		return nil, err
	}
	entry := &protorekor.TransparencyLogEntry{
		LogIndex: index, LogId: &protocommon.LogId{KeyId: logID},
		KindVersion:    &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime: integrated, InclusionPromise: &protorekor.InclusionPromise{SignedEntryTimestamp: set},
		CanonicalizedBody: body,
	}
	parsed, err := tlog.ParseTransparencyLogEntry(entry)
	if err != nil {
		return nil, err
	}
	// The entry has the payload's digest by the hash that its signer used.
	_, name, ok := parsed.GetHashedRekordDigest()
	if !ok {
		return nil, fmt.Errorf("an entry of the kind %q, and not hashedrekord", clip(kind.Kind))
	}
	algorithm, hash := protocommon.HashAlgorithm_SHA2_256, crypto.SHA256
	switch name {
	case "sha384":
		algorithm, hash = protocommon.HashAlgorithm_SHA2_384, crypto.SHA384
	case "sha512":
		algorithm, hash = protocommon.HashAlgorithm_SHA2_512, crypto.SHA512
	}
	h := hash.New()
	h.Write(payload)
	return simpleBundle(sig, algorithm, h.Sum(nil), entry)
}
