package store

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
	"github.com/countersign-dev/countersign/internal/store/auth"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// ViewOptions are one policy's.
type ViewOptions struct {
	// Registries by exact host. A host that is not among them is asked as Others
	// says: anonymously, over TLS, with the system's roots, unless it says else.
	Registries []Registry
	// Others is how every other host is asked; its Host is empty. Its Credential
	// must itself know credentials by host: it is asked for each.
	Others Registry
	// Reach says whose options these are. Only within it are private addresses
	// dialled for a host, be it among Registries, Named or neither.
	Reach Reach
	// Named are further hosts that the policy names, as its patterns do: for them, and
	// for no host that only matches a pattern, an administrator's policy dials private
	// addresses, and everybody's a host that is written as an address. OthersPrivate
	// says that an administrator's names every host.
	Named         []string
	OthersPrivate bool
}

// names reports whether the options name a registry, and do not just match it.
func (o *ViewOptions) names(host string) bool {
	return o.OthersPrivate && o.Reach.Administrator || slices.Contains(o.Named, host) ||
		slices.ContainsFunc(o.Registries, func(r Registry) bool { return r.Host == host })
}

// private reports whether private addresses are dialled for a registry that the options
// name or do not name.
func (o *ViewOptions) private(host string, named bool) bool {
	if o.Reach.Administrator {
		return named
	}
	return o.Reach.lists(host) || slices.Contains(o.Reach.Registries, host)
}

// Registry is how one host is asked.
type Registry struct {
	// Host as verifier.Reference has it: lower case, without the default port.
	Host string
	// PlainHTTP asks without TLS.
	PlainHTTP bool
	// CAs are certificates in PEM. With any, they alone vouch for this host; for
	// hosts that it refers to they are trusted beside the system's roots.
	CAs []byte
	// ClientCertificate is shown to this host where it asks for one, and to no other.
	ClientCertificate *tls.Certificate
	// Credential is asked whenever the host wants one; nil: anonymous.
	Credential CredentialSource
	// Mirror, where it is set, is asked in the place of the host: a host and what
	// goes before the repository there, as mirror.example.com/hub. How it is asked is
	// what the view has of that host, and nothing else of this Registry counts.
	Mirror string
	// TokenHosts are further hosts, with their port, at which the registry's
	// token endpoint may be shown the credential.
	TokenHosts []string
	// RedirectHosts are hosts, with their port, to which the registry sends us for
	// blobs at private addresses.
	RedirectHosts []string
}

// CredentialSource finds the credential for a host. Safe for concurrent use.
type CredentialSource interface {
	Credential(ctx context.Context, host string) (auth.Credential, error)
	// ID is the same for two sources exactly when they give the same
	// credentials. It may be made from secrets: it is not for logs.
	ID() string
}

// View asks registries as one policy may, and implements verifier.Store. What
// it remembers that can change is remembered for views of the same options and
// credentials only, across restarts of configuration.
type View struct {
	store   *Store
	id      string
	options ViewOptions
	clients map[string]*client // by Registry.Host
}

var _ verifier.Store = (*View)(nil)

// View makes a view. The error says which registry's options are wrong.
func (s *Store) View(options ViewOptions) (*View, error) {
	v := &View{store: s, options: options, clients: map[string]*client{}}
	for _, registry := range options.Registries {
		if _, ok := v.clients[registry.Host]; ok {
			return nil, fmt.Errorf("registry %s: named twice", registry.Host)
		}
		c, err := s.newClient(registry, true, &options)
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", registry.Host, err)
		}
		v.clients[registry.Host] = c
	}
	for _, registry := range options.Registries {
		if registry.Mirror != "" {
			host, path, _ := strings.Cut(registry.Mirror, "/")
			mirror := *v.clientOf(host, true)
			if mirror.prefix = path; path != "" {
				mirror.prefix += "/"
			}
			v.clients[registry.Host] = &mirror
		}
	}
	v.id = s.viewID(options)
	for _, c := range v.clients {
		c.view = v.id
	}
	return v, nil
}

// ID is the same for views with the same options and credentials in this
// process, and tells nothing about them.
func (v *View) ID() string { return v.id }

func (s *Store) viewID(options ViewOptions) string {
	type identity struct {
		Host, CAs, Credential string
		ClientCertificate     []byte
		Mirror                string
		PlainHTTP             bool
		TokenHosts            []string
		RedirectHosts         []string
	}
	var all struct {
		Registries    []identity
		Reach         Reach
		Named         []string
		OthersPrivate bool
	}
	sorted := func(hosts []string) []string { return slices.Compact(slices.Sorted(slices.Values(hosts))) }
	all.Reach, all.Named, all.OthersPrivate = options.Reach, sorted(options.Named), options.OthersPrivate
	all.Reach.Hosts, all.Reach.Registries = sorted(all.Reach.Hosts), sorted(all.Reach.Registries)
	list := []identity{}
	for _, r := range append(slices.Clone(options.Registries), options.Others) {
		credential := "anonymous"
		if r.Credential != nil {
			credential = r.Credential.ID()
		}
		list = append(list, identity{r.Host, string(r.CAs), credential, r.certificateID(), r.Mirror, r.PlainHTTP, r.TokenHosts, r.RedirectHosts})
	}
	slices.SortFunc(list, func(a, b identity) int { return strings.Compare(a.Host, b.Host) })
	all.Registries = list
	data, err := json.Marshal(all)
	if err != nil {
		panic(err) // strings and bools always encode
	}
	mac := hmac.New(sha256.New, s.idKey[:])
	mac.Write(data)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// newClient makes the client of one registry. Named says whether its policy, whose
// options are given, names the host, and not just a pattern that it matches.
func (s *Store) newClient(r Registry, named bool, of *ViewOptions) (*client, error) {
	c := &client{store: s, registry: r, scheme: "https", host: reference(r.Host, "").Host(), tenant: !of.Reach.Administrator}
	if r.PlainHTTP {
		c.scheme = "http"
	}
	trip, err := s.router(r, c.host, named, of, "")
	if err != nil {
		return nil, err
	}
	again, err := s.router(r, c.host, named, of, "again ")
	if err != nil {
		return nil, err
	}
	c.http = &http.Client{Transport: trip, CheckRedirect: checkRedirect}
	c.second = &http.Client{Transport: again, CheckRedirect: checkRedirect}
	c.tokens = &http.Client{Transport: trip, CheckRedirect: stayAtOrigin}
	return c, nil
}

// certificateID tells client certificates apart, and those who have the key of one
// from those who only say so: without it there is no pair.
func (r Registry) certificateID() []byte {
	if r.ClientCertificate == nil {
		return nil
	}
	sum := sha256.Sum256(bytes.Join(r.ClientCertificate.Certificate, nil))
	return sum[:]
}

// router leads the registry's requests; those of one kind share connections.
func (s *Store) router(r Registry, dialled string, named bool, of *ViewOptions, kind string) (*router, error) {
	trip := &router{
		host: dialled, loopback: s.options.AllowLoopback,
		named:   r.names(dialled, named, Reach{Administrator: true}),
		private: r.names(dialled, of.private(r.Host, named), of.Reach),
	}
	ownKind := kind
	if r.ClientCertificate != nil {
		ownKind += hex.EncodeToString(r.certificateID()) + " "
	}
	if len(r.CAs) == 0 {
		for i, private := range []bool{false, true} {
			trip.own[i] = s.transport(ownKind, nil, r.ClientCertificate, private)
			trip.others[i] = s.transport(kind, nil, nil, private)
		}
		return trip, nil
	}
	own, err := x509.SystemCertPool()
	if err != nil {
		own = x509.NewCertPool()
	}
	alone := x509.NewCertPool()
	if !alone.AppendCertsFromPEM(r.CAs) || !own.AppendCertsFromPEM(r.CAs) {
		return nil, fmt.Errorf("no certificate in ca")
	}
	sum := sha256.Sum256(r.CAs)
	name := hex.EncodeToString(sum[:])
	for i, private := range []bool{false, true} {
		trip.own[i] = s.transport("only "+ownKind+name, alone, r.ClientCertificate, private)
		trip.others[i] = s.transport("also "+kind+name, own, nil, private)
	}
	return trip, nil
}

// client gives the client for the host.
func (v *View) client(host string) *client { return v.clientOf(host, v.options.names(host)) }

// clientOf does the same; named says whether the policy names the host.
func (v *View) clientOf(host string, named bool) *client {
	if c, ok := v.clients[host]; ok {
		return c
	}
	registry := v.options.Others
	registry.Host = host
	c, err := v.store.newClient(registry, named, &v.options)
	if err != nil {
		panic(err) // only CAs can be wrong
	}
	c.view = v.id
	return c
}

func reference(host, repository string) registry.Reference {
	return registry.Reference{Registry: host, Repository: repository}
}

// Resolve implements verifier.Store.
func (v *View) Resolve(ctx context.Context, ref verifier.Reference) (verifier.Subject, error) {
	if ref.Digest != "" {
		if err := ref.Digest.Validate(); err != nil {
			return verifier.Subject{}, &verifier.Error{Reason: verifier.ReasonReferenceInvalid, Message: "not a digest that can be checked", Err: err}
		}
		return verifier.Subject{Reference: ref, Digest: ref.Digest}, nil
	}
	if ref.Registry == "" || ref.Repository == "" || ref.Tag == "" {
		return verifier.Subject{}, &verifier.Error{Reason: verifier.ReasonReferenceInvalid, Message: "a reference without registry, repository or tag"}
	}
	key := v.id + " " + ref.Name() + ":" + ref.Tag
	s, ttl := v.store, v.store.options.TagTTL
	resolve := func(ctx context.Context) (named, error) {
		if n, ok := remembered(ctx, s.tags, key); ok && time.Now().Before(n.renewAt) {
			return n, nil
		}
		var d digest.Digest
		if until, ok := s.options.Shared.recall(ctx, key, ttl, &d); ok && d.Validate() == nil {
			n := named{digest: d, until: until, renewAt: until.Add(-ttl / renewedAhead)}
			s.tags.Put(key, n, int64(len(d)), until)
			return n, nil
		}
		c := v.client(ref.Registry)
		d, err := c.resolve(ctx, c.repository(ref), ref.Tag)
		if err != nil {
			return named{}, err
		}
		now := time.Now()
		n := named{digest: d, until: now.Add(ttl), renewAt: now.Add(ttl - ttl/renewedAhead)}
		s.tags.Put(key, n, int64(len(d)), n.until)
		s.options.Shared.remember(key, d, n.until)
		s.subjects.Put(c.key("subject", c.repository(ref), d.String()), struct{}{}, 0, now.Add(s.options.ListTTL))
		return n, nil
	}
	n, ok := remembered(ctx, s.tags, key)
	switch {
	case !ok:
		var err error
		if n, err = s.tagFlights.Do(ctx, class(ctx, key), s.options.Budget, resolve); err != nil {
			return verifier.Subject{}, gaveUp(v.client(ref.Registry).host, err)
		}
	case time.Now().After(n.renewAt):
		behind(ctx, &s.tagFlights, class(ctx, key), s.options.Budget, resolve)
	}
	return verifier.Subject{Reference: ref, Digest: n.digest, Until: n.renewAt}, nil
}

// named is what a tag names.
type named struct {
	digest digest.Digest
	// until is when it is asked for again, and renewAt when that is done ahead.
	until, renewAt time.Time
}

// class keeps the shared work of those who can wait apart: an admission that joined
// it would wait in their queue. So it does that of those who ask again.
func class(ctx context.Context, key string) string {
	if verifier.IsAfresh(ctx) {
		key = "afresh " + key
	}
	if p := verifier.PriorityOf(ctx); p != verifier.PriorityAdmission {
		return strconv.Itoa(int(p)) + " " + key
	}
	return key
}

// remembered gives what is remembered, unless the work asks afresh.
func remembered[V any](ctx context.Context, in *cache.Cache[V], key string) (V, bool) {
	if verifier.IsAfresh(ctx) {
		var none V
		return none, false
	}
	return in.Get(key)
}

// behind begins work for which nobody waits.
func behind[V any](ctx context.Context, flights *flight.Group[V], key string, budget time.Duration, work func(context.Context) (V, error)) {
	nobodyWaits, done := context.WithCancel(ctx)
	done()
	_, _ = flights.Do(nobodyWaits, key, budget, work)
}

// Fetch implements verifier.Store.
func (v *View) Fetch(ctx context.Context, subject verifier.Subject, d ocispec.Descriptor) ([]byte, error) {
	if err := check(d, limitOf(d)); err != nil {
		return nil, err
	}
	c := v.client(subject.Reference.Registry)
	repository := c.repository(subject.Reference)
	data, ok := v.store.blobs.Get(d.Digest.String())
	release, err := c.judging(ctx, d.Size, ok)
	if err != nil {
		return nil, err
	}
	defer release()
	if !ok {
		key := c.key("content", repository, d.MediaType, d.Digest.String(), fmt.Sprint(d.Size))
		data, err = v.store.blobFlights.Do(ctx, class(ctx, key), v.store.options.Budget, func(ctx context.Context) ([]byte, error) {
			if data, ok := v.store.blobs.Get(d.Digest.String()); ok {
				return data, nil
			}
			release, err := c.reading(ctx, d.Size)
			if err != nil {
				return nil, err
			}
			defer release()
			data, err := c.content(ctx, repository, d)
			if err != nil {
				return nil, err
			}
			v.store.blobs.Put(d.Digest.String(), data, int64(len(data)), forever())
			return data, nil
		})
		if err != nil {
			return nil, gaveUp(c.host, err)
		}
	}
	if int64(len(data)) != d.Size {
		return nil, wrongSize(d, int64(len(data)))
	}
	return bytes.Clone(data), nil
}
