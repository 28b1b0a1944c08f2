package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// restorePatience is how long a start waits for the cluster's objects before the
// last good ones are taken from disk: an API server that is there answers sooner.
const restorePatience = 10 * time.Second

// ObjectsOptions say what Objects are made of.
type ObjectsOptions struct {
	// Environment is what compiled policies use.
	Environment Environment
	// Reader reads the Secrets and ConfigMaps that documents refer to.
	Reader ObjectReader
	// LastGood is a file in which the documents in force are kept with what they
	// refer to, for a start without API server; empty: nowhere.
	LastGood string
	// Log hears of what was loaded; nil: nobody.
	Log *slog.Logger
}

// Objects keeps a Snapshot of documents that are objects of a cluster. Whoever
// watches the cluster hands them over; see ParseObject and Update. Safe for
// concurrent use.
type Objects struct {
	options  ObjectsOptions
	snapshot atomic.Pointer[Snapshot]
	loaded   chan struct{} // closed when the cluster's objects were read once

	mu       sync.Mutex // guards all below, and makes one Snapshot at a time
	builder  *builder
	material map[Object]map[string][]byte // what objects held when they could be read last
	seen     [sha256.Size]byte            // all that the Snapshot was made of
	saved    []byte
	ratify   []ratify.Object
	report   reporter
	// documents are those of the latest Snapshot, and reader reads what they refer to.
	documents []*Document
	reader    ObjectReader
	// left are the latest versions of documents that an earlier process saw; nil
	// once the cluster's were read.
	left map[ID]*Document
}

// NewObjects makes Objects of which nothing is known yet: every image is
// undecided until Update or Restore.
func NewObjects(options ObjectsOptions) *Objects {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	o := &Objects{
		options: options, loaded: make(chan struct{}), builder: newBuilder(options.Environment),
		material: map[Object]map[string][]byte{}, report: newReporter(options.Log),
	}
	unread := &policy{
		ID: ID{Kind: api.KindClusterTrustPolicy},
		broken: &verifier.Error{
			Reason: verifier.ReasonPolicyInvalid, Message: "the policies have not been read from the cluster yet", Remedy: "Try again in a few seconds",
		},
	}
	waiting := &Snapshot{env: options.Environment, podChains: newPodChains(), cluster: newIndex(nil), exemptions: newExemptions(nil), dark: []*policy{unread}}
	o.snapshot.Store(waiting)
	return o
}

// Snapshot is the latest. It is never nil.
func (o *Objects) Snapshot() *Snapshot { return o.snapshot.Load() }

// Ready says why nothing can be decided, or gives nil.
func (o *Objects) Ready() error { return o.Snapshot().Ready() }

// Update gives the Snapshot of all the documents that the cluster holds now, and
// of what they refer to: a new one, in force when it returns, unless nothing
// changed. It is cheap then, and may be called to look after files that
// documents name.
//
// The first one takes up what an earlier process kept on disk: where a document is
// broken now, its last good version is in force, as it would be without the restart.
//
// Ratify's objects are given beside them, where there are any.
func (o *Objects) Update(ctx context.Context, documents []*Document, others ...ratify.Object) *Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.isLoaded() {
		if err := o.takeUp(); err != nil && o.options.LastGood != "" && !errors.Is(err, fs.ErrNotExist) {
			o.options.Log.WarnContext(ctx, "the policies that were kept on disk cannot be read", slog.Any("error", err))
		}
		o.forgetUnseen(documents)
	}
	o.ratify, o.documents, o.reader = others, documents, remembering{o.options.Reader, o.material}
	next := o.refresh(ctx)
	if !o.isLoaded() {
		close(o.loaded)
	}
	return next
}

// Refresh gives the Snapshot of the documents that are known, and of what they
// refer to now: what vaults hold changes by itself, whether or not there is an API
// server.
func (o *Objects) Refresh(ctx context.Context) *Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reader == nil {
		return o.Snapshot()
	}
	return o.refresh(ctx)
}

func (o *Objects) refresh(ctx context.Context) *Snapshot {
	from := newSources(o.reader).with(o.options.Environment.Vaults)
	if o.seen != [sha256.Size]byte{} && o.sum(o.documents, from) == o.seen {
		return o.Snapshot()
	}
	next := o.build(ctx, o.documents, from)
	o.seen = o.sum(o.documents, from)
	o.save(ctx)
	return next
}

func (o *Objects) isLoaded() bool {
	select {
	case <-o.loaded:
		return true
	default:
		return false
	}
}

// sum covers all that the next Snapshot is made of.
func (o *Objects) sum(documents []*Document, from *sources) [sha256.Size]byte {
	h := sha256.New()
	noteDocuments(h, documents, o.builder.lastGood(), from)
	for _, object := range o.ratify {
		note(h, object.String(), string(object.Spec), vaultError(object, from))
	}
	policies, _ := ratify.Translate(o.ratify, o.namespace())
	for _, p := range policies {
		m, problems := gather(ratifyDocument(p), from)
		note(h, m.sum, m.warnings, problems)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (o *Objects) build(ctx context.Context, documents []*Document, from *sources) *Snapshot {
	next := o.builder.build(revision{
		documents: documents, sources: from, ratify: o.ratify, home: o.namespace(),
		dark: (*Document).boundless,
	})
	o.snapshot.Store(next)
	o.report.snapshot(ctx, next)
	return next
}

// Run restores the last good documents if the cluster's cannot be read in time,
// and reminds of Exemptions that end, until ctx does.
func (o *Objects) Run(ctx context.Context) error {
	remind := time.NewTicker(defaultCheckInterval)
	defer remind.Stop()
	patience := time.NewTimer(restorePatience)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-patience.C:
			o.restoreUnlessLoaded(ctx)
		case <-remind.C:
			o.mu.Lock()
			o.report.reminders(ctx, o.Snapshot())
			o.mu.Unlock()
		}
	}
}

func (o *Objects) restoreUnlessLoaded(ctx context.Context) {
	if o.isLoaded() {
		return
	}
	if err := o.Restore(ctx); err != nil {
		o.options.Log.WarnContext(ctx, "the cluster's policies cannot be read, and none were kept on disk", slog.Any("error", err))
		return
	}
	o.options.Log.WarnContext(ctx, "the cluster's policies cannot be read; those that were good last are in force")
}

// errLoaded says that there is nothing to restore any more.
var errLoaded = errors.New("the cluster's objects were read already")

// Restore puts the documents into force that were kept on disk, until Update.
func (o *Objects) Restore(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isLoaded() {
		return errLoaded
	}
	if err := o.takeUp(); err != nil {
		return err
	}
	o.documents = slices.SortedFunc(maps.Values(o.left), func(a, b *Document) int { return compareIDs(a.ID, b.ID) })
	o.reader = o.builder.kept.material
	o.build(ctx, o.documents, newSources(o.reader).with(o.options.Environment.Vaults))
	return nil
}

// takeUp reads what an earlier process kept, once.
func (o *Objects) takeUp() error {
	if o.left != nil {
		return nil
	}
	file, err := readLastGood(o.options.LastGood)
	if err != nil {
		return err
	}
	o.builder.kept, o.left = file.known(o.namespace())
	o.ratify, o.material = file.Ratify, maps.Clone(o.builder.kept.material.seen)
	return nil
}

// forgetUnseen forgets the good versions that may not be the last: a version that
// no process of this replica saw may have been good, and may have taken trust back.
func (o *Objects) forgetUnseen(documents []*Document) {
	for _, doc := range documents {
		if left := o.left[doc.ID]; left != nil && doc.generation > left.generation+1 {
			delete(o.builder.kept.documents, doc.ID)
			delete(o.builder.last, doc.ID)
		}
	}
	o.left = nil
}

func (o *Objects) namespace() string {
	if o.options.Reader == nil {
		return ""
	}
	return o.options.Reader.Namespace()
}
