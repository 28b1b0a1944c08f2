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
	// lastGoodVersion is the version of the file's format.
	lastGoodVersion = 1
)

// lastGood is the documents in force with the objects that they refer to, as a
// file has them. It holds Secrets, and is for the provider's user only.
type lastGood struct {
	Version   int               `json:"version"`
	Documents []json.RawMessage `json:"documents"`
	Objects   []keptObject      `json:"objects"`
	// Ratify are Ratify's objects as they are, right or wrong.
	Ratify []ratify.Object `json:"ratify,omitempty"`
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
	for _, p := range o.builder.lastGood() {
		kept.Documents = append(kept.Documents, p.doc.raw)
		gather(p.doc, from)
	}
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
	if kept.Version != lastGoodVersion {
		return lastGood{}, fmt.Errorf("%s is of version %d", path, kept.Version)
	}
	return kept, nil
}

// content reads the documents as strictly as those of the cluster.
func (l lastGood) content() ([]*Document, map[Object]map[string][]byte) {
	documents := make([]*Document, len(l.Documents))
	for i, raw := range l.Documents {
		documents[i] = ParseObject(raw, 0)
	}
	material := map[Object]map[string][]byte{}
	for _, object := range l.Objects {
		material[object.Object] = object.Data
	}
	return documents, material
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
