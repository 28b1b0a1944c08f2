package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/countersign-dev/countersign/internal/store/registrytest"
	"github.com/countersign-dev/countersign/test/binary"
	"github.com/countersign-dev/countersign/test/pki"
	"github.com/countersign-dev/countersign/test/world"
)

// naming is how an image is asked for.
type naming int

const (
	byDigest naming = iota
	byTag
)

func (n naming) String() string { return [...]string{"by digest", "by tag"}[n] }

// image is one that was pushed.
type image struct {
	host, repository, tag string
	digest                digest.Digest
	signed                bool
	// way are the paths that lead to the signature, by digest.
	way []string
}

// key is the image as the library's template sends it, with its namespace.
func (i *image) key(by naming) string { return i.keyIn("shop", by) }

func (i *image) keyIn(namespace string, by naming) string {
	name := "[" + namespace + "]" + i.host + "/" + i.repository
	if by == byTag {
		return name + ":" + i.tag
	}
	return name + "@" + i.digest.String()
}

// stage is what the provider stands on: registries with images, policies that
// trust them, and a cluster's certificates.
type stage struct {
	*world.World
	dir, binary string
	authority   *pki.Authority
	clients     *tls.Config // a client's, with Gatekeeper's certificate

	registry *registrytest.Registry
	guarded  *registrytest.Registry // wants a token for each repository

	formats []*format
	// images by the name of their format.
	images map[string][]*image
	// many images for memory, signed by Notation.
	many []*image
	// together are in one repository of the guarded registry, apart in one each.
	together, apart []*image
}

func newStage(ctx context.Context, root, dir string, n sizes, progress io.Writer) (*stage, error) {
	s := &stage{dir: dir, images: map[string][]*image{}}
	var err error
	if s.binary, err = binary.Find(ctx, root, dir, progress); err != nil {
		return nil, err
	}
	if s.registry, err = registrytest.New(registrytest.Options{}); err != nil {
		return nil, err
	}
	if s.guarded, err = registrytest.New(registrytest.Options{Auth: registrytest.Auth{Scheme: "Bearer"}}); err != nil {
		return nil, err
	}
	if s.World, err = world.New(dir, s.registry.Host()); err != nil {
		return nil, err
	}
	if err := s.certificates(); err != nil {
		return nil, err
	}
	signers := newSigners()
	s.formats = signers.formats()
	if err := s.policies(signers); err != nil {
		return nil, err
	}
	for _, f := range s.formats {
		s.images[f.name] = pushImages(s.registry, f, slug(f.name), n.images)
	}
	notation := s.formats[0]
	s.many = pushImages(s.registry, notation, "notation-many", n.many)
	s.together = pushImages(s.guarded, notation, "notation", n.slow)
	for i := range n.slow {
		s.apart = append(s.apart, pushImages(s.guarded, notation, fmt.Sprintf("notation-%04d", i), 1)...)
	}
	return s, nil
}

// slug is a format's name as a repository's.
func slug(name string) string { return strings.NewReplacer(" ", "-", ".", "").Replace(name) }

// pushImages pushes n images of a format into one repository, on all cores.
func pushImages(r *registrytest.Registry, f *format, repository string, n int) []*image {
	images := make([]*image, n)
	subjects := make([]ocispec.Descriptor, n)
	for i := range images {
		tag := fmt.Sprintf("v%04d", i)
		subjects[i] = r.PushImage(repository, tag)
		images[i] = &image{host: r.Host(), repository: repository, tag: tag, digest: subjects[i].Digest, signed: f.sign != nil}
	}
	if f.sign == nil {
		return images
	}
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				images[i].way = f.sign(r, repository, subjects[i])
			}
		})
	}
	for i := range images {
		next <- i
	}
	close(next)
	wg.Wait()
	return images
}

// certificates makes Gatekeeper's side of mTLS.
func (s *stage) certificates() (err error) {
	if s.authority, err = pki.NewAuthority("gatekeeper-ca"); err != nil {
		return err
	}
	pair, err := s.authority.Issue(pki.GatekeeperName)
	if err != nil {
		return err
	}
	certificate, err := pair.TLS()
	if err != nil {
		return err
	}
	s.clients = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, RootCAs: x509.NewCertPool(), ServerName: "localhost",
	}
	s.clients.RootCAs.AppendCertsFromPEM(s.authority.PEM)
	return nil
}

const policy = `apiVersion: countersign.dev/v1beta1
kind: ClusterTrustPolicy
metadata: {name: %s}
spec:
  images: [%s]
  owner: platform@example.com
  registries: [{host: "%s", plainHTTP: true}]
  require: %s
`

// policies are one for each format, so that each asks for what it needs.
func (s *stage) policies(by signers) error {
	if err := os.WriteFile(filepath.Join(s.dir, "wabbit.crt"), by.notation.Root().PEM(), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "cosign.pub"), by.cosign.PEM(), 0o600); err != nil {
		return err
	}
	for _, f := range s.formats {
		name := slug(f.name)
		images := fmt.Sprintf(`"$REGISTRY/%s", "$REGISTRY/%s-many"`, name, name)
		if err := s.Policy(name+".yaml", fmt.Sprintf(policy, name, images, "$REGISTRY", f.require)); err != nil {
			return err
		}
	}
	guarded := s.guarded.Host()
	return s.Policy("guarded.yaml", fmt.Sprintf(policy, "guarded", `"`+guarded+`/**"`, guarded, s.formats[0].require))
}

// latency makes both registries wait before each answer.
func (s *stage) latency(d time.Duration) {
	var fault registrytest.Fault
	if d > 0 {
		fault = registrytest.Delay(d)
	}
	s.registry.SetFault(fault)
	s.guarded.SetFault(fault)
}

func (s *stage) close() {
	s.registry.Close()
	s.guarded.Close()
}
