package sigstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// artifactTypeSignature is the type of referrers that hold signatures of
	// Cosign's own format.
	artifactTypeSignature = "application/vnd.dev.cosign.artifact.sig.v1+json"
	// artifactTypeBundle is the type of referrers that hold a bundle, as Cosign
	// writes it since version 3.
	artifactTypeBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// tagSuffix of the tags at which Cosign keeps signatures of its own format.
	tagSuffix = ".sig"
)

const (
	// maxLayers bounds the signatures of one manifest that are tried. Who signs
	// an image again and again has one layer each time.
	maxLayers = 64
	// fetchAhead is how many of one manifest's blobs are read at a time.
	fetchAhead = 8
	// maxFindingAge bounds how long a finding holds. Keys do not expire; they
	// are trusted as long as the configuration names them.
	maxFindingAge = time.Hour
)

// Verifier judges Cosign's signatures by keys. It is a verifier.Verifier.
type Verifier struct {
	repository  verifier.Reference
	keys        keyring
	log         TransparencyLog
	logs        map[string]*root.TransparencyLog
	fingerprint string
}

// New makes a Verifier, or says in the user's words what is wrong with the
// options.
func New(o Options) (*Verifier, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	keys, err := newKeyring(o.Keys)
	if err != nil {
		return nil, err
	}
	logs, err := o.rekorLogs()
	if err != nil {
		return nil, err
	}
	return &Verifier{keys: keys, repository: o.Repository, log: o.TransparencyLog, logs: logs, fingerprint: o.fingerprint(keys)}, nil
}

// Fingerprint changes with every option and every byte of trust material.
func (v *Verifier) Fingerprint() string { return v.fingerprint }

// Parties are all whom the options trust, as Claims.Parties has them; one that is
// written twice may be there twice.
func (v *Verifier) Parties() []verifier.Party {
	keys := map[string][]string{} // by party
	for _, key := range v.keys {
		for _, party := range key.parties {
			keys[party] = append(keys[party], key.id)
		}
	}
	var list []verifier.Party
	for _, party := range slices.Sorted(maps.Keys(keys)) {
		list = append(list, verifier.Party{ID: party, Signers: strings.Join(slices.Compact(slices.Sorted(slices.Values(keys[party]))), " ")})
	}
	return list
}

// Wants names bundles of all versions and signatures of Cosign's own format
// among the referrers, and Cosign's tag.
func (v *Verifier) Wants() verifier.Wanted {
	return verifier.Wanted{
		ArtifactTypes: []string{
			artifactTypeBundle,
			"application/vnd.dev.sigstore.bundle.v0.2+json", "application/vnd.dev.sigstore.bundle.v0.1+json",
			"application/vnd.dev.sigstore.bundle+json;version=0.3", "application/vnd.dev.sigstore.bundle+json;version=0.2",
			"application/vnd.dev.sigstore.bundle+json;version=0.1",
			artifactTypeSignature,
		},
		TagSuffixes: []string{tagSuffix},
		Repository:  v.repository,
	}
}

// Handles reports whether the candidate is a bundle, or holds signatures of
// Cosign's own format.
func (v *Verifier) Handles(c verifier.Candidate) bool {
	return c.Source == verifier.SourceTagSuffix || c.ArtifactType == artifactTypeSignature || strings.HasPrefix(c.ArtifactType, mediaTypeBundlePrefix)
}

// Verify judges each signature that the candidate holds, in its order.
func (v *Verifier) Verify(ctx context.Context, e verifier.Evidence) []verifier.Finding {
	layers, err := layersOf(e)
	if err != nil {
		return []verifier.Finding{refused(err)}
	}
	var more *verifier.Error
	if len(layers) > maxLayers {
		more = tooManyLayers(len(layers), maxLayers)
		layers = layers[:maxLayers]
	}
	findings := make([]verifier.Finding, 0, len(layers)+1)
	for i, b := range fetchAll(ctx, e, layers) {
		findings = append(findings, v.judge(ctx, e, layers[i], b))
	}
	if more != nil {
		findings = append(findings, refused(more))
	}
	return findings
}

func refused(err *verifier.Error) verifier.Finding {
	if err.Reason.Undecided() {
		return verifier.Finding{Err: err}
	}
	return verifier.Finding{Err: err, ValidUntil: time.Now().Add(maxFindingAge)}
}

// layersOf gives the layers that hold signatures, after the checks that need no
// bytes of them. Others beside them do no harm.
func layersOf(e verifier.Evidence) ([]ocispec.Descriptor, *verifier.Error) {
	manifest := e.Candidate.Manifest
	attached := e.Candidate.Source != verifier.SourceTagSuffix
	if e.Subject.Digest == "" || attached && manifest.Subject == nil || manifest.Subject != nil && manifest.Subject.Digest != e.Subject.Digest {
		return nil, &verifier.Error{
			Reason: verifier.ReasonSubjectMismatch, Message: "the signature's manifest is attached to another image", Remedy: remedySign,
		}
	}
	if t := manifest.Annotations[annotationPredicateType]; t != "" && t != predicateTypeSign {
		return nil, anAttestation(t)
	}
	var layers []ocispec.Descriptor
	for _, layer := range manifest.Layers {
		if layer.MediaType == mediaTypeSimpleSigning || strings.HasPrefix(layer.MediaType, mediaTypeBundlePrefix) {
			layers = append(layers, layer)
		}
	}
	if len(layers) == 0 {
		var found string
		if len(manifest.Layers) > 0 {
			found = ", only " + fmt.Sprintf("%q", clip(manifest.Layers[0].MediaType))
		}
		return nil, unsupported("the signature's manifest holds no signature of Cosign's and no bundle%s", found)
	}
	return layers, nil
}

// blob is what a layer holds, or why it cannot be had.
type blob struct {
	data []byte
	err  *verifier.Error
}

// fetchAll reads the layers, each blob once: one who signs an image twice signs
// the same payload.
func fetchAll(ctx context.Context, e verifier.Evidence, layers []ocispec.Descriptor) []*blob {
	blobs := make([]*blob, len(layers))
	known := map[digest.Digest]*blob{}
	slots := make(chan struct{}, fetchAhead)
	var wait sync.WaitGroup
	for i, layer := range layers {
		limit := int64(maxPayload)
		if layer.MediaType != mediaTypeSimpleSigning {
			limit = maxBundle
		}
		if layer.Size <= 0 || layer.Size > limit {
			blobs[i] = &blob{err: unsupported("what is signed, or its bundle, has %d bytes; up to %d are verified", layer.Size, limit)}
			continue
		}
		key := digest.Digest(fmt.Sprint(layer.Digest, " ", layer.Size))
		if blobs[i] = known[key]; blobs[i] != nil {
			continue
		}
		b := &blob{}
		blobs[i], known[key] = b, b
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			defer func() {
				if p := recover(); p != nil {
					b.err = crashed(p)
				}
			}()
			data, err := e.Fetch(ctx, layer)
			if err != nil {
				b.err = verifier.AsError(err)
				return
			}
			b.data = data
		})
	}
	wait.Wait()
	return blobs
}

func crashed(p any) *verifier.Error {
	return &verifier.Error{
		Reason: verifier.ReasonInternal, Message: "verification of a signature crashed", Remedy: "Report this with the trace id",
		Err: fmt.Errorf("panic: %v", p),
	}
}

// judge judges one signature. A crash is one signature's and not its
// neighbours'.
func (v *Verifier) judge(ctx context.Context, e verifier.Evidence, layer ocispec.Descriptor, b *blob) (f verifier.Finding) {
	defer func() {
		if p := recover(); p != nil {
			f = refused(crashed(p))
		}
	}()
	switch {
	case b.err != nil:
		return refused(b.err)
	case ctx.Err() != nil:
		return refused(&verifier.Error{
			Reason: verifier.ReasonTimeout, Message: "no time was left to verify a signature", Remedy: "Try again in a few seconds", Err: ctx.Err(),
		})
	}
	claims, err := v.prove(e.Subject.Digest, layer, b.data)
	if err != nil {
		f = refused(err)
		f.Claims.Signer, f.Claims.Parties = claims.Signer, claims.Parties
		return f
	}
	return verifier.Finding{Claims: claims, ValidUntil: time.Now().Add(maxFindingAge)}
}

// prove goes from what is cheap to what is expensive: the form, the key, the
// subject, sigstore-go, the log.
func (v *Verifier) prove(subject digest.Digest, layer ocispec.Descriptor, data []byte) (verifier.Claims, *verifier.Error) {
	var claims verifier.Claims
	var e *envelope
	var err *verifier.Error
	if layer.MediaType == mediaTypeSimpleSigning {
		e, err = openSimpleSigning(layer, data)
	} else {
		e, err = openBundle(data, subject)
	}
	if err != nil {
		return claims, err
	}
	key, by := v.keys.whose(e.signature, e.message, e.digest)
	switch {
	case key == nil && e.certificate:
		return claims, keyless()
	case key == nil:
		return claims, v.keys.notOurs(e.hint)
	}
	claims.Signer, claims.Parties = verifier.Signer{ID: key.id, Key: key.id, Name: key.name}, slices.Clone(key.parties)
	signed, err := e.subject()
	if err != nil {
		return claims, err
	}
	if signed != subject.String() {
		return claims, anotherSubject(signed)
	}
	if err := e.confirm(by); err != nil {
		return claims, invalid(err, "the signature breaks the rules of Sigstore bundles")
	}
	if claims.SignedAt, err = v.logged(e, key, by); err != nil {
		return claims, err
	}
	claims.SubjectDigest, claims.Kind = subject, verifier.KindSignature
	return claims, nil
}
