package auth

import (
	"context"
	"time"

	"github.com/countersign-dev/countersign/internal/cache"
	"github.com/countersign-dev/countersign/internal/flight"
)

const (
	// mintBudget is how long the making of a credential may take, with all that
	// has to be asked for it.
	mintBudget = 10 * time.Second
	// maxSessions bounds what is remembered of credentials: thousands.
	maxSessions = 16 << 20
	// unknownLifetime is how long a credential counts that does not say.
	unknownLifetime = time.Hour
)

// sessions remembers the credentials that identities of a cloud are given for its
// registries: each is made once, and anew ahead of its end, behind whoever asks
// then. Safe for concurrent use.
type sessions struct {
	made    *cache.Cache[session]
	flights flight.Group[session]
}

type session struct {
	credential Credential
	renewAt    time.Time
}

func newSessions() *sessions { return &sessions{made: cache.New[session](maxSessions)} }

// get gives the credential by its key, made by mint, which says for how long it is
// good.
func (s *sessions) get(ctx context.Context, key string, mint func(context.Context) (Credential, time.Duration, error)) (Credential, error) {
	work := func(ctx context.Context) (session, error) {
		credential, lifetime, err := mint(ctx)
		if err != nil {
			return session{}, err
		}
		now := time.Now()
		made := session{credential, now.Add(lifetime - min(lifetime/5, 15*time.Minute))}
		size := int64(len(credential.Password) + len(credential.RefreshToken))
		s.made.Put(key, made, size, now.Add(lifetime-min(lifetime/20, time.Minute)))
		return made, nil
	}
	if known, ok := s.made.Get(key); ok {
		if time.Now().After(known.renewAt) {
			nobodyWaits, done := context.WithCancel(context.WithoutCancel(ctx))
			done()
			_, _ = s.flights.Do(nobodyWaits, key, mintBudget, work)
		}
		return known.credential, nil
	}
	made, err := s.flights.Do(ctx, key, mintBudget, work)
	return made.credential, err
}

// forget drops a credential that was refused, unless it was made anew since.
func (s *sessions) forget(key string, refused Credential) {
	if known, ok := s.made.Get(key); ok && known.credential == refused {
		s.made.Delete(key)
	}
}
