package registrytest_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

const signature = "application/vnd.example.signature"

// foreign is a client that knows nothing of this package: oras-go.
func foreign(t *testing.T, r *registrytest.Registry, options registrytest.Options) *remote.Repository {
	t.Helper()
	repo, err := remote.NewRepository(r.Host() + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	if options.TLS {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(r.CA())
	}
	repo.PlainHTTP = !options.TLS
	repo.Client = &auth.Client{
		Client: &http.Client{Transport: transport},
		Cache:  auth.NewCache(),
		Credential: auth.StaticCredential(r.Host(), auth.Credential{
			Username: options.Auth.Username, Password: options.Auth.Password, RefreshToken: options.Auth.RefreshToken,
		}),
	}
	return repo
}

func TestAForeignClientPushesAndReadsWithEveryOption(t *testing.T) {
	account := registrytest.Auth{Username: "robot", Password: "s3cret"}
	basic, bearer := account, account
	basic.Scheme, bearer.Scheme = "Basic", "Bearer"
	for name, options := range map[string]registrytest.Options{
		"plain HTTP":               {},
		"TLS":                      {TLS: true},
		"without a referrers API":  {NoReferrersAPI: true},
		"without a filter":         {NoFilter: true},
		"in pages":                 {PageSize: 2},
		"without a digest header":  {NoDigestHeader: true, PageSize: 1},
		"Basic":                    {Auth: basic},
		"Bearer":                   {Auth: bearer, TLS: true},
		"Bearer, anonymous":        {Auth: registrytest.Auth{Scheme: "Bearer"}},
		"Bearer, by refresh token": {Auth: registrytest.Auth{Scheme: "Bearer", RefreshToken: "r"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			repo := foreign(t, r, options)
			ctx := t.Context()
			image := push(t, repo, "v1", ocispec.Manifest{})
			var want []string
			for i := range 5 {
				artifactType := signature
				if i == 2 {
					artifactType = "application/vnd.example.other"
				}
				d := push(t, repo, "", ocispec.Manifest{
					ArtifactType: artifactType, Subject: &image, Annotations: map[string]string{"n": string(rune('a' + i))},
				})
				if artifactType == signature {
					want = append(want, d.Digest.String())
				}
			}
			if !options.NoDigestHeader { // oras-go does not resolve without it
				got, err := repo.Resolve(ctx, "v1")
				if err != nil || got.Digest != image.Digest {
					t.Fatalf("the tag resolves to %s, %v; pushed %s", got.Digest, err, image.Digest)
				}
			}
			var got []string
			err := repo.Referrers(ctx, image, signature, func(page []ocispec.Descriptor) error {
				for _, d := range page {
					got = append(got, d.Digest.String())
					if _, err := content.FetchAll(ctx, repo, d); err != nil {
						return err
					}
				}
				return nil
			})
			slices.Sort(got)
			slices.Sort(want)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("referrers %v, %v; want %v", got, err, want)
			}
		})
	}
}

func push(t *testing.T, repo *remote.Repository, tag string, m ocispec.Manifest) ocispec.Descriptor {
	t.Helper()
	ctx := t.Context()
	pushBlob := func(mediaType string, data []byte) ocispec.Descriptor {
		d, err := oras.PushBytes(ctx, blobs{repo}, mediaType, data)
		if err != nil {
			t.Fatalf("push a blob: %v", err)
		}
		return d
	}
	m.SchemaVersion = 2
	m.MediaType = ocispec.MediaTypeImageManifest
	m.Config = pushBlob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	m.Layers = []ocispec.Descriptor{pushBlob("text/plain", []byte("layer"+tag))}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := content.NewDescriptorFromBytes(m.MediaType, data)
	if tag == "" {
		err = repo.Push(ctx, d, bytes.NewReader(data))
	} else {
		err = repo.PushReference(ctx, d, bytes.NewReader(data), tag)
	}
	if err != nil {
		t.Fatalf("push a manifest: %v", err)
	}
	return d
}

// blobs pushes without asking first whether the blob is there.
type blobs struct{ *remote.Repository }

func (b blobs) Exists(context.Context, ocispec.Descriptor) (bool, error) { return false, nil }

func TestWhatIsPushedInGoIsServed(t *testing.T) {
	for name, options := range map[string]registrytest.Options{
		"referrers API": {},
		"tag schema":    {NoReferrersAPI: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.Start(t, options)
			image := r.PushImage("team/app", "v1")
			if again := r.PushImage("team/app", "v1"); again.Digest == image.Digest {
				t.Error("two pushes made one image")
			}
			attached := r.AttachReferrer("team/app", image, registrytest.Artifact{
				ConfigMediaType: signature,
				Layers:          []registrytest.Layer{{MediaType: "application/jose+json", Data: []byte("{}")}},
			})
			repo := foreign(t, r, options)
			list, err := repo.Predecessors(t.Context(), image)
			if err != nil || len(list) != 1 || list[0].Digest != attached.Digest || list[0].ArtifactType != signature {
				t.Errorf("got %v, %v", list, err)
			}
			r.Tag("team/app", "stable", image.Digest)
			if d, err := repo.Resolve(t.Context(), "stable"); err != nil || d.Digest != image.Digest {
				t.Errorf("the moved tag resolves to %v, %v", d, err)
			}
		})
	}
}

func TestTokensAreCountedByScope(t *testing.T) {
	options := registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}}
	r := registrytest.Start(t, options)
	r.PushImage("team/app", "v1")
	repo := foreign(t, r, options)
	for range 3 {
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Tokens(); len(got) != 1 || got["repository:team/app:pull"] != 1 {
		t.Errorf("tokens %v", got)
	}
	r.RevokeTokens()
	if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if got := r.Tokens()["repository:team/app:pull"]; got != 2 {
		t.Errorf("%d tokens after a revocation", got)
	}
}

func TestRequestsAreRecordedInTheirOrder(t *testing.T) {
	r := registrytest.Start(t, registrytest.Options{})
	r.PushImage("team/app", "v1")
	release := make(chan struct{})
	r.SetFault(registrytest.On("/hang/", registrytest.Hang(release)))
	get := func(path string) {
		resp, err := http.Get(r.URL() + path)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}
	get("/v2/")
	get("/v2/team/app/manifests/v1")
	done := make(chan struct{})
	for range 3 {
		go func() { get("/v2/hang/manifests/v1"); done <- struct{}{} }()
	}
	for r.InFlight() < 3 {
		runtime.Gosched()
	}
	close(release)
	for range 3 {
		<-done
	}
	if n, trips, most := len(r.Requests()), r.RoundTrips(), r.MaxInFlight(); n != 5 || trips != 3 || most != 3 {
		t.Errorf("%d requests, %d round trips, %d in flight; want 5, 3, 3", n, trips, most)
	}
	if got := r.Requests()[1].String(); got != "GET /v2/team/app/manifests/v1 200" {
		t.Errorf("the second request is %q", got)
	}
	r.Reset()
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests after Reset", n)
	}
}
