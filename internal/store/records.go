package store

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// recordDirectory is where a Directory keeps records, and recordKeyFile the key of
	// their MAC.
	recordDirectory, recordKeyFile = "records", "records.key"
	// maxRecordBytes bounds one record: sixteen descriptors with their types.
	maxRecordBytes = 64 << 10
	// maxRecordFiles is how many records a directory keeps; when there are more, those
	// that have ended go, and then the oldest. At about a kilobyte each they are small
	// beside what they name.
	maxRecordFiles = 20_000
)

// Records keeps small records on disk and with other replicas, as far as there is
// either: verifier.Records. A record is under a MAC with its key and its end, so that
// neither a server nor a damaged file changes or prolongs one. The MAC's key on disk
// lies beside the records: who may write to that directory may write records as well,
// of which the most that can come is that a list is not read, or is read in vain; what
// a record names is verified like all evidence. Safe for concurrent use.
type Records struct {
	directory *Directory
	shared    *Shared
	maxAge    time.Duration
}

var _ verifier.Records = (*Records)(nil)

// NewRecords makes records that are kept for at most maxAge. Directory and shared may
// be nil.
func NewRecords(directory *Directory, shared *Shared, maxAge time.Duration) *Records {
	return &Records{directory, shared, maxAge}
}

// Record implements verifier.Records.
func (r *Records) Record(ctx context.Context, key string) ([]byte, bool) {
	now := time.Now()
	if data, ok := r.directory.record(key, now, now.Add(r.maxAge)); ok {
		return data, true
	}
	var data []byte
	_, ok := r.shared.between(ctx, key, now, now.Add(r.maxAge), &data)
	return data, ok && len(data) > 0
}

// PutRecord implements verifier.Records. Nobody waits for it.
func (r *Records) PutRecord(key string, data []byte, until time.Time) {
	if len(data) > maxRecordBytes {
		return
	}
	r.directory.putRecord(key, data, until)
	if len(data) == 0 { // it is to be forgotten: what replaces it ends at once
		until = time.Now().Add(time.Second)
	}
	r.shared.remember(key, data, until)
}

// recordKey gives the key of the directory's records, which is made once: several
// processes that share a directory share it.
func (d *Directory) recordKey() ([sha256.Size]byte, error) {
	var key [sha256.Size]byte
	for range 2 {
		data, err := d.read(recordKeyFile, 0, maxRecordBytes)
		if err == nil && len(data) == len(key) {
			return [sha256.Size]byte(data), nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return key, err
		}
		if err == nil { // a crash has left it short
			_ = d.root.Remove(recordKeyFile)
		}
		_, _ = rand.Read(key[:]) // never fails, says its documentation
		f, err := d.root.OpenFile(recordKeyFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			continue // another process was first
		}
		if err != nil {
			return key, err
		}
		_, err = f.Write(key[:])
		return key, errors.Join(err, f.Close())
	}
	return key, errors.New("the key of the records cannot be read")
}

func (d *Directory) recordPath(key string) string {
	return path.Join(recordDirectory, hex.EncodeToString(d.recordMAC("name", []byte(key))))
}

func (d *Directory) recordMAC(what string, signed []byte) []byte {
	h := hmac.New(sha256.New, d.records[:])
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(what))))
	_, _ = h.Write([]byte(what))
	_, _ = h.Write(signed)
	return h.Sum(nil)
}

// record gives a record that was put and ends between the two times.
func (d *Directory) record(key string, earliest, latest time.Time) ([]byte, bool) {
	if d == nil {
		return nil, false
	}
	data, err := d.read(d.recordPath(key), 0, maxRecordBytes+sha256.Size+8)
	if err != nil || len(data) < sha256.Size+8 || len(data) > maxRecordBytes+sha256.Size+8 {
		return nil, false
	}
	signed := data[sha256.Size:]
	if !hmac.Equal(data[:sha256.Size], d.recordMAC(key, signed)) {
		return nil, false
	}
	until := time.Unix(0, int64(binary.BigEndian.Uint64(signed))) //nolint:gosec // G115: we wrote it
	if !until.After(earliest) || until.After(latest) {
		return nil, false
	}
	return signed[8:], true
}

// putRecord keeps a record behind the caller, or removes it where there is no data.
func (d *Directory) putRecord(key string, data []byte, until time.Time) {
	if d == nil {
		return
	}
	if len(data) == 0 {
		_ = d.root.Remove(d.recordPath(key))
		return
	}
	select {
	case d.writers <- struct{}{}:
	default:
		return
	}
	signed := append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixNano())), data...)
	go func() {
		defer func() { <-d.writers }()
		if d.write(d.recordPath(key), append(d.recordMAC(key, signed), signed...)) == nil && d.written.Add(1)%(maxRecordFiles/10) == 0 {
			d.evictRecords()
		}
	}()
}

// evictRecords removes the oldest records where there are too many.
func (d *Directory) evictRecords() {
	entries, err := d.entries(recordDirectory)
	if err != nil || len(entries) <= maxRecordFiles {
		return
	}
	type aged struct {
		name string
		at   time.Time
	}
	var all []aged
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			all = append(all, aged{entry.Name(), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return a.at.Compare(b.at) })
	for _, old := range all[:max(0, len(all)-maxRecordFiles*9/10)] {
		_ = d.root.Remove(path.Join(recordDirectory, old.name))
	}
}
