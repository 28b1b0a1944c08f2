package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/valkey-io/valkey-go"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// sharedPatience is how long anybody waits for the server: less than a registry
	// in the next room takes. Once it is longer, it is not asked until it answers
	// somebody who does not wait.
	sharedPatience = 5 * time.Millisecond
	// sharedConnect is how long a question may take that nobody waits for any more, with
	// the connection that it needs.
	sharedConnect = time.Second
	// sharedProbe is how often that is tried, at first; it doubles up to
	// maxSharedProbe.
	sharedProbe, maxSharedProbe = 100 * time.Millisecond, 30 * time.Second
	// maxSharedBytes bounds one value: evidence is some kilobytes.
	maxSharedBytes = 1 << 20
	// maxSharedWrites is how many writes are under way; more are not made.
	maxSharedWrites = 64
	// sharedContentTTL is how long content stays that nobody asks for.
	sharedContentTTL = 24 * time.Hour
	// minSecret is the least that a secret for HMAC-SHA-256 should have.
	minSecret = 32
	// sharedPrefix is what every key begins with; the figure is the form's version.
	sharedPrefix = "countersign:1:"
)

// Shared is evidence that replicas share through a Valkey or Redis server: content
// by digest, which is hashed at each read, and for as long as it holds what a tag
// names and what is attached to a digest, under a MAC with the key and the end of
// it. Decisions are not in it. Whatever the server does, or does not do, changes no
// decision and costs a decision five milliseconds at most. Safe for concurrent use.
type Shared struct {
	options valkey.ClientOption
	secret  []byte
	log     *slog.Logger
	writes  chan struct{}
	closed  chan struct{}

	unwritten unwritten

	hits, misses atomic.Uint64

	mu      sync.Mutex // guards all below
	client  valkey.Client
	working bool // whether it answers in time
	probing bool
}

// SharedOptions say where the server is.
type SharedOptions struct {
	// URL as redis://user:password@host:6379/0, with rediss for TLS. More addresses
	// are given by addr=host:port; master_set=name makes them Sentinels, which may want
	// sentinel_username and sentinel_password. A cluster is found out.
	URL string
	// CAs are certificates in PEM that vouch for the server, in the place of the
	// system's.
	CAs []byte
	// Secret is the same for all replicas that share, and nobody else's: 32 bytes.
	Secret []byte
	// Log hears when the server comes and goes; nil: nobody.
	Log *slog.Logger
}

// NewShared reads the options. It connects behind.
func NewShared(o SharedOptions) (*Shared, error) {
	options, err := valkey.ParseURL(o.URL)
	if err != nil {
		return nil, errors.New("the URL of the shared cache is not one: write redis://HOST:6379, or rediss:// for TLS") // it may hold a password
	}
	if len(o.Secret) < minSecret {
		return nil, fmt.Errorf("the secret of the shared cache has %d bytes, and needs %d", len(o.Secret), minSecret)
	}
	if options.TLSConfig != nil {
		options.TLSConfig.InsecureSkipVerify = false
	}
	if len(o.CAs) > 0 {
		if options.TLSConfig == nil {
			return nil, errors.New("there is no TLS, and so nothing to use a CA for: write rediss://")
		}
		options.TLSConfig.RootCAs = x509.NewCertPool()
		if !options.TLSConfig.RootCAs.AppendCertsFromPEM(o.CAs) {
			return nil, errors.New("the CA of the shared cache holds no certificate")
		}
	}
	if at, err := url.Parse(o.URL); err == nil { // what the library's URLs do not know
		options.Sentinel.Username, options.Sentinel.Password = at.Query().Get("sentinel_username"), at.Query().Get("sentinel_password")
		options.Sentinel.TLSConfig = options.TLSConfig
	}
	options.DisableCache, options.DisableRetry, options.ClientName = true, true, "countersign"
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Shared{options: options, secret: o.Secret, log: o.Log, writes: make(chan struct{}, maxSharedWrites), closed: make(chan struct{})}
	s.probe()
	return s, nil
}

// Stats tells how it fares: how often something was found.
func (s *Shared) Stats() cache.Stats {
	return cache.Stats{Hits: s.hits.Load(), Misses: s.misses.Load()}
}

// Close ends the connections. It is called once.
func (s *Shared) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = false
	close(s.closed)
	if s.client != nil {
		s.client.Close()
	}
}

// use gives the client if it answers in time.
func (s *Shared) use() valkey.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.working {
		return nil
	}
	return s.client
}

// probe tries behind until the server answers in time.
func (s *Shared) probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = false
	if s.probing {
		return
	}
	s.probing = true
	go func() {
		for pause := sharedProbe; ; pause = min(2*pause, maxSharedProbe) {
			if s.answers() {
				s.log.Info("the shared cache answers")
				return
			}
			select {
			case <-time.After(pause):
			case <-s.closed:
				return
			}
		}
	}()
}

// answers connects where that was not done, and asks for a sign of life.
func (s *Shared) answers() bool {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		made, err := valkey.NewClient(s.options)
		if err != nil {
			s.log.Debug("the shared cache cannot be reached", slog.Any("error", err))
			return false
		}
		client = made
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedConnect)
	defer cancel()
	err := client.Do(ctx, client.B().Ping().Build()).Error() // which connects, where the connection has ended
	if err == nil {
		_, err = patient(ctx, func(ctx context.Context) ([]byte, error) {
			return nil, client.Do(ctx, client.B().Ping().Build()).Error()
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
	select {
	case <-s.closed:
		client.Close()
		return true
	default:
	}
	if err != nil {
		return false
	}
	s.working, s.probing = true, false
	return true
}

// get reads a value, and no more than a byte beyond that size.
func (s *Shared) get(ctx context.Context, key string, size int64) ([]byte, bool) {
	if s == nil {
		return nil, false
	}
	client := s.use()
	if client == nil {
		s.misses.Add(1)
		return nil, false
	}
	data, err := patient(ctx, func(ctx context.Context) ([]byte, error) {
		return client.Do(ctx, client.B().Getrange().Key(sharedPrefix+key).Start(0).End(min(size, maxSharedBytes)).Build()).AsBytes()
	})
	if err != nil && ctx.Err() == nil {
		s.log.Warn("the shared cache does not answer in time, and is left alone", slog.Any("error", err))
		s.probe()
	}
	if err != nil || len(data) == 0 || len(data) > maxSharedBytes {
		s.misses.Add(1)
		return nil, false
	}
	return data, true
}

// patient waits for an answer as long as anybody waits for one. The question itself may
// take longer: given up, it would take its connection along, and to a server that is far
// or busy a new one takes longer than that.
func patient(ctx context.Context, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	type answer struct {
		data []byte
		err  error
	}
	answered := make(chan answer, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sharedConnect)
		defer cancel()
		data, err := ask(ctx)
		answered <- answer{data, err}
	}()
	timer := time.NewTimer(sharedPatience)
	defer timer.Stop()
	select {
	case a := <-answered:
		return a.data, a.err
	case <-timer.C:
		return nil, errors.New("no answer within " + sharedPatience.String())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// put writes a value behind the caller. Whether it was written nobody learns.
func (s *Shared) put(key string, data []byte, ttl time.Duration) {
	if s == nil || len(data) > maxSharedBytes || ttl < time.Millisecond {
		return
	}
	client := s.use()
	if client == nil {
		return
	}
	if !s.unwritten.add(data) {
		return
	}
	select {
	case s.writes <- struct{}{}:
	default:
		s.unwritten.done(data)
		return
	}
	go func() {
		defer func() { <-s.writes }()
		defer s.unwritten.done(data)
		ctx, cancel := context.WithTimeout(context.Background(), sharedConnect)
		defer cancel()
		err := client.Do(ctx, client.B().Set().Key(sharedPrefix+key).Value(valkey.BinaryString(data)).PxMilliseconds(ttl.Milliseconds()).Build()).Error()
		if err != nil {
			s.log.Debug("the shared cache did not take a value", slog.Any("error", err))
		}
	}()
}

func contentKey(of digest.Digest) string { return "content:" + of.String() }

// content gives content, of that size at most, if its bytes are what the digest says.
func (s *Shared) content(ctx context.Context, of digest.Digest, size int64) ([]byte, bool) {
	data, ok := s.get(ctx, contentKey(of), size)
	if !ok {
		return nil, false
	}
	if of.Algorithm().FromBytes(data) != of {
		s.misses.Add(1)
		return nil, false
	}
	s.hits.Add(1)
	return data, true
}

func (s *Shared) putContent(of digest.Digest, data []byte) {
	if s != nil {
		s.put(contentKey(of), data, sharedContentTTL)
	}
}

// recall gives what was put under the key, if we or another replica put it there
// and it still holds: for longer than the part of its life in which it is renewed.
func (s *Shared) recall(ctx context.Context, key string, ttl time.Duration, v any) (until time.Time, ok bool) {
	now := time.Now()
	return s.between(ctx, key, now.Add(ttl/renewedAhead), now.Add(ttl), v)
}

// between gives what was put under the key, if we or another replica put it there and
// it ends between the two times.
func (s *Shared) between(ctx context.Context, key string, earliest, latest time.Time, v any) (until time.Time, ok bool) {
	if s == nil || verifier.IsAfresh(ctx) {
		return time.Time{}, false
	}
	data, ok := s.get(ctx, s.hidden(key), maxSharedBytes)
	if !ok {
		return time.Time{}, false
	}
	if len(data) > sha256.Size+8 && hmac.Equal(data[:sha256.Size], s.mac(key, data[sha256.Size:])) {
		until = time.Unix(0, int64(binary.BigEndian.Uint64(data[sha256.Size:]))) //nolint:gosec // G115: we wrote it
		if until.After(earliest) && !until.After(latest) && json.Unmarshal(data[sha256.Size+8:], v) == nil {
			s.hits.Add(1)
			return until, true
		}
	}
	s.misses.Add(1)
	return time.Time{}, false
}

// remember puts what holds until then under the key.
func (s *Shared) remember(key string, v any, until time.Time) {
	if s == nil {
		return
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return
	}
	signed := append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), payload...)
	s.put(s.hidden(key), append(s.mac(key, signed), signed...), time.Until(until))
}

// mac is over all that a value means: what it is about, until when, and what.
func (s *Shared) mac(key string, signed []byte) []byte {
	h := hmac.New(sha256.New, s.secret)
	_, _ = fmt.Fprintf(h, "%d %s ", len(key), key)
	_, _ = h.Write(signed)
	return h.Sum(nil)
}

// hidden is a key that tells nobody what image it is about.
func (s *Shared) hidden(key string) string {
	return fmt.Sprintf("entry:%x", s.mac("name", []byte(key)))
}

// viewKey makes the same ids of the same views in all replicas.
func (s *Shared) viewKey() [32]byte { return [32]byte(s.mac("view", nil)) }

// sharedPart is a part as others read it.
type sharedPart struct {
	NoAPI   bool          `json:"noAPI,omitempty"`
	Entries []sharedEntry `json:"entries"`
}

type sharedEntry struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Source     verifier.Source    `json:"source"`
	Suffix     string             `json:"suffix,omitempty"`
}

// part gives what one place holds.
func (s *Shared) part(ctx context.Context, key string, ttl time.Duration) (*part, bool) {
	var shared sharedPart
	until, ok := s.recall(ctx, key, ttl, &shared)
	if !ok {
		return nil, false
	}
	p := &part{listing: listing{noAPI: shared.NoAPI}, until: until, made: until.Add(-ttl), renewAt: until.Add(-ttl / renewedAhead)}
	for _, e := range shared.Entries {
		p.entries = append(p.entries, entry{e.Descriptor, e.Source, e.Suffix})
	}
	return p, true
}

// putPart shares a part that was read whole and is not empty: nothing found is
// believed for a moment only, by who found nothing.
func (s *Shared) putPart(key string, p *part) {
	if s == nil || p.err != nil || len(p.entries) == 0 {
		return
	}
	shared := sharedPart{NoAPI: p.noAPI}
	for _, e := range p.entries {
		shared.Entries = append(shared.Entries, sharedEntry{e.descriptor, e.source, e.suffix})
	}
	s.remember(key, shared, p.until)
}
