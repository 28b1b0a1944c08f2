package decisions

import (
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/internal/verifier/notation/notationtest"
	"github.com/countersign-dev/countersign/internal/verifier/sigstore/sigstoretest"
	"github.com/countersign-dev/countersign/test/engine"
)

// TestHostileRegistries: what a registry may do to the Pod of a well signed
// image, and that it is admitted as soon as the registry is honest.
func TestHostileRegistries(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of deadlines; make e2e runs it")
	}
	for name, test := range map[string]struct {
		fault func(s *scene) registrytest.Fault
		words string // of the refusal
	}{
		"L02_other bytes than the digest": {
			func(s *scene) registrytest.Fault {
				return registrytest.On("/manifests/sha256:", s.registry.WrongBytes())
			}, "REGISTRY_INVALID",
		},
		"L06_pages for ever": {
			func(*scene) registrytest.Fault { return registrytest.On("/referrers/", registrytest.EndlessPages(100)) }, "LIMIT_EXCEEDED",
		},
		"L06_a page of 1 GB": {
			func(*scene) registrytest.Fault { return registrytest.On("/referrers/", registrytest.GiantPage(1<<30)) }, "LIMIT_EXCEEDED",
		},
		"L06_one byte a second": {
			func(s *scene) registrytest.Fault { return registrytest.On("/referrers/", s.registry.Slow(time.Second)) }, "TIMEOUT",
		},
		"L07_a blob that expands": {func(*scene) registrytest.Fault { return registrytest.On("/blobs/", bomb) }, "undecided"},
		"L28_a redirect to a host within": {
			func(*scene) registrytest.Fault {
				return registrytest.On("/blobs/", registrytest.Redirect("http://169.254.169.254", http.StatusTemporaryRedirect))
			}, "undecided",
		},
		"L41_a registry that hangs": {
			func(*scene) registrytest.Fault { return registrytest.On("/v2/", registrytest.Hang(nil)) }, "REGISTRY_AWAY",
		},
		"L41_a registry that is broken": {
			func(*scene) registrytest.Fault { return registrytest.On("/v2/", registrytest.Status(500)) }, "undecided", // after its retries, or before they end
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, options{})
			ctx := t.Context()
			do(t, s.Push(ctx, "cart:1.4"), s.Sign(ctx, "cart:1.4", "wabbit", notationtest.SignOptions{}))
			image := s.Name("cart:1.4@" + s.Digest("cart:1.4").String())
			s.registry.SetFault(test.fault(s))
			s.wantDenied(t, image, "undecided", test.words)
			s.registry.SetFault(nil)
			eventually(t, "the honest registry's image is admitted", func() bool { return s.admit(t, image).Allowed })
		})
	}
}

// bomb sends 1 GB of zeros in 1 MB of gzip, whatever was asked for.
func bomb(w http.ResponseWriter, _ *http.Request) bool {
	w.Header().Set("Content-Encoding", "gzip")
	zip := gzip.NewWriter(w)
	zeros := make([]byte, 1<<20)
	for range 1 << 10 {
		if _, err := zip.Write(zeros); err != nil {
			return true // the client had enough
		}
	}
	_ = zip.Close()
	return true
}

// TestL04_WhatThePodSaysIsNoEvidence: labels and annotations that look like ours.
func TestL04_WhatThePodSaysIsNoEvidence(t *testing.T) {
	s := newScene(t, options{})
	do(t, s.Push(t.Context(), "cart:1"))
	forged := pod(s.Name("cart:1"))
	says := map[string]string{"countersign.dev/status": "TRUSTED", "countersign.dev/verified": "true", "status": "TRUSTED"}
	forged.SetLabels(says)
	forged.SetAnnotations(says)
	must(t, unstructured.SetNestedField(forged.Object, "TRUSTED", "status", "phase"))
	decision, err := s.engine.Admit(t.Context(), engine.Create("shop", forged))
	must(t, err)
	wantMessage(t, decision, s.Name("cart:1"), "no signature found")
}

// TestL08_JunkBesideAGoodSignature: sixty of it harm nobody; what is behind the
// limit is not found, and the refusal says so.
func TestL08_JunkBesideAGoodSignature(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	for image, junk := range map[string]int{"sixty:1": 60, "hundred:1": 100} {
		do(t, s.Push(ctx, image))
		for i := range junk {
			do(t, s.Attach(ctx, image, notationtest.JWS, fmt.Appendf(nil, "junk %d", i)))
		}
		do(t, s.Sign(ctx, image, "wabbit", notationtest.SignOptions{}))
	}
	s.wantAdmitted(t, s.Name("sixty:1"))
	s.wantDenied(t, s.Name("hundred:1"), "64 candidates", "LIMIT_EXCEEDED")
}

// TestL09_SizesThatLie: a list that claims another size of a good signature.
func TestL09_SizesThatLie(t *testing.T) {
	for _, size := range []int64{-1, 0, 1 << 50} {
		s := newScene(t, options{})
		ctx := t.Context()
		do(t, s.Push(ctx, "cart:1"))
		signer, err := s.Signer("wabbit")
		must(t, err)
		a := signer.SignArtifact(s.Descriptor("cart:1"), notationtest.SignOptions{})
		s.registry.PushBlob("cart", a.Manifest.Config.MediaType, a.Config)
		s.registry.PushBlob("cart", notationtest.JWS, a.Envelope)
		s.registry.PushManifest("cart", "", a.Descriptor.MediaType, a.Bytes)
		lie := a.Descriptor
		lie.Size, lie.ArtifactType = size, notationtest.ArtifactType
		s.registry.ListReferrer("cart", s.Digest("cart:1"), lie)
		s.wantDenied(t, s.Name("cart:1"), "bytes")
	}
}

// TestL11_AHollowManifestHarmsNoOther image of the Pod, nor the signature beside it.
func TestL11_AHollowManifestHarmsNoOther(t *testing.T) {
	s := newScene(t, options{})
	ctx := t.Context()
	for _, image := range []string{"good:1", "hollow:1", "beside:1"} {
		do(t, s.Push(ctx, image))
	}
	for _, image := range []string{"hollow:1", "beside:1"} {
		repository, _, _ := strings.Cut(image, ":")
		subject := s.Descriptor(image)
		for _, body := range []string{`"config":null,"layers":null`, `"manifests":[]`, `"config":{},"layers":[]`} {
			d := s.registry.PushManifest(repository, "", subject.MediaType, fmt.Appendf(nil,
				`{"schemaVersion":2,"artifactType":%q,"subject":{"mediaType":%q,"digest":%q,"size":%d},%s}`,
				notationtest.ArtifactType, subject.MediaType, subject.Digest, subject.Size, body))
			d.ArtifactType = notationtest.ArtifactType
			s.registry.ListReferrer(repository, subject.Digest, d)
		}
	}
	do(t, s.Sign(ctx, "good:1", "wabbit", notationtest.SignOptions{}), s.Sign(ctx, "beside:1", "wabbit", notationtest.SignOptions{}))
	decision := s.admit(t, s.Name("hollow:1"), s.Name("good:1"), s.Name("beside:1"))
	if len(decision.Denials) != 1 {
		t.Errorf("denied for %q", decision.Denials)
	}
	wantMessage(t, decision, s.Name("hollow:1"), "manifest")
}

// TestL17_TransplantedLogEntry: another signature's good proof.
func TestL17_TransplantedLogEntry(t *testing.T) {
	policy := strings.Replace(cosigned, "transparencyLog: ignored", "transparencyLog: required, logKeys: [{file: ../log.pub}]", 1)
	log := sigstoretest.NewLog()
	s := newScene(t, options{policy: policy, keys: []string{"ci"}, files: map[string][]byte{"log.pub": log.PEM()}})
	ctx := t.Context()
	key, err := s.Key("ci")
	do(t, err, s.Push(ctx, "logged:1"), s.Push(ctx, "transplanted:1"))
	logged := key.SignSimple(s.Descriptor("logged:1"), sigstoretest.SimpleOptions{Log: log})
	transplanted := key.SignSimple(s.Descriptor("transplanted:1"), sigstoretest.SimpleOptions{}).
		With(sigstoretest.AnnotationLogBundle, logged.Annotations[sigstoretest.AnnotationLogBundle])
	for repository, layer := range map[string]sigstoretest.Layer{"logged": logged, "transplanted": transplanted} {
		a := sigstoretest.PackTag(layer)
		for _, blob := range a.Blobs {
			s.registry.PushBlob(repository, "", blob)
		}
		s.registry.PushManifest(repository, sigstoretest.Tag(s.Digest(repository+":1")), a.Descriptor.MediaType, a.Bytes)
	}
	s.wantAdmitted(t, s.Name("logged:1"))
	s.wantDenied(t, s.Name("transplanted:1"), "another signature's")
}

// TestL18_CertificatesByTime: what counts is now, unless a timestamp proves when.
func TestL18_CertificatesByTime(t *testing.T) {
	hour := time.Hour
	now := time.Now()
	root := notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.Add(-9 * hour), NotAfter: now.Add(hour)})
	authority := notationtest.NewRoot(notationtest.CertificateOptions{NotBefore: now.Add(-9 * hour), NotAfter: now.Add(hour)})
	stamper := authority.NewTSA(notationtest.CertificateOptions{})
	s := newScene(t, options{
		policy: strings.Replace(production, "{ca: [{file: ../wabbit.crt}]}", "{ca: [{file: ../root.crt}], tsa: [{file: ../tsa.crt}]}, verifyTimestamp: afterCertExpiry", 1),
		files:  map[string][]byte{"root.crt": root.PEM(), "tsa.crt": authority.PEM()},
	})
	ctx := t.Context()
	valid := root.NewSigner(notationtest.CertificateOptions{})
	late := root.NewSigner(notationtest.CertificateOptions{NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour / 2)})
	signed := notationtest.SignOptions{Time: now.Add(-hour)}
	stamped := signed
	stamped.TSA = &notationtest.TSA{Certificate: stamper, Time: now.Add(-hour)}
	tooLate := signed
	tooLate.TSA = &notationtest.TSA{Certificate: stamper}
	for image, test := range map[string]struct {
		by   *notationtest.Certificate
		sign notationtest.SignOptions
		want string
	}{
		"valid:1":   {valid, notationtest.SignOptions{}, ""},
		"late:1":    {late, signed, "expired"},
		"stamped:1": {late, stamped, ""},
		"after:1":   {late, tooLate, "was not valid"},
	} {
		do(t, s.Push(ctx, image), s.Attach(ctx, image, notationtest.JWS, test.by.Sign(s.Descriptor(image), test.sign)))
		if test.want == "" {
			s.wantAdmitted(t, s.Name(image))
		} else {
			s.wantDenied(t, s.Name(image), test.want)
		}
	}
}

// TestL28_ACredentialStaysAtItsHost: a registry that asks for it to be shown
// elsewhere.
func TestL28_ACredentialStaysAtItsHost(t *testing.T) {
	var shown atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || strings.Contains(r.URL.RawQuery, "robot") {
			shown.Add(1)
		}
		_, _ = w.Write([]byte(`{"token":"anything"}`))
	}))
	t.Cleanup(elsewhere.Close)
	policy := strings.Replace(production, "plainHTTP: true}", "plainHTTP: true, auth: {static: {username: robot, password: {inline: "+rand.Text()+"}}}}", 1)
	s := newScene(t, options{policy: policy, registry: registrytest.Options{
		Auth: registrytest.Auth{Scheme: "Bearer", Username: "robot", Password: "another", Realm: elsewhere.URL + "/token"},
	}})
	s.wantDenied(t, s.Name("cart:1"), "another host", "REGISTRY_UNAUTHORIZED")
	if n := shown.Load(); n > 0 {
		t.Errorf("the credential was shown %d times", n)
	}
}

// TestL30_TwoRegistriesInOnePod: each is asked with its own credential.
func TestL30_TwoRegistriesInOnePod(t *testing.T) {
	first := registrytest.Options{Auth: registrytest.Auth{Scheme: "Basic", Username: "robot-1", Password: "secret-1"}}
	second := registrytest.Start(t, registrytest.Options{Auth: registrytest.Auth{Scheme: "Basic", Username: "robot-2", Password: "secret-2"}})
	policy := strings.NewReplacer(
		`images: ["$REGISTRY/**"]`, `images: ["$REGISTRY/**", "`+second.Host()+`/**"]`,
		`registries: [{host: "$REGISTRY", plainHTTP: true}]`, `registries:
    - {host: "$REGISTRY", plainHTTP: true, auth: {static: {username: robot-1, password: {inline: secret-1}}}}
    - {host: "`+second.Host()+`", plainHTTP: true, auth: {static: {username: robot-2, password: {inline: secret-2}}}}`).Replace(production)
	s := newScene(t, options{policy: policy, registry: first})
	signer, err := s.Signer("wabbit")
	must(t, err)
	var images []string
	for _, r := range []*registrytest.Registry{s.registry, second} {
		subject := r.PushImage("cart", "1")
		r.AttachReferrer("cart", subject, registrytest.Artifact{
			ConfigMediaType: notationtest.ArtifactType,
			Layers:          []registrytest.Layer{{MediaType: notationtest.JWS, Data: signer.Sign(subject, notationtest.SignOptions{})}},
		})
		images = append(images, r.Host()+"/cart:1")
	}
	s.wantAdmitted(t, images...)
	for r, other := range map[*registrytest.Registry]string{s.registry: "robot-2", second: "robot-1"} {
		for _, request := range r.Requests() {
			request := http.Request{Header: http.Header{"Authorization": {request.Authorization}}}
			if user, _, _ := request.BasicAuth(); user == other {
				t.Errorf("%s was shown %s's credential", r.Host(), other)
			}
		}
	}
}
