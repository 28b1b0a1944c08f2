package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// maxMaterial bounds one file that a document refers to. The bundle of all
	// public roots has 220 KiB.
	maxMaterial = 1 << 20
	// maxMaterialFiles bounds a directory that a document refers to.
	maxMaterialFiles = 256
)

// files reads what documents refer to: each file once for all documents, so
// that they agree about what was there. It remembers where to look for changes.
type files struct {
	read  map[string]content
	lists map[string]listing
}

type content struct {
	data []byte
	err  error
}

type listing struct {
	paths []string
	err   error
}

func newFiles() *files {
	return &files{read: map[string]content{}, lists: map[string]listing{}}
}

// file reads a regular file within the bound.
func (f *files) file(path string) ([]byte, error) {
	c, known := f.read[path]
	if !known {
		c.data, c.err = readBounded(path, maxMaterial)
		f.read[path] = c
	}
	return c.data, c.err
}

// directory lists the files of a directory in order, leaving out hidden ones
// and directories, as a mounted ConfigMap or Secret has them.
func (f *files) directory(path string) ([]string, error) {
	l, known := f.lists[path]
	if !known {
		l.paths, l.err = listFiles(path, maxMaterialFiles, func(string) bool { return true })
		f.lists[path] = l
	}
	return l.paths, l.err
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

// material is what one document refers to, read: by the path of the field that
// refers to it. Its sum changes with every byte.
type material struct {
	pieces map[string][]piece
	sum    string
}

// piece is one file's content.
type piece struct {
	file string
	data []byte
}

// gatherer collects a document's material and what is wrong with it.
type gatherer struct {
	doc      *Document
	files    *files
	material material
	sum      hash.Hash
	problems []Problem
}

// gather reads all files that the document refers to.
func gather(doc *Document, files *files) (material, []Problem) {
	g := &gatherer{doc: doc, files: files, material: material{pieces: map[string][]piece{}}, sum: sha256.New()}
	for i, r := range doc.Spec.Registries {
		path := element("spec.registries", i)
		if r.CA != nil {
			g.file(path+".ca.file", r.CA.File)
		}
		if r.Auth == nil {
			continue
		}
		if r.Auth.DockerConfig != nil {
			g.dockerConfig(path+".auth.dockerConfig.path", r.Auth.DockerConfig.Path)
		}
		if s := r.Auth.Static; s != nil && s.Password != nil {
			g.file(path+".auth.static.password.file", s.Password.File)
		}
		if s := r.Auth.Static; s != nil && s.Token != nil {
			g.file(path+".auth.static.token.file", s.Token.File)
		}
	}
	for _, check := range ruleOf(doc.Spec.Require).checks() {
		path, chosen := check.scheme()
		chosen.gather(g, path)
	}
	g.material.sum = hex.EncodeToString(g.sum.Sum(nil))
	return g.material, g.problems
}

// locate makes a path of the document one of the file system.
func (doc *Document) locate(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(doc.File), path)
}

func (g *gatherer) file(path, name string) {
	if name == "" {
		return
	}
	data, err := g.files.file(g.doc.locate(name))
	if err != nil {
		g.missing(path, name, err)
		return
	}
	g.add(path, name, data)
}

func (g *gatherer) add(path, name string, data []byte) {
	g.material.pieces[path] = append(g.material.pieces[path], piece{name, data})
	note(g.sum, path, name, sha256.Sum256(data))
}

// note adds values to a sum, each told apart from the next.
func note(sum hash.Hash, values ...any) {
	for _, v := range values {
		_, _ = fmt.Fprintf(sum, "%q\n", fmt.Sprint(v)) // a hash takes all bytes
	}
}

func (g *gatherer) directory(path, name string) {
	if name == "" {
		return
	}
	located := g.doc.locate(name)
	paths, err := g.files.directory(located)
	if err != nil {
		g.missing(path, name, err)
		return
	}
	if len(paths) == 0 {
		g.problem(path, quote(name)+" holds no files", "Put the certificates there, or correct the path")
		return
	}
	for _, file := range paths {
		data, err := g.files.file(file)
		if err != nil {
			g.missing(path, filepath.Join(name, filepath.Base(file)), err)
			continue
		}
		g.add(path, filepath.Join(name, filepath.Base(file)), data)
	}
}

// dockerConfig looks whether the file is there. What is in it is read when a
// registry asks, so a change of it changes nothing here.
func (g *gatherer) dockerConfig(path, name string) {
	if _, err := g.files.file(g.doc.locate(name)); err != nil {
		g.missing(path, name, err)
	}
}

func (g *gatherer) missing(path, name string, err error) {
	what, remedy := "cannot be read: "+err.Error(), "Correct the file or its path"
	var cause *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what, remedy = "does not exist", "Put it there, or correct the path; it starts at the document's directory"
	case errors.Is(err, fs.ErrPermission):
		what, remedy = "may not be read", "Let the provider's user read it"
	case errors.As(err, &cause):
		what = "cannot be read: " + cause.Err.Error()
	}
	g.problem(path, quote(name)+" "+what, remedy)
}

func (g *gatherer) problem(path, message, remedy string) {
	g.problems = append(g.problems, g.doc.problem(path, message, remedy, verifier.ReasonKeysUnavailable))
}

// problem makes a problem of a document that was read.
func (doc *Document) problem(path, message, remedy string, reason verifier.Reason) Problem {
	return Problem{
		File: doc.File, Line: doc.line(path), Policy: doc.label(), Path: path, Message: message, Remedy: remedy, Reason: reason,
	}
}
