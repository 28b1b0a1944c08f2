package config

import (
	"crypto/sha256"
	"hash"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// documentFiles lists the files that hold documents.
func documentFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	return listFiles(path, maxFiles, func(name string) bool {
		return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name)))
	})
}

// readAll reads the documents, and decides which versions of them count.
func (s *Source) readAll(first bool) revision {
	r := revision{kept: map[*Document]bool{}, sources: newSources(nil).with(s.options.Environment.Vaults)}
	paths, err := documentFiles(s.options.Path)
	if err != nil { // keep what there is
		r.problems = append(r.problems, Problem{
			File: s.options.Path, Message: "cannot be read: " + err.Error(), Reason: verifier.ReasonPolicyInvalid,
			Remedy: "What was read before stays in force; let the provider read it",
		})
		paths = slices.Sorted(maps.Keys(s.files))
	}
	now := map[string]*fileState{}
	here := map[ID]bool{}
	for _, path := range paths {
		now[path] = readState(path, s.files[path], first)
		for _, doc := range now[path].parsed {
			here[doc.ID] = here[doc.ID] || !doc.unknown
		}
	}
	for _, path := range paths {
		documents, problems := now[path].inForce(path, s.files[path], here)
		r.documents, r.problems = append(r.documents, documents...), append(r.problems, problems...)
		for _, doc := range now[path].kept {
			r.kept[doc] = true
		}
	}
	s.files = now
	r.dark = func(doc *Document) bool { return now[doc.File].dark() }
	return r
}

// readState reads one file. One that did not change is not parsed again.
func readState(path string, before *fileState, first bool) *fileState {
	now := &fileState{first: first}
	if before != nil {
		now.first, now.whole = before.first, before.whole
	}
	data, err := readBounded(path, MaxFileSize)
	now.sum = sha256.Sum256(data)
	if err != nil {
		now.sum = sha256.Sum256([]byte(err.Error()))
	}
	switch {
	case before != nil && before.sum == now.sum:
		now.parsed = before.parsed
	case err != nil:
		now.parsed = []*Document{{File: path, unknown: true, Problems: []Problem{{
			File: path, Message: "cannot be read: " + err.Error(), Remedy: "Let the provider read it", Reason: verifier.ReasonPolicyInvalid,
		}}}}
	default:
		now.parsed = Parse(path, data)
	}
	now.whole = now.whole || !now.faulty()
	return now
}

func (f *fileState) faulty() bool {
	return slices.ContainsFunc(f.parsed, func(doc *Document) bool { return len(doc.Problems) > 0 })
}

// inForce gives the documents of the file that count. A file with an error may
// be half written: what it held before stays, and what cannot be told apart in
// it is one of those, once all that it held was known.
func (f *fileState) inForce(path string, before *fileState, here map[ID]bool) (documents []*Document, problems []Problem) {
	if before == nil || !f.faulty() {
		return f.parsed, nil
	}
	for _, doc := range f.parsed {
		if doc.unknown && before.whole {
			problems = append(problems, doc.Problems...)
		} else {
			documents = append(documents, doc)
		}
	}
	for _, doc := range append(slices.Clone(before.parsed), before.kept...) {
		if doc.unknown || here[doc.ID] {
			continue
		}
		here[doc.ID] = true
		f.kept = append(f.kept, doc)
		problems = append(problems, Problem{
			File: path, Policy: doc.label(), Reason: verifier.ReasonPolicyInvalid,
			Message: doc.label() + " is not in the file any more, and the file has an error",
			Remedy:  "It stays in force until the file is sound",
		})
	}
	return append(documents, f.kept...), problems
}

// sum covers every byte that the next Snapshot is made of.
func (s *Source) sum(r revision) [sha256.Size]byte {
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		note(h, path, s.files[path].sum)
	}
	noteDocuments(h, r.documents, s.builder.lastGood(), r.sources)
	note(h, r.problems)
	return [sha256.Size]byte(h.Sum(nil))
}

// noteDocuments adds what documents say and refer to, and what the versions
// refer to that were good last.
func noteDocuments(h hash.Hash, documents, lastGood []*Document, from *sources) {
	current := map[*Document]bool{}
	for _, doc := range documents {
		current[doc] = true
		note(h, doc.ID, doc.uid, doc.created.Unix(), doc.content, doc.generation, doc.Problems)
		if len(doc.Problems) > 0 { // its content is not known, and these count
			note(h, doc.images, doc.namespaces)
			continue
		}
		m, problems := gather(doc, from)
		note(h, m.sum, m.warnings, problems)
	}
	for _, good := range lastGood {
		if current[good] || len(good.Problems) > 0 {
			continue
		}
		m, problems := gather(good, from)
		note(h, good.ID, m.sum, m.warnings, problems)
	}
}
