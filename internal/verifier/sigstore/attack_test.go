package sigstore_test

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/verifier"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
)

// cast is who plays in most tests.
type cast struct {
	key, stranger  *sigstoretest.Key
	log            *sigstoretest.Log
	subject, other ocispec.Descriptor
}

func newCast() cast {
	return cast{
		key: sigstoretest.NewKey(sigstoretest.P256), stranger: sigstoretest.NewKey(sigstoretest.P256), log: sigstoretest.NewLog(),
		subject: sigstoretest.NewSubject("an image"), other: sigstoretest.NewSubject("no image"), // of one size
	}
}

// demanding trusts the cast's key, and demands a proof of its log.
func (c cast) demanding(t testing.TB) *sigstore.Verifier {
	return newVerifier(t, sigstore.Options{
		Keys: named(c.key), TransparencyLog: sigstore.LogRequired, LogKeys: []crypto.PublicKey{c.log.Key.Public()},
	})
}

// mapBundle is the artifact with its bundle changed.
func mapBundle(a sigstoretest.Artifact, change func(bundle map[string]any)) sigstoretest.Artifact {
	var b map[string]any
	if err := json.Unmarshal(a.Blobs[a.Manifest.Layers[0].Digest], &b); err != nil {
		panic(err)
	}
	change(b)
	data, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	return sigstoretest.PackBundle(*a.Manifest.Subject, a.Manifest.ArtifactType, data)
}

// mapProof is the artifact with its log's proof changed: the promise in the
// annotation, or the bundle's one entry.
func mapProof(a sigstoretest.Artifact, change func(proof map[string]any)) sigstoretest.Artifact {
	annotations := a.Manifest.Layers[0].Annotations
	if promise, simple := annotations[sigstoretest.AnnotationLogBundle]; simple {
		var p map[string]any
		if err := json.Unmarshal([]byte(promise), &p); err != nil {
			panic(err)
		}
		change(p)
		data, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		annotations[sigstoretest.AnnotationLogBundle] = string(data)
		return a.Repack()
	}
	return mapBundle(a, func(b map[string]any) {
		change(b["verificationMaterial"].(map[string]any)["tlogEntries"].([]any)[0].(map[string]any))
	})
}

// withProofOf is the artifact with another's proof in place of its own.
func withProofOf(other, a sigstoretest.Artifact) sigstoretest.Artifact {
	var proof map[string]any
	mapProof(other, func(p map[string]any) { proof = p })
	return mapProof(a, func(p map[string]any) {
		clear(p)
		for name, value := range proof {
			p[name] = value
		}
	})
}

// A valid signature of image A, byte for byte, at image B.
func TestL05bTransplantedSignature(t *testing.T) {
	c := newCast()
	for _, form := range forms() {
		t.Run(form.name, func(t *testing.T) {
			v := c.demanding(t)
			a := form.make(c.key, c.subject, options{log: c.log})
			wantReason(t, verify(t, v, evidence(c.subject, a)), "")
			wantReason(t, verify(t, v, evidence(c.other, a)), verifier.ReasonSubjectMismatch)
			moved := form.make(c.key, c.subject, options{log: c.log, at: &c.other})
			wantReason(t, verify(t, v, evidence(c.other, moved)), verifier.ReasonSubjectMismatch)
		})
	}
}

// Good and bad signatures in one manifest, in any order, and trusted keys in
// any order: each is judged for itself.
func TestL05cOrderDoesNotMatter(t *testing.T) {
	c := newCast()
	second := sigstoretest.NewKey(sigstoretest.Ed25519)
	good := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{})
	also := second.SignSimple(c.subject, sigstoretest.SimpleOptions{})
	bad := map[string]sigstoretest.Layer{
		"a stranger's":       c.stranger.SignSimple(c.subject, sigstoretest.SimpleOptions{}),
		"another image's":    c.key.SignSimple(c.other, sigstoretest.SimpleOptions{}),
		"garbage":            sigstoretest.Layer{Data: []byte("garbage")}.With(sigstoretest.AnnotationSignature, "AAAA"),
		"without signature":  {Data: []byte("{}")},
		"too large":          sigstoretest.Layer{Data: make([]byte, 1<<20)}.With(sigstoretest.AnnotationSignature, "AAAA"),
		"of an unknown type": {MediaType: "application/vnd.example.unknown", Data: []byte("?")},
	}
	for name, layer := range bad {
		for _, pack := range map[string]func(...sigstoretest.Layer) sigstoretest.Artifact{
			"tag":      sigstoretest.PackTag,
			"referrer": func(l ...sigstoretest.Layer) sigstoretest.Artifact { return sigstoretest.PackReferrer(c.subject, l...) },
		} {
			for order, layers := range map[string][]sigstoretest.Layer{
				"first": {layer, good, also}, "between": {good, layer, also}, "last": {good, also, layer},
			} {
				for _, keys := range [][]*sigstoretest.Key{{c.key, second}, {second, c.key}} {
					signers := map[string]bool{}
					for _, f := range trusting(t, keys...).Verify(t.Context(), evidence(c.subject, pack(layers...))) {
						if f.Err == nil {
							signers[f.Claims.Signer.ID] = true
						} else if f.Err.Reason.Undecided() {
							t.Errorf("%s %s: %v", name, order, f.Err)
						}
					}
					if !signers["key:"+c.key.ID()] || !signers["key:"+second.ID()] || len(signers) != 2 {
						t.Errorf("%s %s: signed by %v", name, order, signers)
					}
				}
			}
		}
	}
}

// What is too large or too many is not read, and does not hide what is good.
func TestL07Bounds(t *testing.T) {
	c := newCast()
	v := c.demanding(t)
	simple := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Log: c.log})
	for name, test := range map[string]struct {
		a    sigstoretest.Artifact
		want verifier.Reason
	}{
		"payload":   {sigstoretest.PackTag(sigstoretest.Layer{Data: make([]byte, 1<<18), Annotations: simple.Annotations}), verifier.ReasonFormatUnsupported},
		"bundle":    {sigstoretest.PackBundle(c.subject, "", make([]byte, 2<<20)), verifier.ReasonFormatUnsupported},
		"signature": {sigstoretest.PackTag(simple.With(sigstoretest.AnnotationSignature, strings.Repeat("A", 1<<20))), verifier.ReasonSignatureInvalid},
		"promise":   {sigstoretest.PackTag(simple.With(sigstoretest.AnnotationLogBundle, simple.Annotations[sigstoretest.AnnotationLogBundle]+strings.Repeat(" ", 1<<20))), verifier.ReasonLogProofInvalid},
		"signature in a bundle": {sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Change: func(b map[string]any) {
			b["dsseEnvelope"].(map[string]any)["signatures"] = []any{map[string]any{"sig": make([]byte, 1<<16)}}
		}})), verifier.ReasonSignatureInvalid},
		"entries": {mapBundle(sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Log: c.log})), func(b map[string]any) {
			m := b["verificationMaterial"].(map[string]any)
			for range 100 {
				m["tlogEntries"] = append(m["tlogEntries"].([]any), m["tlogEntries"].([]any)[0])
			}
		}), verifier.ReasonSignatureInvalid},
	} {
		t.Run(name, func(t *testing.T) { wantReason(t, verify(t, v, evidence(c.subject, test.a)), test.want) })
	}
}

// Sixty junk signatures hide nothing; from the sixty-fifth on the refusal names
// the limit, and is no verdict.
func TestL08TheCapIsNotTheAttack(t *testing.T) {
	c := newCast()
	good := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{})
	junk := func(n int) []sigstoretest.Layer {
		var layers []sigstoretest.Layer
		for i := range n {
			layers = append(layers, c.stranger.SignSimple(c.subject, sigstoretest.SimpleOptions{Annotations: map[string]any{"n": i}}))
		}
		return layers
	}
	proved := func(layers []sigstoretest.Layer) (good bool, limit *verifier.Error) {
		for _, f := range trusting(t, c.key).Verify(t.Context(), evidence(c.subject, sigstoretest.PackTag(layers...))) {
			if f.Err == nil {
				good = true
			} else if f.Err.Reason == verifier.ReasonLimitExceeded {
				limit = f.Err
			}
		}
		return good, limit
	}
	if good, limit := proved(append(junk(60), good)); !good || limit != nil {
		t.Errorf("behind 60: proved %v, %v", good, limit)
	}
	if good, limit := proved(append(junk(64), good)); good || limit == nil || !strings.Contains(limit.Message, "65") {
		t.Errorf("behind 64: proved %v, %v", good, limit)
	}
	if good, limit := proved(append([]sigstoretest.Layer{good}, junk(500)...)); !good || limit == nil {
		t.Errorf("before 500: proved %v, %v", good, limit)
	}
}

// Sizes that a descriptor claims cost nothing and reach nothing.
func TestL09LyingSizes(t *testing.T) {
	c := newCast()
	for _, form := range forms() {
		for _, size := range []int64{-1, 0, 1 << 21, 1 << 62, -1 << 63} {
			a := form.make(c.key, c.subject, options{})
			a.Manifest.Layers[0].Size = size
			e := evidence(c.subject, a.Repack())
			e.Fetch = func(context.Context, ocispec.Descriptor) ([]byte, error) {
				t.Errorf("fetched for a size of %d", size)
				return nil, nil
			}
			wantReason(t, verify(t, trusting(t, c.key), e), verifier.ReasonFormatUnsupported)
		}
	}
}

// Manifests that hold nothing, and a fetch that crashes: one finding each, and
// the neighbours' stay.
func TestL11HollowManifestsAndCrashes(t *testing.T) {
	c := newCast()
	v := trusting(t, c.key)
	for name, e := range map[string]verifier.Evidence{
		"nothing at all":           {},
		"a subject and no more":    {Subject: verifier.Subject{Digest: c.subject.Digest}},
		"a tag without a manifest": {Subject: verifier.Subject{Digest: c.subject.Digest}, Candidate: verifier.Candidate{Source: verifier.SourceTagSuffix}},
	} {
		t.Run(name, func(t *testing.T) {
			if f := verify(t, v, e); f.Err == nil || f.Err.Reason.Undecided() {
				t.Errorf("got %+v", f)
			}
		})
	}
	crash := c.stranger.SignSimple(c.subject, sigstoretest.SimpleOptions{Annotations: map[string]any{"crash": true}})
	e := evidence(c.subject, sigstoretest.PackTag(crash, c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{})))
	fetch := e.Fetch
	e.Fetch = func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Digest == digest.FromBytes(crash.Data) {
			panic("a crash")
		}
		return fetch(ctx, d)
	}
	findings := v.Verify(t.Context(), e)
	if len(findings) != 2 {
		t.Fatalf("%d findings", len(findings))
	}
	wantReason(t, findings[0], verifier.ReasonInternal)
	wantReason(t, findings[1], "")
}

// An attestation is no signature, by whomever and wherever it is, and the
// refusal says what was found.
func TestL12AttestationIsNoSignature(t *testing.T) {
	c := newCast()
	const predicate = "https://slsa.dev/provenance/v1"
	v := c.demanding(t)
	for version, mediaType := range sigstoretest.Versions {
		for statement, statementType := range map[string]string{"v1": sigstoretest.StatementType, "v0.1": "https://in-toto.io/Statement/v0.1"} {
			t.Run(version+", "+statement, func(t *testing.T) {
				a := sigstoretest.PackBundle(c.subject, mediaType, c.key.SignBundle(c.subject, sigstoretest.BundleOptions{
					Version: version, PredicateType: predicate, StatementType: statementType, Log: c.log,
				}))
				f := verify(t, v, evidence(c.subject, a))
				wantReason(t, f, verifier.ReasonFormatUnsupported)
				if f.Err != nil && !strings.Contains(f.Err.Message, predicate) {
					t.Errorf("does not say what was found: %s", f.Err.Message)
				}
			})
		}
	}
	t.Run("said by the manifest", func(t *testing.T) {
		a := sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{PredicateType: predicate}))
		a.Manifest.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": predicate}
		e := evidence(c.subject, a.Repack())
		e.Fetch = func(context.Context, ocispec.Descriptor) ([]byte, error) {
			t.Error("fetched an attestation that calls itself one")
			return nil, nil
		}
		wantReason(t, verify(t, v, e), verifier.ReasonFormatUnsupported)
	})
	t.Run("the manifest lies", func(t *testing.T) {
		a := sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{PredicateType: predicate, Log: c.log}))
		a.Manifest.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": sigstoretest.PredicateTypeSign}
		wantReason(t, verify(t, v, evidence(c.subject, a.Repack())), verifier.ReasonFormatUnsupported)
	})
	t.Run("at Cosign's tag", func(t *testing.T) {
		a := sigstoretest.PackTag(sigstoretest.Layer{MediaType: "application/vnd.dsse.envelope.v1+json", Data: []byte("{}")})
		wantReason(t, verify(t, v, evidence(c.subject, a)), verifier.ReasonFormatUnsupported)
	})
}

// Each form with everything that is not a good signature of this image by
// someone who is trusted, in a log that is.
func TestL13NegativeMatrix(t *testing.T) {
	c := newCast()
	elsewhere := sigstoretest.NewLog()
	v := c.demanding(t)
	logged := options{log: c.log}
	for _, form := range forms() {
		make := func(by *sigstoretest.Key, o options) sigstoretest.Artifact { return form.make(by, c.subject, o) }
		wantReason(t, verify(t, v, evidence(c.subject, make(c.key, logged))), "")
		for bad, test := range map[string]struct {
			a    sigstoretest.Artifact
			want verifier.Reason
		}{
			"garbage":              {garbage(make(c.key, logged)), verifier.ReasonSignatureInvalid},
			"wrong key":            {make(c.stranger, logged), verifier.ReasonSignatureInvalid},
			"wrong subject":        {form.make(c.key, c.other, options{log: c.log, at: &c.subject}), verifier.ReasonSubjectMismatch},
			"no proof":             {make(c.key, options{}), verifier.ReasonLogProofMissing},
			"another log's proof":  {make(c.key, options{log: elsewhere}), verifier.ReasonLogProofInvalid},
			"proof tampered":       {mapProof(make(c.key, logged), breakProof), verifier.ReasonLogProofInvalid},
			"proof of another key": {withProofOf(make(c.stranger, logged), make(c.key, logged)), verifier.ReasonLogProofInvalid},
			"proof of another signature": {withProofOf(make(c.key, options{log: c.log, algorithm: sigstoretest.Algorithm{P1363: true}}), make(c.key, logged)),
				verifier.ReasonLogProofInvalid},
			"proof of another image": {withProofOf(form.make(c.key, c.other, options{log: c.log, at: &c.subject}), make(c.key, logged)), verifier.ReasonLogProofInvalid},
		} {
			t.Run(form.name+", "+bad, func(t *testing.T) { wantReason(t, verify(t, v, evidence(c.subject, test.a)), test.want) })
		}
	}
}

func garbage(a sigstoretest.Artifact) sigstoretest.Artifact {
	layer := &a.Manifest.Layers[0]
	data := []byte("garbage")
	layer.Digest, layer.Size = digest.FromBytes(data), int64(len(data))
	a.Blobs = map[digest.Digest][]byte{layer.Digest: data}
	return a.Repack()
}

// breakProof changes what the log signed.
func breakProof(proof map[string]any) {
	if payload, simple := proof["Payload"].(map[string]any); simple {
		payload["integratedTime"] = payload["integratedTime"].(float64) + 1
		return
	}
	if _, promised := proof["inclusionPromise"]; promised {
		proof["integratedTime"] = "1"
		return
	}
	proof["inclusionProof"].(map[string]any)["logIndex"] = "0"
}

// A correctly signed envelope with something else in it.
func TestL15SignedAndNoSignature(t *testing.T) {
	c := newCast()
	good := string(sigstoretest.Statement(c.subject.Digest, sigstoretest.StatementType, sigstoretest.PredicateTypeSign))
	subject := fmt.Sprintf(`"subject":[{"digest":{"sha256":%q}}]`, c.subject.Digest.Encoded())
	for name, test := range map[string]struct {
		payload, payloadType string
		want                 verifier.Reason
	}{
		"as it should be":     {good, "", ""},
		"not JSON":            {"a signature, really", "", verifier.ReasonSignatureInvalid},
		"not an object":       {"[" + good + "]", "", verifier.ReasonSignatureInvalid},
		"twice":               {good + good, "", verifier.ReasonSignatureInvalid},
		"an empty object":     {"{}", "", verifier.ReasonFormatUnsupported},
		"wrong _type":         {strings.Replace(good, sigstoretest.StatementType, "https://in-toto.io/Statement/v0.1", 1), "", verifier.ReasonFormatUnsupported},
		"no _type":            {strings.Replace(good, `"_type"`, `"_Type"`, 1), "", verifier.ReasonFormatUnsupported},
		"no predicate type":   {strings.Replace(good, `"predicateType"`, `"PredicateType"`, 1), "", verifier.ReasonFormatUnsupported},
		"no subject":          {strings.Replace(good, `"subject"`, `"about"`, 1), "", verifier.ReasonFormatUnsupported},
		"subject in an aside": {strings.Replace(good, `"predicate":{}`, `"predicate":{`+subject+`}`, 1), "", ""},
		"subject in an aside only": {
			strings.Replace(strings.Replace(good, `"subject"`, `"about"`, 1), `"predicate":{}`, `"predicate":{`+subject+`}`, 1), "", verifier.ReasonFormatUnsupported,
		},
		"two subjects fields": {strings.Replace(good, `"predicate":{}`, subject+`,"predicate":{}`, 1), "", verifier.ReasonSignatureInvalid},
		// Readers differ in which of the two they see; sigstore-go sees the second.
		"subjects of two cases":    {good[:len(good)-1] + `,"Subject":[{"digest":{"sha256":"00"}}]}`, "", verifier.ReasonSignatureInvalid},
		"very many subjects":       {strings.Replace(good, `"subject":[`, `"subject":[`+strings.Repeat(`{"digest":{"sha256":"00"}},`, 2000), 1), "", verifier.ReasonSignatureInvalid},
		"another payload type":     {good, "text/plain", verifier.ReasonFormatUnsupported},
		"simple signing":           {string(sigstoretest.Payload(c.subject.Digest, nil)), "", verifier.ReasonFormatUnsupported},
		"nested for ever":          {strings.Replace(good, `"predicate":{}`, `"predicate":`+strings.Repeat(`[`, 5000)+strings.Repeat(`]`, 5000), 1), "", verifier.ReasonSignatureInvalid},
		"a digest by another name": {strings.Replace(good, `"sha256"`, `"SHA256"`, 1), "", verifier.ReasonSubjectMismatch},
		"a number for a digest":    {strings.Replace(good, `"`+c.subject.Digest.Encoded()+`"`, "7", 1), "", verifier.ReasonSubjectMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			a := sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{
				Payload: []byte(test.payload), PayloadType: test.payloadType,
			}))
			wantReason(t, verify(t, trusting(t, c.key), evidence(c.subject, a)), test.want)
		})
	}
	payload := string(sigstoretest.Payload(c.subject.Digest, nil))
	for name, test := range map[string]struct {
		payload string
		want    verifier.Reason
	}{
		"as it should be":       {payload, ""},
		"of another type":       {strings.Replace(payload, "cosign container", "atomic container", 1), verifier.ReasonFormatUnsupported},
		"of no type":            {strings.Replace(payload, `"type"`, `"Type"`, 1), verifier.ReasonFormatUnsupported},
		"without an image":      {strings.Replace(payload, `"image"`, `"Image"`, 1), verifier.ReasonFormatUnsupported},
		"image outside":         {strings.Replace(payload, `"critical"`, `"uncritical"`, 1), verifier.ReasonFormatUnsupported},
		"two images":            {strings.Replace(payload, `"docker-manifest-digest"`, `"docker-manifest-digest":"sha256:00","docker-manifest-digest"`, 1), verifier.ReasonSignatureInvalid},
		"two criticals":         {`{"critical":{},` + payload[1:], verifier.ReasonSignatureInvalid},
		"annotations of a case": {strings.Replace(payload, `"optional":null`, `"optional":{"a":1,"A":2}`, 1), ""},
		"a statement":           {good, verifier.ReasonFormatUnsupported},
		"not JSON":              {"not JSON", verifier.ReasonSignatureInvalid},
		"a comma missing":       {strings.Replace(payload, ",", " ", 1), verifier.ReasonSignatureInvalid},
		"more behind it":        {payload + "{}", verifier.ReasonSignatureInvalid},
	} {
		t.Run("simple signing, "+name, func(t *testing.T) {
			a := sigstoretest.PackTag(c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Payload: []byte(test.payload)}))
			wantReason(t, verify(t, trusting(t, c.key), evidence(c.subject, a)), test.want)
		})
	}
	t.Run("two signatures in one envelope", func(t *testing.T) {
		a := sigstoretest.PackBundle(c.subject, "", c.key.SignBundle(c.subject, sigstoretest.BundleOptions{Change: func(b map[string]any) {
			e := b["dsseEnvelope"].(map[string]any)
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)[0])
		}}))
		wantReason(t, verify(t, trusting(t, c.key), evidence(c.subject, a)), verifier.ReasonFormatUnsupported)
	})
}

// A digest stands for the message that was signed; a key that signs messages
// whole is not asked about one that is not there.
func TestSignatureOverNothing(t *testing.T) {
	key := sigstoretest.NewKey(sigstoretest.Ed25519)
	subject := sigstoretest.NewSubject("an image")
	a := sigstoretest.PackBundle(subject, "", sigstoretest.NewKey(sigstoretest.P256).SignBundle(subject, sigstoretest.BundleOptions{
		Message: true,
		Change: func(b map[string]any) {
			b["messageSignature"].(map[string]any)["signature"] = key.Sign(nil, sigstoretest.Algorithm{Pure: true})
		},
	}))
	wantReason(t, verify(t, trusting(t, key), evidence(subject, a)), verifier.ReasonSignatureInvalid)
}

// One key under two names, in two checks, by two formats, is one signer.
func TestL16OneKeyIsOneSigner(t *testing.T) {
	c := newCast()
	ids := map[string]bool{}
	for _, form := range forms() {
		for _, name := range []string{"alice", "bob"} {
			v := newVerifier(t, sigstore.Options{
				Keys: []sigstore.PublicKey{{Name: name, Key: c.key.Public()}, {Key: c.key.Public()}}, TransparencyLog: sigstore.LogIgnored,
			})
			f := verify(t, v, evidence(c.subject, form.make(c.key, c.subject, options{})))
			wantReason(t, f, "")
			ids[f.Claims.Signer.ID] = true
		}
	}
	if len(ids) != 1 {
		t.Errorf("one key is %d signers: %v", len(ids), ids)
	}
}

// A stranger's fifty signatures cost a bounded number of fetches at a time.
func TestManySignaturesFewFetchesAtATime(t *testing.T) {
	c := newCast()
	var layers []sigstoretest.Layer
	for i := range 50 {
		layers = append(layers, c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Annotations: map[string]any{"n": i}}))
	}
	same := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{})
	for range 14 {
		layers = append(layers, same) // one payload: one fetch
	}
	synctest.Test(t, func(t *testing.T) {
		var now, most, all atomic.Int64
		e := evidence(c.subject, sigstoretest.PackTag(layers...))
		fetch := e.Fetch
		e.Fetch = func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
			all.Add(1)
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(20 * time.Millisecond)
			return fetch(ctx, d)
		}
		began := time.Now()
		for i, f := range trusting(t, c.key).Verify(t.Context(), e) {
			if f.Err != nil {
				t.Errorf("signature %d: %v", i, f.Err)
			}
		}
		if most.Load() > 8 || all.Load() != 51 || time.Since(began) > 7*20*time.Millisecond {
			t.Errorf("%d fetches, %d at a time, in %v", all.Load(), most.Load(), time.Since(began))
		}
	})
}

// What registries cannot give is undecided, for that signature alone.
func TestUnreadableSignatureHidesNoOther(t *testing.T) {
	c := newCast()
	away := c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{Annotations: map[string]any{"away": true}})
	e := evidence(c.subject, sigstoretest.PackTag(away, c.key.SignSimple(c.subject, sigstoretest.SimpleOptions{})))
	fetch := e.Fetch
	e.Fetch = func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		if d.Digest == digest.FromBytes(away.Data) {
			return nil, &verifier.Error{Reason: verifier.ReasonRegistryUnreachable, Message: "away"}
		}
		return fetch(ctx, d)
	}
	findings := trusting(t, c.key).Verify(t.Context(), e)
	if len(findings) != 2 {
		t.Fatalf("%d findings", len(findings))
	}
	wantReason(t, findings[0], verifier.ReasonRegistryUnreachable)
	wantReason(t, findings[1], "")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range trusting(t, c.key).Verify(ctx, evidence(c.subject, sigstoretest.PackTag(away))) {
		wantReason(t, f, verifier.ReasonTimeout)
	}
}
