package provider

import (
	"strings"
	"sync"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxRemembered is how many parsed keys are kept in each of two generations,
	// and maxRememberedKey how long such a key may be: at most 4 MiB together.
	maxRemembered    = 4 << 10
	maxRememberedKey = 512
)

// requests remembers what keys say. Parsing one costs as much as all the rest
// of a warm answer (the grammar of references is a regular expression), and a
// cluster asks about the same images over and over. A key means the same for
// ever, so nothing here expires; the older generation goes when the younger
// is full. The zero value is ready. Safe for concurrent use.
type requests struct {
	mu           sync.RWMutex // guards all below
	young, older map[string]verifier.Request
}

// parse is ParseKey. The result is shared: it must not be changed.
func (r *requests) parse(key string) (verifier.Request, error) {
	r.mu.RLock()
	request, known := r.young[key]
	if !known {
		request, known = r.older[key]
	}
	r.mu.RUnlock()
	if known {
		return request, nil
	}
	key = strings.Clone(key) // a part of it that is kept must not keep the whole body
	request, err := ParseKey(key)
	if err == nil && len(key) <= maxRememberedKey {
		r.keep(key, request)
	}
	return request, err
}

func (r *requests) keep(key string, request verifier.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= maxRemembered {
		r.older, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = make(map[string]verifier.Request)
	}
	r.young[key] = request
}
