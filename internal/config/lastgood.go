package config

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/countersign-dev/countersign/internal/ratify"
	"github.com/countersign-dev/countersign/internal/statefile"
)

const (
	// maxLastGood bounds the file: some thousands of policies and Secrets.
	maxLastGood = 64 << 20
	// lastGoodVersion is the version of the file's format. Version 1 had neither
	// what tells objects apart nor those that are broken.
	lastGoodVersion = 2
)

// lastGood is what is in force with the objects that it refers to, as a file has
// it. It holds Secrets, and is for the provider's user only.
type lastGood struct {
	Version   int               `json:"version"`
	Documents []json.RawMessage `json:"documents"`
	// Broken are the latest versions of documents that are not in force as they are
	// written: they claim their images none the less.
	Broken  []json.RawMessage `json:"broken,omitempty"`
	Objects []keptObject      `json:"objects"`
	// Ratify are Ratify's objects as they are, right or wrong.
	Ratify []ratify.Object `json:"ratify,omitempty"`
	// RatifyGood are those that were good last, by the namespace where they are
	// wrong now.
	RatifyGood map[string][]ratify.Object `json:"ratifyGood,omitempty"`
}

type keptObject struct {
	Object
	Data map[string][]byte `json:"data"`
}

// save keeps what is in force, unless that is kept already. That it cannot be
// written is no reason not to serve.
func (o *Objects) save(ctx context.Context) {
	if o.options.LastGood == "" {
		return
	}
	data, _ := json.Marshal(o.inForce()) // its types are plain, and raw documents were decoded
	if bytes.Equal(data, o.saved) {
		return
	}
	if len(data) > maxLastGood {
		o.options.Log.WarnContext(ctx, "the policies in force could not be kept on disk", slog.Any("error", fmt.Errorf("%d bytes are more than the %d that are read again", len(data), maxLastGood)))
		return
	}
	if err := statefile.Write(o.options.LastGood, data); err != nil {
		o.options.Log.WarnContext(ctx, "the policies in force could not be kept on disk", slog.Any("error", err))
		return
	}
	o.saved = data
}

// inForce collects the documents in force and what they refer to.
func (o *Objects) inForce() lastGood {
	kept := lastGood{Version: lastGoodVersion, Ratify: o.ratify}
	from := newSources(remembered{o.namespace(), o.material}).with(o.options.Environment.Vaults)
	for _, s := range o.builder.standing {
		current := s.good != nil && s.state != StateLastGood
		if !current && s.doc.raw != nil {
			kept.Broken = append(kept.Broken, s.doc.raw)
		}
		doc := s.doc
		if !current {
			if doc = o.builder.lastGoodOf(s); doc == nil {
				continue
			}
		}
		if doc.raw != nil {
			kept.Documents = append(kept.Documents, doc.raw)
			gather(doc, from)
		}
	}
	for _, policies := range o.builder.ratify {
		for _, p := range policies {
			gather(p.doc, from)
		}
	}
	kept.RatifyGood = o.builder.ratifyGood(o.ratify)
	for name, object := range from.objects {
		if object.err == nil {
			kept.Objects = append(kept.Objects, keptObject{name, object.data})
		}
	}
	slices.SortFunc(kept.Objects, func(a, b keptObject) int { return cmp.Compare(a.String(), b.String()) })
	for name := range o.material {
		if _, used := from.objects[name]; !used {
			delete(o.material, name)
		}
	}
	return kept
}

func readLastGood(path string) (lastGood, error) {
	if path == "" {
		return lastGood{}, errors.New("there is no place for them")
	}
	content, err := statefile.Read(path, maxLastGood)
	if err != nil {
		return lastGood{}, err
	}
	var kept lastGood
	if err := json.Unmarshal(content, &kept); err != nil {
		return lastGood{}, fmt.Errorf("%s: %w", path, err)
	}
	if kept.Version < 1 || kept.Version > lastGoodVersion {
		return lastGood{}, fmt.Errorf("%s is of version %d", path, kept.Version)
	}
	return kept, nil
}

// parse reads documents as strictly as those of the cluster. What is no object is
// none of them.
func parse(raw []json.RawMessage) []*Document {
	var documents []*Document
	for _, text := range raw {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		var object map[string]any
		if decoder.Decode(&object) == nil && object != nil {
			documents = append(documents, ParseObject(object))
		}
	}
	return documents
}

// kept is what an earlier process left: the good versions of documents that are
// not good now, and what they referred to. A document's is forgotten once there is
// a later one.
type kept struct {
	documents map[ID]*Document
	material  remembered
	ratify    map[string][]ratify.Object
}

// forget drops what this process knows better.
func (k *kept) forget(all []*standing) {
	here := map[ID]bool{}
	for _, s := range all {
		here[s.id] = s.good == nil
	}
	for id := range k.documents {
		if !here[id] {
			delete(k.documents, id)
		}
	}
}

// withdraw drops a version that trusts what is trusted no more.
func (k *kept) withdraw(id ID) { delete(k.documents, id) }

// of is what was kept of the document; not of another object that had the same name.
func (k *kept) of(doc *Document) *Document {
	if good := k.documents[doc.ID]; good != nil && good.uid == doc.uid {
		return good
	}
	return nil
}

// restore compiles the good version of the document that an earlier process left,
// with what it refers to as it is now, or as it was then; nil: there is none.
func (b *builder) restore(doc *Document, sources *sources) *policy {
	good := b.kept.of(doc)
	if good == nil || len(good.Problems) > 0 {
		return nil
	}
	p, _, problems := b.compile(good, sources)
	if slices.ContainsFunc(problems, func(p Problem) bool { return p.Withdrawn }) {
		b.kept.withdraw(doc.ID)
		return nil
	}
	if p == nil {
		p, _, _ = b.compile(good, newSources(b.kept.material).with(b.env.Vaults))
	}
	return p
}

// lastGoodOf is the good version of a document that is not good now.
func (b *builder) lastGoodOf(s *standing) *Document {
	if s.good != nil {
		return s.good.doc
	}
	return b.kept.of(s.doc)
}

// known is what is kept of the documents, and the latest generation of each that
// the earlier process saw.
func (l lastGood) known(namespace string) (k kept, seen map[ID]*Document) {
	k = kept{documents: map[ID]*Document{}, ratify: l.RatifyGood, material: remembered{namespace, map[Object]map[string][]byte{}}}
	seen = map[ID]*Document{}
	for _, doc := range parse(l.Documents) {
		k.documents[doc.ID], seen[doc.ID] = doc, doc
	}
	for _, doc := range parse(l.Broken) {
		seen[doc.ID] = doc
	}
	for _, object := range l.Objects {
		k.material.seen[object.Object] = object.Data
	}
	return k, seen
}

// remembering reads objects and remembers what could be read.
type remembering struct {
	ObjectReader
	seen map[Object]map[string][]byte
}

func (r remembering) ReadObject(name Object) (map[string][]byte, error) {
	data, err := r.ObjectReader.ReadObject(name)
	if err == nil {
		r.seen[name] = data
	}
	return data, err
}

// remembered gives what objects held when they could be read last.
type remembered struct {
	namespace string
	seen      map[Object]map[string][]byte
}

func (r remembered) Namespace() string { return r.namespace }

func (r remembered) ReadObject(name Object) (map[string][]byte, error) {
	data, ok := r.seen[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return data, nil
}
