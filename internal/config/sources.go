package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/countersign-dev/countersign/internal/trust"
)

const (
	// maxMaterial bounds one file that a document refers to. The bundle of all
	// public roots has 220 KiB.
	maxMaterial = 1 << 20
	// maxMaterialFiles bounds a directory that a document refers to.
	maxMaterialFiles = 256
)

// ObjectKind is a kind of object that documents refer to.
type ObjectKind string

// The kinds of objects.
const (
	KindSecret    ObjectKind = "Secret"
	KindConfigMap ObjectKind = "ConfigMap"
)

// Object names a Secret or a ConfigMap.
type Object struct {
	Kind            ObjectKind
	Namespace, Name string
}

// String is for people.
func (o Object) String() string { return string(o.Kind) + " " + o.Namespace + "/" + o.Name }

// ObjectReader reads what documents refer to in the cluster.
type ObjectReader interface {
	// Namespace is the provider's own.
	Namespace() string
	// ReadObject gives the object's data by key, without asking anybody. An error
	// is an fs.ErrNotExist where there is no such object, an fs.ErrPermission
	// where the provider may not read it.
	ReadObject(Object) (map[string][]byte, error)
}

// sources reads what documents refer to: each file and object once for all
// documents, so that they agree about what was there. It remembers where to look
// for changes.
type sources struct {
	cluster ObjectReader // nil outside a cluster
	vaults  VaultReader
	read    map[string]content
	lists   map[string]listing
	objects map[Object]object
	secrets map[trust.Reference]vaulted
}

// vaulted is what a vault holds.
type vaulted struct {
	material trust.Material
	err      *trust.Error
}

type content struct {
	data []byte
	err  error
}

type listing struct {
	paths []string
	err   error
}

type object struct {
	data map[string][]byte
	err  error
}

func newSources(cluster ObjectReader) *sources {
	return &sources{
		cluster: cluster, vaults: noVaults{}, read: map[string]content{}, lists: map[string]listing{}, objects: map[Object]object{},
		secrets: map[trust.Reference]vaulted{},
	}
}

// with lets documents refer to vaults.
func (s *sources) with(vaults VaultReader) *sources {
	if vaults != nil {
		s.vaults = vaults
	}
	return s
}

// vault reads what a vault holds, as far as that is known.
func (s *sources) vault(r trust.Reference) (trust.Material, *trust.Error) {
	v, known := s.secrets[r]
	if !known {
		m, err := s.vaults.Read(r)
		if v.material = m; err != nil && !errors.As(err, &v.err) {
			v.err = &trust.Error{Message: err.Error()}
		}
		s.secrets[r] = v
	}
	return v.material, v.err
}

// file reads a regular file within the bound.
func (s *sources) file(path string) ([]byte, error) {
	c, known := s.read[path]
	if !known {
		c.data, c.err = readBounded(path, maxMaterial)
		s.read[path] = c
	}
	return c.data, c.err
}

// directory lists the files of a directory in order, leaving out hidden ones
// and directories, as a mounted ConfigMap or Secret has them.
func (s *sources) directory(path string) ([]string, error) {
	l, known := s.lists[path]
	if !known {
		l.paths, l.err = listFiles(path, maxMaterialFiles, func(string) bool { return true })
		s.lists[path] = l
	}
	return l.paths, l.err
}

// object reads an object of the cluster; its data is what the API server takes,
// 1 MiB at most.
func (s *sources) object(name Object) (map[string][]byte, error) {
	o, known := s.objects[name]
	if !known {
		o.data, o.err = s.cluster.ReadObject(name)
		s.objects[name] = o
	}
	return o.data, o.err
}

// readBounded reads a regular file: nothing else is sure to end.
func readBounded(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a file")
	}
	file, err := os.Open(path) //nolint:gosec // the path is the operator's, from a flag or a document
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("larger than %d bytes", most)
	}
	return data, nil
}

// listFiles lists files by name, hidden ones left out.
func listFiles(directory string, most int, wanted func(name string) bool) ([]string, error) {
	entries, err := os.ReadDir(directory) // sorted
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") || !wanted(entry.Name()) {
			continue
		}
		path := filepath.Join(directory, entry.Name())
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			continue
		}
		paths = append(paths, path)
	}
	if len(paths) > most {
		return nil, fmt.Errorf("more than %d files", most)
	}
	return paths, nil
}
