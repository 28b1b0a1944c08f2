package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"path/filepath"
	"strings"

	api "github.com/countersign-dev/countersign/api/v1beta1"
	"github.com/countersign-dev/countersign/internal/verifier"
)

// material is what one document refers to, read: by the path of the field that
// refers to it. Its sum changes with every byte.
type material struct {
	pieces map[string][]piece
	sum    string
	// warnings are about material that counts, and that is not as it should be;
	// they are no part of the sum.
	warnings []Problem
}

// withdrawn names what does not count any more.
func (m material) withdrawn() string {
	var b strings.Builder
	for _, w := range m.warnings {
		if w.Withdrawn {
			b.WriteString(w.Path + " " + w.Message + "\n")
		}
	}
	return b.String()
}

// piece is the content of one file, or of one key of an object.
type piece struct {
	file string
	data []byte
}

// gatherer collects a document's material and what is wrong with it.
type gatherer struct {
	doc      *Document
	sources  *sources
	material material
	sum      hash.Hash
	problems []Problem
}

// gather reads all that the document refers to.
func gather(doc *Document, sources *sources) (material, []Problem) {
	g := &gatherer{doc: doc, sources: sources, material: material{pieces: map[string][]piece{}}, sum: sha256.New()}
	for i, r := range doc.Spec.Registries {
		path := element("spec.registries", i)
		g.data(path+".ca", r.CA)
		if r.ClientCertificate != nil {
			g.data(path+".clientCertificate.certificate", r.ClientCertificate.Certificate)
			g.data(path+".clientCertificate.key", r.ClientCertificate.Key)
		}
		if r.Auth == nil {
			continue
		}
		g.azure(path+".auth", r.Auth.AzureIdentity)
		g.cloud(path+".auth", r.Auth.CloudIdentity)
		if r.Auth.DockerConfig != nil {
			g.dockerConfig(path+".auth.dockerConfig.path", r.Auth.DockerConfig.Path)
		}
		if r.Auth.PullSecret != nil {
			g.object(path+".auth.pullSecret", KindSecret, &api.KeyReference{ObjectReference: *r.Auth.PullSecret, Key: pullSecretKey})
		}
		if s := r.Auth.Static; s != nil {
			g.data(path+".auth.static.password", s.Password)
			g.data(path+".auth.static.token", s.Token)
		}
	}
	for i, k := range doc.Spec.KeyVaults { // before those who name them
		if k.Auth != nil {
			g.azure(element("spec.keyVaults", i)+".auth", *k.Auth)
		}
	}
	for _, check := range ruleOf(doc.Spec.Require).checks() {
		path, chosen := check.scheme()
		chosen.gather(g, path)
	}
	g.material.sum = hex.EncodeToString(g.sum.Sum(nil))
	return g.material, g.problems
}

// pullSecretKey is where a Secret of the type kubernetes.io/dockerconfigjson
// has its configuration.
const pullSecretKey = ".dockerconfigjson" //nolint:gosec // G101: a name, no secret

// data reads what a source refers to, if it does.
func (g *gatherer) data(path string, s *api.DataSource) {
	if s == nil {
		return
	}
	g.file(path+".file", s.File)
	g.object(path+".secret", KindSecret, s.Secret)
	g.object(path+".configMap", KindConfigMap, s.ConfigMap)
}

// locate makes a path of the document one of the file system.
func (doc *Document) locate(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(doc.File), path)
}

// mayRead reports whether the document may refer to the provider's files. What
// a tenant writes may not: among them is the provider's own token.
func (g *gatherer) mayRead(path, name string) bool {
	switch {
	case !g.doc.inCluster:
		return true
	case g.doc.Namespace != "":
		g.refuse(path, "a TrustPolicy reads no files of the provider", "Put it into a Secret or a ConfigMap of its namespace")
		return false
	case !filepath.IsAbs(name):
		g.refuse(path, quote(name)+" starts nowhere: an object has no directory", "Write the path from the root, or put it into a Secret or a ConfigMap")
		return false
	}
	return true
}

func (g *gatherer) file(path, name string) {
	if name == "" || !g.mayRead(path, name) {
		return
	}
	data, err := g.sources.file(g.doc.locate(name))
	if err != nil {
		g.missing(path, name, err)
		return
	}
	g.add(path, name, data)
}

// object reads a key of a Secret or a ConfigMap. A TrustPolicy's is in its own
// namespace.
func (g *gatherer) object(path string, kind ObjectKind, ref *api.KeyReference) {
	if ref == nil {
		return
	}
	if g.sources.cluster == nil {
		g.refuse(path, "there is no cluster to read a "+string(kind)+" from", "Write it into a file and name that, or write the policy as an object")
		return
	}
	name := Object{kind, ref.Namespace, ref.Name}
	switch {
	case g.doc.Kind == api.KindTrustPolicy && name.Namespace != "" && name.Namespace != g.doc.Namespace:
		g.refuse(path+".namespace", "a TrustPolicy reaches its own namespace only", "Delete it, and put a copy into namespace "+g.doc.Namespace)
		return
	case g.doc.Kind == api.KindTrustPolicy:
		name.Namespace = g.doc.Namespace
	case name.Namespace == "":
		name.Namespace = g.sources.cluster.Namespace()
	}
	data, err := g.sources.object(name)
	switch value, there := data[ref.Key]; {
	case errors.Is(err, fs.ErrNotExist):
		g.problem(path, name.String()+" does not exist", "Create it; the policy will use it at once")
	case errors.Is(err, fs.ErrPermission):
		g.problem(path, name.String()+" may not be read", "Add its namespace to the chart's rbac.objectNamespaces, or move it to one that is there")
	case err != nil:
		g.problem(path, name.String()+" cannot be read: "+err.Error(), "It will be tried again")
	case !there:
		g.problem(path, name.String()+" has no key "+quote(ref.Key), "Add the key, or correct its name")
	default:
		g.add(path, name.String(), value)
	}
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
	if name == "" || !g.mayRead(path, name) {
		return
	}
	located := g.doc.locate(name)
	paths, err := g.sources.directory(located)
	if err != nil {
		g.missing(path, name, err)
		return
	}
	if len(paths) == 0 {
		g.problem(path, quote(name)+" holds no files", "Put the certificates there, or correct the path")
		return
	}
	for _, file := range paths {
		data, err := g.sources.file(file)
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
	if !g.mayRead(path, name) {
		return
	}
	if _, err := g.sources.file(g.doc.locate(name)); err != nil {
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

// warn notes what does not keep the document from being in force.
func (g *gatherer) warn(path, message, remedy string) {
	g.material.warnings = append(g.material.warnings, g.doc.problem(path, message, remedy, verifier.ReasonKeysUnavailable))
}

func (g *gatherer) problem(path, message, remedy string) {
	g.problems = append(g.problems, g.doc.problem(path, message, remedy, verifier.ReasonKeysUnavailable))
}

// refuse reports what no file or object that appears later could mend.
func (g *gatherer) refuse(path, message, remedy string) {
	g.problems = append(g.problems, g.doc.problem(path, message, remedy, verifier.ReasonPolicyInvalid))
}

// problem makes a problem of a document that was read.
func (doc *Document) problem(path, message, remedy string, reason verifier.Reason) Problem {
	return Problem{
		File: doc.File, Line: doc.line(path), Policy: doc.label(), Path: path, Message: message, Remedy: remedy, Reason: reason,
	}
}
