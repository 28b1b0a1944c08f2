package watch

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/countersign-dev/countersign/internal/admission"
)

// LoadAdmission implements admission.Memory.
func (h *History) LoadAdmission() (state admission.State, digests []uint64, err error) {
	err = h.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(admissionBucket).ForEach(func(key, data []byte) error {
			switch {
			case bytes.Equal(key, admissionState):
				return json.Unmarshal(data, &state)
			case len(key) == 8:
				digests = append(digests, binary.BigEndian.Uint64(key))
			}
			return nil
		})
	})
	if err != nil {
		return state, nil, fmt.Errorf("read what admission was asked about: %w", err)
	}
	return state, digests, nil
}

// SaveAdmission implements admission.Memory.
func (h *History) SaveAdmission(state admission.State, digests []uint64) error {
	return h.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(admissionBucket)
		if state.Since.IsZero() { // it begins anew
			if err := tx.DeleteBucket(admissionBucket); err != nil {
				return err
			}
			var err error
			if bucket, err = tx.CreateBucket(admissionBucket); err != nil {
				return err
			}
		}
		for _, d := range digests {
			if err := bucket.Put(binary.BigEndian.AppendUint64(nil, d), nil); err != nil {
				return err
			}
		}
		data, err := json.Marshal(state)
		if err != nil {
			return err
		}
		return bucket.Put(admissionState, data)
	})
}
