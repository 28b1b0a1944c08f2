package watch

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// historyAge is how long is kept what became of images.
	historyAge = 90 * 24 * time.Hour
	// maxTransitions bounds it: some 60 MB.
	maxTransitions = 200_000
	// flushEvery is how often what is new goes to disk, and pruneEvery how often what
	// is too old goes.
	flushEvery, pruneEvery = time.Second, time.Hour
)

var (
	knownBucket, transitionsBucket = []byte("known"), []byte("transitions")
	// admissionBucket has the digests that admission was asked about, and admissionState
	// in it since when that is known.
	admissionBucket, admissionState = []byte("admission"), []byte("state")
)

// History keeps in a file what was last known of images, and for 90 days what became
// of them. It implements Memory: writes go to disk behind, within a second. Safe for
// concurrent use.
type History struct {
	db  *bbolt.DB
	log *slog.Logger

	mu          sync.Mutex // guards all below
	known       map[string]Known
	transitions []Transition
}

// OpenHistory opens or makes the file, which is one process's at a time.
func OpenHistory(path string, log *slog.Logger) (*History, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if errors.Is(err, bbolt.ErrTimeout) { //nolint:staticcheck // the package that it has moved to is the library's inner one
		return nil, fmt.Errorf("history %s: another process has it", path)
	}
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists(knownBucket)
			_, other := tx.CreateBucketIfNotExists(transitionsBucket)
			_, third := tx.CreateBucketIfNotExists(admissionBucket)
			return errors.Join(err, other, third)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("history %s: %w. If it is damaged, delete it: what runs is looked at again", path, err)
	}
	return &History{db: db, log: log, known: map[string]Known{}}, nil
}

// Known implements Memory.
func (h *History) Known(key string) Known {
	h.mu.Lock()
	known, ok := h.known[key]
	h.mu.Unlock()
	if ok {
		return known
	}
	_ = h.db.View(func(tx *bbolt.Tx) error {
		if json.Unmarshal(tx.Bucket(knownBucket).Get([]byte(key)), &known) != nil {
			known = Known{}
		}
		return nil
	})
	return known
}

// Keep implements Memory.
func (h *History) Keep(key string, known Known) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known[key] = known
}

// Add implements Memory.
func (h *History) Add(t Transition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.transitions = append(h.transitions, t)
}

// Run writes until ctx ends, and then what is left, and closes the file.
func (h *History) Run(ctx context.Context) error {
	flush, prune := time.NewTicker(flushEvery), time.NewTicker(pruneEvery)
	defer flush.Stop()
	defer prune.Stop()
	for {
		select {
		case <-flush.C:
			if err := h.flush(); err != nil {
				h.log.WarnContext(ctx, "what became of images cannot be written; trying again", slog.Any("error", err))
			}
		case <-prune.C:
			if err := h.prune(time.Now()); err != nil {
				h.log.WarnContext(ctx, "what is too old cannot be removed", slog.Any("error", err))
			}
		case <-ctx.Done():
			return errors.Join(h.flush(), h.db.Close())
		}
	}
}

// flush writes what is new. What cannot be written stays.
func (h *History) flush() error {
	h.mu.Lock()
	known, transitions := h.known, h.transitions
	h.mu.Unlock()
	if len(known) == 0 && len(transitions) == 0 {
		return nil
	}
	written := make(map[string]Known, len(known))
	err := h.db.Update(func(tx *bbolt.Tx) error {
		h.mu.Lock()
		for key, k := range known {
			written[key] = k
		}
		h.mu.Unlock()
		for key, k := range written {
			data, err := json.Marshal(k)
			if err == nil {
				err = tx.Bucket(knownBucket).Put([]byte(key), data)
			}
			if err != nil {
				return err
			}
		}
		return put(tx.Bucket(transitionsBucket), transitions)
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, k := range written {
		if h.known[key] == k {
			delete(h.known, key)
		}
	}
	h.transitions = append([]Transition(nil), h.transitions[len(transitions):]...)
	return nil
}

// put appends transitions in the order of their time.
func put(bucket *bbolt.Bucket, transitions []Transition) error {
	for _, t := range transitions {
		sequence, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		data, err := json.Marshal(t)
		if err != nil {
			return err
		}
		key := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(t.Time.UnixNano())), sequence)
		if err := bucket.Put(key, data); err != nil {
			return err
		}
	}
	return nil
}

// Transitions gives what became of images, the latest first: those that match, until
// there are so many.
func (h *History) Transitions(limit int, matches func(Transition) bool) ([]Transition, error) {
	var list []Transition
	h.mu.Lock()
	for i := len(h.transitions) - 1; i >= 0 && len(list) < limit; i-- {
		if t := h.transitions[i]; matches(t) {
			list = append(list, t)
		}
	}
	h.mu.Unlock()
	err := h.db.View(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(transitionsBucket).Cursor()
		for key, data := cursor.Last(); key != nil && len(list) < limit; key, data = cursor.Prev() {
			var t Transition
			if json.Unmarshal(data, &t) == nil && matches(t) {
				list = append(list, t)
			}
		}
		return nil
	})
	return list, err
}

// prune removes what is too old, and the oldest of what is too much.
func (h *History) prune(now time.Time) error {
	oldest := now.Add(-historyAge)
	return h.db.Update(func(tx *bbolt.Tx) error {
		known := tx.Bucket(knownBucket)
		var gone [][]byte
		err := known.ForEach(func(key, data []byte) error {
			var k Known
			if json.Unmarshal(data, &k) != nil || k.At.Before(oldest) {
				gone = append(gone, key)
			}
			return nil
		})
		for _, key := range gone {
			err = errors.Join(err, known.Delete(key))
		}
		transitions := tx.Bucket(transitionsBucket)
		excess := transitions.Stats().KeyN - maxTransitions
		cursor := transitions.Cursor()
		for key, _ := cursor.First(); key != nil; key, _ = cursor.Next() {
			at := time.Unix(0, int64(binary.BigEndian.Uint64(key))) //nolint:gosec // G115: we wrote it
			if excess <= 0 && !at.Before(oldest) {
				break
			}
			excess--
			err = errors.Join(err, cursor.Delete())
		}
		return err
	})
}
