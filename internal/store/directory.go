package store

import (
	linked "container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/countersign-dev/countersign/internal/cache"
)

const (
	// touchAge is how old a use that is written down may be: of one file an hour,
	// a write at most.
	touchAge = time.Hour
	// rescanAge is how long what other processes do in the directory is not seen.
	rescanAge = 10 * time.Minute
	// strayAge is how old a file is that nobody is still writing.
	strayAge = time.Hour
	// maxWriters is how many files are written at once; what is too much is not
	// kept, for nobody waits for a disk.
	maxWriters = 16
	// maxUnwritten bounds the bytes of those.
	maxUnwritten = 8 << 20
	// fileBytes is what a file costs beside its content.
	fileBytes = 4 << 10
)

const layoutFile, layoutIndex = `{"imageLayoutVersion":"1.0.0"}`, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// Directory keeps content by digest on disk: an OCI image layout (image-spec,
// "image-layout") without an index, bounded in bytes; what was not used for the
// longest goes first.
//
// Nothing in it is believed: each read is hashed, but for records, see Records. So it survives whatever a crash
// leaves, several processes share one, and who can write to it can only make us
// ask the registry. Safe for concurrent use.
type Directory struct {
	root     *os.Root
	maxBytes int64
	writers  chan struct{}

	records   [sha256.Size]byte // the key of the records' MAC
	written   atomic.Int64      // records
	unwritten unwritten

	hits, misses, evictions atomic.Uint64

	mu      sync.Mutex // guards all below
	files   map[digest.Digest]*linked.Element
	recent  *linked.List // front is the most recent; of *file
	bytes   int64
	scanned time.Time
}

// unwritten is what waits to be written, by a disk or a server that may be slow, while
// whoever had read it goes on.
type unwritten struct{ bytes atomic.Int64 }

// add reports whether there is room for it.
func (u *unwritten) add(data []byte) bool {
	if u.bytes.Add(int64(len(data))) <= maxUnwritten {
		return true
	}
	u.done(data)
	return false
}

func (u *unwritten) done(data []byte) { u.bytes.Add(-int64(len(data))) }

type file struct {
	digest digest.Digest
	size   int64
	used   time.Time // as it is written down
}

// OpenDirectory makes or opens the directory.
func OpenDirectory(name string, maxBytes int64) (*Directory, error) {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(name) // no link in it leads out
	if err != nil {
		return nil, err
	}
	d := &Directory{root: root, maxBytes: maxBytes, writers: make(chan struct{}, maxWriters)}
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		err = errors.Join(err, root.MkdirAll(path.Join("blobs", algorithm.String()), 0o700))
	}
	if err == nil {
		err = root.MkdirAll(recordDirectory, 0o700)
	}
	if err == nil {
		d.records, err = d.recordKey()
	}
	if err == nil {
		err = errors.Join(d.write("oci-layout", []byte(layoutFile)), d.write("index.json", []byte(layoutIndex)))
	}
	if err == nil {
		err = d.scan()
	}
	if err != nil {
		_ = root.Close()
		return nil, fmt.Errorf("content directory %s: %w", name, err)
	}
	return d, nil
}

// Stats tells how it fares.
func (d *Directory) Stats() cache.Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return cache.Stats{Hits: d.hits.Load(), Misses: d.misses.Load(), Evictions: d.evictions.Load(), Bytes: d.bytes, Entries: len(d.files)}
}

func blobPath(of digest.Digest) string {
	return path.Join("blobs", of.Algorithm().String(), of.Encoded())
}

// size is what content that is there has; 0: it is not there.
func (d *Directory) size(of digest.Digest) int64 {
	if d == nil {
		return 0
	}
	info, err := d.root.Stat(blobPath(of)) // another process may have written it
	if err != nil {
		return 0
	}
	return info.Size()
}

// get gives content if it is there, has that size and is what its digest says. A nil
// Directory has nothing.
func (d *Directory) get(of digest.Digest, size int64) ([]byte, bool) {
	if d == nil {
		return nil, false
	}
	data, err := d.read(blobPath(of), size, size)
	if err == nil && of.Algorithm().FromBytes(data) == of {
		d.hits.Add(1)
		d.use(of, int64(len(data)))
		return data, true
	}
	d.misses.Add(1)
	if errors.Is(err, errOtherSize) && d.whole(of) {
		return nil, false // the file is right, and the descriptor is not
	}
	if errors.Is(err, fs.ErrNotExist) { // another process may have evicted it
		d.mu.Lock()
		d.drop(d.files[of])
		d.mu.Unlock()
	} else {
		d.forget(of)
	}
	return nil, false
}

// errOtherSize is of a file that is not read: its bytes were not counted.
var errOtherSize = errors.New("the file has another size")

// whole reports whether a file is what its digest says, without keeping it in memory.
func (d *Directory) whole(of digest.Digest) bool {
	f, err := d.root.OpenFile(blobPath(of), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	verified := of.Verifier()
	_, err = io.Copy(verified, io.LimitReader(f, maxBlobBytes))
	return err == nil && verified.Verified()
}

// read reads a regular file of at least and at most so many bytes, and waits for nothing
// that is none.
func (d *Directory) read(name string, least, most int64) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	if info.Size() < least || info.Size() > most {
		return nil, errOtherSize
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	return data, nil
}

// put keeps content that its digest names, behind the caller. Whether it was kept
// nobody learns: it is there next time or it is not.
func (d *Directory) put(of digest.Digest, data []byte) {
	if d == nil || int64(len(data))+fileBytes > d.maxBytes || !d.unwritten.add(data) {
		return
	}
	select {
	case d.writers <- struct{}{}:
	default:
		d.unwritten.done(data)
		return
	}
	go func() {
		defer func() { <-d.writers }()
		defer d.unwritten.done(data)
		d.rescan()
		if d.known(of) || d.write(blobPath(of), data) != nil {
			return
		}
		d.use(of, int64(len(data)))
		d.evict()
	}()
}

// Settle waits until nothing is being written.
func (d *Directory) Settle(ctx context.Context) error {
	for range maxWriters {
		select {
		case d.writers <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for range maxWriters {
		<-d.writers
	}
	return nil
}

// write puts a whole file at its name. A crash may leave it short or empty, which
// its digest tells.
func (d *Directory) write(name string, data []byte) error {
	temporary := fmt.Sprintf(".%s-%d-%s", path.Base(name), os.Getpid(), strconv.FormatInt(time.Now().UnixNano(), 36))
	err := d.root.WriteFile(temporary, data, 0o600)
	if err == nil {
		err = d.root.Rename(temporary, name)
	}
	if err != nil {
		_ = d.root.Remove(temporary)
	}
	return err
}

func (d *Directory) known(of digest.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[of] != nil
}

// use notes that content is there and was wanted.
func (d *Directory) use(of digest.Digest, size int64) {
	now := time.Now()
	d.mu.Lock()
	element := d.files[of]
	if element == nil {
		d.files[of] = d.recent.PushFront(&file{of, size, now})
		d.bytes += size + fileBytes
		d.mu.Unlock()
		return
	}
	d.recent.MoveToFront(element)
	f, ok := element.Value.(*file)
	touch := ok && now.Sub(f.used) > touchAge
	if touch {
		f.used = now
	}
	d.mu.Unlock()
	if touch {
		_ = d.root.Chtimes(blobPath(of), now, now)
	}
}

// forget removes content.
func (d *Directory) forget(of digest.Digest) {
	_ = d.root.Remove(blobPath(of))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(d.files[of])
}

// drop takes a file out of the books. The caller holds mu.
func (d *Directory) drop(element *linked.Element) {
	if element == nil {
		return
	}
	if f, ok := d.recent.Remove(element).(*file); ok {
		delete(d.files, f.digest)
		d.bytes -= f.size + fileBytes
	}
}

// evict removes what was not used for the longest, until the rest fits.
func (d *Directory) evict() {
	for {
		d.mu.Lock()
		oldest := d.recent.Back()
		if d.bytes <= d.maxBytes || oldest == nil {
			d.mu.Unlock()
			return
		}
		f, ok := oldest.Value.(*file)
		d.drop(oldest)
		d.mu.Unlock()
		if ok {
			_ = d.root.Remove(blobPath(f.digest))
			d.evictions.Add(1)
		}
	}
}

// rescan looks now and then at what others have done in the directory.
func (d *Directory) rescan() {
	d.mu.Lock()
	due := time.Since(d.scanned) > rescanAge
	if due {
		d.scanned = time.Now()
	}
	d.mu.Unlock()
	if due {
		_ = d.scan()
	}
}

// scan reads what is there, and removes what a crash has left half written.
func (d *Directory) scan() error {
	var found []*file
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		entries, err := d.entries(path.Join("blobs", algorithm.String()))
		if err != nil {
			return err
		}
		for _, entry := range entries {
			of := digest.NewDigestFromEncoded(algorithm, entry.Name())
			info, err := entry.Info()
			if err != nil || of.Validate() != nil || !info.Mode().IsRegular() {
				continue
			}
			found = append(found, &file{of, info.Size(), info.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b *file) int { return b.used.Compare(a.used) })
	strays, err := d.entries(".")
	if err != nil {
		return err
	}
	for _, entry := range strays {
		if info, err := entry.Info(); err == nil && strings.HasPrefix(entry.Name(), ".") && time.Since(info.ModTime()) > strayAge {
			_ = d.root.Remove(entry.Name())
		}
	}
	d.mu.Lock()
	d.files, d.recent, d.bytes, d.scanned = map[digest.Digest]*linked.Element{}, linked.New(), 0, time.Now()
	for _, f := range found {
		d.files[f.digest] = d.recent.PushBack(f)
		d.bytes += f.size + fileBytes
	}
	d.mu.Unlock()
	d.evict()
	return nil
}

func (d *Directory) entries(name string) ([]fs.DirEntry, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return f.ReadDir(-1)
}
